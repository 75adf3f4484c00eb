//! What a CA may sign, and its form as X.509 name constraints (RFC 5280 §4.2.1.10).
//!
//! A constraint binds only the types of name it lists, so every type a TLS client might match is listed:
//!
//! * DNS: permitted, the policy's hosts. Without hosts, the reserved name `invalid` (RFC 6761 §6.4): an empty
//!   permitted list would mean "no limit", not "nothing".
//! * IP: all of IPv4 and IPv6 excluded, or, where addresses are asked for, only those permitted. (An exclusion wins
//!   over a permission, so the two cannot be combined within one family.)
//! * e-mail: permitted at `invalid` only. "Exclude every address" has no form that clients agree on; this has.
//! * URI: rcgen cannot write it, and no TLS client matches a server by it. Subject: left free, because proxies write
//!   what they like there and a client that sees a subjectAltName must not look (RFC 9525 §2).

use std::collections::BTreeSet;
use std::fmt;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::str::FromStr;

use bottle_plan::failure::{Failure, Result};
use bottle_plan::host::HostPattern;
use rcgen::{CidrSubnet, GeneralSubtree};
use x509_parser::extensions as x509;

/// Reserved never to exist; the only name a CA without hosts may sign.
const NOWHERE: &str = "invalid";

/// The constraint that permits every host: the name of no labels, below which is every name.
const ANYWHERE: &str = "";

/// The names a CA may sign for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Scope {
    hosts: BTreeSet<String>,
    addresses: BTreeSet<Cidr>,
}

impl Scope {
    /// The scope of a policy: `hosts` are exact names or `*.` and a name.
    ///
    /// Both `x` and `*.x` become the constraint `x`, which covers `x` and everything below it. The form `.x`, only
    /// below, is defined for URIs and not for DNS names: OpenSSL and webpki take it all the same, Java did not before
    /// JDK-8311546 (end of 2023). The constraint is therefore a little wider than the policy. It is the wall behind
    /// the proxy's own check, not that check.
    pub fn new(hosts: &[String], addresses: &[Cidr]) -> Result<Self> {
        Ok(Self {
            hosts: hosts
                .iter()
                .map(|host| constraint(host))
                .collect::<Result<_>>()?,
            addresses: addresses.iter().copied().collect(),
        })
    }

    /// The same, and every other host name with it.
    #[must_use]
    pub fn with_any_host(mut self) -> Self {
        self.hosts = BTreeSet::from([ANYWHERE.to_owned()]);
        self
    }

    /// Whether every host name may be signed; [`Scope::hosts`] then holds one empty name.
    #[must_use]
    pub fn is_any_host(&self) -> bool {
        self.hosts.contains(ANYWHERE)
    }

    /// The DNS names whose selves and subdomains may be signed, sorted.
    pub fn hosts(&self) -> impl Iterator<Item = &str> {
        self.hosts.iter().map(String::as_str)
    }

    /// The addresses that may be signed, sorted.
    pub fn addresses(&self) -> impl Iterator<Item = Cidr> {
        self.addresses.iter().copied()
    }

    /// Whether a client would accept a leaf for `name`, a host name or an address.
    #[must_use]
    pub fn permits(&self, name: &str) -> bool {
        if let Ok(address) = name.parse::<IpAddr>() {
            return self.addresses.iter().any(|range| range.contains(address));
        }
        let name = name.to_ascii_lowercase();
        self.hosts.iter().any(|host| {
            host == ANYWHERE
                || name
                    .strip_suffix(host.as_str())
                    .is_some_and(|rest| rest.is_empty() || rest.ends_with('.'))
        })
    }

    pub(crate) fn to_extension(&self) -> rcgen::NameConstraints {
        let (permitted, excluded) = self.subtrees();
        rcgen::NameConstraints {
            permitted_subtrees: permitted.into_iter().map(Subtree::into_rcgen).collect(),
            excluded_subtrees: excluded.into_iter().map(Subtree::into_rcgen).collect(),
        }
    }

    /// The scope of a certificate, if its constraints are exactly those this module writes for some scope.
    /// One name type more or less, and what the CA may sign is no longer what we would report.
    pub(crate) fn from_extension(extension: &x509::NameConstraints<'_>) -> Option<Self> {
        let permitted = read_subtrees(extension.permitted_subtrees.as_deref())?;
        let excluded = read_subtrees(extension.excluded_subtrees.as_deref())?;
        let mut scope = Self {
            hosts: BTreeSet::new(),
            addresses: BTreeSet::new(),
        };
        for subtree in &permitted {
            match subtree {
                Subtree::Dns(name) if name != NOWHERE => {
                    scope.hosts.insert(name.clone());
                }
                Subtree::Ip(range) => {
                    scope.addresses.insert(*range);
                }
                Subtree::Dns(_) | Subtree::Email(_) => {}
            }
        }
        (scope.subtrees() == (permitted, excluded)).then_some(scope)
    }

    /// Permitted and excluded.
    fn subtrees(&self) -> (BTreeSet<Subtree>, BTreeSet<Subtree>) {
        let mut permitted: BTreeSet<_> = self.hosts.iter().cloned().map(Subtree::Dns).collect();
        if permitted.is_empty() {
            permitted.insert(Subtree::Dns(NOWHERE.to_owned()));
        }
        permitted.insert(Subtree::Email(NOWHERE.to_owned()));
        permitted.extend(self.addresses.iter().copied().map(Subtree::Ip));
        let excluded = Cidr::EVERYTHING
            .into_iter()
            .filter(|all| !self.addresses.iter().any(|range| range.same_family(*all)))
            .map(Subtree::Ip)
            .collect();
        (permitted, excluded)
    }
}

/// One entry of a constraint list; ordered, so that lists compare as sets.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Subtree {
    Dns(String),
    Email(String),
    Ip(Cidr),
}

impl Subtree {
    fn into_rcgen(self) -> GeneralSubtree {
        match self {
            Self::Dns(name) => GeneralSubtree::DnsName(name),
            Self::Email(name) => GeneralSubtree::Rfc822Name(name),
            Self::Ip(range) => {
                GeneralSubtree::IpAddress(CidrSubnet::from_addr_prefix(range.address, range.prefix))
            }
        }
    }
}

/// `None` if there is an entry of a kind we never write.
fn read_subtrees(list: Option<&[x509::GeneralSubtree<'_>]>) -> Option<BTreeSet<Subtree>> {
    list.unwrap_or_default()
        .iter()
        .map(|subtree| match subtree.base {
            x509::GeneralName::DNSName(name) => Some(Subtree::Dns(name.to_owned())),
            x509::GeneralName::RFC822Name(name) => Some(Subtree::Email(name.to_owned())),
            x509::GeneralName::IPAddress(octets) => Cidr::from_octets(octets).map(Subtree::Ip),
            _ => None,
        })
        .collect()
}

/// The DNS constraint of a policy host.
fn constraint(host: &str) -> Result<String> {
    let bad = |reason: &str| {
        Failure::invalid(format!("bad host `{host}`: {reason}"))
            .hint("write an exact name such as api.example.com, or *.example.com")
    };
    let name = match HostPattern::parse(host).map_err(|error| bad(&error.to_string()))? {
        HostPattern::Exact(name) | HostPattern::Below(name) => name,
    };
    let name = name.as_str();
    if name == NOWHERE {
        return Err(bad("it is reserved never to exist"));
    }
    // One such name would spoil the certificate for all others: webpki reads a constraint list as a whole.
    if name
        .split('.')
        .any(|label| label.starts_with('-') || label.ends_with('-'))
    {
        return Err(bad("a label neither begins nor ends with `-`"));
    }
    Ok(name.to_owned())
}

/// A range of addresses, or one, in CIDR notation.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Cidr {
    address: IpAddr,
    prefix: u8,
}

impl Cidr {
    const EVERYTHING: [Self; 2] = [
        Self {
            address: IpAddr::V4(Ipv4Addr::UNSPECIFIED),
            prefix: 0,
        },
        Self {
            address: IpAddr::V6(Ipv6Addr::UNSPECIFIED),
            prefix: 0,
        },
    ];

    /// Whether `address` is in the range. An IPv4-mapped IPv6 address is not the IPv4 address: certificates tell
    /// the two apart by their length.
    #[must_use]
    pub fn contains(self, address: IpAddr) -> bool {
        match (self.address, address) {
            (IpAddr::V4(own), IpAddr::V4(other)) => {
                let mask = u32::MAX
                    .checked_shl(u32::from(32 - self.prefix))
                    .unwrap_or(0);
                (own.to_bits() ^ other.to_bits()) & mask == 0
            }
            (IpAddr::V6(own), IpAddr::V6(other)) => {
                let mask = u128::MAX
                    .checked_shl(u32::from(128 - self.prefix))
                    .unwrap_or(0);
                (own.to_bits() ^ other.to_bits()) & mask == 0
            }
            _ => false,
        }
    }

    const fn same_family(self, other: Self) -> bool {
        self.address.is_ipv4() == other.address.is_ipv4()
    }

    /// `None` if the prefix is too long or bits beyond it are set.
    fn new(address: IpAddr, prefix: u8) -> Option<Self> {
        let (bits, host_bits) = match address {
            IpAddr::V4(a) => (32, a.to_bits().trailing_zeros()),
            IpAddr::V6(a) => (128, a.to_bits().trailing_zeros()),
        };
        let free = bits - u32::from(prefix).min(bits);
        (u32::from(prefix) <= bits && host_bits >= free).then_some(Self { address, prefix })
    }

    /// The X.509 form: the address, then a mask of the same length.
    fn from_octets(octets: &[u8]) -> Option<Self> {
        let (address, prefix, mask) = if let Ok(v4) = <[u8; 8]>::try_from(octets) {
            let [a, b, c, d, mask @ ..] = v4;
            let mask = u32::from_be_bytes(mask);
            (
                IpAddr::from([a, b, c, d]),
                mask.leading_ones(),
                mask.count_ones(),
            )
        } else {
            let (address, mask) = octets.split_at_checked(16)?;
            let mask = u128::from_be_bytes(mask.try_into().ok()?);
            let address = <[u8; 16]>::try_from(address).ok()?;
            (
                IpAddr::from(address),
                mask.leading_ones(),
                mask.count_ones(),
            )
        };
        // A mask with holes is no prefix.
        if prefix != mask {
            return None;
        }
        Self::new(address, u8::try_from(prefix).ok()?)
    }
}

impl FromStr for Cidr {
    type Err = Failure;

    fn from_str(text: &str) -> Result<Self> {
        let parsed = match text.split_once('/') {
            Some((address, prefix)) => address.parse().ok().zip(prefix.parse().ok()),
            None => text
                .parse::<IpAddr>()
                .ok()
                .map(|address| (address, if address.is_ipv4() { 32 } else { 128 })),
        };
        parsed.and_then(|(address, prefix)| Self::new(address, prefix)).ok_or_else(|| {
            Failure::invalid(format!("bad address range `{text}`"))
                .hint("write an address, or a network such as 10.1.0.0/16 without bits beyond the prefix")
        })
    }
}

impl fmt::Display for Cidr {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.address, self.prefix)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn scope(hosts: &[&str], addresses: &[&str]) -> Scope {
        let hosts: Vec<_> = hosts.iter().map(|&h| h.to_owned()).collect();
        let addresses: Vec<_> = addresses.iter().map(|a| a.parse().unwrap()).collect();
        Scope::new(&hosts, &addresses).unwrap()
    }

    #[test]
    fn hosts_become_constraints_sorted_and_without_doubles() {
        let scope = scope(
            &["B.example.com", "*.a.example", "a.example", "x_y.example"],
            &[],
        );
        let hosts: Vec<_> = scope.hosts().collect();
        assert_eq!(hosts, ["a.example", "b.example.com", "x_y.example"]);
    }

    #[test]
    fn names_no_certificate_should_carry_are_refused() {
        let long_label = "a".repeat(64);
        let long_name = ["a"; 128].join(".");
        for host in [
            "",
            "*",
            "*.",
            "*.com",
            "**.example.com",
            "a.*.example",
            "a..example",
            ".example.com",
            "-a.example",
            "a-.example",
            "a b.example",
            "ä.example",
            "a/b.example",
            "10.0.0.1",
            "127.1",
            "::1",
            "invalid",
            "a\0.example",
            "https://a.example",
            "a.example:443",
            &long_label,
            &long_name,
        ] {
            assert!(
                Scope::new(&[host.to_owned()], &[]).is_err(),
                "{host:?} was accepted"
            );
        }
    }

    #[test]
    fn a_name_and_what_is_below_it_are_permitted() {
        let scope = scope(&["api.example.com", "*.example.org"], &["192.0.2.0/25"]);
        for name in [
            "api.example.com",
            "API.example.com",
            "v1.api.example.com",
            "x.example.org",
            "192.0.2.127",
        ] {
            assert!(scope.permits(name), "{name}");
        }
        for name in [
            "example.com",
            "xapi.example.com",
            "api.example.com.evil.org",
            "example.net",
            "",
            "192.0.2.128",
            "::1",
            "::ffff:192.0.2.1",
            "invalid",
        ] {
            assert!(!scope.permits(name), "{name}");
        }
    }

    #[test]
    fn without_hosts_nothing_is_permitted_and_the_list_is_not_empty() {
        let scope = scope(&[], &[]);
        assert!(!scope.permits("example.com") && !scope.permits("invalid"));
        let (permitted, excluded) = scope.subtrees();
        assert!(permitted.contains(&Subtree::Dns("invalid".to_owned())));
        assert_eq!(excluded.len(), 2);
    }

    #[test]
    fn an_asked_for_address_lifts_the_exclusion_of_its_family_only() {
        let (permitted, excluded) = scope(&["a.example"], &["10.0.0.1"]).subtrees();
        assert!(permitted.contains(&Subtree::Ip("10.0.0.1/32".parse().unwrap())));
        assert_eq!(
            excluded,
            BTreeSet::from([Subtree::Ip("::/0".parse().unwrap())])
        );
    }

    #[test]
    fn ranges_are_read_strictly_and_shown_as_written() {
        for text in [
            "0.0.0.0/0",
            "10.1.0.0/16",
            "10.1.2.3/32",
            "::/0",
            "fd00::/8",
            "::1/128",
        ] {
            assert_eq!(text.parse::<Cidr>().unwrap().to_string(), text);
        }
        assert_eq!("::1".parse::<Cidr>().unwrap().to_string(), "::1/128");
        for text in [
            "",
            "10.0.0.0/33",
            "10.0.0.1/24",
            "::/129",
            "10.0.0/8",
            "10.0.0.0/",
            "10.0.0.0/-1",
            "fd00::1/8",
        ] {
            assert!(text.parse::<Cidr>().is_err(), "{text:?} was accepted");
        }
    }

    #[test]
    fn masks_with_holes_and_odd_lengths_are_not_ranges() {
        assert_eq!(
            Cidr::from_octets(&[10, 0, 0, 0, 255, 0, 0, 0])
                .unwrap()
                .to_string(),
            "10.0.0.0/8"
        );
        assert_eq!(Cidr::from_octets(&[0; 32]).unwrap().to_string(), "::/0");
        assert!(Cidr::from_octets(&[10, 0, 0, 0, 255, 0, 255, 0]).is_none());
        for length in [0, 4, 7, 9, 16, 31, 33] {
            assert!(Cidr::from_octets(&vec![0; length]).is_none(), "{length}");
        }
    }

    #[test]
    fn the_ends_of_a_range_are_in_it_and_their_neighbours_are_not() {
        let range: Cidr = "10.1.0.0/16".parse().unwrap();
        for (address, inside) in [
            ("10.0.255.255", false),
            ("10.1.0.0", true),
            ("10.1.255.255", true),
            ("10.2.0.0", false),
        ] {
            assert_eq!(
                range.contains(address.parse().unwrap()),
                inside,
                "{address}"
            );
        }
        for all in Cidr::EVERYTHING {
            assert!(all.contains(all.address));
        }
    }
}
