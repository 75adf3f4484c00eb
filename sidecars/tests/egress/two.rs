//! HTTP/2 at both ends of the proxy, spoken in the same [`Message`]s as HTTP/1, so that one test says one thing
//! about both.

use std::convert::Infallible;
use std::io::{self, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::sync::{Arc, Mutex};
use std::thread;

use http_body_util::combinators::UnsyncBoxBody;
use http_body_util::{BodyExt, Full};
use hyper::body::{Bytes, Incoming};
use hyper::client::conn::http2::{SendRequest, handshake};
use hyper::header::HeaderName;
use hyper::service::service_fn;
use hyper::{HeaderMap, Request, Response, Version};
use hyper_util::rt::{TokioExecutor, TokioIo};
use rustls::{ClientConfig, ServerConfig};
use rustls_pki_types::ServerName;
use tokio::runtime::{Builder, Runtime};
use tokio_rustls::{TlsAcceptor, TlsConnector};

use crate::world::{Handler, Message, read_message};

/// What a handler writes in front of the name of a field to have it sent after the body; and what such a field's
/// name begins with in an answer.
pub(crate) const TRAILER: &str = "x-after-";

pub(crate) fn runtime() -> Runtime {
    Builder::new_current_thread().enable_all().build().unwrap()
}

/// What a handler writes.
#[derive(Default)]
struct Written(io::Cursor<Vec<u8>>);

impl Read for Written {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        self.0.read(buffer)
    }
}

impl Write for Written {
    fn write(&mut self, data: &[u8]) -> io::Result<usize> {
        self.0.get_mut().extend_from_slice(data);
        Ok(data.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// A TLS server that speaks HTTP/2 if asked to, HTTP/1 otherwise, and answers with `handler`.
pub(crate) fn upstream(
    mut tls: ServerConfig,
    handler: Arc<Handler>,
) -> (SocketAddr, Arc<Mutex<Vec<Message>>>) {
    tls.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    listener.set_nonblocking(true).unwrap();
    let address = listener.local_addr().unwrap();
    let seen = Arc::new(Mutex::new(Vec::new()));
    let log = seen.clone();
    thread::spawn(move || runtime().block_on(accept(listener, tls, handler, log)));
    (address, seen)
}

async fn accept(
    listener: std::net::TcpListener,
    tls: ServerConfig,
    handler: Arc<Handler>,
    log: Arc<Mutex<Vec<Message>>>,
) {
    let acceptor = TlsAcceptor::from(Arc::new(tls));
    let listener = tokio::net::TcpListener::from_std(listener).unwrap();
    while let Ok((stream, _)) = listener.accept().await {
        stream.set_nodelay(true).unwrap();
        let (acceptor, handler, log) = (acceptor.clone(), handler.clone(), log.clone());
        tokio::spawn(async move {
            let Ok(stream) = acceptor.accept(stream).await else {
                return;
            };
            let is_two = stream.get_ref().1.alpn_protocol() == Some(b"h2");
            let service = service_fn(move |request: Request<Incoming>| {
                let (handler, log) = (handler.clone(), log.clone());
                async move { Ok::<_, Infallible>(respond(request, &*handler, &log).await) }
            });
            let stream = TokioIo::new(stream);
            if is_two {
                let server = hyper::server::conn::http2::Builder::new(TokioExecutor::new());
                let _ = server.serve_connection(stream, service).await;
            } else {
                let server = hyper::server::conn::http1::Builder::new();
                let _ = server.serve_connection(stream, service).await;
            }
        });
    }
}

async fn respond(
    request: Request<Incoming>,
    handler: &Handler,
    log: &Mutex<Vec<Message>>,
) -> Response<UnsyncBoxBody<Bytes, Infallible>> {
    let (parts, body) = request.into_parts();
    // As in HTTP/1, what was broken off was no message.
    let Ok(body) = body.collect().await else {
        return Response::new(Full::default().boxed_unsync());
    };
    let body = body.to_bytes().to_vec();
    let path = parts.uri.path_and_query().map_or("/", |path| path.as_str());
    let mut message = Message {
        start: format!("{} {path} {:?}", parts.method, parts.version),
        headers: fields(&parts.headers),
        body,
    };
    if let Some(name) = parts.uri.authority() {
        message.headers.push(("host".into(), name.to_string()));
    }
    log.lock().unwrap().push(message.clone());
    let mut written = Written::default();
    handler(&message, &mut written);
    let answer = read_message(&mut written, true).unwrap();
    let mut response = Response::builder().status(answer.status());
    let mut trailers = HeaderMap::new();
    for (name, value) in &answer.headers {
        if let Some(name) = name.strip_prefix(TRAILER) {
            let name: HeaderName = name.parse().unwrap();
            trailers.append(name, value.parse().unwrap());
        } else if name != "transfer-encoding" {
            response = response.header(name, value);
        }
    }
    let body = Full::from(answer.body).with_trailers(async move {
        let some = !trailers.is_empty();
        some.then_some(Ok(trailers))
    });
    response.body(body.boxed_unsync()).unwrap()
}

fn fields(headers: &HeaderMap) -> Vec<(String, String)> {
    let text =
        |value: &hyper::header::HeaderValue| String::from_utf8_lossy(value.as_bytes()).into();
    headers
        .iter()
        .map(|(name, value)| (name.to_string(), text(value)))
        .collect()
}

/// HTTP/2 over a connection that leads to `host`.
pub(crate) async fn connect(
    stream: TcpStream,
    mut tls: ClientConfig,
    host: &str,
) -> SendRequest<Full<Bytes>> {
    tls.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
    stream.set_nonblocking(true).unwrap();
    let stream = tokio::net::TcpStream::from_std(stream).unwrap();
    let name = ServerName::try_from(host.to_owned()).unwrap();
    let stream = TlsConnector::from(Arc::new(tls))
        .connect(name, stream)
        .await
        .unwrap();
    assert_eq!(stream.get_ref().1.alpn_protocol(), Some(b"h2".as_slice()));
    let (sender, connection) = handshake(TokioExecutor::new(), TokioIo::new(stream))
        .await
        .unwrap();
    tokio::spawn(connection);
    sender
}

/// The request that an HTTP/1 text stands for.
pub(crate) fn request(raw: &str) -> Request<Full<Bytes>> {
    let (head, body) = raw.split_once("\r\n\r\n").unwrap();
    let mut lines = head.split("\r\n");
    let mut start = lines.next().unwrap().split(' ');
    let (method, path) = (start.next().unwrap(), start.next().unwrap());
    let mut request = Request::builder().method(method).version(Version::HTTP_2);
    let mut authority = "";
    for line in lines {
        match line.split_once(": ").unwrap() {
            ("host", value) => authority = value,
            ("connection", _) => {}
            (name, value) => request = request.header(name, value),
        }
    }
    let body = Full::from(Bytes::copy_from_slice(body.as_bytes()));
    let target = format!("https://{authority}{path}");
    request.uri(target).body(body).unwrap()
}

/// Sends it and collects the answer.
pub(crate) async fn ask(
    sender: &mut SendRequest<Full<Bytes>>,
    request: Request<Full<Bytes>>,
) -> Message {
    let response = sender.send_request(request).await.unwrap();
    let start = format!("HTTP/2 {}", response.status().as_u16());
    let mut headers = fields(response.headers());
    let body = response.into_body().collect().await.unwrap();
    let trailers = body.trailers().map(fields).unwrap_or_default();
    headers.extend(
        trailers
            .into_iter()
            .map(|(name, value)| (format!("{TRAILER}{name}"), value)),
    );
    Message {
        start,
        headers,
        body: body.to_bytes().to_vec(),
    }
}
