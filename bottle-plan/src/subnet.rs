//! Address ranges: two /28 a bottle, carved from one block.
//!
//! Docker's own pools end near thirty networks; one /16 block holds 2048 bottles. The choice is a function of the
//! slug and of what is taken, so that planning a slug again gives the same addresses.

use std::net::Ipv4Addr;

use ipnet::Ipv4Net;

use crate::failure::{Failure, Result};
use crate::plan::{Addresses, Network, Networks};

/// Where bottles live unless told otherwise: inside 10/8, away from the ranges Docker, Kubernetes and home routers take.
pub const DEFAULT_BLOCK: &str = "10.213.0.0/16";

/// A bottle takes this much: one /28 for each of its networks.
const BOTTLE_PREFIX: u8 = 27;

/// Reads the block bottles are cut from.
///
/// # Errors
/// When it is not a private IPv4 range of at least one bottle.
pub fn parse_block(text: &str) -> Result<Ipv4Net> {
    let hint = "give a private range such as 10.213.0.0/16 with --subnets or BOTTLE_SUBNETS";
    let block: Ipv4Net = text.parse().map_err(|error| {
        Failure::invalid(format!("`{text}` is not an IPv4 range"))
            .because(error)
            .hint(hint)
    })?;
    if !block.addr().is_private() || !block.broadcast().is_private() || block.prefix_len() < 8 {
        return Err(Failure::invalid(format!("{block} is not a private range")).hint(hint));
    }
    if block.prefix_len() > BOTTLE_PREFIX {
        return Err(Failure::invalid(format!(
            "{block} has no room for a bottle, which takes a /27"
        ))
        .hint(hint));
    }
    Ok(block.trunc())
}

/// The range of a new bottle: begins at a place its slug decides and goes on to the first that nothing overlaps.
///
/// # Errors
/// When the block is full.
pub fn choose(block: Ipv4Net, slug: &str, taken: &[Ipv4Net]) -> Result<Ipv4Net> {
    let count: u32 = 1 << (BOTTLE_PREFIX - block.prefix_len());
    let first = hash(slug) % count;
    let overlaps = |net: &Ipv4Net| taken.iter().any(|t| t.contains(net) || net.contains(t));
    (0..count)
        .map(|step| {
            let index = (first + step) % count;
            let base = u32::from(block.network()) + index * (1 << (32 - BOTTLE_PREFIX));
            Ipv4Net::new_assert(Ipv4Addr::from(base), BOTTLE_PREFIX)
        })
        .find(|net| !overlaps(net))
        .ok_or_else(|| {
            Failure::conflict(format!("all {count} ranges of {block} are taken"))
                .hint("remove bottles you are done with (bottle-run down --purge SLUG), or give another block with --subnets")
        })
}

/// The networks of `project` in `range`.
#[must_use]
pub fn networks(project: &str, range: Ipv4Net) -> Networks {
    let base = u32::from(range.network());
    let half = |offset: u32| Ipv4Net::new_assert(Ipv4Addr::from(base + offset), BOTTLE_PREFIX + 1);
    let address = |offset: u32| Ipv4Addr::from(base + offset);
    Networks {
        internal: Network {
            name: format!("{project}-internal"),
            subnet: half(0).to_string(),
            gateway: address(1),
        },
        egress: Network {
            name: format!("{project}-egress"),
            subnet: half(16).to_string(),
            gateway: address(17),
        },
        addresses: Addresses {
            egress: address(2),
            agent: address(3),
            git_gate: address(4),
            supervise: address(5),
        },
    }
}

/// The upper half of a network: the only addresses the engine may choose by itself. Those of a bottle's containers are in
/// the lower one, so that nobody else gets the address of one that is away for a moment.
///
/// # Errors
/// When it is not a range that can be halved.
pub fn not_ours(subnet: &str) -> Result<Ipv4Net> {
    let halves = subnet.parse::<Ipv4Net>().ok();
    let upper = halves.and_then(|net| net.subnets(net.prefix_len() + 1).ok()?.last());
    upper
        .ok_or_else(|| Failure::invalid(format!("`{subnet}` is not a range of a bottle's network")))
}

/// The route of the host that a range overlaps, if there is one.
#[must_use]
pub fn overlapping(subnet: &str, routes: &[Ipv4Net]) -> Option<Ipv4Net> {
    let net: Ipv4Net = subnet.parse().ok()?;
    let overlaps = |route: &&Ipv4Net| route.contains(&net) || net.contains(*route);
    routes.iter().find(overlaps).copied()
}

/// Ranges the host already routes somewhere (VPN, LAN, other bridges), from the kernel's table. The default route is
/// left out, and so is whatever cannot be read: then the engine refuses an overlap later.
#[must_use]
pub fn host_routes() -> Vec<Ipv4Net> {
    let table = std::fs::read_to_string("/proc/net/route").unwrap_or_default();
    parse_routes(&table)
}

fn parse_routes(table: &str) -> Vec<Ipv4Net> {
    let address = |hex: &str| u32::from_str_radix(hex, 16).ok().map(u32::swap_bytes);
    table
        .lines()
        .skip(1)
        .filter_map(|line| {
            let mut columns = line.split_whitespace();
            let destination = address(columns.nth(1)?)?;
            let mask = address(columns.nth(5)?)?;
            let prefix = u8::try_from(mask.leading_ones()).ok()?;
            Ipv4Net::new(Ipv4Addr::from(destination), prefix).ok()
        })
        .filter(|net| net.prefix_len() > 0)
        .collect()
}

/// FNV-1a: spreads slugs over the block, and is the same on every machine and in every version.
fn hash(text: &str) -> u32 {
    text.bytes().fold(0x811c_9dc5, |hash, byte| {
        (hash ^ u32::from(byte)).wrapping_mul(0x0100_0193)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_slug_gets_the_same_range_until_somebody_else_has_it() {
        let block = parse_block(DEFAULT_BLOCK).expect("valid");
        let first = choose(block, "demo", &[]).expect("free");
        assert_eq!(first, choose(block, "demo", &[]).expect("free"));
        let next = choose(block, "demo", &[first]).expect("free");
        assert_ne!(first, next);
        assert!(block.contains(&next));
    }

    #[test]
    fn a_block_holds_what_it_says_and_then_says_so() {
        let block = parse_block("10.9.0.0/24").expect("valid");
        let mut taken = Vec::new();
        for index in 0..8 {
            taken.push(choose(block, &format!("s{index}"), &taken).expect("free"));
        }
        let failure = choose(block, "one-more", &taken).expect_err("full");
        assert_eq!(failure.kind().code(), 5);
    }

    #[test]
    fn a_route_over_part_of_the_block_is_kept_clear_of() {
        let block = parse_block("10.9.0.0/24").expect("valid");
        let lan: Ipv4Net = "10.9.0.0/25".parse().expect("valid");
        for index in 0..20 {
            let net = choose(block, &format!("s{index}"), &[lan]).expect("free");
            assert!(!lan.contains(&net), "{net}");
        }
    }

    #[test]
    fn what_the_engine_chooses_is_never_a_place_of_ours() {
        let range: Ipv4Net = "10.213.4.32/27".parse().expect("valid");
        let networks = networks("bottle-x", range);
        for network in [&networks.internal, &networks.egress] {
            let others = not_ours(&network.subnet).expect("valid");
            assert!(!others.contains(&network.gateway));
            let places = &networks.addresses;
            for place in [
                places.egress,
                places.agent,
                places.git_gate,
                places.supervise,
            ] {
                assert!(!others.contains(&place), "{place} in {others}");
            }
        }
        assert!(not_ours("x").is_err() && not_ours("10.0.0.1/32").is_err());
    }

    #[test]
    fn a_route_over_a_range_is_found() {
        let routes = ["10.213.0.0/20", "192.168.1.0/24"].map(|net| net.parse().expect("valid"));
        assert_eq!(overlapping("10.213.4.32/28", &routes), Some(routes[0]));
        assert_eq!(overlapping("192.168.0.0/16", &routes), Some(routes[1]));
        assert_eq!(overlapping("10.214.0.0/28", &routes), None);
    }

    #[test]
    fn the_kernel_table_is_little_endian() {
        let table = "Iface\tDestination\tGateway\tFlags\tRefCnt\tUse\tMetric\tMask\n\
                     eth0\t00000000\t010200C0\t0003\t0\t0\t0\t00000000\n\
                     eth0\t000200C0\t00000000\t0001\t0\t0\t0\t00FFFFFF\n";
        assert_eq!(
            parse_routes(table),
            ["192.0.2.0/24".parse::<Ipv4Net>().expect("valid")]
        );
    }

    #[test]
    fn blocks_must_be_private_and_large_enough() {
        for bad in [
            "8.8.0.0/16",
            "10.0.0.0/28",
            "nonsense",
            "0.0.0.0/0",
            "172.0.0.0/8",
            "fd00::/8",
        ] {
            assert!(parse_block(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn every_container_has_a_place_of_its_own() {
        let networks = networks("bottle-x", "10.213.4.32/27".parse().expect("valid"));
        assert_eq!(networks.internal.subnet, "10.213.4.32/28");
        assert_eq!(networks.egress.subnet, "10.213.4.48/28");
        assert_eq!(networks.egress.gateway.to_string(), "10.213.4.49");
        assert_eq!(networks.addresses.agent.to_string(), "10.213.4.35");
    }
}
