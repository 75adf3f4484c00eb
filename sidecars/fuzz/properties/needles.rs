use std::sync::Arc;

use base64::Engine;
use base64::engine::general_purpose::{STANDARD, URL_SAFE};
use hyper::body::Bytes;

use super::fixture::pieces;
use crate::gaps::Closed;
use crate::needles::Needles;
use crate::stream::Stream;

/// A secret (the first line) and a text that holds it in many forms (the rest, see [`pieces`]).
pub fn needles(data: &[u8]) {
    let mut lines = data.splitn(2, |&b| b == b'\n');
    let (Some(secret), Some(text)) = (lines.next(), lines.next()) else {
        return;
    };
    // What a slot may hold. With the filler in it, blacking out one could write another.
    let usable = |&b: &u8| (b' '..=b'~').contains(&b) && b != b'*';
    if !(8..=64).contains(&secret.len()) || !secret.iter().all(usable) {
        return;
    }
    let needles = Needles::of_secret(secret).map(Arc::new);
    let needles = needles.expect("a secret makes needles");
    let pieces = pieces(text, |form, before| write(secret, form, before));
    let whole = pieces.concat();

    let (clean, hits) = redact(&needles, &[Bytes::from(whole.clone())]);
    assert_eq!(clean.len(), whole.len());
    assert_eq!(hits == 0, clean == whole);
    assert!(
        needles.find(&clean).next().is_none(),
        "a form of it came out"
    );
    let bytes: Vec<Bytes> = whole.chunks(1).map(Bytes::copy_from_slice).collect();
    for cut in [&pieces, &bytes] {
        let (out, cut_hits) = redact(&needles, cut);
        assert_eq!(out, clean, "it depends on where it is cut");
        assert_eq!(cut_hits == 0, hits == 0);
        // What leaves is stopped, and before the last byte of it is out.
        let mut stream = Stream::new(needles.clone());
        let mut gone = Vec::new();
        let stopped = cut
            .iter()
            .try_for_each(|piece| {
                gone.extend(stream.inspect(piece.clone(), |_| false)?);
                Ok(())
            })
            .map_err(|_: crate::needles::Found| ())
            .is_err();
        let closed = Closed::of(&whole);
        let broken = closed
            .iter()
            .any(|closed| needles.find(&closed.text).next().is_some());
        assert!(stopped || !(hits > 0 || broken));
        // Where something is broken up, more of it is taken for a value the less of it is seen at once.
        assert!(!stopped || hits > 0 || closed.is_some());
        assert!(whole.starts_with(&gone));
        assert!(needles.find(&gone).next().is_none());
        if !stopped {
            gone.extend(stream.finish());
            assert_eq!(gone, whole, "nothing was found, and yet it was changed");
        }
    }
}

fn redact(needles: &Arc<Needles>, pieces: &[Bytes]) -> (Vec<u8>, u32) {
    let mut stream = Stream::new(needles.clone());
    let mut out = Vec::new();
    for piece in pieces {
        out.extend(stream.redact(piece.clone()));
    }
    out.extend(stream.finish_redacted());
    (out, stream.hits())
}

/// The secret as others write it; for base64, `before` says how much stands in front of it.
fn write(secret: &[u8], form: u8, before: u8) -> Vec<u8> {
    let shifted = || [&b"xyz"[..usize::from(before % 3)], secret].concat();
    let each = |write: &dyn Fn(u8) -> String| -> Vec<u8> {
        secret.iter().flat_map(|&b| write(b).into_bytes()).collect()
    };
    match form {
        b'b' => STANDARD.encode(shifted()).into(),
        b'u' => URL_SAFE.encode(shifted()).into(),
        b'x' => each(&|b| format!("{b:02x}")),
        b'%' => each(&|b| format!("%{b:02X}")),
        b'e' => each(&|b| match b {
            b'\\' => "\\\\".into(),
            b'&' => "&amp;".into(),
            b => char::from(b).to_string(),
        }),
        b'j' => each(&|b| format!("\\u{b:04x}")),
        // The beginning only: what has to wait, and then to go on.
        b'h' => secret[..usize::from(before) % secret.len()].to_vec(),
        _ => secret.to_vec(),
    }
}
