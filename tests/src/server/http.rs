//! HTTP/1.1, just as much as the suites need.

use std::collections::BTreeMap;
use std::io::{self, BufRead, BufReader, Read, Write};
use std::net::SocketAddr;
use std::thread;
use std::time::Duration;

use flate2::Compression;
use flate2::write::GzEncoder;
use serde_json::{Value, json};

use super::{git, log, reflect, stepped, websocket};
use crate::model;

/// More of a head or a body is not read: a test that sends more wants to see who stops it.
const MOST_HEAD: usize = 128 << 10;
const MOST_BODY: u64 = 64 << 20;

pub(super) struct Request {
    pub(super) method: String,
    pub(super) path: String,
    pub(super) query: BTreeMap<String, String>,
    pub(super) raw_query: String,
    pub(super) headers: Vec<(String, String)>,
    pub(super) body: Vec<u8>,
    trailers: Vec<String>,
    /// The body's length, also where the body itself was not kept.
    length: u64,
}

impl Request {
    pub(super) fn header(&self, name: &str) -> Option<&str> {
        let found = self
            .headers
            .iter()
            .find(|(known, _)| known.eq_ignore_ascii_case(name));
        found.map(|(_, value)| value.as_str())
    }

    /// A value of the query; empty when there is none.
    pub(super) fn asked(&self, key: &str) -> &str {
        self.query.get(key).map_or("", String::as_str)
    }

    pub(super) fn number(&self, key: &str, otherwise: usize) -> usize {
        self.query
            .get(key)
            .and_then(|text| text.parse().ok())
            .unwrap_or(otherwise)
    }

    fn as_json(&self, sni: Option<&str>) -> Value {
        json!({
            "method": self.method,
            "path": self.path,
            "query": self.query,
            "headers": self.headers,
            "body": String::from_utf8_lossy(&self.body),
            "length": self.length,
            "trailers": self.trailers,
            "sni": sni,
        })
    }
}

/// Answers requests until the client has enough.
pub(super) fn converse(
    stream: impl Read + Write,
    peer: SocketAddr,
    sni: Option<&str>,
) -> io::Result<()> {
    let mut stream = BufReader::new(stream);
    while let Some(mut request) = read_head(&mut stream)? {
        if request.path == "/early" {
            // The answer comes before the body was read, and it is the last.
            return whole(
                stream.get_mut(),
                "200 OK",
                &[("connection", "close")],
                b"early\n",
            );
        }
        if request
            .header("expect")
            .is_some_and(|value| value.eq_ignore_ascii_case("100-continue"))
        {
            stream
                .get_mut()
                .write_all(b"HTTP/1.1 100 Continue\r\n\r\n")?;
            stream.get_mut().flush()?;
        }
        read_body(&mut stream, &mut request)?;
        let mut event = request.as_json(sni);
        event["event"] = "request".into();
        event["peer"] = peer.to_string().into();
        log(&event);
        let last = request
            .header("connection")
            .is_some_and(|value| value.eq_ignore_ascii_case("close"));
        if request.path == "/ws" {
            return websocket::converse(&mut stream, &request);
        }
        if request.path == "/v1/responses" && request.header("sec-websocket-key").is_some() {
            return websocket::converse_as_model(&mut stream, &request);
        }
        answer(stream.get_mut(), &request, sni)?;
        if last {
            break;
        }
    }
    Ok(())
}

fn read_head(stream: &mut impl BufRead) -> io::Result<Option<Request>> {
    let Some(first) = read_line(stream)? else {
        return Ok(None);
    };
    let mut words = first.split(' ');
    let (Some(method), Some(target)) = (words.next(), words.next()) else {
        return Err(io::Error::other(format!("not a request: {first:?}")));
    };
    let (path, query) = target.split_once('?').unwrap_or((target, ""));
    let mut request = Request {
        method: method.to_owned(),
        path: path.to_owned(),
        query: query
            .split('&')
            .filter_map(|pair| pair.split_once('='))
            .map(|(key, value)| (key.to_owned(), percent_decoded(value)))
            .collect(),
        raw_query: query.to_owned(),
        headers: Vec::new(),
        body: Vec::new(),
        trailers: Vec::new(),
        length: 0,
    };
    loop {
        let line = read_line(stream)?.ok_or(io::ErrorKind::UnexpectedEof)?;
        if line.is_empty() {
            break;
        }
        let (name, value) = line
            .split_once(':')
            .ok_or_else(|| io::Error::other(format!("not a header: {line:?}")))?;
        request
            .headers
            .push((name.to_owned(), value.trim().to_owned()));
    }
    Ok(Some(request))
}

fn read_line(stream: &mut impl BufRead) -> io::Result<Option<String>> {
    let mut line = Vec::new();
    stream.take(MOST_HEAD as u64).read_until(b'\n', &mut line)?;
    if line.is_empty() {
        return Ok(None);
    }
    let line = String::from_utf8_lossy(&line);
    Ok(Some(line.trim_end_matches(['\r', '\n']).to_owned()))
}

fn read_body(stream: &mut impl BufRead, request: &mut Request) -> io::Result<()> {
    if request
        .header("transfer-encoding")
        .is_some_and(|value| value.eq_ignore_ascii_case("chunked"))
    {
        loop {
            let line = read_line(stream)?.ok_or(io::ErrorKind::UnexpectedEof)?;
            let size = line.split(';').next().unwrap_or_default().trim();
            let size = u64::from_str_radix(size, 16).map_err(io::Error::other)?;
            if size == 0 {
                while let Some(trailer) = read_line(stream)?.filter(|line| !line.is_empty()) {
                    request.trailers.push(trailer);
                }
                return Ok(());
            }
            take(stream, size, request)?;
            read_line(stream)?;
        }
    }
    let length = request.header("content-length").unwrap_or("0");
    let length = length.parse().map_err(io::Error::other)?;
    take(stream, length, request)
}

fn take(stream: &mut impl BufRead, count: u64, request: &mut Request) -> io::Result<()> {
    request.length += count;
    let mut piece = stream.take(count);
    if request.path == "/upload" {
        // As much as anybody likes: it is counted and not kept.
        let read = io::copy(&mut piece, &mut io::sink())?;
        return if read == count {
            Ok(())
        } else {
            Err(io::ErrorKind::UnexpectedEof.into())
        };
    }
    if request.length > MOST_BODY {
        return Err(io::Error::other("the body is too long"));
    }
    let read = piece.read_to_end(&mut request.body)?;
    if read as u64 == count {
        Ok(())
    } else {
        Err(io::ErrorKind::UnexpectedEof.into())
    }
}

fn percent_decoded(text: &str) -> String {
    let mut bytes = Vec::new();
    let mut rest = text.as_bytes();
    while let Some((&byte, after)) = rest.split_first() {
        let coded = (byte == b'%').then(|| {
            after
                .get(..2)
                .and_then(|hex| u8::from_str_radix(std::str::from_utf8(hex).ok()?, 16).ok())
        });
        if let Some(decoded) = coded.flatten() {
            bytes.push(decoded);
            rest = &after[2..];
        } else {
            bytes.push(byte);
            rest = after;
        }
    }
    String::from_utf8_lossy(&bytes).into_owned()
}

fn answer(out: &mut impl Write, request: &Request, sni: Option<&str>) -> io::Result<()> {
    if let Some(reply) = model::reply(&request.method, &request.path, &request.body) {
        let headers = [("content-type", reply.content_type)];
        return whole(out, "200 OK", &headers, reply.body.as_bytes());
    }
    match request.path.as_str() {
        "/redir" => {
            let to = request.query.get("to").map_or("/echo", String::as_str);
            whole(out, "302 Found", &[("location", to)], b"")
        }
        "/slow" => {
            thread::sleep(Duration::from_millis(request.number("ms", 1000) as u64));
            whole(out, "200 OK", &[], b"at last\n")
        }
        "/sse" => events(out, request),
        "/stepped" => stepped::stream(out, request),
        "/ack" => {
            stepped::acknowledge(request);
            whole(out, "200 OK", &[], b"")
        }
        "/reflect" => reflect::answer(out, request),
        "/upload" => whole(out, "200 OK", &[], request.length.to_string().as_bytes()),
        "/gzip" => {
            let mut packed = GzEncoder::new(Vec::new(), Compression::default());
            packed.write_all(request.as_json(sni).to_string().as_bytes())?;
            whole(
                out,
                "200 OK",
                &[("content-encoding", "gzip")],
                &packed.finish()?,
            )
        }
        "/bytes" => bytes(out, request.number("n", 1024)),
        path if path == "/echo" || path.starts_with("/echo/") => {
            let body = request.as_json(sni).to_string();
            whole(
                out,
                "200 OK",
                &[("content-type", "application/json")],
                body.as_bytes(),
            )
        }
        path if git::is_for(path) => git::answer(out, request),
        path if git::has_file(path) => git::file(out, path),
        _ => whole(
            out,
            "404 Not Found",
            &[],
            b"there is /echo /redir /slow /sse /stepped /ws /gzip /bytes /reflect /upload /early, git, files, and a model\n",
        ),
    }
}

pub(super) fn whole(
    out: &mut impl Write,
    status: &str,
    headers: &[(&str, &str)],
    body: &[u8],
) -> io::Result<()> {
    let mut answer =
        format!("HTTP/1.1 {status}\r\ncontent-length: {}\r\n", body.len()).into_bytes();
    for (name, value) in headers {
        write!(answer, "{name}: {value}\r\n")?;
    }
    answer.extend_from_slice(b"\r\n");
    answer.extend_from_slice(body);
    out.write_all(&answer)?;
    out.flush()
}

/// One event at a time, each flushed and some time apart: whoever buffers is found out.
fn events(out: &mut impl Write, request: &Request) -> io::Result<()> {
    out.write_all(
        b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\ntransfer-encoding: chunked\r\n\r\n",
    )?;
    for number in 0..request.number("n", 3) {
        if number > 0 {
            thread::sleep(Duration::from_millis(request.number("ms", 50) as u64));
        }
        let event = format!("data: {number}\n\n");
        write!(out, "{:x}\r\n{event}\r\n", event.len())?;
        out.flush()?;
    }
    out.write_all(b"0\r\n\r\n")?;
    out.flush()
}

fn bytes(out: &mut impl Write, count: usize) -> io::Result<()> {
    write!(
        out,
        "HTTP/1.1 200 OK\r\ncontent-type: application/octet-stream\r\ncontent-length: {count}\r\n\r\n"
    )?;
    let piece = [b'x'; 16 << 10];
    let mut left = count;
    while left > 0 {
        let now = left.min(piece.len());
        out.write_all(&piece[..now])?;
        left -= now;
    }
    out.flush()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A stream that reads from one place and writes to another.
    struct Both<'a>(&'a [u8], &'a mut Vec<u8>);

    impl Read for Both<'_> {
        fn read(&mut self, to: &mut [u8]) -> io::Result<usize> {
            self.0.read(to)
        }
    }

    impl Write for Both<'_> {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            self.1.write(bytes)
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    fn talk(request: &str) -> String {
        let mut out = Vec::new();
        let peer = SocketAddr::from(([127, 0, 0, 1], 1));
        converse(Both(request.as_bytes(), &mut out), peer, None)
            .expect("the conversation ends well");
        String::from_utf8_lossy(&out).into_owned()
    }

    #[test]
    fn an_echo_shows_everything_that_came() {
        let answer = talk("POST /echo?a=%2Fb HTTP/1.1\r\nHost: x\r\nContent-Length: 2\r\n\r\nhi");
        let body = answer.split("\r\n\r\n").nth(1).expect("a body");
        let echo: Value = serde_json::from_str(body).expect("JSON");
        assert_eq!(
            (&echo["method"], &echo["body"], &echo["query"]["a"]),
            (&json!("POST"), &json!("hi"), &json!("/b"))
        );
        assert_eq!(echo["headers"][0], json!(["Host", "x"]));
    }

    #[test]
    fn chunks_are_put_together_and_the_connection_goes_on() {
        let answer = talk(
            "POST /echo HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nab\r\n1;x=y\r\nc\r\n0\r\nT: t\r\n\r\n\
             GET /bytes?n=3 HTTP/1.1\r\nConnection: close\r\n\r\nGET /echo HTTP/1.1\r\n\r\n",
        );
        assert!(
            answer.contains(r#""body":"abc""#) && answer.ends_with("\r\n\r\nxxx"),
            "{answer}"
        );
    }

    #[test]
    fn compression_hides_what_is_inside() {
        let answer = talk("GET /gzip HTTP/1.1\r\nx-secret: find-me-if-you-can\r\n\r\n");
        assert!(
            answer.contains("content-encoding: gzip") && !answer.contains("find-me-if-you-can")
        );
    }
}
