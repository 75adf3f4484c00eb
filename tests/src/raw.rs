//! The attacker's client that suites run in an agent: it sends exactly the bytes it is told, and says what came back.
//!
//! `raw`, with an array of exchanges on stdin, which are all made at once and answered by an array in the same order. Bytes are written as text in
//! which every character is one byte (Latin-1), so that any byte can be written in JSON.

use std::io::{self, Read, Write};
use std::net::TcpStream;
use std::sync::Arc;
use std::thread;
use std::time::{Duration, Instant};

use rustls::pki_types::ServerName;
use rustls::{ClientConfig, ClientConnection, RootCertStore, StreamOwned};
use serde::{Deserialize, Serialize};

use crate::client::trusting_the_environment;

/// One exchange.
#[derive(Clone, Debug, Default, Deserialize, Serialize)]
#[serde(default, deny_unknown_fields)]
pub struct Exchange {
    /// `HOST:PORT` to connect to.
    pub to: String,
    /// The target of a CONNECT before anything else; none when empty.
    pub connect: String,
    /// TLS with this server name; none when empty.
    pub sni: String,
    /// What it offers to speak.
    pub alpn: Vec<String>,
    /// What is sent, piece by piece.
    pub send: Vec<String>,
    /// The pause between two pieces, in milliseconds.
    pub pause_ms: u64,
    /// How long it waits for more once everything was sent.
    pub patience_ms: u64,
}

/// What came of it.
#[derive(Clone, Debug, Default, Deserialize, Serialize)]
pub struct Outcome {
    /// What CONNECT was answered.
    pub connect: String,
    /// What it speaks.
    pub alpn: String,
    /// Everything that came.
    pub answer: String,
    /// Whether the other side closed the connection.
    pub closed: bool,
    /// Why it ended early.
    pub error: String,
    /// How long it all took.
    pub took_ms: u64,
}

impl Outcome {
    /// The statuses of all answers in it, in order.
    #[must_use]
    pub fn statuses(&self) -> Vec<u16> {
        let lines = self.answer.split("HTTP/1.1 ").skip(1);
        lines
            .filter_map(|line| line.get(..3)?.parse().ok())
            .collect()
    }

    /// The reasons of all denials in it, CONNECT's first.
    #[must_use]
    pub fn reasons(&self) -> Vec<&str> {
        let lines = self.connect.lines().chain(self.answer.lines());
        lines
            .filter_map(|line| line.strip_prefix("x-bottle-reason: "))
            .collect()
    }
}

/// What a client that hides a name writes: a suite, whose key, no key of its own, and something unreadable.
const HIDDEN: [u8; 11] = [0, 0, 1, 0, 1, 7, 0, 0, 0, 1, 0xaa];

/// The first bytes of a TLS client that wants to talk to `host`, a character a byte; and with an extension more
/// of this type.
///
/// # Panics
/// When `host` is no name.
#[must_use]
pub fn client_hello(host: &str, more: Option<u16>) -> String {
    let roots = RootCertStore::empty();
    let config =
        ClientConfig::builder_with_provider(Arc::new(rustls::crypto::ring::default_provider()))
            .with_safe_default_protocol_versions()
            .expect("the usual versions")
            .with_root_certificates(roots)
            .with_no_client_auth();
    let name = ServerName::try_from(host.to_owned()).expect("a name");
    let mut client = ClientConnection::new(Arc::new(config), name).expect("a client");
    let mut hello = Vec::new();
    client.write_tls(&mut hello).expect("a vector takes it");
    if let Some(kind) = more {
        hello.extend(kind.to_be_bytes());
        hello.extend([0, 11]);
        hello.extend(HIDDEN);
        // Where the lengths are: of the extensions, behind the session, the suites and the compressions.
        let mut at = 5 + 4 + 2 + 32;
        at += 1 + usize::from(hello[at]);
        at += 2 + usize::from(u16::from_be_bytes([hello[at], hello[at + 1]]));
        at += 1 + usize::from(hello[at]);
        // Of the record, of the message (its last two bytes), of the extensions.
        for place in [3, 7, at] {
            let length = u16::from_be_bytes([hello[place], hello[place + 1]]) + 15;
            hello[place..place + 2].copy_from_slice(&length.to_be_bytes());
        }
    }
    hello.into_iter().map(char::from).collect()
}

/// Makes all exchanges at once.
///
/// # Errors
/// When stdin is not a list of exchanges.
pub fn raw() -> io::Result<Vec<Outcome>> {
    let exchanges: Vec<Exchange> =
        serde_json::from_reader(io::stdin()).map_err(io::Error::other)?;
    let running: Vec<_> = exchanges
        .into_iter()
        .map(|exchange| thread::spawn(move || run(&exchange)))
        .collect();
    let joined = running
        .into_iter()
        .map(|thread| thread.join().unwrap_or_default());
    Ok(joined.collect())
}

fn run(exchange: &Exchange) -> Outcome {
    let started = Instant::now();
    let mut outcome = Outcome::default();
    if let Err(error) = talk(exchange, &mut outcome) {
        outcome.error = error.to_string();
    }
    outcome.took_ms = u64::try_from(started.elapsed().as_millis()).unwrap_or(u64::MAX);
    outcome
}

fn talk(exchange: &Exchange, outcome: &mut Outcome) -> io::Result<()> {
    let patience = match exchange.patience_ms {
        0 => Duration::from_millis(1500),
        given => Duration::from_millis(given),
    };
    let mut stream = TcpStream::connect(&exchange.to)?;
    stream.set_nodelay(true)?;
    stream.set_read_timeout(Some(Duration::from_secs(15)))?;
    if !exchange.connect.is_empty() {
        let target = &exchange.connect;
        write!(
            stream,
            "CONNECT {target} HTTP/1.1\r\nHost: {target}\r\n\r\n"
        )?;
        outcome.connect = head(&mut stream)?;
        if !outcome.connect.starts_with("HTTP/1.1 200") {
            return Ok(());
        }
    }
    if exchange.sni.is_empty() {
        return converse(
            &mut stream,
            exchange,
            outcome,
            patience,
            |stream, patience| stream.set_read_timeout(Some(patience)),
        );
    }
    let mut config = (*trusting_the_environment()?).clone();
    config.alpn_protocols = exchange
        .alpn
        .iter()
        .map(|name| name.clone().into_bytes())
        .collect();
    let name = ServerName::try_from(exchange.sni.clone()).map_err(io::Error::other)?;
    let mut session = ClientConnection::new(Arc::new(config), name).map_err(io::Error::other)?;
    session.complete_io(&mut stream)?;
    outcome.alpn =
        String::from_utf8_lossy(session.alpn_protocol().unwrap_or_default()).into_owned();
    let mut session = StreamOwned::new(session, stream);
    converse(
        &mut session,
        exchange,
        outcome,
        patience,
        |session, patience| session.sock.set_read_timeout(Some(patience)),
    )
}

fn head(stream: &mut impl Read) -> io::Result<String> {
    let mut bytes = Vec::new();
    let mut byte = [0];
    while !bytes.ends_with(b"\r\n\r\n") && stream.read(&mut byte)? > 0 {
        bytes.push(byte[0]);
    }
    // A denial has a body, which tells nothing that the head does not.
    Ok(String::from_utf8_lossy(&bytes).into_owned())
}

fn converse<S: Read + Write>(
    stream: &mut S,
    exchange: &Exchange,
    outcome: &mut Outcome,
    patience: Duration,
    set_patience: impl Fn(&S, Duration) -> io::Result<()>,
) -> io::Result<()> {
    let mut bytes = Vec::new();
    let pause = Duration::from_millis(exchange.pause_ms.max(1));
    for (number, piece) in exchange.send.iter().enumerate() {
        if number > 0 && exchange.pause_ms > 0 {
            // What comes in the meantime must be taken: the end of a connection may throw away what was not.
            set_patience(stream, pause)?;
            let until = Instant::now() + pause;
            while !outcome.closed && Instant::now() < until && read(stream, &mut bytes, outcome) {}
        }
        let piece: Vec<u8> = piece.chars().map(|char| char as u8).collect();
        // Being cut off in the middle of an attack is an answer too.
        let sent = stream.write_all(&piece).and_then(|()| stream.flush());
        if outcome.closed || sent.is_err() {
            break;
        }
    }
    set_patience(stream, patience)?;
    while !outcome.closed && read(stream, &mut bytes, outcome) {}
    outcome.answer = bytes.iter().map(|&byte| char::from(byte)).collect();
    Ok(())
}

/// Reads what there is; no more of it is to be had now when this says so.
fn read(stream: &mut impl Read, bytes: &mut Vec<u8>, outcome: &mut Outcome) -> bool {
    let mut piece = [0; 16 << 10];
    match stream.read(&mut piece) {
        Ok(count) if count > 0 => {
            bytes.extend_from_slice(&piece[..count]);
            return true;
        }
        Err(error)
            if matches!(
                error.kind(),
                io::ErrorKind::WouldBlock | io::ErrorKind::TimedOut
            ) => {}
        Ok(_) | Err(_) => outcome.closed = true,
    }
    false
}
