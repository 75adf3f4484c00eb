use bottle_tests::Home;
use serde_json::{Value, json};

use crate::checker::Checker;
use crate::{GOOD, INVALID, REFUSED, changed};

#[test]
fn render() {
    let mut checker = Checker::new("bottle-render");
    let home = Home::new();
    home.bottle("web", GOOD);
    let plan = home.plan("web", "a");
    let feed = |stdin: &[u8]| {
        let stdin = stdin.to_owned();
        let home = home.clone();
        move || home.tool("bottle-render").stdin(stdin.clone())
    };
    checker.check(feed(b""), &[(&[], INVALID, "empty")]);
    checker.check(feed(b"nonsense"), &[(&[], INVALID, "JSON")]);
    checker.check(feed(b"\xff\xfe{}"), &[(&[], INVALID, "UTF-8")]);
    checker.check(feed(b"{}"), &[(&[], INVALID, "schema")]);
    checker.check(
        feed(br#"{"schema":"bottle.plan/v9"}"#),
        &[(&[], INVALID, "bottle.plan/v9")],
    );
    checker.check(
        feed(plan.as_bytes()),
        &[
            (&["--format", "xml"], INVALID, "xml"),
            (&["nonsense"], INVALID, "nonsense"),
            (&["--nope"], INVALID, "--nope"),
        ],
    );
    type Change = fn(&mut Value);
    let changes: [(&str, i32, Change); 6] = [
        ("surprise", INVALID, |plan| plan["surprise"] = json!(1)),
        ("slug", INVALID, |plan| plan["slug"] = "../x".into()),
        ("user", INVALID, |plan| {
            plan["agent"]["user"] = "root".into();
        }),
        ("user", REFUSED, |plan| plan["agent"]["user"] = "0:0".into()),
        ("NET_RAW", REFUSED, |plan| {
            plan["agent"]["hardening"]["cap_add"] = json!(["NET_RAW"]);
        }),
        ("docker.sock", REFUSED, |plan| {
            plan["workspace"] =
                json!({"from": "/var/run/docker.sock", "mode": "mount", "workdir": "/workspace"});
        }),
    ];
    for (says, code, change) in changes {
        checker.check(
            feed(changed(&plan, change).as_bytes()),
            &[(&[], code, says)],
        );
    }
    checker.report();
}
