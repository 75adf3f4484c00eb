//! The commands: what they say of a CA, and of one that is not there.

// Helpers of a test are no `#[test]` for clippy.
#![allow(clippy::unwrap_used)]

mod common;

use common::{Place, tool};
use predicates::str::contains;

#[test]
fn a_wrong_request_leaves_not_even_a_folder() {
    let place = Place::new();
    place
        .mint("*")
        .assert()
        .code(2)
        .stderr(contains("bad host `*`"));
    place
        .mint("a.example")
        .args(["--days", "0"])
        .assert()
        .code(2);
    place
        .mint("a.example")
        .args(["--addresses", "10.0.0.1/8"])
        .assert()
        .code(2);
    assert!(!place.dir.exists());
}

#[test]
fn a_missing_ca_is_not_found() {
    let place = Place::new();
    for command in ["show", "verify"] {
        tool()
            .args([command, "--dir"])
            .arg(&place.dir)
            .assert()
            .code(4)
            .stdout("");
        tool()
            .args([command, "--dir"])
            .arg(place.root.path())
            .assert()
            .code(4)
            .stderr(contains("there is no CA"));
    }
}

#[test]
fn show_tells_the_same_in_both_forms() {
    let place = Place::minted("b.example,*.a.example");
    let text = tool()
        .args(["show", "--dir"])
        .arg(&place.dir)
        .assert()
        .success()
        .stderr("");
    let text = String::from_utf8(text.get_output().stdout.clone()).unwrap();
    let json = tool()
        .args(["show", "--json", "--dir"])
        .arg(&place.dir)
        .assert()
        .success();
    let json: serde_json::Value = serde_json::from_slice(&json.get_output().stdout).unwrap();
    assert_eq!(json["schema"], "bottle.ca/v1");
    assert_eq!(json["hosts"], serde_json::json!(["a.example", "b.example"]));
    for key in [
        "certificate",
        "common_name",
        "fingerprint",
        "serial",
        "not_before",
        "not_after",
    ] {
        assert!(text.contains(json[key].as_str().unwrap()), "{key}\n{text}");
    }
    assert!(text.contains("a.example and below") && !text.contains("PRIVATE"));
}

#[test]
fn verify_answers_for_a_host() {
    let place = Place::minted("api.example.com,*.example.org");
    let verify = |host: &str| {
        let mut command = tool();
        command
            .args(["verify", "--host", host, "--dir"])
            .arg(&place.dir);
        command.assert().stdout("")
    };
    for host in [
        "api.example.com",
        "x.api.example.com",
        "example.org",
        "API.EXAMPLE.COM",
    ] {
        verify(host).success().stderr(contains("is permitted"));
    }
    for host in ["example.com", "evil.org", "127.0.0.1", "::1"] {
        verify(host)
            .code(3)
            .stderr(contains("no client would accept"));
    }
    verify("not a host").code(2);
    tool()
        .args(["verify", "--quiet", "--dir"])
        .arg(&place.dir)
        .assert()
        .success()
        .stderr("");
}

#[test]
fn mint_describes_what_it_made_when_asked_for_json() {
    let place = Place::new();
    let made = place
        .mint("a.example")
        .args(["--json", "--quiet"])
        .assert()
        .success()
        .stderr("");
    let shown = tool()
        .args(["show", "--json", "--dir"])
        .arg(&place.dir)
        .assert()
        .success();
    assert_eq!(made.get_output().stdout, shown.get_output().stdout);
}
