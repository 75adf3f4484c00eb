//! What is tried without the proxy: host, networks, names, kernel.

use bottle_plan::strict::IN_THE_AGENT;

use super::attempts::World;
use super::host::Host;
use super::probes::{Attempt, Expect};

/// Names nobody has; a question for one of them that leaves the bottle would be a leak all the same.
pub(super) const NOBODY: &str = "check.bottle.invalid";

/// What a tunnel through DNS looks like: the data is in the name.
const TUNNEL: &str = "6e6f626f6479206c697374656e7320686572652e20.30303031.t.bottle.invalid";

/// System calls that reach far into the kernel, none of which an agent needs.
const SYSCALLS: [&str; 12] = [
    "keyctl",
    "add_key",
    "bpf",
    "perf_event_open",
    "userfaultfd",
    "mount",
    "open_tree",
    "setns",
    "pivot_root",
    "kexec_load",
    "init_module",
    "open_by_handle_at",
];

/// Socket families beyond the network namespace or with a long record of holes.
const FAMILIES: [&str; 9] = [
    "vsock",
    "packet",
    "alg",
    "bluetooth",
    "can",
    "tipc",
    "xdp",
    "netlink-netfilter",
    "netlink-audit",
];

/// With isolation strict there is no interface to reach anything by, which all that follows only confirms.
pub(super) fn interfaces(world: &World<'_>) -> Vec<Attempt> {
    let strict = Some("interfaces").filter(|_| world.plan.is_strict());
    let tried = "an interface beside the loopback";
    let attempt = |probe| Attempt::new("host", "interfaces", tried, probe, Expect::Closed);
    strict.map(attempt).into_iter().collect()
}

pub(super) fn towards_the_host(world: &World<'_>, host: &Host) -> Vec<Attempt> {
    let networks = &world.plan.networks;
    let places = [
        (
            "gateway",
            "the gateway of its own network",
            networks.internal.gateway,
        ),
        (
            "egress-gateway",
            "the host's address on the bottle's other bridge",
            networks.egress.gateway,
        ),
        (
            "other-bridge",
            "the host's address on another bridge",
            world.outside.gateway,
        ),
    ];
    let mut attempts = Vec::new();
    for (name, tried, ip) in places {
        let port = host.listening.iter().find(|(at, _)| *at == ip);
        let port = port.map_or(80, |(_, port)| *port);
        for (way, probe) in [
            ("tcp", format!("tcp:{ip}:{port}")),
            ("udp", format!("udp:{ip}:{port}")),
            ("icmp", format!("icmp:{ip}")),
        ] {
            let name = format!("{name}-{way}");
            attempts.push(Attempt::new("host", name, tried, probe, Expect::Silence));
        }
    }
    let port = host.listening.first().map_or(80, |(_, port)| *port);
    attempts.push(Attempt::new(
        "host",
        "link-local-v6",
        "the bridge's own IPv6 address",
        format!("tcp:[fe80::1%eth0]:{port}"),
        Expect::Silence,
    ));
    attempts
}

pub(super) fn towards_the_outside(world: &World<'_>) -> Vec<Attempt> {
    let ip = world.outside.address;
    let silent = |name: &str, tried: &str, probe: String| {
        Attempt::new("outside", name, tried, probe, Expect::Silence)
    };
    vec![
        silent(
            "http",
            "another network's web server",
            format!("tcp:{ip}:80"),
        ),
        silent("https", "the same with TLS", format!("tcp:{ip}:443")),
        silent("ssh", "the same by SSH", format!("tcp:{ip}:22")),
        silent(
            "any-port",
            "a port nobody has a rule for",
            format!("tcp:{ip}:7777"),
        ),
        silent(
            "udp",
            "a datagram, as QUIC would send it",
            format!("udp:{ip}:7777"),
        ),
        silent("icmp", "a ping", format!("icmp:{ip}")),
        Attempt::new(
            "outside",
            "ipv6",
            "an IPv6 address of its own",
            "ipv6",
            Expect::Closed,
        ),
    ]
}

pub(super) fn by_name(world: &World<'_>) -> Vec<Attempt> {
    let outside = world.outside.address;
    // The engine's, or the forwarder in its place.
    let own = if world.plan.is_strict() {
        "127.0.0.1"
    } else {
        "127.0.0.11"
    };
    let gateway = world.plan.networks.internal.gateway;
    let closed = |name: &str, tried: &str, probe: String| {
        Attempt::new("dns", name, tried, probe, Expect::Closed)
    };
    let mut attempts = Vec::new();
    for kind in ["A", "AAAA", "TXT"] {
        let lower = kind.to_lowercase();
        attempts.push(closed(
            &format!("own-{lower}"),
            "a foreign name, asked of the container's resolver",
            format!("dns:{own}:{NOBODY}:{kind}"),
        ));
    }
    attempts.extend([
        closed(
            "own-tcp",
            "the same by TCP",
            format!("dnstcp:{own}:{NOBODY}"),
        ),
        closed(
            "tunnel",
            "data in a name",
            format!("dns:{own}:{TUNNEL}:TXT"),
        ),
        closed(
            "direct",
            "a resolver on another network",
            format!("dns:{outside}:{NOBODY}"),
        ),
        closed(
            "direct-tcp",
            "the same by TCP",
            format!("dnstcp:{outside}:{NOBODY}"),
        ),
        closed(
            "gateway",
            "a resolver at the gateway",
            format!("dns:{gateway}:{NOBODY}"),
        ),
        closed(
            "system",
            "a foreign name, by the system's own lookup",
            format!("resolve:{NOBODY}"),
        ),
    ]);
    attempts
}

pub(super) fn in_the_kernel(world: &World<'_>) -> Vec<Attempt> {
    let closed = |name: String, tried: &str, probe: String| {
        Attempt::new("kernel", name, tried, probe, Expect::Closed)
    };
    let mut attempts = vec![
        closed("raw".into(), "frames and raw packets", "raw".into()),
        closed(
            "io-uring".into(),
            "io_uring, which a filter does not see through",
            "iouring".into(),
        ),
        closed(
            "user-namespace".into(),
            "a user namespace of its own",
            "unshare".into(),
        ),
    ];
    if world.plan.agent.hardening.cap_add.is_empty() {
        attempts.push(closed(
            "capabilities".into(),
            "any capability",
            "caps".into(),
        ));
    }
    attempts.extend(FAMILIES.map(|name| {
        closed(
            format!("socket-{name}"),
            "a socket of that family",
            format!("family:{name}"),
        )
    }));
    attempts.extend(SYSCALLS.map(|name| {
        closed(
            format!("syscall-{name}"),
            "that system call",
            format!("syscall:{name}"),
        )
    }));
    attempts
}

pub(super) fn in_its_place(world: &World<'_>) -> Vec<Attempt> {
    let attempt = |name: &str, tried: &str, probe: &str| {
        Attempt::new("place", name, tried, probe, Expect::Closed)
    };
    let closed = |name: &str, tried: &str| attempt(name, tried, name);
    let mounts = if world.plan.is_strict() {
        let but_sockets = format!("mounts:{IN_THE_AGENT}");
        let tried = "a folder, disk or socket of the host, but for its sidecars', read-only";
        attempt("mounts", tried, &but_sockets)
    } else {
        closed("mounts", "a folder, disk or socket of the host")
    };
    vec![
        closed("user", "being root, or in its group"),
        mounts,
        closed("devices", "a device beyond the usual ones"),
        closed("knobs", "files in /proc and /sys that steer the kernel"),
    ]
}
