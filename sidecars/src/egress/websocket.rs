//! WebSocket: the one upgrade there is. Frames flow only after the destination has really agreed; until then,
//! and if it does not agree, everything stays HTTP and under the rules of HTTP.

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use hyper::body::{Body, Incoming};
use hyper::header::{
    CONNECTION, HeaderValue, SEC_WEBSOCKET_ACCEPT, SEC_WEBSOCKET_EXTENSIONS, SEC_WEBSOCKET_KEY,
    SEC_WEBSOCKET_VERSION, UPGRADE,
};
use hyper::upgrade::OnUpgrade;
use hyper::{HeaderMap, Method, Request, Response, Version};
use ring::digest::{SHA1_FOR_LEGACY_USE_ONLY, digest};

use super::body::Answer;
use super::grant::Watch;
use super::messages;
use super::pool::Place;
use crate::audit::Entry;
use crate::credential::Credential;
use crate::headers;
use crate::reason::Reason;

/// RFC 6455 mixes this into the key to show that the server speaks WebSocket.
const GUID: &str = "258EAFA5-E914-47DA-95CA-C5AB0DC85B11";

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
            // A destination that does not expect a body would take it for the first frames.
            && request.body().is_end_stream()
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

    /// Passes the wish on, without extensions: what is compressed cannot be looked through.
    pub(crate) fn ask(&self, headers: &mut HeaderMap) {
        headers.insert(CONNECTION, HeaderValue::from_static("upgrade"));
        headers.insert(UPGRADE, HeaderValue::from_static("websocket"));
        headers.remove(SEC_WEBSOCKET_EXTENSIONS);
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
        let bare = !headers.contains_key(SEC_WEBSOCKET_EXTENSIONS);
        upgrade && accept && bare && names_upgrade(headers)
    }

    /// Tells the client, and joins both sides.
    pub(crate) fn join(
        self,
        mut response: Response<Incoming>,
        joined: Joined,
        mut entry: Entry,
    ) -> Response<Answer> {
        let server = hyper::upgrade::on(&mut response);
        let client = self.client;
        let (mut parts, _) = response.into_parts();
        headers::clean_response(&mut parts.headers);
        let route = joined.watch.route();
        let needles = route.credential.as_ref().and_then(Credential::needles);
        let hits = needles.map_or(0, |needles| {
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
            route.suspension.count();
        }
        tokio::spawn(async move {
            if let (Ok(client), Ok(server)) = tokio::join!(client, server) {
                messages::tunnel(client, server, joined, &mut entry).await;
            }
        });
        Response::from_parts(parts, Answer::Own(None))
    }
}

/// What both sides were joined under.
pub(crate) struct Joined {
    pub(crate) watch: Watch,
    /// One of the host's places, until the end.
    pub(crate) place: Place,
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
