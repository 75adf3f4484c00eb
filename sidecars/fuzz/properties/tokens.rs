use std::io::Write;
use std::sync::{Arc, LazyLock};

use bottle_plan::policy::Route;
use flate2::Compression;
use flate2::write::GzEncoder;
use hyper::HeaderMap;
use hyper::body::Bytes;
use hyper::header::{CONTENT_ENCODING, HeaderValue};
use serde_json::json;

use super::fixture::pieces;
use crate::dlp::{BodyScan, Found, Rules};
use crate::reason::Reason;

static REDACT: LazyLock<Arc<Rules>> = LazyLock::new(|| rules("redact"));
static BLOCK: LazyLock<Arc<Rules>> = LazyLock::new(|| rules("block"));
static WARN: LazyLock<Arc<Rules>> = LazyLock::new(|| rules("warn"));

fn rules(action: &str) -> Arc<Rules> {
    let mut detectors = vec!["known_secrets", "token_patterns"];
    if action == "warn" {
        detectors.push("entropy");
    }
    let route = json!({"host": "a.test", "ports": [443], "dlp": {"outbound_detectors": detectors,
        "inbound_detectors": ["injection"], "outbound_on_match": action}});
    let route: Route = serde_json::from_value(route).expect("a route");
    Arc::new(Rules::compile(&route).expect("rules"))
}

/// Beginnings of tokens, and what ends them. Nothing here is one, so that nobody takes this file for a leak.
const PARTS: &[&str] = &[
    "",
    "sk-",
    "sk-ant-",
    "AKIA",
    "ghp_",
    "github_pat_",
    "glpat-",
    "xoxb-",
    "AIza",
    "ya29.",
    "hf_",
    "SG.",
    "eyJhbGciOiJIUzI1NiJ9.",
    ".eyJ",
    "T3BlbkFJ",
    "-----BEGIN RSA PRIVATE KEY-----",
    "\\n",
    "%2F",
    "\n",
    "npm_",
    "zQWBuTSOoRi4A9spHcVY5ncnsDkxkJ0mLq17",
    "dop_v1_",
];

/// A body that holds tokens (see [`pieces`]: a part, and so many characters of what tokens are made of).
pub fn tokens(data: &[u8]) {
    let pieces = pieces(data, |part, count| {
        let alphabet = b"ABCDEFGHIJKLMNOPQRSTUVWXYZ234567";
        let part = PARTS[usize::from(part) % PARTS.len()];
        let tail = alphabet.iter().cycle().take(usize::from(count));
        part.bytes().chain(tail.copied()).collect()
    });
    let whole = pieces.concat();
    let bytes: Vec<Bytes> = whole.chunks(1).map(Bytes::copy_from_slice).collect();
    let one = [Bytes::from(whole.clone())];
    let cuts = [one.as_slice(), &pieces, &bytes];

    let (clean, found) = scan(&REDACT, &one);
    assert_eq!(clean.as_ref().map(Vec::len), Ok(whole.len()));
    let clean = clean.unwrap_or_default();
    assert_eq!(
        found.is_empty(),
        clean == whole,
        "what is found is blacked out"
    );
    // Where the first token begins.
    let begins = whole.iter().zip(&clean).position(|(a, b)| a != b);
    let noted = scan(&WARN, &one).1;
    let injected = phrases(&one);
    for cut in cuts {
        let (out, names) = scan(&REDACT, cut);
        assert_eq!(out.as_ref(), Ok(&clean), "it depends on where it is cut");
        assert_eq!(names, found);
        assert_eq!(scan(&WARN, cut), (Ok(whole.clone()), noted.clone()));
        assert_eq!(phrases(cut), injected);

        let (out, _) = scan(&BLOCK, cut);
        match begins {
            None => assert_eq!(out.as_ref(), Ok(&whole)),
            Some(begins) => {
                let (reason, gone) = out.expect_err("a token was let through");
                assert_eq!(reason, Reason::DlpMatch);
                assert!(gone <= begins, "part of a token is out");
            }
        }
    }
    packed(&whole, pieces.len(), begins.is_some());
}

type Scanned = Result<Vec<u8>, (Reason, usize)>;

/// What comes out, or why and after how many bytes it stopped; and what was found.
fn scan(rules: &Arc<Rules>, pieces: &[Bytes]) -> (Scanned, Vec<&'static str>) {
    scan_as(rules, pieces, &HeaderMap::new())
}

fn scan_as(
    rules: &Arc<Rules>,
    pieces: &[Bytes],
    headers: &HeaderMap,
) -> (Scanned, Vec<&'static str>) {
    let found = Arc::new(Found::default());
    let mut out = Vec::new();
    let result = (|| {
        let scan = BodyScan::new(rules, &found, headers, || None)?;
        let mut scan = scan.expect("these rules look at every body");
        for piece in pieces {
            out.extend(scan.pass(piece.clone())?);
        }
        out.extend(scan.finish(Bytes::new())?);
        Ok(())
    })();
    let count = out.len();
    let result = result.map(|()| out).map_err(|reason| (reason, count));
    (result, found.names().collect())
}

/// Compressed, it is the same body.
fn packed(whole: &[u8], size: usize, holds_token: bool) {
    let mut headers = HeaderMap::new();
    headers.insert(CONTENT_ENCODING, HeaderValue::from_static("gzip"));
    let mut encoder = GzEncoder::new(Vec::new(), Compression::fast());
    let packed = encoder.write_all(whole).and_then(|()| encoder.finish());
    let packed = packed.expect("memory takes everything");
    let pieces: Vec<Bytes> = packed.chunks(size).map(Bytes::copy_from_slice).collect();
    // Nothing can be blacked out in it, so what would be is refused.
    let (out, _) = scan_as(&REDACT, &pieces, &headers);
    match out {
        Ok(out) => assert!(!holds_token && out == packed),
        Err((reason, _)) => assert!(holds_token && reason == Reason::DlpMatch, "{reason:?}"),
    }
    // And what only says that it is compressed is refused, or goes on as it is.
    if let Ok(out) = scan_as(&REDACT, &[Bytes::copy_from_slice(whole)], &headers).0 {
        assert_eq!(out, whole);
    }
}

/// Whether an answer of these pieces speaks to the agent.
fn phrases(pieces: &[Bytes]) -> bool {
    let found = Arc::new(Found::default());
    let mut inbound = WARN.inbound(&found).expect("these rules look at answers");
    for piece in pieces {
        inbound.pass(piece.clone(), false);
    }
    found.names().next().is_some()
}
