//! A secret is found wherever it is, in whatever usual form, and its snapshot is not made.

use bottle_tests::need_engine;
use bottle_tests::snapshot::{resume, sh, snapshot, unnamed};

use crate::{TOKEN, WEB, home};

#[test]
fn a_planted_secret_is_found_wherever_it_is() {
    if !need_engine("a_planted_secret_is_found_wherever_it_is") {
        return;
    }
    let home = home();
    let slug = home.slug("plant");
    let bottle = home.up("web", &slug);
    let head = 1_048_576 - 20;
    let plants = [
        ("a file", "printf %s \"$S\" > p".to_owned(), "raw"),
        (
            "base64, first alignment",
            "printf %s \"$S\" | base64 -w0 > p".to_owned(),
            "base64",
        ),
        (
            "base64, second alignment",
            "printf x%s \"$S\" | base64 -w0 > p".to_owned(),
            "base64",
        ),
        (
            "base64, third alignment",
            "printf xx%s \"$S\" | base64 -w0 > p".to_owned(),
            "base64",
        ),
        (
            "base64 in lines",
            "printf 'a line before it, %s' \"$S\" | base64 > p".to_owned(),
            "base64",
        ),
        (
            "hex",
            "printf %s \"$S\" | od -An -tx1 | tr -d ' \\n' > p".to_owned(),
            "hex",
        ),
        (
            "a tar in a file",
            "printf %s \"$S\" > q; tar cf p q; rm q".to_owned(),
            "raw",
        ),
        (
            "a compressed tar",
            "printf %s \"$S\" > q; tar czf p q; rm q".to_owned(),
            "raw",
        ),
        (
            "a border of what is read at once",
            format!("head -c {head} /dev/zero > p; printf %s \"$S\" >> p"),
            "raw",
        ),
        ("the name of a file", "touch \"$S\"".to_owned(), "raw"),
        ("where a link leads", "ln -s \"$S\" p".to_owned(), "raw"),
    ];
    for (place, script, form) in plants {
        // Given by stdin: what is in an argument is in the engine's events.
        let script =
            format!("read -r S; mkdir -p /workspace/planted; cd /workspace/planted; {script}");
        let planted = home
            .tool("bottle-run")
            .args(["exec", &slug, "--", "sh", "-c", &script])
            .stdin(format!("{TOKEN}\n"))
            .run();
        assert_eq!(planted.code(), 0, "{place}: {}", planted.stderr);
        let done = snapshot(&home, &["commit", &slug]);
        done.no_product(3, place);
        assert!(
            done.stderr.contains(&format!("TEST_TOKEN ({form})")),
            "{place}: {}",
            done.stderr
        );
        assert!(!done.stderr.contains(TOKEN), "{place}: the value is told");
        if place.starts_with("a border") {
            let told = format!("at byte {head} of workspace/planted/p");
            assert!(done.stderr.contains(&told), "{}", done.stderr);
        }
        assert_eq!(unnamed(&slug), Vec::<String>::new(), "{place}");
        sh(&bottle, "rm -r /workspace/planted");
    }
    let done = snapshot(&home, &["commit", &slug, "--message", TOKEN]);
    assert_eq!(done.code(), 3, "in the message: {}", done.stderr);
    // An environment that was written with it is in the image's configuration, whatever the files are.
    home.bottle(
        "leaky",
        &WEB.replace("GREETING: hello", &format!("GREETING: '{TOKEN}'")),
    );
    let leaky = home.slug("leaky");
    let _leaky = home.up("leaky", &leaky);
    let done = snapshot(&home, &["commit", &leaky]);
    assert_eq!(done.code(), 3, "in the environment: {}", done.stderr);
    assert!(
        done.stderr.contains("the image's configuration"),
        "{}",
        done.stderr
    );
    assert_eq!(unnamed(&leaky), Vec::<String>::new());
    home.down(&leaky);
    // What the agent was given is looked for too, and a clean one is let through after all that.
    sh(&bottle, "printenv GIVEN > /workspace/given");
    assert_eq!(snapshot(&home, &["commit", &slug]).code(), 3);
    assert_eq!(
        snapshot(&home, &["commit", &slug, "--not-secret", "GIVEN"]).code(),
        0
    );

    // A secret that was known to nobody when its layer was made, and is deleted since, is still in that layer.
    sh(
        &bottle,
        "printf late-secret-0123456789abcdef > /workspace/late",
    );
    assert_eq!(
        snapshot(&home, &["commit", &slug, "--not-secret", "GIVEN"]).code(),
        0
    );
    home.down(&slug);
    let (again, _) = resume(&home, &["--resume", &slug], &slug);
    sh(&again, "rm /workspace/late /workspace/given");
    let with = |args: &[&str]| {
        let call = home
            .tool("bottle-snapshot")
            .env("TEST_TOKEN", "late-secret-0123456789abcdef");
        call.args(args.iter().copied()).run()
    };
    let done = with(&["commit", &slug]);
    assert_eq!(done.code(), 3, "{}", done.stderr);
    assert!(done.stderr.contains("workspace/late"), "{}", done.stderr);
    // One layer has no layer below it.
    let done = with(&["commit", &slug, "--squash"]);
    assert_eq!(done.code(), 0, "{}", done.stderr);
}
