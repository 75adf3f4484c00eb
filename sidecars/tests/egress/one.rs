//! HTTP/1 as tests speak it: raw bytes out, strictly read messages in, at both ends of the proxy.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener};
use std::sync::{Arc, Mutex};
use std::thread;

use rustls::{ServerConfig, ServerConnection, StreamOwned};
use serde_json::Value;

/// What an upstream does with one request.
pub(crate) type Handler = dyn Fn(&Message, &mut dyn Stream) -> bool + Send + Sync;

/// Anything that can be read and written.
pub(crate) trait Stream: Read + Write + Send {}
impl<T: Read + Write + Send> Stream for T {}

/// A parsed HTTP/1 message; good enough for tests and strict enough to notice nonsense.
#[derive(Clone, Debug, Default)]
pub(crate) struct Message {
    pub(crate) start: String,
    pub(crate) headers: Vec<(String, String)>,
    pub(crate) body: Vec<u8>,
}

impl Message {
    /// The values of a header.
    pub(crate) fn all(&self, name: &str) -> Vec<&str> {
        self.headers
            .iter()
            .filter(|(n, _)| n.eq_ignore_ascii_case(name))
            .map(|(_, v)| v.as_str())
            .collect()
    }

    /// The status of a response.
    pub(crate) fn status(&self) -> u16 {
        self.start.split(' ').nth(1).unwrap().parse().unwrap()
    }

    pub(crate) fn text(&self) -> String {
        String::from_utf8_lossy(&self.body).into_owned()
    }

    /// The reason of a denial.
    pub(crate) fn reason(&self) -> String {
        let value: Value =
            serde_json::from_slice(&self.body).unwrap_or_else(|_| panic!("no denial: {self:?}"));
        let error = match (self.status(), value["step"].is_string()) {
            (502..=504, true) => "bottle_upstream",
            (502..=504, false) => "bottle_unavailable",
            _ => "bottle_denied",
        };
        assert_eq!(value["error"], error);
        // Only what was forbidden can be asked for.
        assert_eq!(
            value["ask"].is_string(),
            error == "bottle_denied" && value["id"].is_string()
        );
        let reason = value["reason"].as_str().unwrap().to_owned();
        assert_eq!(self.all("x-bottle-reason"), [reason.as_str()]);
        assert_eq!(self.all("content-type"), ["application/json"]);
        reason
    }
}

/// Reads one message; `None` at the end of the stream.
pub(crate) fn read_message(stream: &mut dyn Stream, has_body: bool) -> Option<Message> {
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        let mut byte = [0];
        match stream.read(&mut byte) {
            Ok(1) => head.push(byte[0]),
            _ => return None,
        }
    }
    let head = String::from_utf8(head).unwrap();
    let mut lines = head.trim_end().split("\r\n");
    let mut message = Message {
        start: lines.next()?.to_owned(),
        ..Message::default()
    };
    for line in lines {
        let (name, value) = line.split_once(':').unwrap();
        message
            .headers
            .push((name.to_owned(), value.trim().to_owned()));
    }
    if !has_body {
        return Some(message);
    }
    if message.all("transfer-encoding") == ["chunked"] {
        loop {
            let size = usize::from_str_radix(&read_line(stream)?, 16).unwrap();
            let mut chunk = vec![0; size + 2];
            stream.read_exact(&mut chunk).ok()?;
            if size == 0 {
                break;
            }
            message.body.extend_from_slice(&chunk[..size]);
        }
    } else if let Some(length) = message.all("content-length").first() {
        message.body = vec![0; length.parse().unwrap()];
        stream.read_exact(&mut message.body).ok()?;
    }
    Some(message)
}

fn read_line(stream: &mut dyn Stream) -> Option<String> {
    let mut line = Vec::new();
    while !line.ends_with(b"\r\n") {
        let mut byte = [0];
        stream.read_exact(&mut byte).ok()?;
        line.push(byte[0]);
    }
    String::from_utf8(line)
        .ok()
        .map(|line| line.trim_end().to_owned())
}

/// Answers 200 with the request, as text, in the body.
pub(crate) fn echo(message: &Message, stream: &mut dyn Stream) -> bool {
    let mut body = format!("{}\n", message.start);
    for (name, value) in &message.headers {
        body.push_str(&format!("{name}: {value}\n"));
    }
    body.push('\n');
    body.push_str(&message.text());
    write!(
        stream,
        "HTTP/1.1 200 OK\r\ncontent-length: {}\r\n\r\n{body}",
        body.len()
    )
    .is_ok()
}

/// The same without the fields that carry credentials.
pub(crate) fn discreet(message: &Message, stream: &mut dyn Stream) -> bool {
    let mut message = message.clone();
    message
        .headers
        .retain(|(name, _)| !name.eq_ignore_ascii_case("x-api-key"));
    echo(&message, stream)
}

/// A server that answers every request with `handler`; with TLS if there is a certificate.
pub(crate) fn upstream(
    tls: Option<ServerConfig>,
    handler: Arc<Handler>,
) -> (SocketAddr, Arc<Mutex<Vec<Message>>>) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    let seen = Arc::new(Mutex::new(Vec::new()));
    let (log, tls) = (seen.clone(), tls.map(Arc::new));
    thread::spawn(move || {
        for stream in listener.incoming() {
            let (handler, log, tls) = (handler.clone(), log.clone(), tls.clone());
            thread::spawn(move || {
                let stream = stream.unwrap();
                stream.set_nodelay(true).unwrap();
                let mut stream: Box<dyn Stream> = match tls {
                    Some(tls) => Box::new(StreamOwned::new(
                        ServerConnection::new(tls).unwrap(),
                        stream,
                    )),
                    None => Box::new(stream),
                };
                while let Some(message) = read_message(&mut stream, true) {
                    log.lock().unwrap().push(message.clone());
                    if !handler(&message, &mut stream) || stream.flush().is_err() {
                        break;
                    }
                }
            });
        }
    });
    (address, seen)
}
