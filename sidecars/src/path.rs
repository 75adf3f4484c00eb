//! The path as rules see it, and the query as the credential checks see it.
//!
//! A rule is matched on the decoded path, and exactly the bytes that were matched are sent on. So whatever
//! two servers could read differently is refused rather than repaired: dot segments in any spelling,
//! backslashes, control characters, broken escapes. An encoded slash is the one exception: package and
//! project names carry it (`/@scope%2fname`), and on a route without path rules it decides nothing.

use std::borrow::Cow;

/// A path that means the same to everyone.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Path<'a> {
    /// Percent-decoded once.
    decoded: Cow<'a, [u8]>,
    /// Whether an escape hid a slash, or an escape of an escape: fine only where no path rule looks.
    doubtful: bool,
}

impl<'a> Path<'a> {
    /// Reads the path of a request target. `None` when it could be read in more than one way.
    pub(crate) fn parse(raw: &'a [u8]) -> Option<Self> {
        if raw.first() != Some(&b'/') {
            return None;
        }
        let mut doubtful = false;
        let decoded = if raw.contains(&b'%') {
            let (decoded, slashes) = decode(raw)?;
            doubtful = slashes || has_escape(&decoded);
            Cow::Owned(decoded)
        } else {
            Cow::Borrowed(raw)
        };
        let clean = decoded.iter().all(|&b| b != b'\\' && !b.is_ascii_control());
        let plain = decoded
            .split(|&b| b == b'/')
            .all(|segment| !is_dots(segment));
        (clean && plain).then_some(Self { decoded, doubtful })
    }

    /// The decoded bytes.
    pub(crate) fn bytes(&self) -> &[u8] {
        &self.decoded
    }

    /// Whether only routes without path rules may take it.
    pub(crate) fn is_doubtful(&self) -> bool {
        self.doubtful
    }
}

/// Whether a server would take this segment for `.` or `..`; some cut parameters (`..;x`) off first.
fn is_dots(segment: &[u8]) -> bool {
    let name = segment.split(|&b| b == b';').next().unwrap_or(segment);
    name == b"." || name == b".."
}

/// Whether decoding once more would change what matters.
fn has_escape(decoded: &[u8]) -> bool {
    decoded
        .windows(3)
        .any(|w| w[0] == b'%' && hex(w[1]).is_some() && hex(w[2]).is_some())
}

/// Decodes percent escapes; also says whether one of them was a slash.
fn decode(raw: &[u8]) -> Option<(Vec<u8>, bool)> {
    let mut out = Vec::with_capacity(raw.len());
    let mut slashes = false;
    let mut rest = raw;
    while let [first, tail @ ..] = rest {
        if *first != b'%' {
            out.push(*first);
            rest = tail;
            continue;
        }
        let [high, low, tail @ ..] = tail else {
            return None;
        };
        let byte = hex(*high)? << 4 | hex(*low)?;
        slashes |= byte == b'/';
        out.push(byte);
        rest = tail;
    }
    Some((out, slashes))
}

/// Decodes a query leniently, for looking into it: what is no escape stands for itself.
pub(crate) fn decode_lossy(raw: &[u8]) -> Cow<'_, [u8]> {
    if !raw.contains(&b'%') {
        return Cow::Borrowed(raw);
    }
    let mut out = Vec::with_capacity(raw.len());
    let mut rest = raw;
    while let [first, tail @ ..] = rest {
        rest = match tail {
            [high, low, after @ ..] if *first == b'%' => match (hex(*high), hex(*low)) {
                (Some(high), Some(low)) => {
                    out.push(high << 4 | low);
                    after
                }
                _ => {
                    out.push(*first);
                    tail
                }
            },
            _ => {
                out.push(*first);
                tail
            }
        };
    }
    Cow::Owned(out)
}

/// The `key=value` pairs of a query, still encoded.
pub(crate) fn query_pairs(query: &str) -> impl Iterator<Item = (&str, &str)> {
    query
        .split('&')
        .map(|pair| pair.split_once('=').unwrap_or((pair, "")))
}

fn hex(digit: u8) -> Option<u8> {
    char::from(digit)
        .to_digit(16)
        .and_then(|value| u8::try_from(value).ok())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn spellings() {
        // (raw, decoded and doubtful) or None when it is ambiguous
        let cases: &[(&str, Option<(&str, bool)>)] = &[
            ("/", Some(("/", false))),
            ("/v1/messages", Some(("/v1/messages", false))),
            ("/a//b", Some(("/a//b", false))),
            ("/a/", Some(("/a/", false))),
            ("/a.b/..c/d..", Some(("/a.b/..c/d..", false))),
            ("/...", Some(("/...", false))),
            ("/a%20b", Some(("/a b", false))),
            ("/%61dmin", Some(("/admin", false))),
            ("/a;v=1/b", Some(("/a;v=1/b", false))),
            ("/a:b@c", Some(("/a:b@c", false))),
            ("/@scope%2fname", Some(("/@scope/name", true))),
            ("/@scope%2Fname", Some(("/@scope/name", true))),
            ("/a%252fb", Some(("/a%2fb", true))),
            ("/a%252e%252e/b", Some(("/a%2e%2e/b", true))),
            ("/100%25", Some(("/100%", false))),
            ("/100%25zz", Some(("/100%zz", false))),
            ("", None),
            ("*", None),
            ("a", None),
            ("http://x/", None),
            ("/.", None),
            ("/..", None),
            ("/a/./b", None),
            ("/a/../b", None),
            ("/repos/o/r/../../admin", None),
            ("/a/%2e/b", None),
            ("/a/%2E%2e/b", None),
            ("/a/.%2e/b", None),
            ("/a/%2e./b", None),
            ("/a%2f..%2fb", None),
            ("/a/..%2fb", None),
            ("/a/..;/b", None),
            ("/a/..;x=1/b", None),
            ("/a/.;/b", None),
            ("/a/..%3b/b", None),
            ("/a\\b", None),
            ("/a%5cb", None),
            ("/a%5Cb", None),
            ("/a/..\\b", None),
            ("/a%00b", None),
            ("/a%0ab", None),
            ("/a%0d%0aHost:x", None),
            ("/a%7fb", None),
            ("/a\tb", None),
            ("/a%", None),
            ("/a%2", None),
            ("/a%zz", None),
            ("/a%u002e", None),
            ("/a%+1", None),
        ];
        for (raw, expected) in cases {
            let got = Path::parse(raw.as_bytes());
            let got = got
                .as_ref()
                .map(|p| (std::str::from_utf8(p.bytes()).unwrap(), p.is_doubtful()));
            assert_eq!(got, *expected, "{raw}");
        }
    }

    #[test]
    fn lossy_decoding() {
        for (raw, expected) in [
            ("a=b", "a=b"),
            ("a%3Db", "a=b"),
            ("%", "%"),
            ("%4", "%4"),
            ("%4z%41", "%4zA"),
            ("%%41", "%A"),
        ] {
            assert_eq!(
                decode_lossy(raw.as_bytes()).as_ref(),
                expected.as_bytes(),
                "{raw}"
            );
        }
    }
}
