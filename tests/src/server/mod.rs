//! What answers on the test Internet: HTTP on 80, HTTPS on 443, DNS and an echo over UDP.
//!
//! Every connection, request and question is one JSON line on stdout, so that a test sees what really arrived. It is made
//! to be understood and not to be fast: a thread a connection, HTTP/1.1 only.

mod dns;
mod git;
mod http;
mod reflect;
mod stepped;
mod websocket;

use std::convert::Infallible;
use std::io::{self, Write as _};
use std::net::{IpAddr, Ipv4Addr, SocketAddr, TcpListener, TcpStream, UdpSocket};
use std::sync::Arc;
use std::thread;
use std::time::Duration;

use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::{ServerConfig, ServerConnection, StreamOwned};
use serde_json::{Value, json};

/// The port of the UDP echo: what a UDP probe finds when it gets through.
pub const UDP_ECHO: u16 = 7;

/// Nobody is waited for longer; a connection that hangs must not hold a thread for ever.
const PATIENCE: Duration = Duration::from_secs(30);

/// Serves until it is killed, as the environment says: `TESTKIT_CERT` and `TESTKIT_KEY` (PEM), `TESTKIT_NAMES` (what the
/// resolver knows, separated by commas) and `TESTKIT_ADDRESS` (what it answers).
///
/// # Errors
/// When a variable is missing or a port is taken.
pub fn serve_from_env() -> io::Result<Infallible> {
    let variable = |name: &str| {
        std::env::var(name).map_err(|error| io::Error::other(format!("{name}: {error}")))
    };
    let tls =
        tls(&variable("TESTKIT_CERT")?, &variable("TESTKIT_KEY")?).map_err(io::Error::other)?;
    let names = variable("TESTKIT_NAMES")?
        .split(',')
        .map(str::to_owned)
        .collect();
    let address: Ipv4Addr = variable("TESTKIT_ADDRESS")?
        .parse()
        .map_err(io::Error::other)?;
    let zone = Arc::new(dns::Zone { names, address });

    let any = |port: u16| SocketAddr::new(IpAddr::from(Ipv4Addr::UNSPECIFIED), port);
    let echo = UdpSocket::bind(any(UDP_ECHO))?;
    thread::spawn(move || echo_datagrams(&echo));
    let resolver = UdpSocket::bind(any(53))?;
    let over_tcp = TcpListener::bind(any(53))?;
    let known = Arc::clone(&zone);
    thread::spawn(move || dns::over_udp(&resolver, &known));
    accept("dns", over_tcp, move |stream, _| {
        dns::over_tcp(stream, &zone)
    });
    let https = TcpListener::bind(any(443))?;
    accept("https", https, move |stream, peer| {
        let mut session = StreamOwned::new(
            ServerConnection::new(Arc::clone(&tls)).map_err(io::Error::other)?,
            stream,
        );
        session.conn.complete_io(&mut session.sock)?;
        let sni = session.conn.server_name().map(str::to_owned);
        http::converse(session, peer, sni.as_deref())
    });
    // Last, because this is the one that tests wait for.
    accept("http", TcpListener::bind(any(80))?, |stream, peer| {
        http::converse(stream, peer, None)
    });
    loop {
        thread::park();
    }
}

fn tls(certificate: &str, key: &str) -> Result<Arc<ServerConfig>, String> {
    let chain =
        CertificateDer::pem_slice_iter(certificate.as_bytes()).collect::<Result<Vec<_>, _>>();
    let chain = chain.map_err(|error| format!("TESTKIT_CERT: {error}"))?;
    let key = PrivateKeyDer::from_pem_slice(key.as_bytes())
        .map_err(|error| format!("TESTKIT_KEY: {error}"))?;
    let builder =
        ServerConfig::builder_with_provider(Arc::new(rustls::crypto::ring::default_provider()));
    let builder = builder
        .with_safe_default_protocol_versions()
        .map_err(|error| error.to_string())?;
    let mut config = builder
        .with_no_client_auth()
        .with_single_cert(chain, key)
        .map_err(|error| error.to_string())?;
    config.alpn_protocols = vec![b"http/1.1".to_vec()];
    Ok(Arc::new(config))
}

/// Accepts for ever in the background; every connection is logged before a byte of it is read.
fn accept(
    what: &'static str,
    listener: TcpListener,
    converse: impl Fn(TcpStream, SocketAddr) -> io::Result<()> + Send + Sync + 'static,
) {
    let converse = Arc::new(converse);
    thread::spawn(move || {
        for stream in listener.incoming().flatten() {
            let converse = Arc::clone(&converse);
            thread::spawn(move || {
                let Ok(peer) = stream.peer_addr() else { return };
                log(&json!({"event": "connection", "listener": what, "peer": peer.to_string()}));
                let set = stream
                    .set_read_timeout(Some(PATIENCE))
                    .and_then(|()| stream.set_nodelay(true));
                // Clients break off in the middle all the time; that is what some tests do.
                if let Err(error) = set.and_then(|()| converse(stream, peer)) {
                    log(&json!({"event": "broken", "listener": what, "error": error.to_string()}));
                }
            });
        }
    });
}

fn echo_datagrams(socket: &UdpSocket) {
    let mut bytes = [0; 2048];
    while let Ok((length, peer)) = socket.recv_from(&mut bytes) {
        log(&json!({"event": "datagram", "peer": peer.to_string(), "bytes": length}));
        let _ = socket.send_to(&bytes[..length], peer);
    }
}

/// One line, written at once: threads must not mix theirs.
fn log(event: &Value) {
    let line = format!("{event}\n");
    // Nobody reads the log any more: then nobody misses it.
    let _ = io::stdout().lock().write_all(line.as_bytes());
}
