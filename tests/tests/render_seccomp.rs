//! The agent's seccomp profile on a real engine: what it refuses, what it lets through, and that programs still work.
#![allow(
    clippy::expect_used,
    clippy::panic,
    reason = "clippy.toml allows both in tests, and does not see that helpers are in one"
)]

use std::collections::BTreeMap;
use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};

const IMAGE: &str = "debian:trixie-slim";

const EPERM: u32 = 1;
const EBADF: u32 = 9;
const EFAULT: u32 = 14;
const EINVAL: u32 = 22;
const ENOTTY: u32 = 25;
const ENOSYS: u32 = 38;
const EOPNOTSUPP: u32 = 95;
const EAFNOSUPPORT: u32 = 97;

/// Makes system calls by number (x86-64) and prints `name errno`, 0 for success. Sockets are made and never connected.
const PROBE: &str = r#"
use strict; $| = 1;
sub call {
    my ($name, @a) = @_;
    push @a, 0 while @a < 7;
    my $r = syscall($a[0], @a[1 .. 6]);
    printf "%s %d\n", $name, $r < 0 ? $! + 0 : 0;
}
my ($pair, $text, $high) = (pack("ii", 0, 0), "x" x 256, 1 << 32);
open(my $null, "<", "/dev/null") or die;
my $fd = fileno($null);
call("family $_", 41, $_, 2, 0) for 0 .. 60;
call("family $_ with garbage above", 41, $high + $_, 2, 0) for 1, 40;
call("netlink $_", 41, 16, 3, $_) for 0 .. 24;
call("pair $_", 53, $_, 1, 0, $pair) for 1, 2, 40;
call("clone $_", 56, hex($_) | 17) for qw(20000 2000000 4000000 8000000 10000000 20000000 40000000);
call("clone3", 435);
call("unshare", 272, 0x10000000); call("setns", 308, $fd, 0); call("mount", 165); call("fsopen", 430, $text, 0);
call("pivot_root", 155); call("chroot", 161, $text);
call("io_uring_setup", 425, 8, $text); call("userfaultfd", 323, 0); call("bpf", 321); call("perf_event_open", 298);
call("keyctl", 250); call("add_key", 248); call("open_by_handle_at", 304); call("pidfd_getfd", 438, $fd, 0, 0);
call("process_vm_writev", 311, $$, 0, 0, 0, 0, 0); call("memfd_secret", 447, 0); call("modify_ldt", 154);
call("reboot", 169); call("clock_settime", 227); call("init_module", 175); call("swapon", 167); call("syslog", 103, 3);
call("TIOCSTI", 16, $fd, 0x5412, $text); call("TIOCSTI with garbage above", 16, $fd, $high | 0x5412, $text);
call("TIOCLINUX", 16, $fd, 0x541c, $text); call("TIOCSETD", 16, $fd, 0x5423, $pair);
call("a call of tomorrow", 9999);

call("TCGETS", 16, $fd, 0x5401, $text); call("TIOCSTI + 1", 16, $fd, 0x5413, $text);
call("process_vm_readv", 310, $$, 0, 0, 0, 0, 0); call("ptrace", 101, 0);
call("personality asked", 135, 0xffffffff); call("personality of a debugger", 135, 0x40000); call("personality", 135, 0);
call("memfd_create", 319, "x", 0); call("pidfd_open", 434, $$, 0); call("inotify_init1", 294, 0);
call("close_range", 436, 500, 600, 0); call("adjtimex", 159, "\0" x 256);
call("openat2", 437, $fd, $text, 0, 0); call("futex_waitv", 449); call("seccomp", 317, 2, 0, 0); call("statx", 332, $fd, 0);
call("rseq", 334); call("landlock", 444, 0, 0, 1);
"#;

/// The usual things, each of which fails loudly. dpkg-deb compresses in threads.
const WORKS: &str = r#"
set -euo pipefail
bash -c 'x=$(seq 3 | sort -r | tr "\n" " "); [ "$x" = "3 2 1 " ]'
dpkg -l > /dev/null
apt-get --version > /dev/null
perl -e 'pipe(R, W); if (!fork) { print W "ok"; exit } wait; close W; exit(<R> ne "ok")'
perl -MSocket -e 'socketpair(A, B, AF_UNIX, SOCK_STREAM, 0) or die $!'
mkdir -p /tmp/p/DEBIAN
printf 'Package: p\nVersion: 1\nArchitecture: all\nMaintainer: x <x@example.com>\nDescription: x\n' > /tmp/p/DEBIAN/control
head -c 30000000 /dev/urandom > /tmp/p/data
dpkg-deb -Zxz -z0 --threads-max=4 --build /tmp/p /tmp/p.deb > /dev/null
find / -xdev -name passwd > /dev/null 2>&1 || true
sleep 0.1 & wait
echo works
"#;

fn profile() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../bottle-run/assets/seccomp-agent.json")
}

fn skipped(why: &str) {
    let _ = writeln!(std::io::stderr(), "SKIPPED: {why}");
}

/// Whether there is an engine on this machine, with the image, that has seccomp.
fn has_engine() -> bool {
    let asked = |arguments: &[&str]| Command::new("docker").args(arguments).output();
    let has_seccomp = asked(&["info", "--format", "{{.SecurityOptions}}"])
        .is_ok_and(|output| String::from_utf8_lossy(&output.stdout).contains("name=seccomp"));
    has_seccomp && asked(&["image", "inspect", IMAGE]).is_ok_and(|output| output.status.success())
}

/// Runs `program` of the image under the profile, as the agent runs, with `script` on stdin.
fn run(program: &[&str], script: &str) -> Output {
    let mut child = Command::new("docker")
        .args([
            "run",
            "--rm",
            "--interactive",
            "--pull",
            "never",
            "--network",
            "none",
        ])
        .args(["--cap-drop", "ALL", "--security-opt", "no-new-privileges"])
        .arg("--security-opt")
        .arg(format!("seccomp={}", profile().display()))
        .args(["--user", "10001:10001", "--workdir", "/tmp", IMAGE])
        .args(program)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .expect("docker");
    child
        .stdin
        .take()
        .expect("a pipe")
        .write_all(script.as_bytes())
        .expect("the script fits a pipe");
    child.wait_with_output().expect("an end")
}

#[test]
fn each_call_has_the_answer_it_should_have() {
    if !has_engine() {
        skipped(&format!(
            "the seccomp profile was not tried: no engine with seccomp and {IMAGE}"
        ));
        return;
    }
    if std::env::consts::ARCH != "x86_64" {
        skipped("the seccomp probe knows the call numbers of x86-64 only");
        return;
    }
    let output = run(&["perl", "-"], PROBE);
    assert!(
        output.status.success(),
        "{}",
        String::from_utf8_lossy(&output.stderr)
    );
    let stdout = String::from_utf8(output.stdout).expect("UTF-8");
    let answers: BTreeMap<&str, u32> = stdout
        .lines()
        .filter_map(|line| line.rsplit_once(' '))
        .map(|(name, errno)| (name, errno.parse().expect("a number")))
        .collect();
    let expect = |name: &str, errno: &[u32]| {
        let answer = answers
            .get(name)
            .unwrap_or_else(|| panic!("no answer for {name}"));
        assert!(errno.contains(answer), "{name}: {answer}, not {errno:?}");
    };

    for family in 0..=60 {
        let open = [1, 2, 10, 16].contains(&family);
        // A kernel without IPv6 answers as the filter does.
        let allowed: &[u32] = if family == 10 {
            &[0, EAFNOSUPPORT]
        } else {
            &[0]
        };
        expect(
            &format!("family {family}"),
            if open { allowed } else { &[EAFNOSUPPORT] },
        );
    }
    expect("family 1 with garbage above", &[0]);
    expect("family 40 with garbage above", &[EAFNOSUPPORT]);
    for protocol in 0..=24 {
        expect(
            &format!("netlink {protocol}"),
            if protocol == 0 { &[0] } else { &[EAFNOSUPPORT] },
        );
    }
    expect("pair 1", &[0]);
    expect("pair 2", &[EAFNOSUPPORT]);
    expect("pair 40", &[EAFNOSUPPORT]);
    for flag in [
        "20000", "2000000", "4000000", "8000000", "10000000", "20000000", "40000000",
    ] {
        expect(&format!("clone {flag}"), &[EPERM]);
    }
    for name in [
        "clone3",
        "io_uring_setup",
        "memfd_secret",
        "modify_ldt",
        "a call of tomorrow",
    ] {
        expect(name, &[ENOSYS]);
    }
    for name in [
        "unshare",
        "setns",
        "mount",
        "fsopen",
        "pivot_root",
        "chroot",
        "userfaultfd",
        "bpf",
        "perf_event_open",
        "keyctl",
        "add_key",
        "open_by_handle_at",
        "pidfd_getfd",
        "process_vm_writev",
        "reboot",
        "clock_settime",
        "init_module",
        "swapon",
        "syslog",
        "TIOCSTI",
        "TIOCSTI with garbage above",
        "TIOCLINUX",
        "TIOCSETD",
    ] {
        expect(name, &[EPERM]);
    }
    // What is let through is answered by the kernel: done, or not with these arguments.
    for name in [
        "process_vm_readv",
        "ptrace",
        "personality asked",
        "personality of a debugger",
        "personality",
        "memfd_create",
        "inotify_init1",
        "adjtimex",
    ] {
        expect(name, &[0]);
    }
    for name in ["TCGETS", "TIOCSTI + 1"] {
        expect(name, &[ENOTTY]);
    }
    for name in ["seccomp", "statx", "rseq", "openat2"] {
        expect(name, &[EFAULT, EINVAL, EBADF]);
    }
    // Younger than the oldest kernel we run on.
    for name in ["pidfd_open", "close_range"] {
        expect(name, &[0, ENOSYS]);
    }
    expect("futex_waitv", &[EINVAL, ENOSYS]);
    expect("landlock", &[0, EOPNOTSUPP, ENOSYS]);
}

#[test]
fn programs_work_under_it() {
    if !has_engine() {
        skipped(&format!(
            "no program was run under the seccomp profile: no engine with seccomp and {IMAGE}"
        ));
        return;
    }
    let output = run(&["bash", "-s"], WORKS);
    let stderr = String::from_utf8_lossy(&output.stderr);
    assert_eq!(
        String::from_utf8_lossy(&output.stdout),
        "works\n",
        "{stderr}"
    );
    assert!(output.status.success(), "{stderr}");
}

/// A 32-bit call would go past every filter on arguments. On x86-64 such a process is killed.
#[test]
fn the_x32_calls_are_no_way_around() {
    if !has_engine() || std::env::consts::ARCH != "x86_64" {
        skipped("x32 calls were not tried: no engine with seccomp, or not x86-64");
        return;
    }
    let output = run(
        &["perl", "-"],
        "syscall(0x40000000 + 41, 40, 2, 0); print \"alive $!\\n\";",
    );
    let stdout = String::from_utf8_lossy(&output.stdout);
    assert!(
        !output.status.success() || stdout.contains("not implemented"),
        "{stdout}"
    );
}

#[test]
fn profile_and_page_are_what_the_script_makes() {
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("../scripts/make-seccomp");
    match Command::new(&script).arg("--check").output() {
        Ok(output) => {
            let stderr = String::from_utf8_lossy(&output.stderr);
            if stderr.contains("there is no asm/unistd_64.h here") {
                skipped("the seccomp profile was not made again: no kernel header");
            } else {
                assert!(output.status.success(), "{stderr}");
            }
        }
        Err(error) => skipped(&format!(
            "the seccomp profile was not made again: {}: {error}",
            script.display()
        )),
    }
}
