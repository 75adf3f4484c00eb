//! Bodies on their way through: what both directions have in common, and what the agent gets.

use std::pin::Pin;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Mutex, PoisonError};
use std::task::{Context, Poll};
use std::time::Duration;

use hyper::body::{Body, Bytes, Frame, SizeHint};

use super::relay::Relay;
use crate::reason::Reason;

/// How long a body may pause. Model APIs think for minutes between two events.
pub(super) const IDLE: Duration = Duration::from_secs(600);

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
    pub(super) sent: AtomicU64,
    /// Whether the destination has begun to answer.
    answered: AtomicBool,
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

    /// Whether the answer has begun.
    pub(super) fn is_answered(&self) -> bool {
        self.answered.load(Ordering::Relaxed)
    }

    /// Notes that the answer has begun.
    pub(crate) fn set_answered(&self) {
        self.answered.store(true, Ordering::Relaxed);
    }

    /// Stops the request's body.
    pub(super) fn stop(&self, reason: Reason) -> BodyError {
        *self.stopped.lock().unwrap_or_else(PoisonError::into_inner) = Some(reason);
        BodyError::Stopped(reason)
    }
}

/// The body of an answer to the agent.
pub(crate) enum Answer {
    /// One of our own.
    Own(Option<Bytes>),
    /// The destination's.
    Relay(Box<Relay>),
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
            Self::Relay(relay) => relay.poll_frame(cx),
        }
    }

    fn is_end_stream(&self) -> bool {
        match self {
            Self::Own(text) => text.is_none(),
            Self::Relay(relay) => relay.is_end_stream(),
        }
    }

    fn size_hint(&self) -> SizeHint {
        match self {
            Self::Own(text) => {
                SizeHint::with_exact(text.as_ref().map_or(0, |text| text.len() as u64))
            }
            Self::Relay(relay) => relay.size_hint(),
        }
    }
}
