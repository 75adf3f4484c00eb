//! Asking, answering, ending.

use bottle_tests::engine::wait_for;
use serde_json::{Value, json};

use crate::{Fixture, ask, body, hand_in, operator, send, status};

pub(crate) fn a_denial_becomes_a_grant_for_one_use(f: &Fixture) {
    let url = "https://api.example.com/echo/once";
    let denied = f.bottle.fetch(&["POST", url]);
    let denial = body(&denied);
    assert_eq!(denial["reason"], "path_not_allowed", "{denial}");
    let advice = denial["ask"].as_str().expect("advice");
    assert!(advice.contains("request_egress"), "{advice}");

    let id = hand_in(
        &f.bottle,
        "egress",
        json!({"denial": denial["id"], "reason": "to post it"}),
    );
    assert_eq!(status(&f.bottle, &id)["status"], "waiting");
    let list = operator(&f.home, &["requests"]).ok();
    assert!(
        list.contains(&id) && list.contains("POST to /echo/once of api.example.com"),
        "{list}"
    );

    let said = operator(&f.home, &["approve", &id[..6], "--uses", "1"]);
    assert_eq!(said.code(), 0, "{}", said.stderr);
    for words in [
        "may POST to /echo/once of api.example.com",
        "for 10 minutes, once",
    ] {
        assert!(said.stderr.contains(words), "{}", said.stderr);
    }
    assert!(!said.stderr.contains("warning"), "{}", said.stderr);
    assert_eq!(status(&f.bottle, &id)["status"], "approved");
    assert_eq!(
        send(&f.bottle, "GET", url),
        (403, "method_not_allowed".into())
    );
    assert_eq!(send(&f.bottle, "POST", url).0, 200);
    assert_eq!(
        send(&f.bottle, "POST", url),
        (403, "path_not_allowed".into())
    );

    let late = operator(&f.home, &["deny", &id]);
    assert_eq!(late.code(), 5, "{}", late.stderr);
    assert!(late.stderr.contains("was approved by"), "{}", late.stderr);
}

pub(crate) fn a_host_of_no_manifest_can_be_granted(f: &Fixture) {
    let url = "https://other.example.net/echo/new";
    assert_eq!(
        send(&f.bottle, "GET", url),
        (403, "host_not_allowed".into())
    );
    let wish = json!({"url": url, "methods": ["get"], "reason": "a new host"});
    let id = hand_in(&f.bottle, "egress", wish);
    // The test's Internet has private addresses, which only the operator can add.
    let editor = r#"sed -i 's|"ports"|"private": ["10.213.0.0/16"], "ports"|'"#;
    let approve = f
        .home
        .tool("bottle-run")
        .args(["approve", &id, "--edit"])
        .env("EDITOR", editor)
        .run();
    assert_eq!(approve.code(), 0, "{}", approve.stderr);
    assert!(
        approve
            .stderr
            .contains("also at the private addresses 10.213.0.0/16"),
        "{}",
        approve.stderr
    );
    assert_eq!(send(&f.bottle, "GET", url).0, 200);
    // Programs that know no proxy find it by its name.
    let direct = f.bottle.fetch(&["--direct", "GET", url]);
    assert_eq!(direct["status"], 200, "{direct}");
    assert_eq!(
        send(&f.bottle, "POST", url),
        (403, "method_not_allowed".into())
    );
}

pub(crate) fn a_grant_ends_by_the_clock_and_by_hand(f: &Fixture) {
    let url = "https://api.example.com/echo/ends";
    let id = hand_in(&f.bottle, "egress", json!({"url": url, "methods": ["PUT"]}));
    let _ = operator(&f.home, &["approve", &id, "--for", "4s"]).ok();
    assert_eq!(send(&f.bottle, "PUT", url).0, 200);
    wait_for("the end of the grant", || {
        send(&f.bottle, "PUT", url).0 == 403
    });

    let id = hand_in(
        &f.bottle,
        "egress",
        json!({"url": url, "methods": ["PUT"], "reason": "again"}),
    );
    let _ = operator(&f.home, &["approve", &id, "--until-down"]).ok();
    assert_eq!(send(&f.bottle, "PUT", url).0, 200);
    let grant = id.replace("r-", "g-");
    let revoked = operator(&f.home, &["revoke", &grant]);
    assert!(
        revoked.stderr.contains("may no longer PUT"),
        "{}",
        revoked.stderr
    );
    assert_eq!(send(&f.bottle, "PUT", url).0, 403);
    assert_eq!(operator(&f.home, &["revoke", &grant]).code(), 5);
    assert_eq!(operator(&f.home, &["revoke", "g-zzzzzzzz"]).code(), 4);
}

pub(crate) fn a_no_is_told_with_its_why(f: &Fixture) {
    let wish = json!({"host": "far.example.org", "reason": "curious"});
    let id = hand_in(&f.bottle, "egress", wish);
    let _ = operator(
        &f.home,
        &["deny", &id, "--why", "use the mirror", "--by", "maria"],
    )
    .ok();
    let told = status(&f.bottle, &id);
    assert_eq!(
        (&told["status"], &told["text"]),
        (&json!("denied"), &json!("use the mirror"))
    );
    let shown = operator(&f.home, &["requests", "show", &id]).ok();
    assert!(shown.contains("by maria"), "{shown}");
}

pub(crate) fn a_question_is_answered(f: &Fixture) {
    let id = hand_in(
        &f.bottle,
        "question",
        json!({"question": "which branch?", "options": ["main", "next"]}),
    );
    assert_eq!(operator(&f.home, &["approve", &id]).code(), 2);
    let _ = operator(&f.home, &["answer", &id, "next"]).ok();
    let told = status(&f.bottle, &id);
    assert_eq!(
        (&told["status"], &told["text"]),
        (&json!("answered"), &json!("next"))
    );
}

pub(crate) fn nobody_answers_and_only_reading_is_left(f: &Fixture) {
    let url = "https://api.example.com/echo/unanswered";
    let wish = json!({"url": url, "methods": ["GET", "POST"]});
    let told = body(&ask(&f.reader, "egress", &wish));
    assert_eq!(told["status"], "approved", "{told}");
    assert!(
        told["message"]
            .as_str()
            .is_some_and(|text| text.contains("nobody answered")),
        "{told}"
    );
    assert_eq!(send(&f.reader, "GET", url).0, 200);
    assert_eq!(
        send(&f.reader, "POST", url),
        (403, "method_not_allowed".into())
    );
    let told = body(&ask(
        &f.reader,
        "egress",
        &json!({"url": url, "methods": ["DELETE"]}),
    ));
    assert_eq!(told["status"], "expired", "{told}");
    let id = told["id"].as_str().expect("an id");
    assert_eq!(operator(&f.home, &["approve", id]).code(), 5);
}

pub(crate) fn grants_are_in_the_list_and_in_the_audit(f: &Fixture) {
    let url = "https://api.example.com/echo/listed";
    let id = hand_in(
        &f.bottle,
        "egress",
        json!({"url": url, "methods": ["PATCH"]}),
    );
    let _ = operator(&f.home, &["approve", &id, "--by", "maria"]).ok();
    let grant = id.replace("r-", "g-");
    let list: Value = operator(&f.home, &["list", "--json"]).json();
    assert!(list.to_string().contains(&grant), "{list}");
    let list = operator(&f.home, &["list"]).ok();
    assert!(
        list.contains("PATCH to /echo/listed of api.example.com"),
        "{list}"
    );
    let plan = f
        .home
        .tool("bottle-plan")
        .args(["asks", "--slug", &f.bottle.slug, "--explain"])
        .run();
    assert!(
        plan.stderr.contains("PATCH to /echo/listed"),
        "{}",
        plan.stderr
    );
    wait_for("the audit", || {
        let audit = operator(&f.home, &["audit", &f.bottle.slug, "--json"]).stdout;
        audit.contains("grant_begun") && audit.contains(&format!("{grant} by maria"))
    });
    let verified = operator(&f.home, &["audit", "verify", &f.bottle.slug]);
    assert_eq!(verified.code(), 0, "{}{}", verified.stdout, verified.stderr);
    let _ = operator(&f.home, &["revoke", &grant]).ok();
}
