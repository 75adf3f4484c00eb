//! The outside of `bottle-run check`: a host on another network that answers whoever comes and says who came.
//!
//! It stands for the Internet, for a neighbour and for an upstream, so that a check never has to contact anybody else.
//! Every contact is one line on stdout: `tcp 80 10.1.2.3`.

use std::io::{self, Read as _, Write as _};
use std::net::{IpAddr, Ipv4Addr, SocketAddr, TcpListener, TcpStream, UdpSocket};
use std::thread;
use std::time::Duration;

/// Where it listens: the web, names, SSH, and a port nobody has a rule for.
const TCP: [u16; 5] = [22, 53, 80, 443, 7777];
const UDP: [u16; 2] = [53, 7777];
const DNS: u16 = 53;

/// A client that connects and says nothing is not waited for.
const PATIENCE: Duration = Duration::from_secs(2);

/// What a request that asks for it is sent to: an address no bottle may reach.
const REDIRECT: &str = "http://169.254.169.254/latest/meta-data/";

/// Listens until it is killed.
pub(crate) fn run() -> io::Result<()> {
    let mut threads = Vec::new();
    for port in TCP {
        let listener = TcpListener::bind((Ipv4Addr::UNSPECIFIED, port))?;
        threads.push(thread::spawn(move || serve_tcp(&listener, port)));
    }
    for port in UDP {
        let socket = UdpSocket::bind((Ipv4Addr::UNSPECIFIED, port))?;
        threads.push(thread::spawn(move || serve_udp(&socket, port)));
    }
    note("ready");
    for thread in threads {
        let _ = thread.join();
    }
    Ok(())
}

fn note(line: &str) {
    let mut out = io::stdout().lock();
    let _ = writeln!(out, "{line}").and_then(|()| out.flush());
}

fn serve_tcp(listener: &TcpListener, port: u16) {
    for stream in listener.incoming().flatten() {
        if let Ok(peer) = stream.peer_addr() {
            note(&format!("tcp {port} {}", peer.ip()));
        }
        thread::spawn(move || answer_tcp(stream, port));
    }
}

fn answer_tcp(mut stream: TcpStream, port: u16) -> io::Result<()> {
    stream.set_read_timeout(Some(PATIENCE))?;
    let mut bytes = [0; 4096];
    let length = stream.read(&mut bytes)?;
    if port == DNS {
        let answer = answer_dns(bytes.get(2..length).unwrap_or_default(), own(&stream));
        let length = u16::try_from(answer.len()).unwrap_or_default();
        stream.write_all(&length.to_be_bytes())?;
        return stream.write_all(&answer);
    }
    let asked = String::from_utf8_lossy(&bytes[..length]);
    let path = asked.split(' ').nth(1).unwrap_or_default();
    let status = if path.ends_with("/redirect") {
        format!("302 Found\r\nlocation: {REDIRECT}")
    } else {
        "200 OK".to_owned()
    };
    let head =
        format!("HTTP/1.1 {status}\r\ncontent-length: 8\r\nconnection: close\r\n\r\noutside\n");
    stream.write_all(head.as_bytes())
}

fn own(stream: &TcpStream) -> IpAddr {
    stream
        .local_addr()
        .map_or(Ipv4Addr::LOCALHOST.into(), |address: SocketAddr| {
            address.ip()
        })
}

fn serve_udp(socket: &UdpSocket, port: u16) {
    let mut bytes = [0; 4096];
    while let Ok((length, peer)) = socket.recv_from(&mut bytes) {
        note(&format!("udp {port} {}", peer.ip()));
        let answer = match port {
            DNS => answer_dns(&bytes[..length], Ipv4Addr::LOCALHOST.into()),
            _ => bytes[..length].to_vec(),
        };
        let _ = socket.send_to(&answer, peer);
    }
}

/// One A record for whatever name is asked for.
fn answer_dns(question: &[u8], address: IpAddr) -> Vec<u8> {
    let (IpAddr::V4(address), true) = (address, question.len() >= 12) else {
        return Vec::new();
    };
    let mut answer = question.to_vec();
    // An answer, one record in it, nothing behind the question.
    answer[2..4].copy_from_slice(&[0x81, 0x80]);
    answer[6..12].copy_from_slice(&[0, 1, 0, 0, 0, 0]);
    // The name of the question; A, Internet, 30 seconds, four bytes.
    answer.extend([0xc0, 0x0c, 0, 1, 0, 1, 0, 0, 0, 30, 0, 4]);
    answer.extend(address.octets());
    answer
}
