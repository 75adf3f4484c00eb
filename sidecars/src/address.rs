//! Which addresses may be dialled. A name on the allow-list says nothing about where it points.
//!
//! The definition is positive: an address is public only when it is in none of these lists, and for IPv6
//! only inside 2000::/3. One group is never dialled; the other only where a route names the range.

use std::fmt;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::str::FromStr;

/// What kind of address this is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Class {
    /// Anyone's: may be dialled.
    Public,
    /// 127/8, ::1.
    Loopback,
    /// 0/8, ::.
    Unspecified,
    /// 169.254/16, fe80::/10.
    LinkLocal,
    /// 224/4, ff00::/8.
    Multicast,
    /// 255.255.255.255.
    Broadcast,
    /// A cloud provider's metadata service outside the link-local range.
    Metadata,
    /// An IPv6 address that embeds an IPv4 one and reaches it by translation.
    Mapped,
    /// RFC 1918 and unique local addresses.
    Private,
    /// 100.64/10, between a provider and its customers.
    Shared,
    /// Set aside for something other than hosts on the internet.
    Reserved,
}

impl Class {
    /// Whether no route can allow this class.
    pub(crate) fn is_never(self) -> bool {
        match self {
            Self::Loopback
            | Self::Unspecified
            | Self::LinkLocal
            | Self::Multicast
            | Self::Broadcast
            | Self::Metadata
            | Self::Mapped => true,
            Self::Public | Self::Private | Self::Shared | Self::Reserved => false,
        }
    }
}

/// An address range.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Cidr {
    network: IpAddr,
    bits: u8,
}

const fn v4(a: u8, b: u8, c: u8, d: u8, bits: u8) -> Cidr {
    Cidr {
        network: IpAddr::V4(Ipv4Addr::new(a, b, c, d)),
        bits,
    }
}

const fn v6(s: [u16; 8], bits: u8) -> Cidr {
    Cidr {
        network: IpAddr::V6(Ipv6Addr::new(
            s[0], s[1], s[2], s[3], s[4], s[5], s[6], s[7],
        )),
        bits,
    }
}

/// First match wins, so the never-group comes first.
const CLASSES: &[(Cidr, Class)] = &[
    (v4(127, 0, 0, 0, 8), Class::Loopback),
    (v4(0, 0, 0, 0, 8), Class::Unspecified),
    (v4(169, 254, 0, 0, 16), Class::LinkLocal),
    (v4(224, 0, 0, 0, 4), Class::Multicast),
    (v4(255, 255, 255, 255, 32), Class::Broadcast),
    (v4(100, 100, 100, 200, 32), Class::Metadata),
    (v4(168, 63, 129, 16, 32), Class::Metadata),
    (v6([0, 0, 0, 0, 0, 0, 0, 1], 128), Class::Loopback),
    (v6([0, 0, 0, 0, 0, 0, 0, 0], 128), Class::Unspecified),
    (v6([0xfe80, 0, 0, 0, 0, 0, 0, 0], 10), Class::LinkLocal),
    (v6([0xff00, 0, 0, 0, 0, 0, 0, 0], 8), Class::Multicast),
    (v6([0xfd00, 0xec2, 0, 0, 0, 0, 0, 0], 32), Class::Metadata),
    (
        v6([0xfd20, 0xce, 0, 0, 0, 0, 0, 0x254], 128),
        Class::Metadata,
    ),
    (v6([0, 0, 0, 0, 0, 0xffff, 0, 0], 96), Class::Mapped),
    (v6([0, 0, 0, 0, 0, 0, 0, 0], 96), Class::Mapped),
    (v6([0x64, 0xff9b, 0, 0, 0, 0, 0, 0], 96), Class::Mapped),
    (v6([0x64, 0xff9b, 1, 0, 0, 0, 0, 0], 48), Class::Mapped),
    (v4(10, 0, 0, 0, 8), Class::Private),
    (v4(172, 16, 0, 0, 12), Class::Private),
    (v4(192, 168, 0, 0, 16), Class::Private),
    (v6([0xfc00, 0, 0, 0, 0, 0, 0, 0], 7), Class::Private),
    (v4(100, 64, 0, 0, 10), Class::Shared),
    (v4(192, 0, 0, 0, 24), Class::Reserved),
    (v4(192, 0, 2, 0, 24), Class::Reserved),
    (v4(198, 51, 100, 0, 24), Class::Reserved),
    (v4(203, 0, 113, 0, 24), Class::Reserved),
    (v4(198, 18, 0, 0, 15), Class::Reserved),
    (v4(192, 88, 99, 0, 24), Class::Reserved),
    (v4(240, 0, 0, 0, 4), Class::Reserved),
    (v6([0x2001, 0, 0, 0, 0, 0, 0, 0], 23), Class::Reserved),
    (v6([0x2001, 0xdb8, 0, 0, 0, 0, 0, 0], 32), Class::Reserved),
    (v6([0x2002, 0, 0, 0, 0, 0, 0, 0], 16), Class::Reserved),
    (v6([0x3fff, 0, 0, 0, 0, 0, 0, 0], 20), Class::Reserved),
];

/// The only part of IPv6 that is handed out to hosts on the internet.
const GLOBAL_UNICAST: Cidr = v6([0x2000, 0, 0, 0, 0, 0, 0, 0], 3);

/// Says what kind of address this is.
pub(crate) fn classify(address: IpAddr) -> Class {
    let listed = CLASSES.iter().find(|(range, _)| range.contains(address));
    match listed {
        Some((_, class)) => *class,
        None if address.is_ipv6() && !GLOBAL_UNICAST.contains(address) => Class::Reserved,
        None => Class::Public,
    }
}

impl Cidr {
    /// Whether `address` lies in this range. An IPv4 range never contains an IPv6 address, mapped or not.
    pub(crate) fn contains(&self, address: IpAddr) -> bool {
        match (self.network, address) {
            (IpAddr::V4(network), IpAddr::V4(address)) => {
                let shift = 32 - u32::from(self.bits);
                u32::from(network).checked_shr(shift) == u32::from(address).checked_shr(shift)
            }
            (IpAddr::V6(network), IpAddr::V6(address)) => {
                let shift = 128 - u32::from(self.bits);
                u128::from(network).checked_shr(shift) == u128::from(address).checked_shr(shift)
            }
            _ => false,
        }
    }
}

impl FromStr for Cidr {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let (network, bits) = match text.split_once('/') {
            Some((network, bits)) => (network, Some(bits)),
            None => (text, None),
        };
        let network: IpAddr = network
            .parse()
            .map_err(|_| format!("`{text}` is not an address range"))?;
        let longest = if network.is_ipv4() { 32 } else { 128 };
        let bits = match bits {
            None => longest,
            Some(bits) => match bits.parse() {
                Ok(bits) if bits <= longest => bits,
                _ => {
                    return Err(format!(
                        "`{text}` has a prefix length that is not 0 to {longest}"
                    ));
                }
            },
        };
        Ok(Self { network, bits })
    }
}

impl fmt::Display for Cidr {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.network, self.bits)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Every range with the address before it, its first, its last, and the one after it.
    #[test]
    fn classes_and_their_borders() {
        use Class::*;
        let cases: &[(&str, Class)] = &[
            ("0.0.0.0", Unspecified),
            ("0.255.255.255", Unspecified),
            ("1.0.0.0", Public),
            ("9.255.255.255", Public),
            ("10.0.0.0", Private),
            ("10.255.255.255", Private),
            ("11.0.0.0", Public),
            ("100.63.255.255", Public),
            ("100.64.0.0", Shared),
            ("100.100.100.199", Shared),
            ("100.100.100.200", Metadata),
            ("100.100.100.201", Shared),
            ("100.127.255.255", Shared),
            ("100.128.0.0", Public),
            ("126.255.255.255", Public),
            ("127.0.0.0", Loopback),
            ("127.0.0.1", Loopback),
            ("127.255.255.255", Loopback),
            ("128.0.0.0", Public),
            ("168.63.129.15", Public),
            ("168.63.129.16", Metadata),
            ("168.63.129.17", Public),
            ("169.253.255.255", Public),
            ("169.254.0.0", LinkLocal),
            ("169.254.169.254", LinkLocal),
            ("169.254.170.2", LinkLocal),
            ("169.254.255.255", LinkLocal),
            ("169.255.0.0", Public),
            ("172.15.255.255", Public),
            ("172.16.0.0", Private),
            ("172.31.255.255", Private),
            ("172.32.0.0", Public),
            ("191.255.255.255", Public),
            ("192.0.0.0", Reserved),
            ("192.0.0.255", Reserved),
            ("192.0.1.0", Public),
            ("192.0.1.255", Public),
            ("192.0.2.0", Reserved),
            ("192.0.2.255", Reserved),
            ("192.0.3.0", Public),
            ("192.88.98.255", Public),
            ("192.88.99.0", Reserved),
            ("192.88.99.255", Reserved),
            ("192.88.100.0", Public),
            ("192.167.255.255", Public),
            ("192.168.0.0", Private),
            ("192.168.255.255", Private),
            ("192.169.0.0", Public),
            ("198.17.255.255", Public),
            ("198.18.0.0", Reserved),
            ("198.19.255.255", Reserved),
            ("198.20.0.0", Public),
            ("198.51.99.255", Public),
            ("198.51.100.0", Reserved),
            ("198.51.100.255", Reserved),
            ("198.51.101.0", Public),
            ("203.0.112.255", Public),
            ("203.0.113.0", Reserved),
            ("203.0.113.255", Reserved),
            ("203.0.114.0", Public),
            ("223.255.255.255", Public),
            ("224.0.0.0", Multicast),
            ("239.255.255.255", Multicast),
            ("240.0.0.0", Reserved),
            ("255.255.255.254", Reserved),
            ("255.255.255.255", Broadcast),
            ("::", Unspecified),
            ("::1", Loopback),
            ("::2", Mapped),
            ("::7f00:1", Mapped),
            ("::ffff:ffff", Mapped),
            ("::1:0:0", Reserved),
            ("::fffe:ffff:ffff", Reserved),
            ("::ffff:0.0.0.0", Mapped),
            ("::ffff:127.0.0.1", Mapped),
            ("::ffff:93.184.216.34", Mapped),
            ("::1:0:0:0", Reserved),
            ("64:ff9a:ffff:ffff:ffff:ffff:ffff:ffff", Reserved),
            ("64:ff9b::", Mapped),
            ("64:ff9b::10.0.0.1", Mapped),
            ("64:ff9b:1::", Mapped),
            ("64:ff9b:1:ffff:ffff:ffff:ffff:ffff", Mapped),
            ("64:ff9b:2::", Reserved),
            ("1fff:ffff:ffff:ffff:ffff:ffff:ffff:ffff", Reserved),
            ("2000::", Public),
            ("2000:ffff:ffff:ffff:ffff:ffff:ffff:ffff", Public),
            ("2001::", Reserved),
            ("2001:0:1::", Reserved),
            ("2001:1ff:ffff:ffff:ffff:ffff:ffff:ffff", Reserved),
            ("2001:200::", Public),
            ("2001:db7:ffff:ffff:ffff:ffff:ffff:ffff", Public),
            ("2001:db8::", Reserved),
            ("2001:db8:ffff:ffff:ffff:ffff:ffff:ffff", Reserved),
            ("2001:db9::", Public),
            ("2002::", Reserved),
            ("2002:ffff:ffff:ffff:ffff:ffff:ffff:ffff", Reserved),
            ("2003::", Public),
            ("2606:4700::1111", Public),
            ("3ffe:ffff:ffff:ffff:ffff:ffff:ffff:ffff", Public),
            ("3fff::", Reserved),
            ("3fff:fff:ffff:ffff:ffff:ffff:ffff:ffff", Reserved),
            ("3fff:1000::", Public),
            ("3fff:ffff:ffff:ffff:ffff:ffff:ffff:ffff", Public),
            ("4000::", Reserved),
            ("fbff:ffff:ffff:ffff:ffff:ffff:ffff:ffff", Reserved),
            ("fc00::", Private),
            ("fd00:ec1:ffff:ffff:ffff:ffff:ffff:ffff", Private),
            ("fd00:ec2::", Metadata),
            ("fd00:ec2::23", Metadata),
            ("fd00:ec2::254", Metadata),
            ("fd00:ec2:ffff:ffff:ffff:ffff:ffff:ffff", Metadata),
            ("fd00:ec3::", Private),
            ("fd20:ce::253", Private),
            ("fd20:ce::254", Metadata),
            ("fd20:ce::255", Private),
            ("fdff:ffff:ffff:ffff:ffff:ffff:ffff:ffff", Private),
            ("fe00::", Reserved),
            ("fe7f:ffff:ffff:ffff:ffff:ffff:ffff:ffff", Reserved),
            ("fe80::", LinkLocal),
            ("febf:ffff:ffff:ffff:ffff:ffff:ffff:ffff", LinkLocal),
            ("fec0::", Reserved),
            ("feff:ffff:ffff:ffff:ffff:ffff:ffff:ffff", Reserved),
            ("ff00::", Multicast),
            ("ffff:ffff:ffff:ffff:ffff:ffff:ffff:ffff", Multicast),
        ];
        for (address, expected) in cases {
            assert_eq!(classify(address.parse().unwrap()), *expected, "{address}");
        }
    }

    #[test]
    fn ranges() {
        let contains = |range: &str, address: &str| {
            range
                .parse::<Cidr>()
                .unwrap()
                .contains(address.parse().unwrap())
        };
        assert!(contains("10.1.0.0/16", "10.1.255.255"));
        assert!(!contains("10.1.0.0/16", "10.2.0.0"));
        assert!(contains("10.1.2.3", "10.1.2.3"));
        assert!(!contains("10.1.2.3/32", "10.1.2.4"));
        assert!(contains("0.0.0.0/0", "203.0.113.9"));
        assert!(!contains("0.0.0.0/0", "::1"));
        assert!(contains("::/0", "fe80::1"));
        assert!(!contains("10.0.0.0/8", "::ffff:10.0.0.1"));
        for bad in [
            "",
            "10.0.0.0/33",
            "::/129",
            "10.0.0/8",
            "10.0.0.0/-1",
            "10.0.0.0/",
            "x/8",
        ] {
            assert!(bad.parse::<Cidr>().is_err(), "{bad}");
        }
    }
}
