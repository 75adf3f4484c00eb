use bottle_plan::host::{Host, HostPattern};

use crate::authority::{Authority, parse_host};

/// `host` and `host:port` as they come over the wire, and the pattern of a rule.
pub fn authority(data: &[u8]) {
    if let Ok(host) = parse_host(data) {
        is_normal(&host);
        let upper = format!("{}.", host.as_str().to_ascii_uppercase());
        assert_eq!(parse_host(upper.as_bytes()), Ok(host));
    }
    for default in [None, Some(443)] {
        let Ok(authority) = Authority::parse(data, default) else {
            continue;
        };
        is_normal(&authority.host);
        assert_ne!(authority.port, 0);
        let written = authority.to_string();
        assert_eq!(
            Authority::parse(written.as_bytes(), None).as_ref(),
            Ok(&authority)
        );
        assert!(authority.agrees_with(data, 443));
    }
    agreement_is_parsing(data);
    if let Ok(text) = std::str::from_utf8(data) {
        pattern(text);
    }
}

/// The short cut taken for every request gives the answer of the long way: here with the first line for the
/// destination and the rest for what names it.
fn agreement_is_parsing(data: &[u8]) {
    let mut lines = data.splitn(2, |&b| b == b'\n');
    let (Some(first), Some(second)) = (lines.next(), lines.next()) else {
        return;
    };
    let Ok(authority) = Authority::parse(first, Some(443)) else {
        return;
    };
    for default in [80, 443] {
        let same = Authority::parse(second, Some(default)).as_ref() == Ok(&authority);
        assert_eq!(authority.agrees_with(second, default), same);
    }
}

/// What is not so would be a second spelling, or an address to some resolver.
fn is_normal(host: &Host) {
    let name = host.as_str();
    assert_eq!(Host::parse(name).as_ref(), Ok(host));
    assert!((1..=253).contains(&name.len()));
    assert!(
        name.bytes()
            .all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b"-_.".contains(&b))
    );
    assert!(name.split('.').all(|label| (1..=63).contains(&label.len())));
    assert!(name.parse::<std::net::IpAddr>().is_err());
}

fn pattern(text: &str) {
    let Ok(pattern) = HostPattern::parse(text) else {
        return;
    };
    assert_eq!(
        HostPattern::parse(&pattern.to_string()).as_ref(),
        Ok(&pattern)
    );
    match &pattern {
        HostPattern::Exact(name) => assert!(pattern.matches(name)),
        HostPattern::Below(name) => {
            assert!(
                !pattern.matches(name),
                "a wildcard never means the name itself"
            );
            if let Ok(below) = Host::parse(&format!("a.{name}")) {
                assert!(pattern.matches(&below));
            }
            if let Ok(beside) = Host::parse(&format!("a{name}")) {
                assert!(!pattern.matches(&beside));
            }
        }
    }
}
