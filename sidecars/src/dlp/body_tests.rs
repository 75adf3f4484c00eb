use bottle_plan::policy::Route;
use flate2::Compression;
use flate2::write::{GzEncoder, ZlibEncoder};
use hyper::header::HeaderValue;
use serde_json::{Value, json};

use super::*;

const TOKEN: &str = concat!("ghp_", "zQWBuTSOoRi4A9spHcVY5ncnsDkxkJ", "0mLq17");

fn gzip(text: &[u8]) -> Vec<u8> {
    let mut encoder = GzEncoder::new(Vec::new(), Compression::best());
    encoder.write_all(text).unwrap();
    encoder.finish().unwrap()
}

fn zlib(text: &[u8]) -> Vec<u8> {
    let mut encoder = ZlibEncoder::new(Vec::new(), Compression::best());
    encoder.write_all(text).unwrap();
    encoder.finish().unwrap()
}

fn rules(dlp: &Value) -> Arc<Rules> {
    let route = json!({"host": "a.test", "ports": [443], "dlp": dlp});
    let route: Route = serde_json::from_value(route).unwrap();
    Arc::new(Rules::compile(&route).unwrap())
}

/// What comes out of a body with this coding, and what was found in it.
fn run(
    dlp: &Value,
    coding: &'static str,
    body: &[u8],
    size: usize,
) -> (Result<Vec<u8>, Reason>, Vec<&'static str>) {
    let found = Arc::new(Found::default());
    let mut headers = HeaderMap::new();
    headers.insert(CONTENT_ENCODING, HeaderValue::from_static(coding));
    let result = BodyScan::new(&rules(dlp), &found, &headers, || None).and_then(|scan| {
        let Some(mut scan) = scan else {
            return Ok(body.to_vec());
        };
        let mut out = Vec::new();
        for piece in body.chunks(size) {
            out.extend(scan.pass(Bytes::copy_from_slice(piece))?);
        }
        out.extend(scan.finish(Bytes::new())?);
        Ok(out)
    });
    (result, found.names().collect())
}

#[test]
fn what_is_packed_is_unpacked_and_goes_on_as_it_was() {
    let harmless = "nothing to see here, ".repeat(1000);
    let secret = format!("{harmless}{TOKEN} {harmless}");
    for (coding, pack) in [("gzip", gzip as fn(&[u8]) -> Vec<u8>), ("Deflate", zlib)] {
        for size in [1, 7, 100_000] {
            let body = pack(harmless.as_bytes());
            assert_eq!(
                run(&Value::Null, coding, &body, size),
                (Ok(body.clone()), vec![])
            );
            let body = pack(secret.as_bytes());
            for action in ["block", "redact"] {
                let (out, found) = run(&json!({"outbound_on_match": action}), coding, &body, size);
                assert_eq!(out, Err(Reason::DlpMatch), "{coding} {size}");
                assert_eq!(found, ["token_patterns/github"]);
            }
            let (out, found) = run(&json!({"outbound_on_match": "warn"}), coding, &body, size);
            assert_eq!((out, found.len()), (Ok(body), 1));
        }
    }
}

#[test]
fn bombs_and_rubbish_are_refused() {
    let bomb = gzip(&vec![0; 64 << 20]);
    assert_eq!(
        run(&Value::Null, "gzip", &bomb, 1000).0,
        Err(Reason::DlpEncoded)
    );
    assert_eq!(
        run(&Value::Null, "gzip", b"not gzip at all", 4).0,
        Err(Reason::DlpEncoded)
    );
}

#[test]
fn other_codings_pass_unless_looking_was_asked_for() {
    let body = b"\x1b\x03";
    assert_eq!(
        run(&Value::Null, "br", body, 10),
        (Ok(body.to_vec()), vec!["not_scanned"])
    );
    let asked = json!({"outbound_detectors": ["token_patterns"]});
    assert_eq!(run(&asked, "br", body, 10).0, Err(Reason::DlpEncoded));
}

#[test]
fn the_bottles_own_secrets_are_found_in_what_is_packed() {
    let mut headers = HeaderMap::new();
    headers.insert(CONTENT_ENCODING, HeaderValue::from_static("gzip"));
    let off = rules(&json!({"outbound_detectors": false}));
    let secrets: Secrets = Box::new(
        |piece| match piece.windows(6).any(|part| part == b"secret") {
            true => Err(Reason::SecretLeak),
            false => Ok(()),
        },
    );
    let scan = BodyScan::new(&off, &Arc::default(), &headers, || Some(secrets));
    let body = gzip(b"my secret is out");
    let result = scan.unwrap().unwrap().pass(Bytes::from(body));
    assert_eq!(result, Err(Reason::SecretLeak));
}
