//! The arguments: one text a probe.

use std::net::{IpAddr, Ipv4Addr, SocketAddr, SocketAddrV6};
use std::os::unix::process::ExitStatusExt as _;
use std::process::ExitStatus;
use std::time::Duration;

use super::dns::{self, RecordType};
use super::{Deadline, Outcome, kernel, limits, net, place, tricks};

pub(super) const USAGE: &str = "probe [--timeout-ms N] tcp:IP:PORT|udp:IP:PORT|icmp:IP|dns:IP[#PORT]:NAME[:TYPE]|dnstcp:…|\
resolve:NAME|http:IP:PORT:HOST:PORT|send:IP:PORT:BYTES|hello:IP:PORT:NAME|caps|raw|family:NAME|syscall:NAME|iouring|\
unshare|mounts[:GRANTED]|devices|knobs|user|threads:N|memory:MIB|files:N|ipv6|interfaces|env:NAME …";

const DEFAULT_LIMIT: Duration = Duration::from_millis(300);

/// Longer than anybody waits for a probe.
const MOST_MILLISECONDS: u64 = 60_000;

/// The whole command line.
#[derive(Clone, Debug)]
pub(super) struct Request {
    pub(super) limit: Duration,
    /// On this thread and not in a child; how a probe's own child is called.
    pub(super) alone: bool,
    /// Each with its spelling, which the answer repeats.
    pub(super) probes: Vec<(String, Probe)>,
}

/// An address with a port, as it is written; the interface of a link-local one is looked up when it is used.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Endpoint {
    pub(super) ip: IpAddr,
    pub(super) scope: Option<String>,
    pub(super) port: u16,
}

impl Endpoint {
    pub(super) fn address(&self) -> Result<SocketAddr, Outcome> {
        match (self.ip, &self.scope) {
            (IpAddr::V6(ip), Some(scope)) => {
                let index = net::interface_index(scope)
                    .ok_or_else(|| Outcome::closed(format!("there is no interface `{scope}`")))?;
                Ok(SocketAddrV6::new(ip, self.port, 0, index).into())
            }
            (ip, _) => Ok(SocketAddr::new(ip, self.port)),
        }
    }
}

/// One thing to try.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Probe {
    Tcp(Endpoint),
    Udp(Endpoint),
    Icmp(IpAddr),
    Dns {
        server: SocketAddr,
        name: String,
        kind: RecordType,
        over_tcp: bool,
    },
    Resolve(String),
    Connect {
        proxy: SocketAddr,
        authority: String,
    },
    Send {
        server: SocketAddr,
        bytes: Vec<u8>,
    },
    Hello {
        server: SocketAddr,
        name: Option<String>,
    },
    Caps,
    Raw,
    Family(kernel::Family),
    Syscall(kernel::Syscall),
    IoUring,
    Unshare,
    Mounts(Option<String>),
    Devices,
    Knobs,
    User,
    Threads(usize),
    Memory(usize),
    Files(usize),
    Ipv6,
    Interfaces,
    Env(String),
}

impl Probe {
    /// Tries it, here and now.
    pub(super) fn attempt(&self, deadline: Deadline) -> Outcome {
        match self {
            Self::Tcp(endpoint) => net::tcp(endpoint, deadline),
            Self::Udp(endpoint) => net::udp(endpoint, deadline),
            Self::Icmp(ip) => net::icmp(*ip, deadline),
            Self::Dns {
                server,
                name,
                kind,
                over_tcp,
            } => dns::ask(*server, name, *kind, *over_tcp, deadline),
            Self::Resolve(name) => net::resolve(name, deadline),
            Self::Connect { proxy, authority } => net::http_connect(*proxy, authority, deadline),
            Self::Send { server, bytes } => tricks::send(*server, bytes, deadline),
            Self::Hello { server, name } => tricks::hello(*server, name.as_deref(), deadline),
            Self::Caps => kernel::capabilities(),
            Self::Raw => kernel::raw_sockets(),
            Self::Family(family) => kernel::family(family),
            Self::Syscall(call) => kernel::syscall(*call),
            Self::IoUring => kernel::io_uring(),
            Self::Unshare => kernel::unshare_user(),
            Self::Mounts(granted) => place::mounts(granted.as_deref()),
            Self::Devices => place::devices(),
            Self::Knobs => place::knobs(),
            Self::User => place::user(),
            Self::Threads(most) => limits::threads(*most, deadline),
            Self::Memory(mebibytes) => limits::memory(*mebibytes),
            Self::Files(most) => limits::files(*most),
            Self::Ipv6 => place::ipv6(),
            Self::Interfaces => place::interfaces(),
            Self::Env(name) => place::variable(name),
        }
    }

    /// What a missing answer says: of a network, that nothing came through; of the kernel, nothing at all.
    pub(super) fn silence(&self, deadline: Deadline) -> Outcome {
        match self {
            Self::Tcp(_)
            | Self::Udp(_)
            | Self::Icmp(_)
            | Self::Dns { .. }
            | Self::Resolve(_)
            | Self::Send { .. }
            | Self::Hello { .. }
            | Self::Connect { .. } => deadline.missed(),
            _ => Outcome::not_tried("it did not end in time"),
        }
    }

    /// Whether a child's end is the answer: who takes too much memory is killed.
    pub(super) fn was_stopped_by(&self, status: ExitStatus) -> bool {
        matches!(self, Self::Memory(_)) && status.signal() == Some(nix::libc::SIGKILL)
    }

    pub(super) fn needs_a_process(&self) -> bool {
        matches!(
            self,
            Self::Unshare
                | Self::Resolve(_)
                | Self::Syscall(_)
                | Self::Threads(_)
                | Self::Memory(_)
                | Self::Files(_)
        )
    }
}

/// Reads the arguments.
pub(super) fn parse(args: &[String]) -> Result<Request, String> {
    let mut request = Request {
        limit: DEFAULT_LIMIT,
        alone: false,
        probes: Vec::new(),
    };
    let mut args = args.iter();
    while let Some(arg) = args.next() {
        match arg.as_str() {
            "--alone" => request.alone = true,
            "--timeout-ms" => request.limit = limit(args.next().map_or("", String::as_str))?,
            other => match other.strip_prefix("--timeout-ms=") {
                Some(text) => request.limit = limit(text)?,
                None => request.probes.push((other.to_owned(), probe(other)?)),
            },
        }
    }
    Ok(request)
}

fn limit(text: &str) -> Result<Duration, String> {
    match text.parse() {
        Ok(milliseconds @ 1..=MOST_MILLISECONDS) => Ok(Duration::from_millis(milliseconds)),
        _ => Err(format!(
            "--timeout-ms takes 1 to {MOST_MILLISECONDS}, not `{text}`"
        )),
    }
}

fn probe(text: &str) -> Result<Probe, String> {
    let (word, rest) = text.split_once(':').unwrap_or((text, ""));
    let parsed = match word {
        "tcp" => endpoint(rest).map(Probe::Tcp),
        "udp" => endpoint(rest).map(Probe::Udp),
        "icmp" => bare_ip(rest).map(Probe::Icmp),
        "dns" | "dnstcp" => dns_question(rest, word == "dnstcp"),
        "resolve" => (!rest.is_empty()).then(|| Probe::Resolve(rest.to_owned())),
        "http" => connect(rest),
        "send" => server_and(rest).and_then(|(server, bytes)| {
            let bytes = tricks::unescape(bytes)?;
            Some(Probe::Send { server, bytes })
        }),
        "hello" => server_and(rest).map(|(server, name)| Probe::Hello {
            server,
            name: (!name.is_empty()).then(|| name.to_owned()),
        }),
        "threads" => count(rest).map(Probe::Threads),
        "memory" => count(rest).map(Probe::Memory),
        "files" => count(rest).map(Probe::Files),
        "syscall" => kernel::Syscall::parse(rest).map(Probe::Syscall),
        "family" => kernel::Family::parse(rest).map(Probe::Family),
        "env" => (!rest.is_empty()).then(|| Probe::Env(rest.to_owned())),
        "mounts" => (rest.is_empty() || rest.starts_with('/'))
            .then(|| Probe::Mounts((!rest.is_empty()).then(|| rest.to_owned()))),
        _ if !rest.is_empty() => None,
        "caps" => Some(Probe::Caps),
        "raw" => Some(Probe::Raw),
        "iouring" => Some(Probe::IoUring),
        "unshare" => Some(Probe::Unshare),
        "devices" => Some(Probe::Devices),
        "knobs" => Some(Probe::Knobs),
        "user" => Some(Probe::User),
        "ipv6" => Some(Probe::Ipv6),
        "interfaces" => Some(Probe::Interfaces),
        _ => None,
    };
    parsed.ok_or_else(|| format!("`{text}` is not a probe"))
}

fn endpoint(text: &str) -> Option<Endpoint> {
    let (host, port) = text.rsplit_once(':')?;
    let port = port.parse().ok().filter(|&port| port != 0)?;
    let Some(inner) = host
        .strip_prefix('[')
        .and_then(|rest| rest.strip_suffix(']'))
    else {
        let ip: Ipv4Addr = host.parse().ok()?;
        return Some(Endpoint {
            ip: ip.into(),
            scope: None,
            port,
        });
    };
    let (ip, scope) = match inner.split_once('%') {
        Some((ip, scope)) if !scope.is_empty() => (ip, Some(scope.to_owned())),
        Some(_) => return None,
        None => (inner, None),
    };
    Some(Endpoint {
        ip: IpAddr::V6(ip.parse().ok()?),
        scope,
        port,
    })
}

fn bare_ip(text: &str) -> Option<IpAddr> {
    let inner = text
        .strip_prefix('[')
        .and_then(|rest| rest.strip_suffix(']'))
        .unwrap_or(text);
    inner.parse().ok()
}

/// `SERVER[#PORT]:NAME[:TYPE]`.
fn dns_question(text: &str, over_tcp: bool) -> Option<Probe> {
    let (server, rest) = match text.strip_prefix('[') {
        Some(inner) => {
            let (ip, rest) = inner.split_once(']')?;
            let (port, rest) = rest.split_once(':')?;
            (format!("[{ip}]{port}"), rest)
        }
        None => text
            .split_once(':')
            .map(|(server, rest)| (server.to_owned(), rest))?,
    };
    let (ip, port) = match server.split_once('#') {
        Some((ip, port)) => (ip, port.parse().ok()?),
        None => (server.as_str(), 53),
    };
    let (name, kind) = match rest.split_once(':') {
        Some((name, kind)) => (name, RecordType::parse(kind)?),
        None => (rest, RecordType::A),
    };
    let name = kind.question(name)?;
    Some(Probe::Dns {
        server: SocketAddr::new(bare_ip(ip)?, port),
        name,
        kind,
        over_tcp,
    })
}

fn count(text: &str) -> Option<usize> {
    text.parse().ok().filter(|&count| count > 0)
}

/// `IP:PORT:REST`.
fn server_and(text: &str) -> Option<(SocketAddr, &str)> {
    let (ip, rest) = match text.strip_prefix('[') {
        Some(inner) => inner.split_once("]:")?,
        None => text.split_once(':')?,
    };
    let (port, rest) = rest.split_once(':')?;
    let server = SocketAddr::new(ip.parse().ok()?, port.parse().ok()?);
    Some((server, rest))
}

/// `PROXYIP:PORT:HOST:PORT`. The host is sent as it is written: odd spellings are what a proxy is to be tried with, but
/// nothing that would end the line.
fn connect(text: &str) -> Option<Probe> {
    let (proxy, authority) = server_and(text)?;
    let plain = authority.contains(':') && authority.bytes().all(|b| b.is_ascii_graphic());
    plain.then(|| Probe::Connect {
        proxy,
        authority: authority.to_owned(),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parsed(text: &str) -> Result<Probe, String> {
        probe(text)
    }

    #[test]
    fn every_form_is_read() {
        for good in [
            "tcp:10.0.0.1:80",
            "tcp:[fe80::1%eth0]:80",
            "tcp:[::1]:80",
            "udp:10.0.0.1:53",
            "icmp:10.0.0.1",
            "icmp:::1",
            "icmp:[::1]",
            "dns:127.0.0.11:x.test",
            "dns:127.0.0.11#5353:x.test:TXT",
            "dns:[::1]#5353:x.test:AAAA",
            "dnstcp:127.0.0.11:10.0.0.1:PTR",
            "resolve:x.test",
            "http:10.0.0.1:3128:api.example.com:443",
            "http:[::1]:3128:api.example.com:443",
            "send:10.0.0.1:80:GET%20/%0d%0a",
            "hello:10.0.0.1:443:",
            "hello:10.0.0.1:443:x.test",
            "syscall:keyctl",
            "threads:9",
            "memory:9",
            "files:9",
            "devices",
            "knobs",
            "user",
            "caps",
            "raw",
            "family:vsock",
            "family:netlink-route",
            "iouring",
            "unshare",
            "mounts",
            "mounts:/run/x",
            "ipv6",
            "interfaces",
            "env:PATH",
        ] {
            assert!(parsed(good).is_ok(), "{good}");
        }
    }

    #[test]
    fn what_is_no_probe_is_named() {
        for bad in [
            "",
            "tcp",
            "tcp:",
            "tcp:host:80",
            "tcp:10.0.0.1",
            "tcp:10.0.0.1:0",
            "tcp:10.0.0.1:65536",
            "tcp:[fe80::1%]:80",
            "tcp:fe80::1:80",
            "icmp:host",
            "dns:127.0.0.11",
            "dns:127.0.0.11:",
            "dns:127.0.0.11:a..b",
            "dns:127.0.0.11:x.test:HINFO",
            "dns:host:x.test",
            "resolve:",
            "http:10.0.0.1:3128:api.example.com",
            "http:10.0.0.1:3128:a b:443",
            "http:10.0.0.1:3128:a\r\nX:443",
            "caps:x",
            "mounts:x",
            "send:10.0.0.1:80:%0",
            "hello:10.0.0.1:443",
            "syscall:nonsense",
            "threads:0",
            "memory:",
            "family:",
            "family:nonsense",
            "env:",
            "nonsense",
            "--help",
        ] {
            let message = parsed(bad).expect_err(bad);
            assert!(message.contains(bad), "{message}");
        }
    }

    #[test]
    fn the_limit_has_bounds() {
        let parse =
            |args: &[&str]| parse(&args.iter().map(|&arg| arg.to_owned()).collect::<Vec<_>>());
        assert_eq!(
            parse(&["--timeout-ms", "5", "caps"]).expect("valid").limit,
            Duration::from_millis(5)
        );
        assert_eq!(
            parse(&["--timeout-ms=7"]).expect("valid").limit,
            Duration::from_millis(7)
        );
        assert_eq!(parse(&["caps"]).expect("valid").limit, DEFAULT_LIMIT);
        for bad in [
            &["--timeout-ms", "0"][..],
            &["--timeout-ms", "x"],
            &["--timeout-ms"],
            &["--timeout-ms=60001"],
        ] {
            assert!(parse(bad).is_err(), "{bad:?}");
        }
    }
}
