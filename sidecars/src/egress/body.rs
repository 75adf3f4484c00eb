//! Bodies on their way through: counted, looked through, never collected.

use std::pin::Pin;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Poll, ready};
use std::time::Duration;

use hyper::body::{Body, Bytes, Frame, Incoming, SizeHint};
use tokio::time::{Sleep, sleep};

use crate::audit::Entry;
use crate::credential::{body_may_hold, reason_for};
use crate::needles::Needles;
use crate::policy::{Budget, Policy};
use crate::reason::Reason;
use crate::stream::Stream;

/// How long a body may pause. Model APIs think for minutes between two events.
const IDLE: Duration = Duration::from_secs(600);

/// Why a body ended early.
#[derive(Debug, thiserror::Error)]
pub(crate) enum BodyError {
    #[error("{0}")]
    Http(#[from] hyper::Error),
    #[error("{}", .0.text())]
    Stopped(Reason),
}

/// What both directions of an exchange tell the record.
#[derive(Default)]
pub(crate) struct Progress {
    sent: AtomicU64,
    stopped: Mutex<Option<Reason>>,
}

impl Progress {
    /// Bytes sent to the destination.
    pub(crate) fn sent(&self) -> u64 {
        self.sent.load(Ordering::Relaxed)
    }

    /// Why the request's body was stopped, if it was.
    pub(crate) fn stopped(&self) -> Option<Reason> {
        *self.stopped.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn stop(&self, reason: Reason) -> BodyError {
        *self.stopped.lock().unwrap_or_else(PoisonError::into_inner) = Some(reason);
        BodyError::Stopped(reason)
    }
}

/// A request's body on its way to the destination.
pub(crate) struct Upload {
    inner: Incoming,
    progress: Arc<Progress>,
    budget: Option<Arc<Budget>>,
    search: Option<Search>,
}

/// What is looked for in a request's body.
struct Search {
    stream: Stream,
    all: Arc<Needles>,
    own: Option<Box<str>>,
}

impl Upload {
    pub(crate) fn new(
        inner: Incoming,
        progress: Arc<Progress>,
        policy: &Policy,
        route: usize,
    ) -> Self {
        let route = &policy.routes[route];
        let search = || Search {
            stream: Stream::new(policy.needles.clone()),
            all: policy.needles.clone(),
            own: route
                .credential
                .as_ref()
                .and_then(|own| own.placeholder())
                .map(Into::into),
        };
        let nothing = policy.needles.is_empty() || inner.is_end_stream();
        Self {
            search: (!nothing).then(search),
            budget: route.budget.clone(),
            inner,
            progress,
        }
    }

    fn pass(&mut self, data: Bytes) -> Result<Bytes, BodyError> {
        let length = data.len() as u64;
        if let Some(budget) = &self.budget {
            budget
                .take_bytes(length)
                .map_err(|reason| self.progress.stop(reason))?;
        }
        self.progress.sent.fetch_add(length, Ordering::Relaxed);
        let Some(Search { stream, all, own }) = &mut self.search else {
            return Ok(data);
        };
        stream
            .inspect(data, |found| body_may_hold(found, all, own.as_deref()))
            .map_err(|found| self.progress.stop(reason_for(found)))
    }
}

impl Body for Upload {
    type Data = Bytes;
    type Error = BodyError;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BodyError>>> {
        loop {
            let data = match ready!(Pin::new(&mut self.inner).poll_frame(cx)) {
                // Trailers would be merged into the head by some servers, past every check of it.
                Some(Ok(frame)) => match frame.into_data() {
                    Ok(data) => self.pass(data)?,
                    Err(_trailers) => continue,
                },
                Some(Err(error)) => return Poll::Ready(Some(Err(error.into()))),
                None => {
                    let rest = self.search.take().map(|mut search| search.stream.finish());
                    let rest = rest.filter(|rest| !rest.is_empty());
                    return Poll::Ready(rest.map(|rest| Ok(Frame::data(rest))));
                }
            };
            if !data.is_empty() {
                return Poll::Ready(Some(Ok(Frame::data(data))));
            }
        }
    }

    fn is_end_stream(&self) -> bool {
        self.search.is_none() && self.inner.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.inner.size_hint()
    }
}

/// The body of an answer to the agent.
pub(crate) enum Answer {
    /// One of our own.
    Own(Option<Bytes>),
    /// The destination's.
    Relay(Box<Relay>),
}

/// A destination's body on its way to the agent. Carries the record, which is finished when the body is.
pub(crate) struct Relay {
    inner: Incoming,
    entry: Entry,
    progress: Arc<Progress>,
    scrub: Option<Stream>,
    received: u64,
    reason: Reason,
    /// Only there while the destination lets us wait.
    idle: Option<Pin<Box<Sleep>>>,
}

impl Relay {
    pub(crate) fn new(
        inner: Incoming,
        entry: Entry,
        progress: Arc<Progress>,
        scrub: Option<Stream>,
        reason: Reason,
    ) -> Box<Self> {
        Box::new(Self {
            inner,
            entry,
            progress,
            scrub,
            received: 0,
            reason,
            idle: None,
        })
    }

    fn poll(&mut self, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, BodyError>>> {
        loop {
            let Poll::Ready(frame) = Pin::new(&mut self.inner).poll_frame(cx) else {
                let idle = self.idle.get_or_insert_with(|| Box::pin(sleep(IDLE)));
                ready!(idle.as_mut().poll(cx));
                self.reason = Reason::UpstreamTimeout;
                return Poll::Ready(Some(Err(BodyError::Stopped(self.reason))));
            };
            self.idle = None;
            let data = match frame {
                Some(Ok(frame)) => match frame.into_data() {
                    Ok(data) => data,
                    Err(_trailers) => continue,
                },
                Some(Err(error)) => {
                    self.reason = Reason::UpstreamFailed;
                    return Poll::Ready(Some(Err(error.into())));
                }
                None => {
                    let rest = self.scrub.take().map(|mut scrub| scrub.finish());
                    let rest = rest.filter(|rest| !rest.is_empty());
                    return Poll::Ready(rest.map(|rest| Ok(Frame::data(rest))));
                }
            };
            self.received += data.len() as u64;
            let Some(scrub) = &mut self.scrub else {
                return Poll::Ready(Some(Ok(Frame::data(data))));
            };
            let data = scrub.redact(data);
            if scrub.hits() > 0 {
                self.reason = Reason::CredentialReflected;
            }
            if !data.is_empty() {
                return Poll::Ready(Some(Ok(Frame::data(data))));
            }
        }
    }
}

impl Drop for Relay {
    fn drop(&mut self) {
        let record = self.entry.record();
        record.reason = self.progress.stopped().unwrap_or(self.reason);
        record.bytes_in = self.received;
        record.bytes_out = self.progress.sent();
    }
}

impl Body for Answer {
    type Data = Bytes;
    type Error = BodyError;

    fn poll_frame(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BodyError>>> {
        match self.get_mut() {
            Self::Own(text) => Poll::Ready(text.take().map(|text| Ok(Frame::data(text)))),
            Self::Relay(relay) => relay.poll(cx),
        }
    }

    fn is_end_stream(&self) -> bool {
        match self {
            Self::Own(text) => text.is_none(),
            Self::Relay(relay) => relay.scrub.is_none() && relay.inner.is_end_stream(),
        }
    }

    fn size_hint(&self) -> SizeHint {
        match self {
            Self::Own(text) => {
                SizeHint::with_exact(text.as_ref().map_or(0, |text| text.len() as u64))
            }
            Self::Relay(relay) => relay.inner.size_hint(),
        }
    }
}
