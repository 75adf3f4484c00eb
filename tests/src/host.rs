//! Services of the host, as a careless person runs them: on all addresses.

use std::io::Write as _;
use std::net::{TcpListener, UdpSocket};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread;

/// A TCP and a UDP service on every address of the host, for the life of the test.
#[derive(Debug)]
pub struct HostServices {
    /// The port of the TCP service, which greets.
    pub tcp: u16,
    /// The port of the UDP service, which sends back what it gets.
    pub udp: u16,
    contacts: Arc<AtomicUsize>,
}

impl HostServices {
    /// Starts both.
    ///
    /// # Panics
    /// When no port can be had.
    #[must_use]
    pub fn start() -> Self {
        let listener = TcpListener::bind("0.0.0.0:0").expect("a port");
        let socket = UdpSocket::bind("0.0.0.0:0").expect("a port");
        let tcp = listener.local_addr().expect("bound").port();
        let udp = socket.local_addr().expect("bound").port();
        let contacts = Arc::new(AtomicUsize::new(0));
        let count = Arc::clone(&contacts);
        thread::spawn(move || {
            for mut stream in listener.incoming().flatten() {
                count.fetch_add(1, Ordering::SeqCst);
                let _ = stream.write_all(b"HOST\n");
            }
        });
        let count = Arc::clone(&contacts);
        thread::spawn(move || {
            let mut bytes = [0; 2048];
            while let Ok((length, peer)) = socket.recv_from(&mut bytes) {
                count.fetch_add(1, Ordering::SeqCst);
                let _ = socket.send_to(&bytes[..length], peer);
            }
        });
        Self { tcp, udp, contacts }
    }

    /// How often anybody came.
    #[must_use]
    pub fn contacts(&self) -> usize {
        self.contacts.load(Ordering::SeqCst)
    }
}
