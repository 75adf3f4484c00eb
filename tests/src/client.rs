//! The HTTP client that suites run in an agent: it sends what it is told, byte for byte, and says what came back.
//!
//! `fetch [--direct] [--stream] [--body TEXT] METHOD URL [NAME:VALUE]…`. Without `--direct` it asks the proxy of the
//! environment, as programs do that know about proxies; with it, it goes to the address of the name. With `--stream` it also
//! prints the answer's body as it comes.

use std::io::{self, Read, Write};
use std::net::TcpStream;
use std::sync::Arc;
use std::time::{Duration, Instant};

use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, ServerName};
use rustls::{ClientConfig, ClientConnection, RootCertStore, StreamOwned};
use serde_json::{Value, json};

const PATIENCE: Duration = Duration::from_secs(20);

#[derive(Debug, Default)]
struct Wanted {
    direct: bool,
    stream: bool,
    body: String,
    method: String,
    tls: bool,
    host: String,
    port: u16,
    target: String,
    headers: Vec<String>,
}

/// Makes one request and says what came back: `status`, `headers`, `body`, `length`, and when the first and the last byte
/// of the body came. What the proxy says to CONNECT, when it is not a tunnel, is an answer like any other.
///
/// # Errors
/// When there is no answer.
pub fn fetch(args: &[String]) -> io::Result<Value> {
    let wanted = parse(args).ok_or_else(|| {
        io::Error::other(
            "usage: fetch [--direct] [--stream] [--body TEXT] METHOD URL [NAME:VALUE]…",
        )
    })?;
    let proxy = if wanted.direct { None } else { Some(proxy()?) };
    let address = proxy
        .clone()
        .unwrap_or_else(|| format!("{}:{}", wanted.host, wanted.port));
    let mut stream = TcpStream::connect(address)?;
    stream.set_read_timeout(Some(PATIENCE))?;
    stream.set_nodelay(true)?;
    let origin_form = wanted.target.clone();
    if !wanted.tls {
        let target = match proxy {
            Some(_) => format!("http://{}:{}{}", wanted.host, wanted.port, origin_form),
            None => origin_form,
        };
        return exchange(stream, &wanted, &target);
    }
    if proxy.is_some() {
        let authority = format!("{}:{}", wanted.host, wanted.port);
        write!(
            stream,
            "CONNECT {authority} HTTP/1.1\r\nHost: {authority}\r\n\r\n"
        )?;
        let (head, body) = read_head(&mut stream)?;
        if !head.starts_with("HTTP/1.1 200") {
            return read_answer(stream, &head, body, None);
        }
    }
    let name = ServerName::try_from(wanted.host.clone()).map_err(io::Error::other)?;
    let connection =
        ClientConnection::new(trusting_the_environment()?, name).map_err(io::Error::other)?;
    exchange(StreamOwned::new(connection, stream), &wanted, &origin_form)
}

fn parse(args: &[String]) -> Option<Wanted> {
    let mut wanted = Wanted::default();
    let mut args = args.iter();
    let method = loop {
        match args.next()?.as_str() {
            "--direct" => wanted.direct = true,
            "--stream" => wanted.stream = true,
            "--body" => args.next()?.clone_into(&mut wanted.body),
            method => break method,
        }
    };
    method.clone_into(&mut wanted.method);
    let (scheme, rest) = args.next()?.split_once("://")?;
    wanted.tls = scheme == "https";
    let (authority, path) = rest.split_once('/').unwrap_or((rest, ""));
    wanted.target = format!("/{path}");
    let (host, port) = authority
        .split_once(':')
        .unwrap_or((authority, if wanted.tls { "443" } else { "80" }));
    host.clone_into(&mut wanted.host);
    wanted.port = port.parse().ok()?;
    wanted.headers = args.cloned().collect();
    Some(wanted)
}

fn proxy() -> io::Result<String> {
    let url = std::env::var("https_proxy")
        .map_err(|error| io::Error::other(format!("https_proxy: {error}")))?;
    Ok(url
        .trim_start_matches("http://")
        .trim_end_matches('/')
        .to_owned())
}

pub(crate) fn trusting_the_environment() -> io::Result<Arc<ClientConfig>> {
    let path = std::env::var("SSL_CERT_FILE")
        .map_err(|error| io::Error::other(format!("SSL_CERT_FILE: {error}")))?;
    let mut roots = RootCertStore::empty();
    for certificate in CertificateDer::pem_file_iter(path).map_err(io::Error::other)? {
        // A bundle of a distribution has some that no strict reader takes.
        let _ = roots.add(certificate.map_err(io::Error::other)?);
    }
    let builder =
        ClientConfig::builder_with_provider(Arc::new(rustls::crypto::ring::default_provider()));
    let builder = builder
        .with_safe_default_protocol_versions()
        .map_err(io::Error::other)?;
    Ok(Arc::new(
        builder.with_root_certificates(roots).with_no_client_auth(),
    ))
}

fn exchange(mut stream: impl Read + Write, wanted: &Wanted, target: &str) -> io::Result<Value> {
    let mut request = format!(
        "{} {target} HTTP/1.1\r\nHost: {}\r\nConnection: close\r\n",
        wanted.method, wanted.host
    );
    for header in &wanted.headers {
        let (name, value) = header.split_once(':').unwrap_or((header, ""));
        request.push_str(&format!("{name}: {}\r\n", value.trim()));
    }
    if !wanted.body.is_empty() {
        request.push_str(&format!("Content-Length: {}\r\n", wanted.body.len()));
    }
    request.push_str("\r\n");
    request.push_str(&wanted.body);
    stream.write_all(request.as_bytes())?;
    stream.flush()?;
    let (head, body) = read_head(&mut stream)?;
    let mut out = wanted.stream.then(io::stdout);
    let out = out.as_mut().map(|out| out as &mut dyn Write);
    read_answer(stream, &head, body, out)
}

/// The head, and what came after it in the same piece.
fn read_head(stream: &mut impl Read) -> io::Result<(String, Vec<u8>)> {
    let mut bytes = Vec::new();
    let mut piece = [0; 4096];
    loop {
        if let Some(end) = bytes.windows(4).position(|end| end == b"\r\n\r\n") {
            let body = bytes.split_off(end + 4);
            return Ok((String::from_utf8_lossy(&bytes).into_owned(), body));
        }
        match stream.read(&mut piece)? {
            0 => return Err(io::ErrorKind::UnexpectedEof.into()),
            count => bytes.extend_from_slice(&piece[..count]),
        }
    }
}

fn read_answer(
    mut stream: impl Read,
    head: &str,
    mut body: Vec<u8>,
    mut shown: Option<&mut dyn Write>,
) -> io::Result<Value> {
    let mut show = |bytes: &[u8]| match &mut shown {
        Some(out) => out.write_all(bytes).and_then(|()| out.flush()),
        None => Ok(()),
    };
    show(&body)?;
    let started = Instant::now();
    let mut first = (!body.is_empty()).then_some(Duration::ZERO);
    let headers: Vec<(&str, &str)> = head
        .lines()
        .skip(1)
        .filter_map(|line| line.split_once(": "))
        .collect();
    let header = |wanted: &str| {
        headers
            .iter()
            .find(|(name, _)| name.eq_ignore_ascii_case(wanted))
            .map(|(_, value)| *value)
    };
    let length: Option<usize> = header("content-length").and_then(|text| text.parse().ok());
    let mut piece = vec![0; 64 << 10];
    while length.is_none_or(|length| body.len() < length) {
        match stream.read(&mut piece) {
            Ok(0) => break,
            Ok(count) => {
                first.get_or_insert_with(|| started.elapsed());
                body.extend_from_slice(&piece[..count]);
                show(&piece[..count])?;
            }
            // What was promised and did not come shows in `length`.
            Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => break,
            Err(error) => return Err(error),
        }
    }
    let chunked =
        header("transfer-encoding").is_some_and(|value| value.eq_ignore_ascii_case("chunked"));
    let body = if chunked { dechunked(&body) } else { body };
    let shown = &body[..body.len().min(16 << 10)];
    Ok(json!({
        "status": head.split(' ').nth(1).and_then(|code| code.parse::<u16>().ok()),
        "headers": headers,
        "body": String::from_utf8_lossy(shown),
        "length": body.len(),
        "first_byte_ms": first.map(|time| time.as_millis() as u64),
        "last_byte_ms": started.elapsed().as_millis() as u64,
    }))
}

fn dechunked(mut rest: &[u8]) -> Vec<u8> {
    let mut body = Vec::new();
    while let Some(end) = rest.windows(2).position(|end| end == b"\r\n") {
        let size = std::str::from_utf8(&rest[..end])
            .ok()
            .and_then(|text| usize::from_str_radix(text.trim(), 16).ok());
        let Some(data) = size
            .filter(|&size| size > 0)
            .and_then(|size| rest.get(end + 2..end + 2 + size))
        else {
            break;
        };
        body.extend_from_slice(data);
        rest = rest.get(end + 4 + data.len()..).unwrap_or_default();
    }
    body
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn chunks_are_put_together() {
        assert_eq!(dechunked(b"3\r\nabc\r\n1\r\nd\r\n0\r\n\r\n"), b"abcd");
        assert_eq!(dechunked(b"ff\r\nabc"), b"");
    }

    #[test]
    fn arguments_are_read() {
        let args = [
            "--direct",
            "--body",
            "x",
            "POST",
            "https://a.example.com:8443/p?q",
            "A:b",
        ]
        .map(str::to_owned);
        let wanted = parse(&args).expect("valid");
        assert!(wanted.direct && wanted.tls);
        assert_eq!(
            (wanted.host.as_str(), wanted.port, wanted.target.as_str()),
            ("a.example.com", 8443, "/p?q")
        );
        assert!(parse(&["GET".to_owned()]).is_none());
    }
}
