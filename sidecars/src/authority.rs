//! Where a request goes: a host in the one normal form there is ([`bottle_plan::host`]), and a port.

use std::fmt;

use bottle_plan::host::{Host, HostError};

use crate::reason::Reason;

/// A host and a port.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(crate) struct Authority {
    /// The host.
    pub(crate) host: Host,
    /// The port.
    pub(crate) port: u16,
}

/// Reads a host name that came over the wire.
pub(crate) fn parse_host(raw: &[u8]) -> Result<Host, Reason> {
    // Only an address has colons or brackets; saying so helps more than naming the character.
    if raw.first() == Some(&b'[') || raw.contains(&b':') {
        return Err(Reason::IpLiteral);
    }
    let text = std::str::from_utf8(raw).map_err(|_| Reason::HostInvalid)?;
    Host::parse(text).map_err(|error| match error {
        HostError::Address => Reason::IpLiteral,
        _ => Reason::HostInvalid,
    })
}

impl Authority {
    /// Parses `host` or `host:port`. Without a default the port must be written.
    pub(crate) fn parse(raw: &[u8], default_port: Option<u16>) -> Result<Self, Reason> {
        if raw.first() == Some(&b'[') {
            return Err(Reason::IpLiteral);
        }
        let (name, port) = split_port(raw)?;
        let host = parse_host(name)?;
        let port = port.or(default_port).ok_or(Reason::HostInvalid)?;
        Ok(Self { host, port })
    }

    /// Whether `raw` (a `Host` header, say) names this host and port; a port that is left out is `default_port`.
    /// The same answer as parsing it, without the allocation: this runs for every request inside a tunnel.
    pub(crate) fn agrees_with(&self, raw: &[u8], default_port: u16) -> bool {
        let Ok((name, port)) = split_port(raw) else {
            return false;
        };
        let name = name.strip_suffix(b".").unwrap_or(name);
        name.eq_ignore_ascii_case(self.host.as_str().as_bytes())
            && port.unwrap_or(default_port) == self.port
    }
}

impl fmt::Display for Authority {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}", self.host, self.port)
    }
}

fn split_port(raw: &[u8]) -> Result<(&[u8], Option<u16>), Reason> {
    let Some(colon) = raw.iter().position(|&b| b == b':') else {
        return Ok((raw, None));
    };
    let (name, port) = (&raw[..colon], &raw[colon + 1..]);
    if port.contains(&b':') {
        return Err(Reason::IpLiteral);
    }
    // `str::parse` would take a sign, and leading zeros are a second spelling.
    if port.first().is_none_or(|&b| b == b'0') || !port.iter().all(u8::is_ascii_digit) {
        return Err(Reason::HostInvalid);
    }
    let port = std::str::from_utf8(port)
        .ok()
        .and_then(|p| p.parse().ok())
        .ok_or(Reason::HostInvalid)?;
    Ok((name, Some(port)))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What arrives as bytes and looks like a name; the table of proper spellings is `bottle_plan::host`'s.
    #[test]
    fn spellings_from_the_wire() {
        use Reason::{HostInvalid, IpLiteral};
        let long_name = format!("{}.example.com", ["a"; 122].join("."));
        let fits = format!("{}.example.com", "a".repeat(63));
        let cases: &[(&[u8], Result<&str, Reason>)] = &[
            (b"API.Example.COM.", Ok("api.example.com")),
            (b"example.c0m", Ok("example.c0m")),
            (b"example.x7f", Ok("example.x7f")),
            (b"example.0xzz", Ok("example.0xzz")),
            (b"127.0.0.1.example.com", Ok("127.0.0.1.example.com")),
            (fits.as_bytes(), Ok(&fits)),
            (b"..", Err(HostInvalid)),
            (b" api.example.com", Err(HostInvalid)),
            (b"api.example.com ", Err(HostInvalid)),
            (b"api.example.com\r\nx", Err(HostInvalid)),
            (b"evil.com\0.example.com", Err(HostInvalid)),
            (b"evil.com%2eexample.com", Err(HostInvalid)),
            (b"api.example.com\\", Err(HostInvalid)),
            (b"evil.com\\.example.com", Err(HostInvalid)),
            (b"evil.com#.example.com", Err(HostInvalid)),
            (b"evil.com?.example.com", Err(HostInvalid)),
            (b"*.example.com", Err(HostInvalid)),
            (b"api,example.com", Err(HostInvalid)),
            (b"'api.example.com'", Err(HostInvalid)),
            ("api\u{3002}example.com".as_bytes(), Err(HostInvalid)),
            ("\u{ff41}pi.example.com".as_bytes(), Err(HostInvalid)),
            (b"api.example.com\xff", Err(HostInvalid)),
            (b"\xc0\xae.example.com", Err(HostInvalid)),
            (long_name.as_bytes(), Err(HostInvalid)),
            (b"user:pw@api.example.com", Err(IpLiteral)),
            (b"0X7F.0X1", Err(IpLiteral)),
            (b"127.0.0.0x1", Err(IpLiteral)),
            (b"example.0x", Err(IpLiteral)),
            (b"example.123", Err(IpLiteral)),
            (b"0", Err(IpLiteral)),
            (b"169.254.169.254", Err(IpLiteral)),
            (b"999.999.999.999", Err(IpLiteral)),
            (b"::1", Err(IpLiteral)),
            (b"[::ffff:127.0.0.1]", Err(IpLiteral)),
            (b"[fe80::1%25eth0]", Err(IpLiteral)),
            (b"[", Err(IpLiteral)),
        ];
        for (raw, expected) in cases {
            let got = parse_host(raw);
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
