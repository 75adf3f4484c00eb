//! Host names as rules and requests both see them: one normaliser, so that the two can never disagree.

use std::fmt;

/// A normalised DNS name: ASCII, lower case, no trailing dot, never an address in any notation.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Host(String);

/// Why a text is not a host name we deal with.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum HostError {
    /// Nothing there.
    #[error("the host name is empty")]
    Empty,
    /// Over 253 bytes, or a label over 63.
    #[error("the host name is too long (253 bytes, 63 a label)")]
    TooLong,
    /// Two dots in a row, or a leading one.
    #[error("the host name has an empty label")]
    EmptyLabel,
    /// A label that begins or ends with a hyphen: no certificate can name it.
    #[error("a label of the host name begins or ends with a hyphen")]
    Hyphen,
    /// Something outside `[a-z0-9_-]`.
    #[error(
        "the host name has a character outside a-z, 0-9, `-`, `_` (write an international name in its xn-- form)"
    )]
    Character,
    /// Looks like an address to some resolver.
    #[error("an address is not a host name (the last label must not be a number)")]
    Address,
    /// A wildcard in the wrong place.
    #[error("a wildcard is `*.` and a name of at least two labels")]
    Wildcard,
}

impl Host {
    /// Normalises `text`: lower case and one trailing dot removed; everything unusual is refused, not repaired.
    ///
    /// # Errors
    /// When `text` is not a plain DNS name; see [`HostError`].
    pub fn parse(text: &str) -> Result<Self, HostError> {
        let name = text.strip_suffix('.').unwrap_or(text);
        if name.is_empty() {
            return Err(HostError::Empty);
        }
        if name.len() > 253 {
            return Err(HostError::TooLong);
        }
        for label in name.split('.') {
            if label.is_empty() {
                return Err(HostError::EmptyLabel);
            }
            if label.len() > 63 {
                return Err(HostError::TooLong);
            }
            let plain = |b: u8| b.is_ascii_alphanumeric() || b == b'-' || b == b'_';
            if !label.bytes().all(plain) {
                return Err(HostError::Character);
            }
            if label.starts_with('-') || label.ends_with('-') {
                return Err(HostError::Hyphen);
            }
        }
        let name = name.to_ascii_lowercase();
        if name.rsplit('.').next().is_some_and(is_number) {
            return Err(HostError::Address);
        }
        Ok(Self(name))
    }

    /// The name.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

/// Decimal, octal or hexadecimal: what a URL library turns into an IPv4 address.
fn is_number(label: &str) -> bool {
    let digits = label.bytes().all(|b| b.is_ascii_digit());
    let hex = label
        .strip_prefix("0x")
        .is_some_and(|rest| rest.bytes().all(|b| b.is_ascii_hexdigit()));
    digits || hex
}

impl fmt::Display for Host {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// The host of a route: one name, or all names below one.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum HostPattern {
    /// This name alone.
    Exact(Host),
    /// One or more labels before this name; never the name itself.
    Below(Host),
}

impl HostPattern {
    /// Reads `name` or `*.name`.
    ///
    /// # Errors
    /// As [`Host::parse`], and [`HostError::Wildcard`] for a `*` anywhere but in front or before a single label.
    pub fn parse(text: &str) -> Result<Self, HostError> {
        let Some(rest) = text.strip_prefix("*.") else {
            if text.contains('*') {
                return Err(HostError::Wildcard);
            }
            return Host::parse(text).map(Self::Exact);
        };
        if rest.contains('*') {
            return Err(HostError::Wildcard);
        }
        let name = Host::parse(rest)?;
        if !name.as_str().contains('.') {
            return Err(HostError::Wildcard);
        }
        Ok(Self::Below(name))
    }

    /// Whether `host` is meant.
    #[must_use]
    pub fn matches(&self, host: &Host) -> bool {
        match self {
            Self::Exact(name) => name == host,
            Self::Below(name) => host
                .as_str()
                .strip_suffix(name.as_str())
                .and_then(|front| front.strip_suffix('.'))
                .is_some_and(|front| !front.is_empty()),
        }
    }

    /// Orders patterns by how much they say: an exact name above every wildcard, a longer wildcard above a shorter.
    #[must_use]
    pub fn specificity(&self) -> (bool, usize) {
        match self {
            Self::Exact(name) => (true, name.as_str().len()),
            Self::Below(name) => (false, name.as_str().len()),
        }
    }
}

impl fmt::Display for HostPattern {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Exact(name) => write!(f, "{name}"),
            Self::Below(name) => write!(f, "*.{name}"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn spellings() {
        use HostError::*;
        let long_label = "a".repeat(64);
        let long_name = ["abcdefghi"; 26].join(".");
        let table: &[(&str, Result<&str, HostError>)] = &[
            ("api.example.com", Ok("api.example.com")),
            ("API.Example.COM", Ok("api.example.com")),
            ("api.example.com.", Ok("api.example.com")),
            ("api.example.com..", Err(EmptyLabel)),
            (".example.com", Err(EmptyLabel)),
            ("a..b", Err(EmptyLabel)),
            ("", Err(Empty)),
            (".", Err(Empty)),
            ("localhost", Ok("localhost")),
            ("under_score.example.com", Ok("under_score.example.com")),
            ("xn--bcher-kva.example", Ok("xn--bcher-kva.example")),
            ("bücher.example", Err(Character)),
            ("evil\0.example.com", Err(Character)),
            ("evil%00.example.com", Err(Character)),
            ("user@example.com", Err(Character)),
            ("example.com:443", Err(Character)),
            ("example.com/", Err(Character)),
            ("exa mple.com", Err(Character)),
            ("exa\tmple.com", Err(Character)),
            ("example\\.com", Err(Character)),
            ("[::1]", Err(Character)),
            ("::1", Err(Character)),
            ("127.0.0.1", Err(Address)),
            ("127.1", Err(Address)),
            ("2130706433", Err(Address)),
            ("0x7f000001", Err(Address)),
            ("0x7f.1", Err(Address)),
            ("0177.0.0.1", Err(Address)),
            ("0x7F.0.0.0X1", Err(Address)),
            ("1.2.3.4.", Err(Address)),
            ("4.example", Ok("4.example")),
            ("-a.example.com", Err(Hyphen)),
            ("a-.example.com", Err(Hyphen)),
            ("a.example.-", Err(Hyphen)),
            (&long_label, Err(TooLong)),
            (&long_name, Err(TooLong)),
        ];
        for (text, expected) in table {
            let got = Host::parse(text);
            assert_eq!(
                got.as_ref().map(Host::as_str).map_err(|e| *e),
                *expected,
                "{text:?}"
            );
        }
    }

    #[test]
    fn wildcards_stand_in_front_of_two_labels_and_never_mean_the_name_itself() {
        for bad in [
            "*",
            "*.",
            "*.com",
            "a.*.com",
            "*a.example.com",
            "*.*.example.com",
        ] {
            assert!(HostPattern::parse(bad).is_err(), "{bad}");
        }
        let pattern = HostPattern::parse("*.Example.com").expect("valid");
        let is = |name: &str| pattern.matches(&Host::parse(name).expect("valid"));
        assert!(is("a.example.com") && is("a.b.example.com"));
        assert!(!is("example.com") && !is("badexample.com") && !is("example.com.evil.org"));
    }
}
