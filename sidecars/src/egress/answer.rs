//! Whether an answer to the route's credential can be looked through for it.

use hyper::Response;
use hyper::StatusCode;
use hyper::header::{CONTENT_ENCODING, CONTENT_TYPE, HeaderValue, TRANSFER_ENCODING};

use crate::dlp::is_text;
use crate::reason::Reason;

/// Beginnings of the names of character sets in which the letters of a value are the bytes they are in ASCII. Some
/// destinations write what they are asked for, UTF-16 or EBCDIC.
const ASCII_BASED: [&str; 13] = [
    "utf-8",
    "utf8",
    "us-ascii",
    "ascii",
    "iso-8859-",
    "latin",
    "windows-125",
    "koi8",
    "gb",
    "big5",
    "euc-",
    "shift_jis",
    "iso-2022-",
];

/// Says why it cannot be, if that is so.
pub(super) fn check_readable<B>(response: &Response<B>) -> Result<(), Reason> {
    let headers = response.headers();
    let mut codings = headers.get_all(CONTENT_ENCODING).iter();
    let mut transfers = headers.get_all(TRANSFER_ENCODING).iter();
    let is =
        |coding: &HeaderValue, name: &str| coding.as_bytes().eq_ignore_ascii_case(name.as_bytes());
    if codings.any(|coding| !is(coding, "identity"))
        || transfers.any(|coding| !is(coding, "chunked"))
        || headers.get_all(CONTENT_TYPE).iter().any(is_foreign)
    {
        return Err(Reason::EncodedResponse);
    }
    // Asked for byte by byte, a value is never there as a whole. Parts of an archive are what such requests are for, and
    // nobody writes an echo into one.
    let is_partial = response.status() == StatusCode::PARTIAL_CONTENT;
    let is_many = |kind: &HeaderValue| {
        kind.as_bytes()
            .to_ascii_lowercase()
            .starts_with(b"multipart/")
    };
    if is_partial && (is_text(headers) || headers.get(CONTENT_TYPE).is_some_and(is_many)) {
        return Err(Reason::PartialResponse);
    }
    Ok(())
}

/// Whether the text is in characters that could not be read here.
fn is_foreign(kind: &HeaderValue) -> bool {
    let kind = String::from_utf8_lossy(kind.as_bytes()).to_ascii_lowercase();
    let named = kind.split(';').skip(1).filter_map(|parameter| {
        let (name, value) = parameter.split_once('=')?;
        (name.trim() == "charset").then(|| value.trim().trim_matches(['"', '\'']))
    });
    let mut foreign = named.filter(|name| !ASCII_BASED.iter().any(|known| name.starts_with(known)));
    foreign.next().is_some()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(status: u16, fields: &[(&str, &str)]) -> Result<(), Reason> {
        let mut response = Response::builder().status(status);
        for (name, value) in fields {
            response = response.header(*name, *value);
        }
        check_readable(&response.body(()).unwrap())
    }

    #[test]
    fn what_is_written_in_another_way_cannot_be_read() {
        for fields in [
            &[][..],
            &[
                ("content-encoding", "Identity"),
                ("transfer-encoding", "chunked"),
            ],
            &[("content-type", "text/html")],
            &[("content-type", "text/html; charset=UTF-8")],
            &[("content-type", "text/plain;charset=\"iso-8859-1\"")],
            &[("content-type", "multipart/form-data; boundary=charset")],
        ] {
            assert_eq!(check(200, fields), Ok(()), "{fields:?}");
        }
        for field in [
            ("content-encoding", "gzip"),
            ("content-encoding", "identity, br"),
            ("transfer-encoding", "gzip, chunked"),
            ("content-type", "text/plain; charset=utf-16"),
            (
                "content-type",
                "text/plain;format=flowed; Charset = \"UTF-16LE\"",
            ),
            ("content-type", "application/json;charset=IBM037"),
            ("content-type", "text/html; charset=utf-7"),
            ("content-type", "text/html; charset="),
        ] {
            assert_eq!(
                check(200, &[field]),
                Err(Reason::EncodedResponse),
                "{field:?}"
            );
        }
    }

    #[test]
    fn parts_of_a_text_are_not_handed_on() {
        for (kind, expected) in [
            ("application/octet-stream", Ok(())),
            ("application/zip", Ok(())),
            ("image/png", Ok(())),
            ("text/plain", Err(Reason::PartialResponse)),
            ("application/json", Err(Reason::PartialResponse)),
            (
                "Multipart/ByteRanges; boundary=x",
                Err(Reason::PartialResponse),
            ),
        ] {
            assert_eq!(check(206, &[("content-type", kind)]), expected, "{kind}");
            assert_eq!(check(200, &[("content-type", kind)]), Ok(()), "{kind}");
        }
        assert_eq!(check(206, &[]), Err(Reason::PartialResponse));
    }
}
