//! From an address to a TLS connection, and a request over it.

use std::io::{self, BufReader, IoSlice, Read, Write};
use std::net::{SocketAddr, TcpStream, ToSocketAddrs as _};
use std::sync::Arc;
use std::time::Duration;

use rustls::client::Resumption;
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, ServerName};
use rustls::{ClientConfig, ClientConnection, RootCertStore, StreamOwned};

use super::http::{self, Answer};
use super::options::Options;

/// What hangs for so long has failed.
const PATIENCE: Duration = Duration::from_secs(30);

/// rustls asks for 4 KiB at a time. Read in larger pieces, a bulk transfer costs a fraction of the system calls, and the
/// generator does not become what is measured.
const INBOX: usize = 128 << 10;

/// How much of an upload is handed to TLS at once.
const PIECE: usize = 64 << 10;

const TLS_PORT: u16 = 443;

/// Makes connections that are all alike.
pub(super) struct Dialer {
    address: SocketAddr,
    /// What is asked of the proxy, when there is one.
    connect: Option<Vec<u8>>,
    name: ServerName<'static>,
    tls: Arc<ClientConfig>,
    /// The head of each request.
    pub(super) request: Vec<u8>,
}

impl Dialer {
    pub(super) fn new(options: &Options) -> io::Result<Self> {
        let authority = format!("{}:{TLS_PORT}", options.host);
        let dialled = options.proxy.as_ref().unwrap_or(&authority);
        let address = dialled
            .to_socket_addrs()?
            .next()
            .ok_or_else(|| io::Error::other(format!("{dialled} has no address")))?;
        let connect = format!("CONNECT {authority} HTTP/1.1\r\nHost: {authority}\r\n\r\n");
        Ok(Self {
            address,
            connect: options.proxy.is_some().then_some(connect.into_bytes()),
            name: ServerName::try_from(options.host.clone()).map_err(io::Error::other)?,
            tls: tls(options)?,
            request: request(options),
        })
    }

    pub(super) fn dial(&self) -> io::Result<Connection> {
        let stream = TcpStream::connect_timeout(&self.address, PATIENCE)?;
        stream.set_read_timeout(Some(PATIENCE))?;
        stream.set_write_timeout(Some(PATIENCE))?;
        stream.set_nodelay(true)?;
        let mut stream = Buffered(BufReader::with_capacity(INBOX, stream));
        if let Some(connect) = &self.connect {
            stream.write_all(connect)?;
            let head = http::read_head(&mut stream.0, &mut Vec::new())?;
            if head.status != 200 {
                return Err(io::Error::other(format!("CONNECT: {}", head.status)));
            }
        }
        let mut session = ClientConnection::new(Arc::clone(&self.tls), self.name.clone())
            .map_err(io::Error::other)?;
        while session.is_handshaking() {
            session.complete_io(&mut stream)?;
        }
        Ok(Connection {
            stream: StreamOwned::new(session, stream),
            line: Vec::new(),
        })
    }
}

fn tls(options: &Options) -> io::Result<Arc<ClientConfig>> {
    let mut roots = RootCertStore::empty();
    for certificate in CertificateDer::pem_file_iter(&options.ca).map_err(io::Error::other)? {
        roots
            .add(certificate.map_err(io::Error::other)?)
            .map_err(io::Error::other)?;
    }
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let builder = ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .map_err(io::Error::other)?;
    let mut config = builder.with_root_certificates(roots).with_no_client_auth();
    config.alpn_protocols = vec![b"http/1.1".to_vec()];
    config.resumption = Resumption::disabled();
    Ok(Arc::new(config))
}

fn request(options: &Options) -> Vec<u8> {
    let (method, body) = match options.upload {
        0 => ("GET", String::new()),
        length => ("POST", format!("Content-Length: {length}\r\n")),
    };
    let headers: String = options
        .headers
        .iter()
        .filter_map(|header| header.split_once(':'))
        .map(|(name, value)| format!("{name}: {}\r\n", value.trim()))
        .collect();
    let Options { host, path, .. } = options;
    format!("{method} {path} HTTP/1.1\r\nHost: {host}\r\n{headers}{body}\r\n").into_bytes()
}

pub(super) struct Connection {
    stream: StreamOwned<ClientConnection, Buffered>,
    /// Kept from answer to answer, for the lines of the head.
    line: Vec<u8>,
}

impl Connection {
    pub(super) fn exchange(&mut self, request: &[u8], upload: u64) -> io::Result<Answer> {
        self.stream.write_all(request)?;
        let mut left = upload;
        while left > 0 {
            let piece = usize::try_from(left).unwrap_or(PIECE).min(PIECE);
            self.stream.write_all(&NOISE[..piece])?;
            left -= piece as u64;
        }
        self.stream.flush()?;
        let head = http::read_head(&mut self.stream, &mut self.line)?;
        let bytes = http::read_body(&mut self.stream, &head, &mut self.line)?;
        Ok(Answer {
            status: head.status,
            closes: head.closes,
            bytes,
        })
    }
}

impl Drop for Connection {
    fn drop(&mut self) {
        // As a client should. When the peer is gone already, there is nobody to tell.
        self.stream.conn.send_close_notify();
        let _ = self.stream.conn.write_tls(&mut self.stream.sock);
    }
}

/// What an upload sends: bytes that neither compress nor repeat within a TLS record, because what looks for patterns in
/// bodies runs through zeros faster than through anything real.
static NOISE: [u8; PIECE] = noise();

const fn noise() -> [u8; PIECE] {
    let mut bytes = [0; PIECE];
    let mut state: u32 = 0x9e37_79b9;
    let mut at = 0;
    while at < PIECE {
        // Xorshift, by Marsaglia.
        state ^= state << 13;
        state ^= state >> 17;
        state ^= state << 5;
        bytes[at] = state.to_le_bytes()[1];
        at += 1;
    }
    bytes
}

/// Reads much at once, and writes through.
struct Buffered(BufReader<TcpStream>);

impl Read for Buffered {
    fn read(&mut self, into: &mut [u8]) -> io::Result<usize> {
        self.0.read(into)
    }
}

impl Write for Buffered {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.get_mut().write(bytes)
    }

    // Without it a record's head and its body would be two system calls.
    fn write_vectored(&mut self, parts: &[IoSlice<'_>]) -> io::Result<usize> {
        self.0.get_mut().write_vectored(parts)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}
