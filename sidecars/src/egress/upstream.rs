//! Connections to a destination, kept for the requests of one client connection.

use std::sync::Arc;
use std::time::Duration;

use hyper::body::Incoming;
use hyper::client::conn::http1::{self, SendRequest};
use hyper::{Request, Response};
use hyper_util::rt::TokioIo;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::time::timeout;

use super::Egress;
use super::body::Upload;
use crate::authority::Authority;
use crate::policy::{Policy, Scheme};
use crate::reason::Reason;

/// How long a destination may think before its answer begins. Model APIs that do not stream take minutes.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(600);
/// How long an earlier exchange may take to leave the connection free.
const READY_TIMEOUT: Duration = Duration::from_secs(1);
/// Limits on what a destination's head may be.
const MAX_HEAD: usize = 64 * 1024;
const MAX_FIELDS: usize = 100;

/// An open connection and what it was opened under.
pub(crate) struct Upstream {
    to: Authority,
    policy: Arc<Policy>,
    sender: SendRequest<Upload>,
}

/// What came of sending a request.
pub(crate) enum Sent {
    Answered(Response<Incoming>),
    /// The connection had gone before anything was sent.
    NotSent(Request<Upload>),
}

impl Upstream {
    /// Connects to an allowed destination.
    pub(crate) async fn open(
        egress: &Egress,
        policy: Arc<Policy>,
        route: usize,
        scheme: Scheme,
        to: Authority,
    ) -> Result<Self, Reason> {
        match scheme {
            Scheme::Https => {
                let stream = egress.dialer.tls(&policy, route, &to).await?;
                Self::over(stream, policy, to).await
            }
            Scheme::Http => {
                let stream = egress.dialer.tcp(&policy, route, &to).await?;
                Self::over(stream, policy, to).await
            }
        }
    }

    /// Speaks HTTP over a connection that is open.
    pub(crate) async fn over<S>(
        stream: S,
        policy: Arc<Policy>,
        to: Authority,
    ) -> Result<Self, Reason>
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
        Ok(Self { to, policy, sender })
    }

    /// Whether the next request can go this way: the same destination, allowed by the same policy, still open.
    pub(crate) async fn is_usable(&mut self, policy: &Arc<Policy>, to: &Authority) -> bool {
        self.to == *to
            && Arc::ptr_eq(&self.policy, policy)
            && (self.sender.is_ready()
                || matches!(
                    timeout(READY_TIMEOUT, self.sender.ready()).await,
                    Ok(Ok(()))
                ))
    }

    /// Sends a request.
    pub(crate) async fn send(&mut self, request: Request<Upload>) -> Result<Sent, Reason> {
        match timeout(ANSWER_TIMEOUT, self.sender.try_send_request(request)).await {
            Ok(Ok(response)) => Ok(Sent::Answered(response)),
            Ok(Err(mut error)) => error
                .take_message()
                .map(Sent::NotSent)
                .ok_or(Reason::UpstreamFailed),
            Err(_) => Err(Reason::UpstreamTimeout),
        }
    }
}
