use bottle_tests::Home;

use crate::checker::Checker;
use crate::{CONFLICT, INVALID, NOT_FOUND, REFUSED, changed};

#[test]
fn ca() {
    let mut checker = Checker::new("bottle-ca");
    let home = Home::new();
    home.bottle(
        "web",
        "image: x\negress: {routes: [{host: a.example.com}]}\n",
    );
    let plan = home.plan("web", "a");
    let feed = |stdin: &str| {
        let stdin = stdin.to_owned();
        let home = home.clone();
        move || home.tool("bottle-ca").stdin(stdin.clone())
    };
    checker.check(
        feed(""),
        &[(&[], INVALID, "empty"), (&["--renew"], INVALID, "empty")],
    );
    checker.check(feed("nonsense"), &[(&[], INVALID, "JSON")]);
    checker.check(feed("[]"), &[(&[], INVALID, "")]);
    checker.check(
        feed(r#"{"schema":"bottle.plan/v9"}"#),
        &[(&[], INVALID, "bottle.plan/v9")],
    );
    let no_egress = changed(&plan, |plan| {
        drop(plan.as_object_mut().map(|top| top.remove("egress")));
    });
    checker.check(feed(&no_egress), &[(&[], INVALID, "egress")]);
    let relative = changed(&plan, |plan| {
        plan["egress"]["ca"]["dir"] = "relative/folder".into();
    });
    checker.check(feed(&relative), &[(&[], INVALID, "absolute")]);
    let odd_host = changed(&plan, |plan| {
        plan["egress"]["routes"][0]["host"] = "a b".into();
    });
    checker.check(feed(&odd_host), &[(&[], INVALID, "a b")]);

    let dir = home.path().join("ca");
    let dir = dir.to_str().expect("UTF-8");
    let minted = home
        .tool("bottle-ca")
        .args(["mint", "--dir", dir, "--hosts", "a.example.com"])
        .run();
    assert_eq!(minted.code(), 0, "{}", minted.stderr);
    checker.check(
        feed(""),
        &[
            (&["--nonsense"], INVALID, "--nonsense"),
            (&["nonsense"], INVALID, "nonsense"),
            (&["mint"], INVALID, "--dir"),
            (
                &["mint", "--dir", "/nowhere/ca", "--hosts", "a b"],
                INVALID,
                "a b",
            ),
            (
                &["mint", "--dir", "/nowhere/ca", "--addresses", "nonsense"],
                INVALID,
                "nonsense",
            ),
            (
                &["mint", "--dir", "/nowhere/ca", "--days", "many"],
                INVALID,
                "many",
            ),
            (
                &["mint", "--dir", dir, "--hosts", "b.example.com"],
                CONFLICT,
                "",
            ),
            (&["show", "--dir", "/nowhere/ca"], NOT_FOUND, "/nowhere/ca"),
            (
                &["verify", "--dir", "/nowhere/ca"],
                NOT_FOUND,
                "/nowhere/ca",
            ),
            (
                &["verify", "--dir", dir, "--host", "b.example.com"],
                REFUSED,
                "b.example.com",
            ),
        ],
    );
    checker.report();
}
