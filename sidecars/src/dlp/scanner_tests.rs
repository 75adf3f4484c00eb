use bottle_plan::policy::Route;
use proptest::prelude::*;
use serde_json::{Value, json};

use super::super::patterns::tests::examples;
use super::*;

fn rules(dlp: &Value) -> Arc<Rules> {
    let route = json!({"host": "a.test", "ports": [443], "dlp": dlp});
    let route: Route = serde_json::from_value(route).unwrap();
    Arc::new(Rules::compile(&route).unwrap())
}

fn on_match(action: &str) -> Value {
    json!({"outbound_on_match": action})
}

/// What comes out when `text` goes in, in pieces of this size; what was found.
fn run(dlp: &Value, text: &str, size: usize) -> (Result<String, Reason>, Vec<&'static str>) {
    let found = Arc::new(Found::default());
    let mut scanner = Scanner::new(rules(dlp), found.clone(), false);
    let mut out = Vec::new();
    let result = text
        .as_bytes()
        .chunks(size)
        .map(Bytes::copy_from_slice)
        .try_for_each(|piece| {
            out.extend_from_slice(&scanner.pass(piece, false)?);
            Ok(())
        })
        .and_then(|()| {
            out.extend_from_slice(&scanner.pass(Bytes::new(), true)?);
            Ok(String::from_utf8(out.clone()).unwrap())
        });
    (result, found.names().collect())
}

#[test]
fn every_token_is_blacked_out_wherever_it_is_cut() {
    for (kind, token) in examples() {
        let text = format!("{{\"text\":\"my key:\\n{token}\"}}");
        let clean = text.replace(&token, &"*".repeat(token.len()));
        for cut in 1..text.len() {
            let found = Arc::new(Found::default());
            let mut scanner = Scanner::new(rules(&on_match("redact")), found.clone(), false);
            let (a, b) = text.split_at(cut);
            let mut out = scanner
                .pass(Bytes::copy_from_slice(a.as_bytes()), false)
                .unwrap()
                .to_vec();
            out.extend(
                scanner
                    .pass(Bytes::copy_from_slice(b.as_bytes()), false)
                    .unwrap(),
            );
            out.extend(scanner.pass(Bytes::new(), true).unwrap());
            assert_eq!(String::from_utf8(out).unwrap(), clean, "{kind:?} {cut}");
        }
        let (out, found) = run(&on_match("redact"), &text, 1);
        assert_eq!(out.unwrap(), clean);
        assert_eq!(found.len(), 1, "{found:?}");
    }
}

/// Inside a word `sk-` is nothing, but `sk-ant-` is, and a cut between the two must not hide it.
#[test]
fn a_prefix_that_becomes_a_longer_one_is_waited_for() {
    let tokens = examples();
    let (_, token) = tokens
        .iter()
        .find(|(kind, _)| *kind == Kind::Anthropic)
        .unwrap();
    let text = format!("key_{token} ");
    for size in 1..text.len() {
        let (out, _) = run(&on_match("redact"), &text, size);
        assert_eq!(
            out.unwrap(),
            format!("key_{} ", "*".repeat(token.len())),
            "{size}"
        );
    }
}

/// After the longest token there is, a word does not begin in the middle of one because the token is blacked out.
#[test]
fn what_is_blacked_out_is_remembered_as_it_was() {
    let token = format!("glpat-{}", "u8Jx0Zq3Vt".repeat(30));
    let text = format!("{token}AKIAIOSFODNN7ABCDEFG ");
    let whole = run(&on_match("redact"), &text, text.len());
    for size in 1..text.len() {
        assert_eq!(run(&on_match("redact"), &text, size), whole, "{size}");
    }
}

#[test]
fn blocking_stops_before_the_token_is_out() {
    for (_, token) in examples() {
        let mut scanner = Scanner::new(rules(&on_match("block")), Arc::default(), false);
        let mut out = Vec::new();
        let text = format!("x={token}");
        let mut pieces = text
            .bytes()
            .map(|byte| scanner.pass(Bytes::from(vec![byte]), false));
        pieces
            .try_for_each(|piece| piece.map(|piece| out.extend(piece)))
            .unwrap_or_default();
        let _ = scanner
            .pass(Bytes::new(), true)
            .map_err(|reason| assert_eq!(reason, Reason::DlpMatch));
        assert!(out.len() <= 2, "{}", out.escape_ascii());
    }
}

#[test]
fn what_a_match_does_is_the_operators_word_or_what_the_route_is_for() {
    let tokens = examples();
    let github = &tokens
        .iter()
        .find(|(kind, _)| *kind == Kind::Github)
        .unwrap()
        .1;
    let jwt = &tokens
        .iter()
        .find(|(kind, _)| *kind == Kind::Jwt)
        .unwrap()
        .1;
    let result = |dlp: &Value, text: &str| run(dlp, text, 1000).0;
    assert_eq!(result(&on_match("block"), jwt), Err(Reason::DlpMatch));
    assert_eq!(
        result(&on_match("supervise"), github),
        Err(Reason::DlpSupervise)
    );
    assert_eq!(result(&on_match("warn"), github).as_ref(), Ok(github));
    assert_eq!(result(&Value::Null, github), Err(Reason::DlpMatch));
    assert_eq!(result(&Value::Null, jwt).as_ref(), Ok(jwt));
    let off = json!({"outbound_detectors": false});
    assert_eq!(run(&off, github, 1000), (Ok(github.clone()), vec![]));

    let route = json!({"host": "a.test", "ports": [443], "auth":
        {"scheme": "bearer", "header": "authorization", "slot": "EGRESS_TOKEN_0"}});
    let route: Route = serde_json::from_value(route).unwrap();
    let rules = Rules::compile(&route).unwrap();
    assert_eq!(rules.outcome(true), Outcome::BlackOut);
    assert_eq!(rules.outcome(false), Outcome::LetGo);
}

#[test]
fn randomness_is_only_noted_unless_more_is_asked_for() {
    let text = "key: u8Jx0Zq3Vt7Lw2Rb9Ym5Hc1Nd6Fk4Gs8Pa0Xe3Ti";
    let on = json!({"outbound_detectors": ["entropy"]});
    assert_eq!(run(&on, text, 3), (Ok(text.to_owned()), vec!["entropy"]));
    let strict = json!({"outbound_detectors": ["entropy"], "outbound_on_match": "block"});
    assert_eq!(run(&strict, text, 3).0, Err(Reason::DlpMatch));
}

#[test]
fn detectors_that_do_not_exist_are_named() {
    let route = json!({"host": "a.test", "ports": [443], "dlp": {"outbound_detectors": ["magic"]}});
    let route: Route = serde_json::from_value(route).unwrap();
    assert!(Rules::compile(&route).unwrap_err().contains("`magic`"));
}

#[test]
fn no_prefix_is_longer_than_what_is_held_back_for_one() {
    assert!(
        patterns::ALL
            .iter()
            .all(|pattern| pattern.prefix.len() <= LONGEST_PREFIX)
    );
}

#[test]
fn a_large_body_takes_no_memory() {
    let found = Arc::new(Found::default());
    let mut scanner = Scanner::new(rules(&on_match("redact")), found, false);
    // The worst: beginnings of the longest tokens, over and over.
    let worst = [
        b"eyJhbGciOiJIUzI1NiJ9.".as_slice(),
        &[b'a'; 3000],
        b"-----BEGIN RSA PRIVATE KEY-----",
        &[b'\n'; 8000],
    ]
    .concat();
    let (mut sent, mut received) = (0, 0);
    for _ in 0..2000 {
        sent += worst.len();
        received += scanner
            .pass(Bytes::from(worst.clone()), false)
            .unwrap()
            .len();
        assert!(scanner.held.len() <= 8300, "{}", scanner.held.len());
        assert!(scanner.held.capacity() <= 64 * 1024);
    }
    received += scanner.pass(Bytes::new(), true).unwrap().len();
    assert_eq!(sent, received);
}

proptest! {
    #[test]
    fn harmless_text_is_not_changed(text in "[ -~\n]{0,200}", size in 1usize..40) {
        let (out, found) = run(&on_match("redact"), &text, size);
        if found.is_empty() {
            prop_assert_eq!(out.unwrap(), text);
        }
    }
}
