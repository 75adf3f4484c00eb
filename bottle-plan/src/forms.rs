//! The ways a value is commonly written: for whoever has to know a secret again in what passes by or lies about.

use base64::Engine as _;
use base64::alphabet::{STANDARD, URL_SAFE};
use base64::engine::general_purpose::{GeneralPurpose, NO_PAD};
use zeroize::Zeroizing;

/// Shorter forms would be found everywhere.
pub const MIN_LENGTH: usize = 8;

/// A kind of writing.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Kind {
    /// As it is.
    Raw,
    /// Two hexadecimal digits a byte.
    Hex,
    /// As in a URL.
    Url,
    /// As in a JSON text.
    Json,
    /// As in HTML or XML.
    Html,
    /// Base64 at any of the three alignments, in either alphabet.
    Base64,
}

impl Kind {
    /// All of them.
    pub const ALL: [Self; 6] = [
        Self::Raw,
        Self::Hex,
        Self::Url,
        Self::Json,
        Self::Html,
        Self::Base64,
    ];

    /// Its name in documents.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Raw => "raw",
            Self::Hex => "hex",
            Self::Url => "url",
            Self::Json => "json",
            Self::Html => "html",
            Self::Base64 => "base64",
        }
    }
}

/// One way of writing one value.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Form {
    /// Which way.
    pub kind: Kind,
    /// The bytes to look for; wiped when dropped.
    pub bytes: Zeroizing<Vec<u8>>,
}

/// All forms of `value` that are not shorter than [`MIN_LENGTH`]. The same bytes may be there more than once.
#[must_use]
pub fn of(value: &[u8]) -> Vec<Form> {
    let each = |kind: Kind, write: &dyn Fn(u8) -> Vec<u8>| Form {
        kind,
        bytes: Zeroizing::new(value.iter().flat_map(|&b| write(b)).collect()),
    };
    let text = |text: String| text.into_bytes();
    let unreserved = |b: u8| b.is_ascii_alphanumeric() || b"-._~".contains(&b);
    let control = |b: u8| match b {
        b'\n' => b"\\n".to_vec(),
        b'\r' => b"\\r".to_vec(),
        b'\t' => b"\\t".to_vec(),
        _ => vec![b],
    };
    let mut forms = vec![
        each(Kind::Raw, &|b| vec![b]),
        each(Kind::Hex, &|b| text(format!("{b:02x}"))),
        each(Kind::Hex, &|b| text(format!("{b:02X}"))),
        each(Kind::Url, &|b| match unreserved(b) {
            true => vec![b],
            false => text(format!("%{b:02X}")),
        }),
        each(Kind::Url, &|b| match unreserved(b) {
            true => vec![b],
            false => text(format!("%{b:02x}")),
        }),
        each(Kind::Url, &|b| text(format!("%{b:02X}"))),
        each(Kind::Url, &|b| text(format!("%{b:02x}"))),
        each(Kind::Json, &|b| match b {
            b'"' | b'\\' => vec![b'\\', b],
            _ => control(b),
        }),
        each(Kind::Json, &|b| match b {
            b'"' | b'\\' | b'/' => vec![b'\\', b],
            _ => control(b),
        }),
        // As Go writes it, and with it the engine.
        each(Kind::Json, &|b| match b {
            b'"' | b'\\' => vec![b'\\', b],
            b'<' | b'>' | b'&' => text(format!("\\u{b:04x}")),
            _ => control(b),
        }),
        each(Kind::Json, &|b| text(format!("\\u{b:04x}"))),
        each(Kind::Json, &|b| text(format!("\\u{b:04X}"))),
        each(Kind::Html, &|b| match b {
            b'&' => b"&amp;".to_vec(),
            b'<' => b"&lt;".to_vec(),
            b'>' => b"&gt;".to_vec(),
            b'"' => b"&quot;".to_vec(),
            b'\'' => b"&#39;".to_vec(),
            _ => vec![b],
        }),
        each(Kind::Html, &|b| text(format!("&#{b};"))),
        each(Kind::Html, &|b| text(format!("&#x{b:x};"))),
    ];
    for alphabet in [&STANDARD, &URL_SAFE] {
        let engine = GeneralPurpose::new(alphabet, NO_PAD);
        forms.extend((0..3).map(|offset| Form {
            kind: Kind::Base64,
            bytes: base64_inside(&engine, value, offset),
        }));
    }
    forms.retain(|form| form.bytes.len() >= MIN_LENGTH);
    forms
}

/// The characters of base64 that depend on `value` alone when `offset` unknown bytes stand before it (counted
/// modulo three) and anything after it.
fn base64_inside(engine: &GeneralPurpose, value: &[u8], offset: usize) -> Zeroizing<Vec<u8>> {
    let mut padded = Zeroizing::new(vec![0; offset]);
    padded.extend_from_slice(value);
    let encoded = Zeroizing::new(engine.encode(&*padded));
    let begin = (offset * 8).div_ceil(6);
    let end = padded.len() * 8 / 6;
    Zeroizing::new(encoded.as_bytes()[begin..end].to_vec())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn control_characters_are_escaped_as_json_does() {
        let forms = of(b"two\nlines\tof it");
        let json: Vec<&[u8]> = forms
            .iter()
            .filter(|form| form.kind == Kind::Json)
            .map(|form| form.bytes.as_slice())
            .collect();
        assert!(json.contains(&b"two\\nlines\\tof it".as_slice()));
    }

    #[test]
    fn a_short_value_has_only_its_long_forms() {
        assert!(of(b"1234567").iter().all(|form| form.kind != Kind::Raw));
        assert!(of(b"12345678").iter().any(|form| form.kind == Kind::Raw));
    }
}
