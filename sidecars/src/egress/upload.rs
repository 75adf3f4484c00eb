//! A request's body on its way to the destination: counted, looked through, never collected.

use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use hyper::HeaderMap;
use hyper::body::{Body, Bytes, Frame, Incoming, SizeHint};

use super::body::{BodyError, IDLE, Progress};
use super::grant::Watch;
use super::pace::Pace;
use crate::credential::{Credential, body_may_hold, reason_for};
use crate::dlp::{BodyScan, Found, Secrets};
use crate::needles::Needles;
use crate::policy::Budget;
use crate::reason::Reason;
use crate::stream::Stream;

/// How long a request may pause while its destination waits for the rest. Once the answer has begun the two
/// may be a conversation, and pauses are natural.
const UPLOAD_IDLE: Duration = Duration::from_secs(30);

/// A request's body on its way to the destination.
pub(crate) struct Upload {
    /// Most requests have no body, and nothing to check.
    body: Option<(Incoming, Box<Checks>)>,
}

struct Checks {
    watch: Watch,
    progress: Arc<Progress>,
    pace: Pace,
    /// How much it may be altogether.
    cap: u64,
    budget: Option<Arc<Budget>>,
    search: Option<Search>,
    scan: Option<BodyScan>,
}

/// What is looked for in a request's body.
struct Search {
    stream: Stream,
    all: Arc<Needles>,
    own: Option<Box<str>>,
}

impl Search {
    fn pass(&mut self, data: Bytes) -> Result<Bytes, Reason> {
        let Self { stream, all, own } = self;
        stream
            .inspect(data, |found| body_may_hold(found, all, own.as_deref()))
            .map_err(reason_for)
    }
}

impl Upload {
    /// No body.
    pub(crate) fn none() -> Self {
        Self { body: None }
    }

    pub(crate) fn new(
        inner: Incoming,
        headers: &HeaderMap,
        found: &Arc<Found>,
        progress: &Arc<Progress>,
        watch: impl FnOnce() -> Result<Watch, Reason>,
    ) -> Result<Self, Reason> {
        if inner.is_end_stream() {
            return Ok(Self::none());
        }
        let watch = watch()?;
        let (policy, route) = (watch.policy(), watch.route());
        let search = || {
            let own = route.credential.as_ref().and_then(Credential::placeholder);
            (!policy.needles.is_empty()).then(|| Search {
                stream: Stream::new(policy.needles.clone()),
                all: policy.needles.clone(),
                own: own.map(Into::into),
            })
        };
        let secrets = || {
            let mut search = search()?;
            Some(Box::new(move |piece| search.pass(piece).map(|_| ())) as Secrets)
        };
        let checks = Checks {
            scan: BodyScan::new(&route.dlp, found, headers, secrets)?,
            search: search(),
            budget: route.budget.clone(),
            cap: route.request_cap(),
            pace: Pace::default(),
            progress: progress.clone(),
            watch: watch.clone(),
        };
        Ok(Self {
            body: Some((inner, Box::new(checks))),
        })
    }
}

impl Checks {
    fn pass(&mut self, data: Bytes) -> Result<Bytes, BodyError> {
        let length = data.len() as u64;
        self.watch
            .check()
            .map_err(|reason| self.progress.stop(reason))?;
        if let Some(budget) = &self.budget {
            budget
                .take_bytes(length)
                .map_err(|reason| self.progress.stop(reason))?;
        }
        let before = self.progress.sent.fetch_add(length, Ordering::Relaxed);
        if before + length > self.cap {
            return Err(self.progress.stop(Reason::RequestTooLarge));
        }
        if !self.pace.is_kept(length) && !self.progress.is_answered() {
            return Err(self.progress.stop(Reason::ClientTimeout));
        }
        self.look(data).map_err(|reason| self.progress.stop(reason))
    }

    fn look(&mut self, mut data: Bytes) -> Result<Bytes, Reason> {
        if let Some(search) = &mut self.search {
            data = search.pass(data)?;
        }
        match &mut self.scan {
            Some(scan) => scan.pass(data),
            None => Ok(data),
        }
    }

    fn poll_idle(&mut self, cx: &mut Context<'_>) -> Poll<Result<Frame<Bytes>, BodyError>> {
        let limit = if self.progress.is_answered() {
            IDLE
        } else {
            UPLOAD_IDLE
        };
        ready!(self.pace.poll_idle(cx, limit));
        Poll::Ready(Err(self.progress.stop(Reason::ClientTimeout)))
    }

    /// What was held back until the end was known.
    fn finish(&mut self) -> Result<Bytes, BodyError> {
        let rest = self.search.take().map(|mut search| search.stream.finish());
        let rest = rest.unwrap_or_default();
        match self.scan.take() {
            Some(scan) => scan
                .finish(rest)
                .map_err(|reason| self.progress.stop(reason)),
            None => Ok(rest),
        }
    }
}

fn join(data: Bytes, rest: Bytes) -> Bytes {
    if rest.is_empty() {
        return data;
    }
    [data, rest].concat().into()
}

impl Body for Upload {
    type Data = Bytes;
    type Error = BodyError;

    fn poll_frame(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BodyError>>> {
        let this = self.get_mut();
        let mut has_ended = false;
        loop {
            let Some((inner, checks)) = &mut this.body else {
                return Poll::Ready(None);
            };
            let Poll::Ready(frame) = Pin::new(&mut *inner).poll_frame(cx) else {
                return checks.poll_idle(cx).map(Some);
            };
            let data = match frame {
                // Trailers would be merged into the head by some servers, past every check of it.
                Some(Ok(frame)) => match frame.into_data() {
                    Ok(data) => checks.pass(data)?,
                    Err(_trailers) => continue,
                },
                Some(Err(error)) => return Poll::Ready(Some(Err(error.into()))),
                None => {
                    has_ended = true;
                    Bytes::new()
                }
            };
            // Nobody asks for more of a body whose announced length is there, so its end must be looked at now.
            let data = if has_ended || inner.is_end_stream() {
                let rest = checks.finish()?;
                this.body = None;
                join(data, rest)
            } else {
                data
            };
            if !data.is_empty() {
                return Poll::Ready(Some(Ok(Frame::data(data))));
            }
        }
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_none()
    }

    fn size_hint(&self) -> SizeHint {
        match &self.body {
            Some((inner, _)) => inner.size_hint(),
            None => SizeHint::with_exact(0),
        }
    }
}
