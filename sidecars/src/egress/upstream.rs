//! Connections to a destination.
//!
//! What the agent asks in HTTP/1 goes out in HTTP/1, and what it asks in HTTP/2 goes out in HTTP/2 where the
//! destination speaks it. So a translation is only needed towards destinations that leave no choice, a
//! download in HTTP/1 has a connection and its flow control to itself, and gRPC finds what it needs.

use std::future::Future;
use std::sync::Arc;
use std::time::Duration;

use hyper::body::{Body, Incoming};
use hyper::client::conn::http1;
use hyper::client::conn::http2;
use hyper::header::{HOST, HeaderValue, TRANSFER_ENCODING, UPGRADE};
use hyper::http::uri;
use hyper::{Method, Request, Response, Uri, Version};
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::time::timeout;

use super::body::Progress;
use super::pool::Place;
use super::upload::Upload;
use super::{Egress, Local};
use crate::authority::Authority;
use crate::headers::MAX_FIELDS;
use crate::policy::{Policy, Scheme};
use crate::reason::Reason;

/// How long a destination may think before its answer begins, when it takes no more of the request. Model APIs that do not stream take minutes.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(600);
/// How long a destination's head may be.
const MAX_HEAD: usize = 64 * 1024;
/// How much of a stream, and of all streams together, a destination may send ahead of its reader.
const STREAM_WINDOW: u32 = 1024 * 1024;
const CONNECTION_WINDOW: u32 = 4 * 1024 * 1024;
/// A connection that many share is asked this often whether it still works.
const PING: Duration = Duration::from_secs(20);

/// What a connection is needed for.
pub(crate) struct Wanted<'a> {
    pub(crate) policy: &'a Arc<Policy>,
    pub(crate) route: usize,
    pub(crate) scheme: Scheme,
    pub(crate) to: &'a Arc<Authority>,
    /// Whether the request came in HTTP/2.
    pub(crate) h2: bool,
}

/// An open connection and what it was opened under.
pub(crate) struct Upstream {
    policy: Arc<Policy>,
    scheme: Scheme,
    to: Arc<Authority>,
    /// Whether the destination had the choice.
    offered_h2: bool,
    sender: Sender,
}

enum Sender {
    One(http1::SendRequest<Upload>),
    Many(http2::SendRequest<Upload>),
}

/// What came of sending a request.
pub(crate) enum Sent {
    Answered(Response<Incoming>),
    /// The connection had gone before anything was sent.
    NotSent(Request<Upload>),
}

/// A connection in use, with its place among those to the same host.
pub(crate) struct Lease {
    upstream: Upstream,
    local: Arc<Local>,
    place: Place,
}

impl Lease {
    /// Gives the connection back after an exchange that ended as it should.
    pub(crate) fn keep(self) {
        // One that is shared never left the pool.
        if matches!(self.upstream.sender, Sender::One(_)) {
            self.local.pool.put(self.upstream);
        }
    }

    /// The place alone: the connection has become something else.
    pub(crate) fn into_place(self) -> Place {
        self.place
    }
}

/// Sends a request over a connection there is, or over a new one.
pub(crate) async fn send(
    local: &Arc<Local>,
    wanted: &Wanted<'_>,
    mut request: Request<Upload>,
    progress: &Progress,
) -> Result<(Response<Incoming>, Lease), Reason> {
    let place = local.egress.hosts.place(&wanted.to.host).await?;
    let mut idle = local.pool.take(wanted);
    loop {
        // An idle connection may be on its way out without our having heard of it. What changes nothing is asked
        // again on a new one, which then says what is the matter.
        let again = idle.as_ref().and_then(|_| repeatable(&request));
        let is_new = idle.is_none();
        let mut upstream = match idle.take() {
            Some(upstream) => upstream,
            None => open(local, wanted, &place).await?,
        };
        request = match upstream.send(request, progress).await {
            Ok(Sent::Answered(response)) => {
                let local = local.clone();
                let lease = Lease {
                    upstream,
                    local,
                    place,
                };
                return Ok((response, lease));
            }
            Ok(Sent::NotSent(unsent)) if !is_new => unsent,
            Ok(Sent::NotSent(_)) => return Err(Reason::UpstreamFailed),
            Err(Reason::UpstreamFailed) => again.ok_or(Reason::UpstreamFailed)?,
            Err(reason) => return Err(reason),
        };
    }
}

/// The same request once more, if asking twice is as good as asking once.
fn repeatable(request: &Request<Upload>) -> Option<Request<Upload>> {
    let is_safe = matches!(
        *request.method(),
        Method::GET | Method::HEAD | Method::OPTIONS
    );
    if !is_safe || !request.body().is_end_stream() || request.headers().contains_key(UPGRADE) {
        return None;
    }
    let mut again = Request::new(Upload::none());
    *again.method_mut() = request.method().clone();
    *again.uri_mut() = request.uri().clone();
    *again.headers_mut() = request.headers().clone();
    Some(again)
}

/// Opens a connection. If it can be shared it is put into the pool, and whoever needs one meanwhile waits for it.
async fn open(local: &Arc<Local>, wanted: &Wanted<'_>, place: &Place) -> Result<Upstream, Reason> {
    if !wanted.h2 {
        return Upstream::open(&local.egress, wanted).await;
    }
    let turn = place.turn().await;
    if turn.is_some()
        && let Some(upstream) = local.pool.take(wanted)
    {
        return Ok(upstream);
    }
    let upstream = Upstream::open(&local.egress, wanted).await?;
    let shared = upstream.share();
    place.set_h1(shared.is_none());
    if let Some(shared) = shared {
        local.pool.put(shared);
    }
    Ok(upstream)
}

impl Upstream {
    /// Connects to an allowed destination.
    pub(crate) async fn open(egress: &Egress, wanted: &Wanted<'_>) -> Result<Self, Reason> {
        let Wanted {
            policy,
            route,
            scheme,
            to,
            h2,
        } = *wanted;
        let sender = match scheme {
            Scheme::Https => {
                let stream = egress.dialer.tls(policy, route, to, h2).await?;
                if stream.get_ref().1.alpn_protocol() == Some(b"h2") {
                    Sender::Many(many(stream).await?)
                } else {
                    Sender::One(one(stream).await?)
                }
            }
            Scheme::Http => Sender::One(one(egress.dialer.tcp(policy, route, to).await?).await?),
        };
        Ok(Self {
            policy: policy.clone(),
            scheme,
            to: to.clone(),
            offered_h2: h2,
            sender,
        })
    }

    /// Whether it goes to the same destination and was opened under the same policy.
    pub(crate) fn is_for(&self, wanted: &Wanted<'_>) -> bool {
        self.to == *wanted.to
            && self.scheme == wanted.scheme
            && Arc::ptr_eq(&self.policy, wanted.policy)
    }

    /// Whether the next request can go this way.
    pub(crate) fn fits(&self, wanted: &Wanted<'_>) -> bool {
        let protocol = match self.sender {
            Sender::One(_) => !wanted.h2 || self.offered_h2 || self.scheme == Scheme::Http,
            Sender::Many(_) => wanted.h2,
        };
        protocol && self.is_for(wanted)
    }

    /// Whether a request could be sent at once.
    pub(crate) fn is_ready(&self) -> bool {
        match &self.sender {
            Sender::One(sender) => sender.is_ready(),
            Sender::Many(sender) => sender.is_ready(),
        }
    }

    /// Whether the destination has closed it.
    pub(crate) fn is_closed(&self) -> bool {
        match &self.sender {
            Sender::One(sender) => sender.is_closed(),
            Sender::Many(sender) => sender.is_closed(),
        }
    }

    /// Another handle on the same connection, if it can carry more than one request.
    pub(crate) fn share(&self) -> Option<Self> {
        let Sender::Many(sender) = &self.sender else {
            return None;
        };
        Some(Self {
            policy: self.policy.clone(),
            scheme: self.scheme,
            to: self.to.clone(),
            offered_h2: self.offered_h2,
            sender: Sender::Many(sender.clone()),
        })
    }

    /// Sends a request. It has a `Host` header and a target without scheme and host.
    async fn send(
        &mut self,
        request: Request<Upload>,
        progress: &Progress,
    ) -> Result<Sent, Reason> {
        let sent = match &mut self.sender {
            Sender::One(sender) => {
                let request = for_one(request)?;
                patiently(progress, sender.try_send_request(request)).await
            }
            Sender::Many(sender) => {
                let request = for_many(request, &self.to)?;
                patiently(progress, sender.try_send_request(request)).await
            }
        };
        match sent {
            Some(Ok(response)) => Ok(Sent::Answered(response)),
            Some(Err(mut error)) => error
                .take_message()
                .map(Sent::NotSent)
                .ok_or(Reason::UpstreamFailed),
            None => Err(Reason::UpstreamTimeout),
        }
    }
}

/// Waits for an answer, but not for ever: a destination may think for so long, from the last byte on that it took.
async fn patiently<T>(progress: &Progress, answer: impl Future<Output = T>) -> Option<T> {
    let mut answer = std::pin::pin!(answer);
    loop {
        let sent = progress.sent();
        match timeout(ANSWER_TIMEOUT, answer.as_mut()).await {
            Ok(answer) => return Some(answer),
            Err(_) if progress.sent() > sent => {}
            Err(_) => return None,
        }
    }
}

/// Rewrites a head for HTTP/2, where the destination is part of the target.
fn for_many(mut request: Request<Upload>, to: &Authority) -> Result<Request<Upload>, Reason> {
    if request.uri().scheme().is_none() {
        let mut target = std::mem::take(request.uri_mut()).into_parts();
        let name = match to.port {
            443 => to.host.as_str().parse(),
            _ => to.to_string().parse::<uri::Authority>(),
        };
        target.authority = Some(name.map_err(|_| Reason::HostInvalid)?);
        target.scheme = Some(uri::Scheme::HTTPS);
        *request.uri_mut() = Uri::from_parts(target).map_err(|_| Reason::RequestMalformed)?;
    }
    *request.version_mut() = Version::HTTP_2;
    request.headers_mut().remove(HOST);
    request.headers_mut().remove(TRANSFER_ENCODING);
    Ok(request)
}

/// Takes that back, for a request that came back unsent.
fn for_one(mut request: Request<Upload>) -> Result<Request<Upload>, Reason> {
    if let Some(name) = request.uri().authority() {
        let host = HeaderValue::from_str(name.as_str()).map_err(|_| Reason::HostInvalid)?;
        request.headers_mut().insert(HOST, host);
        let target = std::mem::take(request.uri_mut()).into_parts();
        *request.uri_mut() = target.path_and_query.map(Uri::from).unwrap_or_default();
        *request.version_mut() = Version::HTTP_11;
    }
    Ok(request)
}

async fn one<S>(stream: S) -> Result<http1::SendRequest<Upload>, Reason>
where
    S: AsyncRead + AsyncWrite + Send + Unpin + 'static,
{
    let (sender, connection) = http1::Builder::new()
        .max_buf_size(MAX_HEAD)
        .max_headers(MAX_FIELDS)
        .handshake(TokioIo::new(stream))
        .await
        .map_err(|_| Reason::UpstreamFailed)?;
    // Its errors come out of the request they break.
    tokio::spawn(connection.with_upgrades());
    Ok(sender)
}

async fn many<S>(stream: S) -> Result<http2::SendRequest<Upload>, Reason>
where
    S: AsyncRead + AsyncWrite + Send + Unpin + 'static,
{
    let (sender, connection) = http2::Builder::new(TokioExecutor::new())
        .timer(TokioTimer::new())
        .initial_stream_window_size(STREAM_WINDOW)
        .initial_connection_window_size(CONNECTION_WINDOW)
        .max_header_list_size(MAX_HEAD as u32)
        .keep_alive_interval(PING)
        .handshake(TokioIo::new(stream))
        .await
        .map_err(|_| Reason::UpstreamFailed)?;
    tokio::spawn(connection);
    Ok(sender)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::atomic::Ordering;
    use tokio::time::{Instant, sleep};

    #[tokio::test(start_paused = true)]
    async fn an_upload_may_take_as_long_as_it_goes_on() {
        let progress = Progress::default();
        let upload = async {
            for _ in 0..10 {
                sleep(ANSWER_TIMEOUT / 2).await;
                progress.sent.fetch_add(1, Ordering::Relaxed);
            }
        };
        let began = Instant::now();
        assert!(patiently(&progress, upload).await.is_some());
        assert_eq!(began.elapsed(), ANSWER_TIMEOUT * 5);
        let silent = patiently(&progress, std::future::pending::<()>()).await;
        assert!(silent.is_none());
        assert_eq!(began.elapsed(), ANSWER_TIMEOUT * 6);
    }
}
