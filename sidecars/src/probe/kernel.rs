//! System calls: what of the kernel is in reach? Sockets are only ever made here, never used.

use std::io;

use socket2::{Domain, Protocol, Socket, Type};

use super::{Outcome, describe};

const STATUS: &str = "/proc/self/status";

/// Inheritable, permitted, effective, bounding: every kernel has these. The ambient one, which gVisor does not have, is
/// never more than the permitted one.
const MASKS: [&str; 4] = ["CapInh", "CapPrm", "CapEff", "CapBnd"];

/// A kind of socket by its name. The numbers are the kernel's, because no library knows all of them.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Family {
    domain: i32,
    kind: i32,
    protocol: i32,
}

const STREAM: i32 = 1;
const DGRAM: i32 = 2;
const RAW: i32 = 3;
const SEQPACKET: i32 = 5;
const AF_PACKET: i32 = 17;

/// Name, domain, type, protocol.
const FAMILIES: [(&str, i32, i32, i32); 22] = [
    ("unix", 1, STREAM, 0),
    ("inet", 2, STREAM, 0),
    ("inet6", 10, STREAM, 0),
    ("key", 15, RAW, 2),
    ("netlink-route", 16, RAW, 0),
    ("netlink-netfilter", 16, RAW, 12),
    ("netlink-audit", 16, RAW, 9),
    ("netlink-uevent", 16, DGRAM, 15),
    ("netlink-generic", 16, RAW, 16),
    ("netlink-crypto", 16, RAW, 21),
    ("packet", AF_PACKET, DGRAM, 0),
    ("rds", 21, SEQPACKET, 0),
    ("can", 29, RAW, 1),
    ("tipc", 30, SEQPACKET, 0),
    ("bluetooth", 31, RAW, 1),
    ("alg", 38, SEQPACKET, 0),
    ("nfc", 39, SEQPACKET, 0),
    ("vsock", 40, STREAM, 0),
    ("kcm", 41, SEQPACKET, 0),
    ("qipcrtr", 42, DGRAM, 0),
    ("smc", 43, STREAM, 0),
    ("xdp", 44, RAW, 0),
];

impl Family {
    pub(super) fn parse(name: &str) -> Option<Self> {
        let &(_, domain, kind, protocol) = FAMILIES.iter().find(|(known, ..)| *known == name)?;
        Some(Self {
            domain,
            kind,
            protocol,
        })
    }
}

/// Whether a socket of that family can be made.
pub(super) fn family(family: &Family) -> Outcome {
    match socket(family.domain, family.kind, family.protocol) {
        Ok(()) => Outcome::open("created"),
        Err(error) => Outcome::errno(&error),
    }
}

/// Frames and raw packets: with either, an agent writes its own addresses and goes past the missing gateway.
pub(super) fn raw_sockets() -> Outcome {
    let attempts = [
        ("AF_PACKET", socket(AF_PACKET, RAW, 0)),
        ("SOCK_RAW", socket(2, RAW, 1)),
        ("SOCK_RAW6", socket(10, RAW, 58)),
    ];
    let found = attempts.map(|(name, made)| {
        (
            name,
            made.map_or_else(
                |error| Outcome::errno(&error),
                |()| Outcome::open("created"),
            ),
        )
    });
    let told: Vec<String> = found
        .iter()
        .map(|(name, outcome)| format!("{name}: {}", outcome.detail))
        .collect();
    Outcome {
        reached: found.iter().any(|(_, outcome)| outcome.reached),
        detail: told.join(", "),
    }
}

fn socket(domain: i32, kind: i32, protocol: i32) -> io::Result<()> {
    let protocol = (protocol != 0).then(|| Protocol::from(protocol));
    Socket::new(Domain::from(domain), Type::from(kind), protocol).map(drop)
}

/// A system call no agent needs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Syscall(nix::libc::c_long);

/// The number is the kernel's for this processor.
const SYSCALLS: [(&str, nix::libc::c_long); 15] = [
    ("add_key", nix::libc::SYS_add_key),
    ("bpf", nix::libc::SYS_bpf),
    ("init_module", nix::libc::SYS_init_module),
    ("kexec_load", nix::libc::SYS_kexec_load),
    ("keyctl", nix::libc::SYS_keyctl),
    ("mount", nix::libc::SYS_mount),
    ("open_by_handle_at", nix::libc::SYS_open_by_handle_at),
    ("open_tree", nix::libc::SYS_open_tree),
    ("perf_event_open", nix::libc::SYS_perf_event_open),
    ("pivot_root", nix::libc::SYS_pivot_root),
    ("process_vm_writev", nix::libc::SYS_process_vm_writev),
    ("request_key", nix::libc::SYS_request_key),
    ("setns", nix::libc::SYS_setns),
    ("swapon", nix::libc::SYS_swapon),
    ("userfaultfd", nix::libc::SYS_userfaultfd),
];

impl Syscall {
    pub(super) fn parse(name: &str) -> Option<Self> {
        let &(_, number) = SYSCALLS.iter().find(|(known, _)| *known == name)?;
        Some(Self(number))
    }
}

/// Whether the kernel as much as looks at a system call. The arguments are none it could act on, so where it does, it
/// complains about them; a filter says that the call is not permitted or not there.
#[allow(unsafe_code)]
pub(super) fn syscall(call: Syscall) -> Outcome {
    use nix::errno::Errno;
    // SAFETY: -1 is no address, no descriptor and no command: each of these calls refuses it before it does anything.
    let made = unsafe { nix::libc::syscall(call.0, -1, -1, -1, -1, -1, -1) };
    match Errno::result(made) {
        Ok(_) => Outcome::open("it was made"),
        Err(errno @ (Errno::EPERM | Errno::ENOSYS | Errno::EACCES)) => {
            Outcome::closed(errno.to_string())
        }
        Err(errno) => Outcome::open(format!("the kernel looked at it: {errno}")),
    }
}

/// io_uring makes sockets and opens files where a seccomp filter does not see it.
pub(super) fn io_uring() -> Outcome {
    match io_uring::IoUring::new(2) {
        Ok(_) => Outcome::open("created"),
        Err(error) => Outcome::errno(&error),
    }
}

/// A user namespace gives every capability inside it, and with them most of the kernel's attack surface. Only a process
/// with one thread may do this, and it cannot be undone: it runs in a child.
pub(super) fn unshare_user() -> Outcome {
    match nix::sched::unshare(nix::sched::CloneFlags::CLONE_NEWUSER) {
        Ok(()) => Outcome::open("user namespace created"),
        Err(errno) => Outcome::closed(errno.to_string()),
    }
}

/// Capability masks, and whether the process can still gain any. Open when any mask has a bit.
pub(super) fn capabilities() -> Outcome {
    match std::fs::read_to_string(STATUS) {
        Ok(text) => capabilities_in(&text),
        Err(error) => Outcome::not_tried(format!("{STATUS}: {}", describe(&error))),
    }
}

fn capabilities_in(status: &str) -> Outcome {
    let wanted = [
        "CapInh",
        "CapPrm",
        "CapEff",
        "CapBnd",
        "CapAmb",
        "NoNewPrivs",
        "Seccomp",
    ];
    let fields: Vec<(&str, &str)> = status
        .lines()
        .filter_map(|line| line.split_once(':'))
        .filter(|(name, _)| wanted.contains(name))
        .map(|(name, value)| (name, value.trim()))
        .collect();
    // A mask that is missing or cannot be read is taken for a full one.
    let empty = |(_, mask): &&(&str, &str)| u64::from_str_radix(mask, 16) == Ok(0);
    let masks = fields.iter().filter(|(name, _)| name.starts_with("Cap"));
    let missing = MASKS
        .iter()
        .any(|wanted| !fields.iter().any(|(name, _)| name == wanted));
    let reached = missing || !masks.clone().all(|field| empty(&field));
    let told: Vec<String> = fields
        .iter()
        .map(|(name, value)| format!("{name}={value}"))
        .collect();
    Outcome {
        reached,
        detail: told.join(" "),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const CONFINED: &str = "Name:\tx\nCapInh:\t0000000000000000\nCapPrm:\t0000000000000000\nCapEff:\t0000000000000000\n\
        CapBnd:\t0000000000000000\nCapAmb:\t0000000000000000\nNoNewPrivs:\t1\nSeccomp:\t2\nSeccomp_filters:\t1\n";

    #[test]
    fn no_mask_may_have_a_bit() {
        let outcome = capabilities_in(CONFINED);
        assert!(!outcome.reached, "{outcome:?}");
        assert!(
            outcome
                .detail
                .ends_with("CapAmb=0000000000000000 NoNewPrivs=1 Seccomp=2"),
            "{outcome:?}"
        );
        let bounding = CONFINED.replace("CapBnd:\t0000000000000000", "CapBnd:\t0000000000002000");
        assert!(capabilities_in(&bounding).reached);
        assert!(capabilities_in("CapEff:\tnonsense\n").reached);
    }

    #[test]
    fn the_real_file_has_all_the_fields() {
        let outcome = capabilities();
        for name in [
            "CapInh=",
            "CapPrm=",
            "CapEff=",
            "CapBnd=",
            "CapAmb=",
            "NoNewPrivs=",
            "Seccomp=",
        ] {
            assert!(outcome.detail.contains(name), "{outcome:?}");
        }
    }

    #[test]
    fn an_ordinary_socket_can_be_made_and_an_unknown_family_has_no_name() {
        assert!(family(&Family::parse("unix").expect("known")).reached);
        assert!(Family::parse("appletalk").is_none());
    }

    #[test]
    fn raw_sockets_are_told_apart() {
        let detail = raw_sockets().detail;
        assert!(
            detail.contains("AF_PACKET: ") && detail.contains("SOCK_RAW: "),
            "{detail}"
        );
    }
}
