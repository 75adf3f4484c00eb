//! A destination's body on its way to the agent: counted, looked through, never collected.

use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};

use hyper::HeaderMap;
use hyper::body::{Body, Bytes, Frame, Incoming, SizeHint};
use tokio::time::sleep;

use super::body::{BodyError, IDLE, Progress};
use super::grant::Watch;
use super::upstream::Lease;
use crate::audit::Entry;
use crate::dlp::Inbound;
use crate::headers;
use crate::needles::Needles;
use crate::policy::Suspension;
use crate::reason::Reason;
use crate::stream::Stream;

/// An answer larger than this is taken for one without an end. The largest files that are fetched in one piece,
/// shards of models, stay below.
pub(crate) const MAX_ANSWER: u64 = 8 * 1024 * 1024 * 1024;

/// Waits until there is no more use in waiting: the destination says nothing, or may no longer be heard.
async fn patience(mut watch: Watch) -> Reason {
    tokio::select! {
        () = watch.revoked() => Reason::PolicyChanged,
        () = sleep(IDLE) => Reason::UpstreamTimeout,
    }
}

/// What a destination's body is looked through with.
pub(crate) struct Scrub {
    stream: Stream,
    needles: Arc<Needles>,
    suspension: Suspension,
}

impl Scrub {
    pub(crate) fn new(needles: Arc<Needles>, suspension: Suspension) -> Self {
        Self {
            stream: Stream::new(needles.clone()),
            needles,
            suspension,
        }
    }
}

/// A destination's body on its way to the agent. Carries the record, which is finished when the body is, and
/// the connection, which is free again when the body came to its end.
pub(crate) struct Relay {
    inner: Incoming,
    entry: Entry,
    progress: Arc<Progress>,
    scrub: Option<Scrub>,
    trailers: Option<HeaderMap>,
    lease: Option<Lease>,
    has_ended: bool,
    inbound: Option<Inbound>,
    received: u64,
    reason: Reason,
    watch: Watch,
    /// Why the waiting will have to end. Only there while the destination lets us wait.
    waiting: Option<Pin<Box<dyn Future<Output = Reason> + Send + Sync>>>,
}

impl Relay {
    pub(crate) fn new(
        inner: Incoming,
        entry: Entry,
        progress: Arc<Progress>,
        scrub: Option<Scrub>,
        inbound: Option<Inbound>,
        (lease, watch): (Lease, Watch),
        reason: Reason,
    ) -> Box<Self> {
        Box::new(Self {
            inner,
            entry,
            progress,
            scrub,
            trailers: None,
            lease: Some(lease),
            has_ended: false,
            inbound,
            received: 0,
            reason,
            watch,
            waiting: None,
        })
    }

    pub(super) fn poll_frame(
        &mut self,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BodyError>>> {
        while !self.has_ended {
            let Poll::Ready(frame) = Pin::new(&mut self.inner).poll_frame(cx) else {
                let watch = &self.watch;
                let waiting = self
                    .waiting
                    .get_or_insert_with(|| Box::pin(patience(watch.clone())));
                let reason = ready!(waiting.as_mut().poll(cx));
                return self.stop(reason);
            };
            self.waiting = None;
            if let Err(reason) = self.watch.check() {
                return self.stop(reason);
            }
            let data = match frame {
                Some(Ok(frame)) => match frame.into_data() {
                    Ok(data) => data,
                    Err(frame) => {
                        self.trailers = frame.into_trailers().ok();
                        continue;
                    }
                },
                Some(Err(error)) => {
                    self.reason = Reason::UpstreamFailed;
                    return Poll::Ready(Some(Err(error.into())));
                }
                None => {
                    self.has_ended = true;
                    let held = self
                        .scrub
                        .as_mut()
                        .map(|scrub| scrub.stream.finish_redacted());
                    self.look_for_tokens(held.unwrap_or_default())
                }
            };
            let data = if self.has_ended {
                data
            } else {
                self.received += data.len() as u64;
                if self.received > MAX_ANSWER {
                    return self.stop(Reason::ResponseTooLarge);
                }
                let data = self.look_through(data);
                self.look_for_tokens(data)
            };
            if !data.is_empty() {
                return Poll::Ready(Some(Ok(Frame::data(data))));
            }
        }
        let trailers = self.trailers.take().map(|trailers| self.clean(trailers));
        Poll::Ready(trailers.map(|trailers| Ok(Frame::trailers(trailers))))
    }

    /// Whether nothing is left to hand on.
    pub(super) fn is_end_stream(&self) -> bool {
        self.scrub.is_none()
            && self.inbound.is_none()
            && self.trailers.is_none()
            && self.inner.is_end_stream()
    }

    pub(super) fn size_hint(&self) -> SizeHint {
        self.inner.size_hint()
    }

    fn stop(&mut self, reason: Reason) -> Poll<Option<Result<Frame<Bytes>, BodyError>>> {
        self.reason = reason;
        Poll::Ready(Some(Err(BodyError::Stopped(reason))))
    }

    fn look_through(&mut self, data: Bytes) -> Bytes {
        let Some(scrub) = &mut self.scrub else {
            return data;
        };
        let before = scrub.stream.hits();
        let data = scrub.stream.redact(data);
        // Once for a piece that holds it, not for every piece after it: a long answer would close its route.
        if scrub.stream.hits() > before {
            self.reason = Reason::CredentialReflected;
            scrub.suspension.count();
        }
        data
    }

    fn look_for_tokens(&mut self, data: Bytes) -> Bytes {
        let Some(inbound) = &mut self.inbound else {
            return data;
        };
        let data = inbound.pass(data, self.has_ended);
        if inbound.has_hits() && self.reason == Reason::Allowed {
            self.reason = Reason::CredentialMinted;
        }
        data
    }

    /// Trailers are a head that comes late, and go through the same.
    fn clean(&mut self, mut trailers: HeaderMap) -> HeaderMap {
        headers::clean_response(&mut trailers);
        if let Some(scrub) = &self.scrub
            && headers::clean_credentialed_response(&mut trailers, &scrub.needles) > 0
        {
            self.reason = Reason::CredentialReflected;
            scrub.suspension.count();
        }
        if let Some(inbound) = &mut self.inbound {
            inbound.fields(&mut trailers);
        }
        trailers
    }
}

impl Drop for Relay {
    fn drop(&mut self) {
        let record = self.entry.record();
        record.reason = self.progress.stopped().unwrap_or(self.reason);
        record.bytes_in = self.received;
        record.bytes_out = self.progress.sent();
        // With half an answer still to come the connection is of no use to anyone.
        if (self.has_ended || self.inner.is_end_stream())
            && let Some(lease) = self.lease.take()
        {
            lease.keep();
        }
    }
}
