//! The command line. Few words and fewer flags, so it is read by hand.

use std::io::Write;
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

#[cfg(feature = "services")]
use bottle_plan::git::GATE_PORT;
use bottle_plan::plan::UPSTREAM_PROXY;
use zeroize::Zeroizing;

#[cfg(feature = "services")]
use crate::audit::AuditLimits;
use crate::egress::{self, DEFAULT_SOCKET, Ports, Settings};
use crate::program::{NAME, say};
use crate::{agent_env, explain, forward, health, outside, probe, reveal, session, skills, work};
#[cfg(feature = "services")]
use crate::{git_gate, supervise};

#[cfg(not(feature = "services"))]
const USAGE: &str = "\
usage: bottle-sidecar egress [--config-dir DIR] [--status-socket PATH]
                             [--audit-dir DIR] [--audit-file-bytes N] [--audit-files N]
                             [--asking-dir DIR]
                             [--proxy-port N] [--https-port N] [--http-port N] [--dns-port N] [--sockets DIR]
       bottle-sidecar forward --sockets DIR --status-socket PATH [--tcp PORT=SOCKET]... [--dns PORT=SOCKET]...
       bottle-sidecar health [--wait SECONDS] [--status-socket PATH]
       bottle-sidecar check POLICY
       bottle-sidecar why POLICY METHOD URL
       bottle-sidecar decide POLICY
       bottle-sidecar probe ...
       bottle-sidecar env --store | env --print | env -- CMD...
       bottle-sidecar session attach NAME -- CMD... | once -- CMD... | list
       bottle-sidecar skills FROM TO NAME...
       bottle-sidecar work bundle [--committed] DIR
       bottle-sidecar outside | reveal
";

/// The same program with more in it; what both have is in the other's help.
#[cfg(feature = "services")]
const USAGE: &str = "\
usage: bottle-services supervise [--config-dir DIR] [--asking-dir DIR] [--status-socket PATH] [--sockets DIR]
       bottle-services git-gate [--config-dir DIR] [--mirrors DIR] [--audit-dir DIR]
                                [--audit-file-bytes N] [--audit-files N] [--asking-dir DIR]
                                [--status-socket PATH] [--scratch DIR] [--port N] [--sockets DIR]
       bottle-services health | check | why | decide …, as bottle-sidecar: bottle-sidecar --help
";

/// For whoever calls it by hand; all else is called by the tools.
const EXAMPLES: &str = "
Examples, on the host:
  bottle-sidecar check ~/.bottle/state/demo-x7k2p/egress/policy.json
  bottle-sidecar why ~/.bottle/state/demo-x7k2p/egress/policy.json POST https://api.example.com/v1/items

Exit codes: 0 done, or allowed; 1 failed, 2 usage or invalid input, 3 refused by policy.
";

const FAILED: u8 = 1;
const INVALID: u8 = 2;
const REFUSED: u8 = 3;

/// What went wrong: the exit code and the message.
struct Failure(u8, String);

/// Runs the command; `args` are those after the program's name.
pub fn run(args: &[String]) -> ExitCode {
    let (command, rest) = match args.split_first() {
        Some((command, rest)) => (command.as_str(), rest),
        None => ("", args),
    };
    let result = match command {
        "egress" => run_egress(rest),
        #[cfg(feature = "services")]
        "supervise" => run_supervise(rest),
        #[cfg(feature = "services")]
        "git-gate" => run_git_gate(rest),
        // Both are called by git, with arguments of its own.
        #[cfg(feature = "services")]
        "git-gate-hook" => return git_gate::run_hook(),
        #[cfg(feature = "services")]
        "git-gate-credential" => return git_gate::run_credential(rest),
        #[cfg(not(feature = "services"))]
        "supervise" | "git-gate" | "git-gate-hook" | "git-gate-credential" => Err(usage(&format!(
            "`{command}` is in bottle-services, not in bottle-sidecar"
        ))),
        "forward" => run_forward(rest),
        "health" => run_health(rest),
        "check" => run_check(rest),
        "why" => run_why(rest),
        "decide" => run_decide(rest),
        "probe" => return probe::run(rest),
        "env" => return agent_env::run(rest),
        "session" => return session::run(rest),
        "skills" => return skills::run(rest),
        "work" => return work::run(rest),
        "outside" => for_the_check(outside::run()),
        "reveal" => for_the_check(reveal::run()),
        "--help" | "-h" | "help" => print(&format!("{USAGE}{EXAMPLES}")),
        "--version" | "-V" => print(&format!("{NAME} {}\n", env!("CARGO_PKG_VERSION"))),
        "" => Err(usage("a command is missing")),
        other => Err(usage(&format!("`{other}` is not a command"))),
    };
    match result {
        Ok(code) => ExitCode::from(code),
        Err(Failure(code, message)) => {
            say!("{message}");
            ExitCode::from(code)
        }
    }
}

fn run_egress(args: &[String]) -> Result<u8, Failure> {
    let mut ports = Ports::default();
    let mut settings = Settings {
        config_dir: PathBuf::from("/etc/bottle"),
        audit_dir: PathBuf::from("/var/lib/bottle/audit"),
        asking_dir: PathBuf::from("/var/lib/bottle"),
        audit_limits: None,
        status_socket: PathBuf::from(DEFAULT_SOCKET),
        upstream_proxy: std::env::var(UPSTREAM_PROXY)
            .ok()
            .filter(|text| !text.is_empty())
            .map(Zeroizing::new),
        ports,
        sockets: None,
    };
    for (flag, value) in flags(args)? {
        match flag {
            "--config-dir" => settings.config_dir = value.into(),
            "--audit-dir" => settings.audit_dir = value.into(),
            "--asking-dir" => settings.asking_dir = value.into(),
            "--audit-file-bytes" => {
                let limits = settings.audit_limits.get_or_insert_default();
                limits.file_bytes = number(flag, value)?;
            }
            "--audit-files" => {
                let limits = settings.audit_limits.get_or_insert_default();
                limits.files = number(flag, value)?;
            }
            "--status-socket" => settings.status_socket = value.into(),
            "--sockets" => settings.sockets = Some(value.into()),
            "--proxy-port" => ports.proxy = number(flag, value)?,
            "--https-port" => ports.https = number(flag, value)?,
            "--http-port" => ports.http = number(flag, value)?,
            "--dns-port" => ports.dns = number(flag, value)?,
            _ => return Err(usage(&format!("`{flag}` is not a flag of egress"))),
        }
    }
    settings.ports = ports;
    egress::run(settings)
        .map(|()| 0)
        .map_err(|error| Failure(FAILED, error.to_string()))
}

#[cfg(feature = "services")]
fn run_supervise(args: &[String]) -> Result<u8, Failure> {
    let mut places = supervise::Places {
        config_dir: PathBuf::from("/etc/bottle"),
        asking_dir: PathBuf::from("/var/lib/bottle"),
        status_socket: PathBuf::from(DEFAULT_SOCKET),
        sockets: None,
    };
    for (flag, value) in flags(args)? {
        match flag {
            "--config-dir" => places.config_dir = value.into(),
            "--asking-dir" => places.asking_dir = value.into(),
            "--status-socket" => places.status_socket = value.into(),
            "--sockets" => places.sockets = Some(value.into()),
            _ => return Err(usage(&format!("`{flag}` is not a flag of supervise"))),
        }
    }
    supervise::run(&places)
        .map(|()| 0)
        .map_err(|problem| Failure(FAILED, problem))
}

#[cfg(feature = "services")]
fn run_git_gate(args: &[String]) -> Result<u8, Failure> {
    let mut settings = git_gate::Settings {
        config_dir: PathBuf::from("/etc/bottle"),
        mirrors: PathBuf::from("/var/lib/bottle/mirrors"),
        audit_dir: PathBuf::from("/var/lib/bottle/audit"),
        asking_dir: PathBuf::from("/var/lib/bottle"),
        audit_limits: AuditLimits::default(),
        status_socket: PathBuf::from(DEFAULT_SOCKET),
        scratch: PathBuf::from("/tmp"),
        port: GATE_PORT,
        sockets: None,
    };
    for (flag, value) in flags(args)? {
        match flag {
            "--config-dir" => settings.config_dir = value.into(),
            "--mirrors" => settings.mirrors = value.into(),
            "--asking-dir" => settings.asking_dir = value.into(),
            "--audit-dir" => settings.audit_dir = value.into(),
            "--audit-file-bytes" => settings.audit_limits.file_bytes = number(flag, value)?,
            "--audit-files" => settings.audit_limits.files = number(flag, value)?,
            "--status-socket" => settings.status_socket = value.into(),
            "--sockets" => settings.sockets = Some(value.into()),
            "--scratch" => settings.scratch = value.into(),
            "--port" => settings.port = number(flag, value)?,
            _ => return Err(usage(&format!("`{flag}` is not a flag of git-gate"))),
        }
    }
    git_gate::run(&settings)
        .map(|()| 0)
        .map_err(|error| Failure(FAILED, error.to_string()))
}

fn run_forward(args: &[String]) -> Result<u8, Failure> {
    let mut settings = forward::Settings::default();
    for (flag, value) in flags(args)? {
        let door = || {
            let (port, socket) = value
                .split_once('=')
                .ok_or_else(|| usage(&format!("`{value}` is not PORT=SOCKET")))?;
            Ok((number(flag, port)?, PathBuf::from(socket)))
        };
        match flag {
            "--sockets" => settings.sockets = value.into(),
            "--status-socket" => settings.status_socket = value.into(),
            "--tcp" => settings.tcp.push(door()?),
            "--dns" => settings.dns.push(door()?),
            _ => return Err(usage(&format!("`{flag}` is not a flag of forward"))),
        }
    }
    forward::run(&settings)
        .map(|()| 0)
        .map_err(|problem| Failure(FAILED, problem))
}

fn run_health(args: &[String]) -> Result<u8, Failure> {
    let mut socket = PathBuf::from(DEFAULT_SOCKET);
    let mut wait = Duration::ZERO;
    for (flag, value) in flags(args)? {
        match flag {
            "--wait" => wait = Duration::from_secs(number(flag, value)?),
            "--status-socket" => socket = value.into(),
            _ => return Err(usage(&format!("`{flag}` is not a flag of health"))),
        }
    }
    health::check(&socket, wait)
        .map(|()| 0)
        .map_err(|problem| Failure(FAILED, problem))
}

/// `bottle-run check` starts these; nobody types them.
fn for_the_check(result: std::io::Result<()>) -> Result<u8, Failure> {
    result
        .map(|()| 0)
        .map_err(|error| Failure(FAILED, error.to_string()))
}

fn run_check(args: &[String]) -> Result<u8, Failure> {
    let [path] = args else {
        return Err(usage("check takes one file"));
    };
    let text = explain::check(path.as_ref()).map_err(|problem| Failure(INVALID, problem))?;
    print(&text)
}

fn run_why(args: &[String]) -> Result<u8, Failure> {
    let [path, method, url] = args else {
        return Err(usage("why takes a file, a method and a URL"));
    };
    let answer =
        explain::why(path.as_ref(), method, url).map_err(|problem| Failure(INVALID, problem))?;
    print(&format!("{answer:#}\n"))?;
    Ok(if answer["decision"] == "allow" {
        0
    } else {
        REFUSED
    })
}

fn run_decide(args: &[String]) -> Result<u8, Failure> {
    let [path] = args else {
        return Err(usage("decide takes a file, and questions on stdin"));
    };
    let input = std::io::stdin().lock();
    let answers =
        explain::decide_all(path.as_ref(), input).map_err(|problem| Failure(INVALID, problem))?;
    print(&answers)
}

/// Flags in pairs, `--flag value` or `--flag=value`.
fn flags(args: &[String]) -> Result<Vec<(&str, &str)>, Failure> {
    let mut pairs = Vec::new();
    let mut rest = args.iter();
    while let Some(arg) = rest.next() {
        if !arg.starts_with("--") {
            return Err(usage(&format!("`{arg}` is not expected here")));
        }
        match arg.split_once('=') {
            Some(pair) => pairs.push(pair),
            None => {
                let value = rest
                    .next()
                    .ok_or_else(|| usage(&format!("`{arg}` needs a value")))?;
                pairs.push((arg.as_str(), value.as_str()));
            }
        }
    }
    Ok(pairs)
}

fn number<T: std::str::FromStr>(flag: &str, value: &str) -> Result<T, Failure> {
    value
        .parse()
        .map_err(|_| usage(&format!("`{value}` is not a number for {flag}")))
}

fn usage(problem: &str) -> Failure {
    Failure(
        INVALID,
        format!("{problem}\nhint: {NAME} --help shows how it is used"),
    )
}

fn print(text: &str) -> Result<u8, Failure> {
    match std::io::stdout().write_all(text.as_bytes()) {
        // Whoever closed the pipe has read enough.
        Err(error) if error.kind() != std::io::ErrorKind::BrokenPipe => {
            Err(Failure(FAILED, format!("stdout: {error}")))
        }
        _ => Ok(0),
    }
}
