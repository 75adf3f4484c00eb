//! A WebSocket's messages on their way through, looked through in both directions without being collected.
//!
//! What leaves is stopped before the last byte of a secret is out. What comes in is blacked out byte for byte,
//! so the lengths in the heads stay true; only bytes that may be the beginning of a secret wait, and never
//! beyond the end of their message.

use std::collections::VecDeque;
use std::future::Future;
use std::sync::Arc;
use std::time::Duration;

use hyper::body::Bytes;
use hyper::upgrade::Upgraded;
use hyper_util::rt::TokioIo;
use tokio::io::{AsyncReadExt, AsyncWriteExt, ReadHalf, WriteHalf};
use tokio::time::timeout;

use super::frames::{Frames, Kind, apply};
use super::websocket::Joined;
use crate::audit::Entry;
use crate::credential::{Credential, body_may_hold, reason_for};
use crate::needles::Needles;
use crate::policy::{Policy, Route};
use crate::reason::Reason;
use crate::stream::Stream;

/// How long a side may be silent.
const IDLE: Duration = Duration::from_secs(600);
/// How much is read at once.
const CHUNK: usize = 16 * 1024;

/// Joins both sides until one ends or breaks a rule, or the route is no longer what it was.
pub(crate) async fn tunnel(client: Upgraded, server: Upgraded, joined: Joined, entry: &mut Entry) {
    let Joined {
        watch,
        place: _place,
    } = joined;
    let (policy, route) = (watch.policy(), watch.route());
    let mut news = watch.clone();
    let (client_read, client_write) = tokio::io::split(TokioIo::new(client));
    let (server_read, server_write) = tokio::io::split(TokioIo::new(server));
    let (mut sent, mut received) = (0, 0);
    let mut outward = Outward::new(policy, route);
    let mut inward = Inward::new(route);
    let ended = tokio::select! {
        ended = copy(client_read, server_write, &mut sent, |chunk| outward.pass(chunk)) => ended,
        ended = copy(server_read, client_write, &mut received, |chunk| inward.pass(chunk)) => ended,
        () = news.revoked() => Err(Reason::PolicyChanged),
    };
    let record = entry.record();
    record.bytes_out = sent;
    record.bytes_in = received;
    match ended {
        Err(reason) => record.reason = reason,
        Ok(()) if inward.has_hits => record.reason = Reason::CredentialReflected,
        Ok(()) => {}
    }
}

/// Copies until one side ends; what `pass` refuses is not sent.
async fn copy(
    mut from: ReadHalf<TokioIo<Upgraded>>,
    mut to: WriteHalf<TokioIo<Upgraded>>,
    count: &mut u64,
    mut pass: impl FnMut(&mut Vec<u8>) -> Result<(), Reason>,
) -> Result<(), Reason> {
    let mut buffer = Vec::with_capacity(CHUNK);
    loop {
        buffer.clear();
        match timeout(IDLE, from.read_buf(&mut buffer)).await {
            Ok(Ok(read)) if read > 0 => *count += read as u64,
            _ => break,
        }
        pass(&mut buffer)?;
        if quiet(to.write_all(&buffer)).await.is_none() || quiet(to.flush()).await.is_none() {
            break;
        }
    }
    // The other side may be gone already.
    let _ = to.shutdown().await;
    Ok(())
}

/// How a write ends is the other side's affair.
async fn quiet(write: impl Future<Output = std::io::Result<()>>) -> Option<()> {
    write.await.ok()
}

/// From the agent to the destination.
struct Outward<'a> {
    frames: Frames,
    route: &'a Route,
    all: Arc<Needles>,
    /// A ping may stand between two frames of a message, so the two kinds are looked through apart.
    data: Stream,
    control: Stream,
}

impl<'a> Outward<'a> {
    fn new(policy: &Policy, route: &'a Route) -> Self {
        Self {
            frames: Frames::new(true),
            route,
            all: policy.needles.clone(),
            data: Stream::new(policy.needles.clone()),
            control: Stream::new(policy.needles.clone()),
        }
    }

    fn pass(&mut self, chunk: &[u8]) -> Result<(), Reason> {
        let own = self
            .route
            .credential
            .as_ref()
            .and_then(Credential::placeholder);
        let mut at = 0;
        while let Some(piece) = self
            .frames
            .next(chunk, at)
            .map_err(|_| Reason::RequestMalformed)?
        {
            at = piece.range.end;
            let stream = match piece.kind {
                Kind::Head => continue,
                Kind::Data => &mut self.data,
                Kind::Control => &mut self.control,
            };
            if let Some(budget) = &self.route.budget {
                budget.take_bytes(piece.range.len() as u64)?;
            }
            if self.all.is_empty() {
                continue;
            }
            let mut plain = chunk[piece.range].to_vec();
            apply(piece.mask, &mut plain);
            // What it would hold back is only remembered: without its end a secret is none.
            stream
                .inspect(plain.into(), |found| body_may_hold(found, &self.all, own))
                .map_err(reason_for)?;
        }
        Ok(())
    }
}

/// From the destination to the agent.
struct Inward<'a> {
    frames: Frames,
    route: &'a Route,
    data: Option<Stream>,
    /// What could not go on yet, in order.
    waiting: VecDeque<Waiting>,
    has_hits: bool,
}

enum Waiting {
    /// Goes on as it is, when everything before it is gone.
    Ready(Vec<u8>),
    /// So many bytes of a message that is being looked through.
    Data(usize),
}

impl<'a> Inward<'a> {
    fn new(route: &'a Route) -> Self {
        let needles = route.credential.as_ref().and_then(Credential::needles);
        Self {
            frames: Frames::new(false),
            route,
            data: needles.cloned().map(Stream::new),
            waiting: VecDeque::new(),
            has_hits: false,
        }
    }

    fn pass(&mut self, chunk: &mut Vec<u8>) -> Result<(), Reason> {
        let (mut at, mut out) = (0, Vec::with_capacity(chunk.len()));
        while let Some(piece) = self
            .frames
            .next(chunk, at)
            .map_err(|_| Reason::UpstreamFailed)?
        {
            at = piece.range.end;
            let bytes = &chunk[piece.range];
            let (Kind::Data, Some(stream)) = (piece.kind, &mut self.data) else {
                self.waiting.push_back(Waiting::Ready(bytes.to_vec()));
                self.release(Bytes::new(), &mut out);
                continue;
            };
            self.waiting.push_back(Waiting::Data(bytes.len()));
            let mut ready = stream.redact(Bytes::copy_from_slice(bytes));
            if stream.hits() > 0 && !self.has_hits {
                self.has_hits = true;
                self.route.suspension.count();
            }
            if piece.is_last {
                ready = [ready, stream.finish_redacted()].concat().into();
            }
            self.release(ready, &mut out);
        }
        *chunk = out;
        Ok(())
    }

    /// Writes what may go on: `data` is the next of the message's bytes.
    fn release(&mut self, mut data: Bytes, out: &mut Vec<u8>) {
        while let Some(first) = self.waiting.front_mut() {
            match first {
                Waiting::Ready(bytes) => out.append(bytes),
                Waiting::Data(left) => {
                    let count = data.len().min(*left);
                    out.extend_from_slice(&data.split_to(count));
                    *left -= count;
                    if *left > 0 {
                        return;
                    }
                }
            }
            self.waiting.pop_front();
        }
    }
}
