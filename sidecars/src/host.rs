//! Names of destinations: one normal form, made once at the edge, compared everywhere else.
//!
//! Two parsers that disagree about a name are the classic way around an allow-list, so there is one, and it
//! refuses whatever it would have to interpret: other alphabets, escapes, user info, and every spelling of
//! an address (a name whose last label is a number is an address to most resolvers).

use std::fmt;
use std::sync::Arc;

/// The longest name DNS can carry.
const MAX_NAME: usize = 253;
/// The longest label DNS can carry.
const MAX_LABEL: usize = 63;

/// A host name in normal form: ASCII, lower case, no trailing dot, never an address.
#[derive(Clone, PartialEq, Eq, Hash)]
pub(crate) struct Host(Arc<str>);

/// Why a spelling is not a host name.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum HostError {
    /// An IP address in any of its notations.
    IpLiteral,
    /// Not a host name at all.
    Invalid,
}

impl Host {
    /// Brings `raw` into normal form, or says why it has none.
    pub(crate) fn parse(raw: &[u8]) -> Result<Self, HostError> {
        if raw.first() == Some(&b'[') || raw.contains(&b':') {
            return Err(HostError::IpLiteral);
        }
        let name = raw.strip_suffix(b".").unwrap_or(raw);
        if name.is_empty() || name.len() > MAX_NAME {
            return Err(HostError::Invalid);
        }
        let mut last = &name[..0];
        for label in name.split(|&byte| byte == b'.') {
            let plain = label
                .iter()
                .all(|&b| b.is_ascii_alphanumeric() || b == b'-' || b == b'_');
            if label.is_empty() || label.len() > MAX_LABEL || !plain {
                return Err(HostError::Invalid);
            }
            last = label;
        }
        if is_number(last) {
            return Err(HostError::IpLiteral);
        }
        // Every byte was checked to be ASCII.
        let lower: String = name
            .iter()
            .map(|&b| char::from(b.to_ascii_lowercase()))
            .collect();
        Ok(Self(lower.into()))
    }

    /// The name.
    pub(crate) fn as_str(&self) -> &str {
        &self.0
    }

    /// Whether `raw` is a spelling of this very name. The same answer as parsing it, without the allocation:
    /// this runs for every request inside a tunnel.
    pub(crate) fn is_spelled(&self, raw: &[u8]) -> bool {
        let name = raw.strip_suffix(b".").unwrap_or(raw);
        name.eq_ignore_ascii_case(self.0.as_bytes())
    }
}

impl fmt::Display for Host {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl fmt::Debug for Host {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// Whether a resolver would read a name ending in this label as an address: `1`, `0x7f`, `0x`.
fn is_number(label: &[u8]) -> bool {
    let hex = label
        .strip_prefix(b"0x")
        .or_else(|| label.strip_prefix(b"0X"));
    match hex {
        Some(digits) => digits.iter().all(u8::is_ascii_hexdigit),
        None => label.iter().all(u8::is_ascii_digit),
    }
}

/// A host and a port: what a request is for.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(crate) struct Authority {
    /// The host.
    pub(crate) host: Host,
    /// The port.
    pub(crate) port: u16,
}

impl Authority {
    /// Parses `host` or `host:port`. Without a default the port must be written.
    pub(crate) fn parse(raw: &[u8], default_port: Option<u16>) -> Result<Self, HostError> {
        if raw.first() == Some(&b'[') {
            return Err(HostError::IpLiteral);
        }
        let (name, port) = split_port(raw)?;
        let host = Host::parse(name)?;
        let port = port.or(default_port).ok_or(HostError::Invalid)?;
        Ok(Self { host, port })
    }

    /// Whether `raw` (a `Host` header, say) names this host and port; a port that is left out is `default_port`.
    pub(crate) fn agrees_with(&self, raw: &[u8], default_port: u16) -> bool {
        match split_port(raw) {
            Ok((name, port)) => {
                self.host.is_spelled(name) && port.unwrap_or(default_port) == self.port
            }
            Err(_) => false,
        }
    }
}

impl fmt::Display for Authority {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}", self.host, self.port)
    }
}

fn split_port(raw: &[u8]) -> Result<(&[u8], Option<u16>), HostError> {
    let Some(colon) = raw.iter().position(|&b| b == b':') else {
        return Ok((raw, None));
    };
    let (name, port) = (&raw[..colon], &raw[colon + 1..]);
    if port.contains(&b':') {
        return Err(HostError::IpLiteral);
    }
    // `str::parse` would take a sign, and leading zeros are a second spelling.
    if port.first().is_none_or(|&b| b == b'0') || !port.iter().all(u8::is_ascii_digit) {
        return Err(HostError::Invalid);
    }
    let port = std::str::from_utf8(port)
        .ok()
        .and_then(|p| p.parse().ok())
        .ok_or(HostError::Invalid)?;
    Ok((name, Some(port)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn spellings() {
        use HostError::{Invalid, IpLiteral};
        let long_label = "a".repeat(64);
        let long_name = format!("{}.example.com", ["a"; 122].join("."));
        let fits = format!("{}.example.com", "a".repeat(63));
        let cases: &[(&[u8], Result<&str, HostError>)] = &[
            (b"api.example.com", Ok("api.example.com")),
            (b"API.Example.COM", Ok("api.example.com")),
            (b"api.example.com.", Ok("api.example.com")),
            (b"localhost", Ok("localhost")),
            (b"a_b.example.com", Ok("a_b.example.com")),
            (b"xn--bcher-kva.example", Ok("xn--bcher-kva.example")),
            (b"a-b.example.com", Ok("a-b.example.com")),
            (b"1.example.com", Ok("1.example.com")),
            (b"example.c0m", Ok("example.c0m")),
            (b"example.x7f", Ok("example.x7f")),
            (b"example.0xzz", Ok("example.0xzz")),
            (b"127.0.0.1.example.com", Ok("127.0.0.1.example.com")),
            (fits.as_bytes(), Ok(&fits)),
            (b"", Err(Invalid)),
            (b".", Err(Invalid)),
            (b"..", Err(Invalid)),
            (b"api.example.com..", Err(Invalid)),
            (b".example.com", Err(Invalid)),
            (b"api..example.com", Err(Invalid)),
            (b" api.example.com", Err(Invalid)),
            (b"api.example.com ", Err(Invalid)),
            (b"api.example.com\t", Err(Invalid)),
            (b"api.example.com\r\nx", Err(Invalid)),
            (b"evil.com\0.example.com", Err(Invalid)),
            (b"evil.com%00.example.com", Err(Invalid)),
            (b"evil.com%2eexample.com", Err(Invalid)),
            (b"api%2eexample.com", Err(Invalid)),
            (b"user@api.example.com", Err(Invalid)),
            (b"user:pw@api.example.com", Err(IpLiteral)),
            (b"api.example.com/", Err(Invalid)),
            (b"api.example.com\\", Err(Invalid)),
            (b"evil.com\\.example.com", Err(Invalid)),
            (b"evil.com#.example.com", Err(Invalid)),
            (b"evil.com?.example.com", Err(Invalid)),
            (b"*.example.com", Err(Invalid)),
            (b"api,example.com", Err(Invalid)),
            (b"'api.example.com'", Err(Invalid)),
            ("b\u{fc}cher.example".as_bytes(), Err(Invalid)),
            ("api\u{3002}example.com".as_bytes(), Err(Invalid)),
            ("\u{ff41}pi.example.com".as_bytes(), Err(Invalid)),
            (b"api.example.com\xff", Err(Invalid)),
            (b"\xc0\xae.example.com", Err(Invalid)),
            (long_label.as_bytes(), Err(Invalid)),
            (long_name.as_bytes(), Err(Invalid)),
            (b"127.0.0.1", Err(IpLiteral)),
            (b"127.0.0.1.", Err(IpLiteral)),
            (b"127.1", Err(IpLiteral)),
            (b"2130706433", Err(IpLiteral)),
            (b"0x7f000001", Err(IpLiteral)),
            (b"0x7f.1", Err(IpLiteral)),
            (b"0X7F.0X1", Err(IpLiteral)),
            (b"0177.0.0.1", Err(IpLiteral)),
            (b"127.0.0.0x1", Err(IpLiteral)),
            (b"example.0x", Err(IpLiteral)),
            (b"example.123", Err(IpLiteral)),
            (b"0", Err(IpLiteral)),
            (b"169.254.169.254", Err(IpLiteral)),
            (b"999.999.999.999", Err(IpLiteral)),
            (b"[::1]", Err(IpLiteral)),
            (b"::1", Err(IpLiteral)),
            (b"[::ffff:127.0.0.1]", Err(IpLiteral)),
            (b"[fe80::1%25eth0]", Err(IpLiteral)),
            (b"[", Err(IpLiteral)),
        ];
        for (raw, expected) in cases {
            let got = Host::parse(raw);
            assert_eq!(
                got.as_ref().map(Host::as_str).map_err(|e| *e),
                *expected,
                "{}",
                raw.escape_ascii()
            );
        }
    }

    #[test]
    fn authorities() {
        let cases: &[(&[u8], Option<u16>, Option<&str>)] = &[
            (b"api.example.com:443", None, Some("api.example.com:443")),
            (b"API.example.com.:443", None, Some("api.example.com:443")),
            (b"api.example.com", Some(80), Some("api.example.com:80")),
            (b"api.example.com", None, None),
            (b"api.example.com:", Some(80), None),
            (b"api.example.com:0", Some(80), None),
            (b"api.example.com:0443", Some(80), None),
            (b"api.example.com:+443", Some(80), None),
            (b"api.example.com:-1", Some(80), None),
            (b"api.example.com:65536", Some(80), None),
            (b"api.example.com:443:443", None, None),
            (b"api.example.com:https", None, None),
            (b"user@api.example.com:443", None, None),
            (b":443", None, None),
            (b"[::1]:443", None, None),
            (b"10.0.0.1:443", None, None),
        ];
        for (raw, default_port, expected) in cases {
            let got = Authority::parse(raw, *default_port)
                .ok()
                .map(|a| a.to_string());
            assert_eq!(got.as_deref(), *expected, "{}", raw.escape_ascii());
        }
    }

    #[test]
    fn agreement_is_the_same_as_parsing() {
        let authority = Authority::parse(b"api.example.com:443", None).unwrap();
        for raw in [
            "api.example.com",
            "API.EXAMPLE.COM.",
            "api.example.com:443",
            "api.example.com.:443",
        ] {
            assert!(authority.agrees_with(raw.as_bytes(), 443), "{raw}");
            assert_eq!(
                Authority::parse(raw.as_bytes(), Some(443)).unwrap(),
                authority,
                "{raw}"
            );
        }
        for raw in [
            "",
            "api.example.com:80",
            "api.example.com..",
            "xapi.example.com",
            "api.example.com:443:1",
            "a@api.example.com",
        ] {
            assert!(!authority.agrees_with(raw.as_bytes(), 443), "{raw}");
        }
        assert!(!authority.agrees_with(b"api.example.com", 80));
    }
}
