//! The host, as something to be reached: listeners on its addresses on bridges the bottle or the check made.

use std::io::Write as _;
use std::net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream, UdpSocket};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::thread;
use std::time::Duration;

/// Listeners that count who comes. They end with this.
#[derive(Debug, Default)]
pub(super) struct Host {
    /// Address and port of each; TCP and UDP have the same.
    pub listening: Vec<(Ipv4Addr, u16)>,
    contacts: Arc<AtomicUsize>,
    end: Arc<AtomicBool>,
}

impl Host {
    /// Listens on those of `addresses` that are the host's.
    pub(super) fn listen(addresses: &[Ipv4Addr]) -> Self {
        let mut host = Self::default();
        for address in addresses {
            if let Some(port) = host.listen_on(*address) {
                host.listening.push((*address, port));
            }
        }
        host
    }

    fn listen_on(&self, address: Ipv4Addr) -> Option<u16> {
        let tcp = TcpListener::bind((address, 0)).ok()?;
        let port = tcp.local_addr().ok()?.port();
        let udp = UdpSocket::bind((address, port)).ok()?;
        tcp.set_nonblocking(true).ok()?;
        udp.set_read_timeout(Some(Duration::from_millis(50))).ok()?;
        let (count, end) = (Arc::clone(&self.contacts), Arc::clone(&self.end));
        thread::spawn(move || {
            while !end.load(Ordering::Relaxed) {
                match tcp.accept() {
                    Ok((mut stream, _)) => {
                        count.fetch_add(1, Ordering::Relaxed);
                        let _ =
                            stream.write_all(b"HTTP/1.1 200 OK\r\ncontent-length: 5\r\n\r\nhost\n");
                    }
                    Err(_) => thread::sleep(Duration::from_millis(10)),
                }
            }
        });
        let (count, end) = (Arc::clone(&self.contacts), Arc::clone(&self.end));
        thread::spawn(move || {
            let mut bytes = [0; 2048];
            while !end.load(Ordering::Relaxed) {
                if let Ok((length, peer)) = udp.recv_from(&mut bytes) {
                    count.fetch_add(1, Ordering::Relaxed);
                    let _ = udp.send_to(&bytes[..length], peer);
                }
            }
        });
        Some(port)
    }

    /// How often somebody came.
    pub(super) fn contacts(&self) -> usize {
        self.contacts.load(Ordering::Relaxed)
    }
}

impl Drop for Host {
    fn drop(&mut self) {
        self.end.store(true, Ordering::Relaxed);
    }
}

/// What the host finds at `address`: whether somebody listens, or is there at all.
pub(super) fn knock(address: Ipv4Addr, port: u16) -> Knock {
    let to = SocketAddr::from((address, port));
    match TcpStream::connect_timeout(&to, Duration::from_millis(500)) {
        Ok(_) => Knock::Open,
        Err(error) if error.kind() == std::io::ErrorKind::ConnectionRefused => Knock::Refused,
        Err(_) => Knock::Silent,
    }
}

/// The answer to a knock.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Knock {
    /// Somebody listens.
    Open,
    /// Somebody is there, and nothing listens.
    Refused,
    /// Nobody is there, or it cannot be reached from here.
    Silent,
}
