//! WebSocket: the one upgrade there is. Bytes flow freely only after the destination has really agreed;
//! until then, and if it does not agree, everything stays HTTP and under the rules of HTTP.

use std::sync::Arc;
use std::time::Duration;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use hyper::body::Incoming;
use hyper::header::{
    CONNECTION, HeaderValue, SEC_WEBSOCKET_ACCEPT, SEC_WEBSOCKET_EXTENSIONS, SEC_WEBSOCKET_KEY,
    SEC_WEBSOCKET_VERSION, UPGRADE,
};
use hyper::upgrade::{OnUpgrade, Upgraded};
use hyper::{HeaderMap, Method, Request, Response, Version};
use hyper_util::rt::TokioIo;
use ring::digest::{SHA1_FOR_LEGACY_USE_ONLY, digest};
use tokio::io::{AsyncReadExt, AsyncWriteExt, ReadHalf, WriteHalf};
use tokio::time::timeout;

use super::body::Answer;
use crate::audit::Entry;
use crate::headers;
use crate::needles::Needles;
use crate::reason::Reason;
use crate::stream::Stream;

/// RFC 6455 mixes this into the key to show that the server speaks WebSocket.
const GUID: &str = "258EAFA5-E914-47DA-95CA-C5AB0DC85B11";
/// How long both sides may be silent.
const IDLE: Duration = Duration::from_secs(600);

/// A client's wish to upgrade.
pub(crate) struct Handshake {
    client: OnUpgrade,
    accept: String,
}

impl Handshake {
    /// Reads the wish from a request: none, a proper one, or a refusal.
    pub(crate) fn of(request: &mut Request<Incoming>) -> Result<Option<Self>, Reason> {
        let headers = request.headers();
        let Some(upgrade) = headers.get(UPGRADE) else {
            return Ok(None);
        };
        let key = headers.get(SEC_WEBSOCKET_KEY).map(HeaderValue::as_bytes);
        let proper = upgrade.as_bytes().eq_ignore_ascii_case(b"websocket")
            && request.method() == Method::GET
            && request.version() == Version::HTTP_11
            && names_upgrade(headers)
            && headers
                .get(SEC_WEBSOCKET_VERSION)
                .is_some_and(|version| version == "13");
        let key = key.filter(|key| proper && STANDARD.decode(key).is_ok_and(|key| key.len() == 16));
        let accept = accept_of(key.ok_or(Reason::UpgradeRefused)?);
        Ok(Some(Self {
            client: hyper::upgrade::on(request),
            accept,
        }))
    }

    /// Passes the wish on. Where answers are looked through they must not be compressed.
    pub(crate) fn ask(&self, headers: &mut HeaderMap, plain: bool) {
        headers.insert(CONNECTION, HeaderValue::from_static("upgrade"));
        headers.insert(UPGRADE, HeaderValue::from_static("websocket"));
        if plain {
            headers.remove(SEC_WEBSOCKET_EXTENSIONS);
        }
    }

    /// Whether the destination agreed to this very wish.
    pub(crate) fn is_accepted(&self, response: &Response<Incoming>) -> bool {
        let headers = response.headers();
        let upgrade = headers
            .get(UPGRADE)
            .is_some_and(|name| name.as_bytes().eq_ignore_ascii_case(b"websocket"));
        let accept = headers
            .get(SEC_WEBSOCKET_ACCEPT)
            .is_some_and(|accept| accept == self.accept.as_str());
        upgrade && accept && names_upgrade(headers)
    }

    /// Tells the client, and joins both sides.
    pub(crate) fn join(
        self,
        mut response: Response<Incoming>,
        needles: Option<Arc<Needles>>,
        mut entry: Entry,
    ) -> Response<Answer> {
        let server = hyper::upgrade::on(&mut response);
        let client = self.client;
        let (mut parts, _) = response.into_parts();
        headers::clean_response(&mut parts.headers);
        let hits = needles.as_ref().map_or(0, |needles| {
            headers::clean_credentialed_response(&mut parts.headers, needles)
        });
        parts
            .headers
            .insert(CONNECTION, HeaderValue::from_static("upgrade"));
        parts
            .headers
            .insert(UPGRADE, HeaderValue::from_static("websocket"));
        let record = entry.record();
        record.status = Some(parts.status.as_u16());
        if hits > 0 {
            record.reason = Reason::CredentialReflected;
        }
        tokio::spawn(async move {
            if let (Ok(client), Ok(server)) = tokio::join!(client, server) {
                tunnel(client, server, needles, &mut entry).await;
            }
        });
        Response::from_parts(parts, Answer::Own(None))
    }
}

async fn tunnel(
    client: Upgraded,
    server: Upgraded,
    needles: Option<Arc<Needles>>,
    entry: &mut Entry,
) {
    let (client_read, client_write) = tokio::io::split(TokioIo::new(client));
    let (server_read, server_write) = tokio::io::split(TokioIo::new(server));
    let (mut sent, mut received, mut hits) = (0, 0, 0);
    let mut scrub = needles.map(Stream::new);
    // A server's frames are not masked, and what is blacked out keeps its length, so the bytes can be looked
    // through without taking the frames apart. A client's frames are masked and pass as they are.
    tokio::select! {
        () = copy(client_read, server_write, None, &mut sent) => {}
        () = copy(server_read, client_write, scrub.as_mut(), &mut received) => {}
    }
    if let Some(scrub) = scrub {
        hits = scrub.hits();
    }
    let record = entry.record();
    record.bytes_out = sent;
    record.bytes_in = received;
    if hits > 0 {
        record.reason = Reason::CredentialReflected;
    }
}

async fn copy(
    mut from: ReadHalf<TokioIo<Upgraded>>,
    mut to: WriteHalf<TokioIo<Upgraded>>,
    mut scrub: Option<&mut Stream>,
    count: &mut u64,
) {
    let mut buffer = Vec::with_capacity(16 * 1024);
    loop {
        buffer.clear();
        match timeout(IDLE, from.read_buf(&mut buffer)).await {
            Ok(Ok(read)) if read > 0 => *count += read as u64,
            _ => break,
        }
        let written = match &mut scrub {
            Some(scrub) => to.write_all(&scrub.redact(buffer.clone().into())).await,
            None => to.write_all(&buffer).await,
        };
        if written.is_err() || to.flush().await.is_err() {
            break;
        }
    }
    // The other side may be gone already.
    let _ = to.shutdown().await;
}

fn names_upgrade(headers: &HeaderMap) -> bool {
    let mut tokens = headers
        .get_all(CONNECTION)
        .iter()
        .flat_map(|value| value.as_bytes().split(|&b| b == b','));
    tokens.any(|token| token.trim_ascii().eq_ignore_ascii_case(b"upgrade"))
}

fn accept_of(key: &[u8]) -> String {
    let hash = digest(&SHA1_FOR_LEGACY_USE_ONLY, &[key, GUID.as_bytes()].concat());
    STANDARD.encode(hash.as_ref())
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The example of RFC 6455, section 1.3.
    #[test]
    fn accept_key() {
        assert_eq!(
            accept_of(b"dGhlIHNhbXBsZSBub25jZQ=="),
            "s3pPLMBiTxaQ9kYGzzhZRbK+xOo="
        );
    }
}
