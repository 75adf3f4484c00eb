//! Packets: can anything be reached from here?

use std::hash::{BuildHasher as _, Hasher as _, RandomState};
use std::io::{self, ErrorKind, Read as _, Write as _};
use std::net::{IpAddr, SocketAddr, TcpStream, ToSocketAddrs as _, UdpSocket};

use socket2::{Domain, Protocol, Socket, Type};

use super::spec::Endpoint;
use super::{Deadline, Outcome, describe};

/// More of an answer's head is not looked at.
const MOST_HEAD: usize = 16 << 10;

const ECHO_REQUEST: u8 = 8;
const ECHO_REPLY: u8 = 0;
const ECHO_REQUEST_V6: u8 = 128;
const ECHO_REPLY_V6: u8 = 129;

/// A TCP connection. A refusal is not a connection, but `refused` in the detail says that somebody is there: on a network
/// that leads nowhere there is nobody to refuse.
pub(super) fn tcp(endpoint: &Endpoint, deadline: Deadline) -> Outcome {
    let address = match endpoint.address() {
        Ok(address) => address,
        Err(outcome) => return outcome,
    };
    match connect(address, deadline) {
        Ok(_) => Outcome::open(format!("connected in {} ms", deadline.elapsed_ms())),
        Err(outcome) => outcome,
    }
}

/// A datagram and any answer to it.
pub(super) fn udp(endpoint: &Endpoint, deadline: Deadline) -> Outcome {
    let address = match endpoint.address() {
        Ok(address) => address,
        Err(outcome) => return outcome,
    };
    let attempt = || -> io::Result<usize> {
        let socket = UdpSocket::bind(SocketAddr::new(any_like(address.ip()), 0))?;
        socket.connect(address)?;
        socket.set_read_timeout(deadline.left())?;
        socket.send(&nonce().to_be_bytes())?;
        socket.recv(&mut [0; 2048])
    };
    match attempt() {
        Ok(length) => Outcome::open(format!("{length} bytes in {} ms", deadline.elapsed_ms())),
        Err(error) => failed(&error, deadline),
    }
}

/// An echo request through the unprivileged ICMP socket that containers offer to every group unless told otherwise.
pub(super) fn icmp(ip: IpAddr, deadline: Deadline) -> Outcome {
    let (domain, protocol, request, reply) = match ip {
        IpAddr::V4(_) => (Domain::IPV4, Protocol::ICMPV4, ECHO_REQUEST, ECHO_REPLY),
        IpAddr::V6(_) => (
            Domain::IPV6,
            Protocol::ICMPV6,
            ECHO_REQUEST_V6,
            ECHO_REPLY_V6,
        ),
    };
    let attempt = || -> io::Result<()> {
        let mut socket = Socket::new(domain, Type::DGRAM, Some(protocol))?;
        socket.connect(&SocketAddr::new(ip, 0).into())?;
        // Checksum and identifier are the kernel's to fill in on this kind of socket.
        let mut packet = [0; 16];
        packet[0] = request;
        packet[8..].copy_from_slice(&nonce().to_be_bytes());
        socket.send(&packet)?;
        let mut answer = [0; 256];
        loop {
            let left = deadline.left().ok_or(ErrorKind::TimedOut)?;
            socket.set_read_timeout(Some(left))?;
            let length = socket.read(&mut answer)?;
            // Something else may come first, such as that nobody is there.
            if length >= packet.len() && answer[0] == reply && answer[8..16] == packet[8..16] {
                return Ok(());
            }
        }
    };
    match attempt() {
        Ok(()) => Outcome::open(format!("echo reply in {} ms", deadline.elapsed_ms())),
        Err(error) => failed(&error, deadline),
    }
}

/// The system's resolver, with all that the image configures for it.
pub(super) fn resolve(name: &str, deadline: Deadline) -> Outcome {
    match (name, 0).to_socket_addrs() {
        Ok(addresses) => {
            let mut list: Vec<String> = addresses.map(|address| address.ip().to_string()).collect();
            list.dedup();
            Outcome::open(format!(
                "{} in {} ms",
                list.join(" "),
                deadline.elapsed_ms()
            ))
        }
        Err(error) => Outcome::closed(format!("{error} ({} ms)", deadline.elapsed_ms())),
    }
}

/// What an explicit proxy says to CONNECT. Open means a 2xx: that there is a tunnel.
pub(super) fn http_connect(proxy: SocketAddr, authority: &str, deadline: Deadline) -> Outcome {
    let mut stream = match connect(proxy, deadline) {
        Ok(stream) => stream,
        Err(outcome) => return outcome,
    };
    let request = format!("CONNECT {authority} HTTP/1.1\r\nHost: {authority}\r\n\r\n");
    let head = stream
        .write_all(request.as_bytes())
        .and_then(|()| read_head(&mut stream, deadline));
    let head = match head {
        Ok(head) => head,
        Err(error) => return failed(&error, deadline),
    };
    let mut lines = head.split("\r\n");
    let status = lines.next().unwrap_or_default();
    let reason = lines
        .filter_map(|line| line.split_once(':'))
        .find(|(name, _)| name.eq_ignore_ascii_case("x-bottle-reason"));
    let detail = match reason {
        Some((name, value)) => format!("{status}; {}: {}", name.to_ascii_lowercase(), value.trim()),
        None => status.to_owned(),
    };
    let code = status.split(' ').nth(1).unwrap_or_default();
    let tunnel = status.starts_with("HTTP/1.") && code.len() == 3 && code.starts_with('2');
    Outcome {
        reached: tunnel,
        detail,
    }
}

pub(super) fn read_head(stream: &mut TcpStream, deadline: Deadline) -> io::Result<String> {
    let mut head = Vec::new();
    let mut piece = [0; 1024];
    while !head.windows(4).any(|end| end == b"\r\n\r\n") {
        let left = deadline.left().ok_or(ErrorKind::TimedOut)?;
        stream.set_read_timeout(Some(left))?;
        match stream.read(&mut piece)? {
            0 if head.is_empty() => return Err(ErrorKind::UnexpectedEof.into()),
            0 => break,
            count => head.extend_from_slice(&piece[..count]),
        }
        if head.len() > MOST_HEAD {
            break;
        }
    }
    Ok(String::from_utf8_lossy(&head).into_owned())
}

pub(super) fn connect(address: SocketAddr, deadline: Deadline) -> Result<TcpStream, Outcome> {
    let left = deadline.left().ok_or_else(|| deadline.missed())?;
    let stream =
        TcpStream::connect_timeout(&address, left).map_err(|error| failed(&error, deadline))?;
    stream
        .set_write_timeout(deadline.left())
        .map_err(|error| failed(&error, deadline))?;
    Ok(stream)
}

/// A failed exchange. A timeout has several error numbers, so it gets one text.
pub(super) fn failed(error: &io::Error, deadline: Deadline) -> Outcome {
    match error.kind() {
        ErrorKind::TimedOut | ErrorKind::WouldBlock => deadline.missed(),
        ErrorKind::ConnectionRefused => Outcome::closed(format!("refused ({})", describe(error))),
        _ => Outcome::errno(error),
    }
}

/// The index of an interface by its name or number.
pub(super) fn interface_index(scope: &str) -> Option<u32> {
    match scope.parse() {
        Ok(index) => Some(index),
        Err(_) => nix::net::if_::if_nametoindex(scope).ok(),
    }
}

pub(super) fn any_like(ip: IpAddr) -> IpAddr {
    match ip {
        IpAddr::V4(_) => IpAddr::V4(std::net::Ipv4Addr::UNSPECIFIED),
        IpAddr::V6(_) => IpAddr::V6(std::net::Ipv6Addr::UNSPECIFIED),
    }
}

/// Something nobody else sends: every hasher of the standard library is keyed by the system's random bytes.
pub(super) fn nonce() -> u64 {
    RandomState::new().build_hasher().finish()
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::BufRead as _;
    use std::net::TcpListener;
    use std::thread;
    use std::time::Duration;

    fn endpoint(address: SocketAddr) -> Endpoint {
        Endpoint {
            ip: address.ip(),
            scope: None,
            port: address.port(),
        }
    }

    fn soon() -> Deadline {
        Deadline::new(Duration::from_millis(500))
    }

    #[test]
    fn a_listener_is_reached_and_a_closed_port_refuses() {
        let listener = TcpListener::bind("127.0.0.1:0").expect("binds");
        let address = listener.local_addr().expect("bound");
        assert!(tcp(&endpoint(address), soon()).reached);
        drop(listener);
        let outcome = tcp(&endpoint(address), soon());
        assert!(
            !outcome.reached && outcome.detail.starts_with("refused (ECONNREFUSED"),
            "{outcome:?}"
        );
    }

    #[test]
    fn a_datagram_counts_when_it_is_answered() {
        let server = UdpSocket::bind("127.0.0.1:0").expect("binds");
        let address = server.local_addr().expect("bound");
        let echo = thread::spawn(move || {
            let mut bytes = [0; 64];
            let (length, from) = server.recv_from(&mut bytes).expect("a packet");
            server.send_to(&bytes[..length], from).expect("answers");
        });
        let outcome = udp(&endpoint(address), soon());
        assert!(
            outcome.reached && outcome.detail.starts_with("8 bytes"),
            "{outcome:?}"
        );
        echo.join().expect("no panic");
        let outcome = udp(&endpoint(address), soon());
        assert!(
            !outcome.reached && outcome.detail.starts_with("refused"),
            "{outcome:?}"
        );
    }

    #[test]
    fn icmp_says_what_happened() {
        let outcome = icmp(IpAddr::from([127, 0, 0, 1]), soon());
        let told = outcome.reached
            || outcome.detail.starts_with("EACCES")
            || outcome.detail.starts_with("EPERM");
        assert!(told, "{outcome:?}");
    }

    #[test]
    fn an_unknown_interface_is_named() {
        let endpoint = Endpoint {
            ip: "fe80::1".parse().expect("valid"),
            scope: Some("nowhere0".into()),
            port: 80,
        };
        assert_eq!(
            tcp(&endpoint, soon()).detail,
            "there is no interface `nowhere0`"
        );
    }

    fn answer_connect(answer: &'static str) -> Outcome {
        let listener = TcpListener::bind("127.0.0.1:0").expect("binds");
        let proxy = listener.local_addr().expect("bound");
        let server = thread::spawn(move || {
            let (mut stream, _) = listener.accept().expect("a client");
            let mut lines = io::BufReader::new(stream.try_clone().expect("clones")).lines();
            let first = lines.next().expect("a line").expect("text");
            while lines
                .next()
                .is_some_and(|line| line.is_ok_and(|line| !line.is_empty()))
            {}
            stream.write_all(answer.as_bytes()).expect("writes");
            first
        });
        let outcome = http_connect(proxy, "api.example.com:443", soon());
        assert_eq!(
            server.join().expect("no panic"),
            "CONNECT api.example.com:443 HTTP/1.1"
        );
        outcome
    }

    #[test]
    fn a_proxy_that_refuses_is_quoted_with_its_reason() {
        let outcome =
            answer_connect("HTTP/1.1 403 Forbidden\r\nX-Bottle-Reason: host_not_allowed\r\n\r\n{}");
        assert!(!outcome.reached);
        assert_eq!(
            outcome.detail,
            "HTTP/1.1 403 Forbidden; x-bottle-reason: host_not_allowed"
        );
    }

    #[test]
    fn only_a_tunnel_is_open() {
        assert!(answer_connect("HTTP/1.1 200 Connection established\r\n\r\n").reached);
        assert!(!answer_connect("HTTP/1.1 302 Found\r\n\r\n").reached);
        assert!(!answer_connect("SSH-2.0-x 200 y\r\n\r\n").reached);
        assert!(!answer_connect("").reached);
    }
}
