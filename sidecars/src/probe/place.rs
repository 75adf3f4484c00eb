//! The place itself: mounts, addresses, environment.

use std::collections::BTreeMap;
use std::fs;
use std::net::IpAddr;
use std::os::unix::fs::FileTypeExt as _;
use std::path::Path;

use nix::ifaddrs::getifaddrs;

use super::{Outcome, describe};

const MOUNTS: &str = "/proc/self/mountinfo";

/// Where engines put their sockets. One of these is the whole host.
const ENGINE_SOCKETS: [&str; 6] = [
    "/var/run/docker.sock",
    "/run/docker.sock",
    "/run/containerd/containerd.sock",
    "/run/crio/crio.sock",
    "/run/podman/podman.sock",
    "/run/docker/containerd/containerd.sock",
];

/// The engine binds these into every container, the last two as process 1 when asked for one; they are its own files.
const OF_THE_ENGINE: [&str; 5] = [
    "/etc/hosts",
    "/etc/hostname",
    "/etc/resolv.conf",
    "/sbin/docker-init",
    "/usr/sbin/docker-init",
];

/// File systems that hold no files of the host. A part of one of them mounted elsewhere is how engines hide things.
const OF_THE_KERNEL: [&str; 10] = [
    "proc", "sysfs", "tmpfs", "devtmpfs", "devpts", "mqueue", "cgroup", "cgroup2", "overlay",
    "aufs",
];

/// Engine sockets and folders of the host. One at `granted` is none as long as it cannot be written to.
pub(super) fn mounts(granted: Option<&str>) -> Outcome {
    let table = match fs::read_to_string(MOUNTS) {
        Ok(table) => table,
        Err(error) => return Outcome::not_tried(format!("{MOUNTS}: {}", describe(&error))),
    };
    let mut found = host_mounts(&table, granted);
    let sockets = ENGINE_SOCKETS
        .iter()
        .filter(|path| is_socket(Path::new(path)));
    found.extend(sockets.map(|path| format!("socket {path}")));
    match found.as_slice() {
        [] => Outcome::closed("none"),
        list => Outcome::open(list.join(", ")),
    }
}

fn is_socket(path: &Path) -> bool {
    fs::metadata(path).is_ok_and(|found| found.file_type().is_socket())
}

/// `source -> target` for every mount that shows a part of another file system, which is what a bind of the host is.
fn host_mounts(table: &str, granted: Option<&str>) -> Vec<String> {
    let mounts = table.lines();
    mounts
        .filter_map(|line| host_mount(line, granted))
        .collect()
}

fn host_mount(line: &str, granted: Option<&str>) -> Option<String> {
    let (before, after) = line.split_once(" - ")?;
    let mut fields = before.split(' ').skip(3);
    let (root, target, options) = (fields.next()?, fields.next()?, fields.next()?);
    if Some(target) == granted && options.split(',').any(|option| option == "ro") {
        return None;
    }
    let kind = after.split(' ').next()?;
    let named_socket = root.ends_with(".sock") || target.ends_with(".sock");
    let part = root != "/" && !OF_THE_KERNEL.contains(&kind) && !OF_THE_ENGINE.contains(&target);
    // A whole disk mounted below the root is as bad as a part of one.
    let whole = root == "/" && target != "/" && !OF_THE_KERNEL.contains(&kind);
    (named_socket || part || whole).then(|| format!("{root} -> {target}"))
}

/// What every container has below /dev; `core` and `fd` are links, and the rest leads nowhere.
const ORDINARY_DEVICES: [&str; 20] = [
    "console", "core", "fd", "full", "initctl", "mqueue", "null", "ptmx", "pts", "random", "shm",
    "stderr", "stdin", "stdout", "tty", "urandom", "zero", "net", "gvisor", "kmsg",
];

/// Devices beyond what every container has. `kmsg` and `net` are harmless only where they cannot be opened or are empty.
pub(super) fn devices() -> Outcome {
    let entries = match fs::read_dir("/dev") {
        Ok(entries) => entries,
        Err(error) => return Outcome::not_tried(format!("/dev: {}", describe(&error))),
    };
    let mut found: Vec<String> = entries
        .flatten()
        .filter_map(|entry| entry.file_name().into_string().ok())
        .filter(|name| !ORDINARY_DEVICES.contains(&name.as_str()))
        .collect();
    let opened =
        ["kmsg", "net/tun"].map(|name| (name, fs::File::open(Path::new("/dev").join(name))));
    found.extend(
        opened
            .into_iter()
            .filter_map(|(name, opened)| opened.ok().map(|_| name.to_owned())),
    );
    found.sort();
    match found.as_slice() {
        [] => Outcome::closed("none"),
        list => Outcome::open(list.join(", ")),
    }
}

/// Files that steer the kernel or show its memory. None may be opened as it is here.
const KNOBS: [(&str, bool); 11] = [
    ("/proc/sysrq-trigger", true),
    ("/proc/sys/kernel/core_pattern", true),
    ("/proc/sys/kernel/modprobe", true),
    ("/proc/sys/net/ipv4/ip_forward", true),
    ("/proc/sys/vm/overcommit_memory", true),
    ("/proc/kcore", false),
    ("/proc/acpi", true),
    ("/sys/kernel/uevent_helper", true),
    ("/sys/fs/cgroup/cgroup.procs", true),
    ("/sys/fs/cgroup/devices/devices.allow", true),
    ("/sys/fs/cgroup/memory/release_agent", true),
];

/// Knobs of the kernel that can be opened.
pub(super) fn knobs() -> Outcome {
    let can_open = |&&(path, write): &&(&str, bool)| {
        let opened = fs::OpenOptions::new().read(!write).write(write).open(path);
        // Where engines hide a file, they put an empty device over it.
        opened.is_ok_and(|file| {
            file.metadata()
                .is_ok_and(|found| !found.file_type().is_char_device())
        })
    };
    let found: Vec<&str> = KNOBS
        .iter()
        .filter(can_open)
        .map(|(path, _)| *path)
        .collect();
    match found.as_slice() {
        [] => Outcome::closed("none"),
        list => Outcome::open(list.join(", ")),
    }
}

/// Who we are. Open means root, or a member of its group.
pub(super) fn user() -> Outcome {
    use nix::unistd::{getegid, geteuid, getgid, getgroups, getuid};
    let groups: Vec<u32> = match getgroups() {
        Ok(groups) => groups.into_iter().map(nix::unistd::Gid::as_raw).collect(),
        Err(errno) => return Outcome::not_tried(errno),
    };
    let reached = getuid().is_root()
        || geteuid().is_root()
        || getgid().as_raw() == 0
        || getegid().as_raw() == 0
        || groups.contains(&0);
    Outcome {
        reached,
        detail: format!("{}:{} {groups:?}", geteuid(), getegid()),
    }
}

/// Every interface with its addresses. Open when there is one besides the loopback.
pub(super) fn interfaces() -> Outcome {
    let addresses = match addresses() {
        Ok(addresses) => addresses,
        Err(outcome) => return outcome,
    };
    let told: Vec<String> = addresses
        .iter()
        .map(|(name, list)| {
            list.iter()
                .fold(name.clone(), |text, ip| format!("{text} {ip}"))
        })
        .collect();
    Outcome {
        reached: addresses.keys().any(|name| name != "lo"),
        detail: told.join("; "),
    }
}

/// IPv6 addresses other than the loopback's: with one, a bridge without any IPv4 address answers by its link-local one.
pub(super) fn ipv6() -> Outcome {
    let addresses = match addresses() {
        Ok(addresses) => addresses,
        Err(outcome) => return outcome,
    };
    let found: Vec<String> = addresses
        .iter()
        .flat_map(|(name, list)| list.iter().map(move |ip| (name, ip)))
        .filter(|(_, ip)| ip.is_ipv6() && !ip.is_loopback())
        .map(|(name, ip)| format!("{name} {ip}"))
        .collect();
    match found.as_slice() {
        [] => Outcome::closed("none"),
        list => Outcome::open(list.join("; ")),
    }
}

fn addresses() -> Result<BTreeMap<String, Vec<IpAddr>>, Outcome> {
    let list = getifaddrs().map_err(Outcome::not_tried)?;
    let mut by_name: BTreeMap<String, Vec<IpAddr>> = BTreeMap::new();
    for entry in list {
        let addresses = by_name.entry(entry.interface_name).or_default();
        let Some(address) = entry.address else {
            continue;
        };
        if let Some(v4) = address.as_sockaddr_in() {
            addresses.push(v4.ip().into());
        } else if let Some(v6) = address.as_sockaddr_in6() {
            addresses.push(v6.ip().into());
        }
    }
    Ok(by_name)
}

/// Whether a variable is set. Its value is never told: it may be what must not be told.
pub(super) fn variable(name: &str) -> Outcome {
    match std::env::var_os(name) {
        Some(value) => Outcome::open(format!("set, {} bytes", value.len())),
        None => Outcome::closed("not set"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_plain_container_shows_nothing_of_the_host() {
        let table = "\
600 500 0:50 / / rw - overlay overlay rw,lowerdir=/var/lib/docker/overlay2/x
601 600 0:51 / /proc rw - proc proc rw
602 600 0:52 / /dev rw - tmpfs tmpfs rw
603 600 0:48 / /dev/mqueue rw - mqueue mqueue rw
604 600 259:1 /var/lib/docker/containers/x/hosts /etc/hosts rw - ext4 /dev/root rw
605 600 259:1 /var/lib/docker/containers/x/resolv.conf /etc/resolv.conf rw - ext4 /dev/root rw
606 600 0:25 /docker/x /sys/fs/cgroup/memory ro - cgroup cgroup rw
607 600 0:51 /sys /proc/sys ro - proc proc rw
609 600 259:1 /usr/bin/tini-static /usr/sbin/docker-init ro - ext4 /dev/root rw
608 600 0:52 /null /proc/kcore rw - tmpfs tmpfs rw
";
        assert_eq!(host_mounts(table, None), Vec::<String>::new());
    }

    #[test]
    fn folders_disks_and_sockets_of_the_host_are_seen() {
        let table = "\
610 600 259:1 /home/me/work /workspace rw - ext4 /dev/root rw
611 600 0:30 /docker.sock /var/run/docker.sock rw - tmpfs tmpfs rw
612 600 259:2 / /mnt/disk rw - xfs /dev/sdb1 rw
613 600 0:40 /x /with\\040space rw shared:1 master:2 - btrfs /dev/sdc rw
";
        assert_eq!(
            host_mounts(table, None),
            [
                "/home/me/work -> /workspace",
                "/docker.sock -> /var/run/docker.sock",
                "/ -> /mnt/disk",
                "/x -> /with\\040space"
            ]
        );
    }

    #[test]
    fn what_is_granted_is_granted_read_only() {
        let mount = |options: &str| {
            format!("610 600 259:1 /state/s/sockets /run/s {options} - ext4 /dev/root rw\n")
        };
        let seen = ["/state/s/sockets -> /run/s"];
        let read_only = mount("ro,relatime");
        assert_eq!(
            host_mounts(&read_only, Some("/run/s")),
            Vec::<String>::new()
        );
        assert_eq!(host_mounts(&read_only, Some("/run")), seen);
        assert_eq!(host_mounts(&read_only, None), seen);
        assert_eq!(host_mounts(&mount("rw,relatime"), Some("/run/s")), seen);
    }

    #[test]
    fn the_loopback_is_always_there() {
        let outcome = interfaces();
        assert!(outcome.detail.contains("lo 127.0.0.1"), "{outcome:?}");
    }

    #[test]
    fn a_variable_is_never_quoted() {
        let path = std::env::var("PATH").expect("set");
        let outcome = variable("PATH");
        assert!(outcome.reached && !outcome.detail.contains(&path));
    }
}
