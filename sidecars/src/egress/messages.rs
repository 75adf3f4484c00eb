//! A WebSocket's messages on their way through, looked through in both directions without being collected.
//!
//! What leaves is stopped before the last byte of a secret is out. Tokens in what leaves, and secrets in what comes
//! in, are blacked out byte for byte, so the lengths in the heads stay true; only bytes that may be the beginning
//! of one wait, and never beyond the end of their message.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Duration;

use hyper::body::Bytes;
use hyper::upgrade::Upgraded;
use hyper_util::rt::TokioIo;
use tokio::io::{AsyncRead, AsyncWrite, AsyncWriteExt};
use tokio::time::timeout;

use super::flow::{Silence, Tally};
use super::frames::{Frames, Kind, apply};
use super::order::{Disorder, Order};
use super::websocket::Joined;
use crate::audit::Entry;
use crate::credential::{Credential, body_may_hold, reason_for};
use crate::dlp::{Found, Inbound, MessageScan};
use crate::needles::Needles;
use crate::policy::{Policy, Route};
use crate::reason::Reason;
use crate::stream::Stream;

/// How much is read at once.
const CHUNK: usize = 16 * 1024;

/// How much may wait behind bytes that are held back: pings between the frames of one message, and the heads of its
/// empty frames. They cost their sender nothing, and there is no end to them.
const MAX_WAITING: usize = 64 * 1024;
/// How long saying goodbye may take.
const GOODBYE: Duration = Duration::from_secs(1);

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
    let mut outward = Outward::new(policy, route, &entry.record().dlp);
    let mut inward = Inward::new(route, &entry.record().dlp);
    let mut tally = Tally::new(entry);
    let silence = Silence::new();
    let mut to_client = End::new(client_write, &mut tally.received);
    let mut to_server = End::new(server_write, &mut tally.sent);
    let ended = tokio::select! {
        ended = copy(client_read, &mut to_server, &silence, |chunk| outward.pass(chunk)) => ended,
        ended = copy(server_read, &mut to_client, &silence, |chunk| inward.pass(chunk)) => ended,
        () = news.revoked() => Err(Reason::PolicyChanged.into()),
    };
    match ended {
        Err(end) => {
            tally.reason = Some(end.reason);
            // A close frame can stand between two frames, and not inside one.
            if inward.is_between {
                to_client.close(end.code, [0; 4]).await;
            }
            if outward.is_between {
                to_server.close(end.code, CLOSE_MASK).await;
            }
        }
        Ok(()) if inward.has_hits => tally.reason = Some(Reason::CredentialReflected),
        Ok(()) if inward.inbound.is_some_and(|inbound| inbound.has_hits()) => {
            tally.reason = Some(Reason::CredentialMinted);
        }
        Ok(()) => {}
    }
}

/// Close codes of RFC 6455, section 7.4.1.
const PROTOCOL_ERROR: u16 = 1002;
const NOT_TEXT: u16 = 1007;
const POLICY: u16 = 1008;
const TOO_LARGE: u16 = 1009;

/// What we send to a server is masked like a client's. It is the same every time and says nothing, so there is
/// nothing to hide either.
const CLOSE_MASK: [u8; 4] = *b"done";

/// Why a conversation is ended, and what both sides are told.
struct Break {
    reason: Reason,
    code: u16,
}

impl From<Reason> for Break {
    fn from(reason: Reason) -> Self {
        Self {
            reason,
            code: POLICY,
        }
    }
}

impl Break {
    /// A side sent what is none of its messages; `reason` says which side.
    fn of(disorder: Disorder, reason: Reason, too_large: Reason) -> Self {
        let (reason, code) = match disorder {
            Disorder::Sequence => (reason, PROTOCOL_ERROR),
            Disorder::NotText => (reason, NOT_TEXT),
            Disorder::TooLarge => (too_large, TOO_LARGE),
        };
        Self { reason, code }
    }
}

/// Where one direction goes.
struct End<'a, W> {
    write: W,
    /// What was read for it.
    count: &'a mut u64,
    /// Whether a write was begun that may have been cut short.
    is_writing: bool,
}

impl<'a, W: AsyncWrite + Unpin> End<'a, W> {
    fn new(write: W, count: &'a mut u64) -> Self {
        Self {
            write,
            count,
            is_writing: false,
        }
    }

    async fn send(&mut self, bytes: &[u8]) -> std::io::Result<()> {
        self.is_writing = true;
        self.write.write_all(bytes).await?;
        self.write.flush().await?;
        self.is_writing = false;
        Ok(())
    }

    /// Says that it is over, if that can still be said.
    async fn close(&mut self, code: u16, mask: [u8; 4]) {
        if self.is_writing {
            return;
        }
        let mut payload = code.to_be_bytes();
        apply(mask, &mut payload);
        let mut frame = vec![0x88];
        if mask == [0; 4] {
            frame.push(2);
        } else {
            frame.push(0x82);
            frame.extend_from_slice(&mask);
        }
        frame.extend_from_slice(&payload);
        // The other side may be gone, or take nothing any more.
        let _ = timeout(GOODBYE, async {
            self.send(&frame).await?;
            self.write.shutdown().await
        })
        .await;
    }
}

/// Copies until one side ends; what `pass` refuses is not sent.
async fn copy(
    mut from: impl AsyncRead + Unpin,
    to: &mut End<'_, impl AsyncWrite + Unpin>,
    silence: &Silence,
    mut pass: impl FnMut(&[u8]) -> Result<Vec<u8>, Break>,
) -> Result<(), Break> {
    let mut buffer = Vec::with_capacity(CHUNK);
    while let Some(read) = silence.read(&mut from, &mut buffer).await {
        *to.count += read as u64;
        let ready = pass(&buffer)?;
        if to.send(&ready).await.is_err() {
            break;
        }
        buffer.clear();
    }
    // The other side may be gone already.
    let _ = to.write.shutdown().await;
    Ok(())
}

/// From the agent to the destination.
struct Outward<'a> {
    frames: Frames,
    order: Order,
    route: &'a Route,
    all: Arc<Needles>,
    /// A ping may stand between two frames of a message, so the two kinds are looked through apart.
    data: Stream,
    control: Stream,
    scan: Option<MessageScan>,
    queue: Queue,
    /// Whether what has gone on ends with a frame.
    is_between: bool,
}

impl<'a> Outward<'a> {
    fn new(policy: &Policy, route: &'a Route, found: &Arc<Found>) -> Self {
        Self {
            frames: Frames::new(true),
            order: Order::default(),
            route,
            all: policy.needles.clone(),
            data: Stream::new(policy.needles.clone()),
            control: Stream::new(policy.needles.clone()),
            scan: MessageScan::new(&route.dlp, found),
            queue: Queue::default(),
            is_between: true,
        }
    }

    fn pass(&mut self, chunk: &[u8]) -> Result<Vec<u8>, Break> {
        let (mut at, mut out) = (0, Vec::with_capacity(chunk.len()));
        while let Some(piece) = self.frames.next(chunk, at).map_err(|_| Break {
            reason: Reason::RequestMalformed,
            code: PROTOCOL_ERROR,
        })? {
            at = piece.range.end;
            let bytes = &chunk[piece.range.clone()];
            if piece.kind == Kind::Head {
                self.queue.add(bytes, &mut out);
                continue;
            }
            if let Some(budget) = &self.route.budget {
                budget.take_bytes(bytes.len() as u64)?;
            }
            let mut plain = bytes.to_vec();
            apply(piece.mask, &mut plain);
            let plain = Bytes::from(plain);
            if piece.kind == Kind::Data {
                self.order.take(&piece, &plain).map_err(|disorder| {
                    Break::of(disorder, Reason::RequestMalformed, Reason::RequestTooLarge)
                })?;
            }
            self.search(piece.kind, plain.clone())?;
            match (piece.kind, &mut self.scan) {
                (Kind::Data, Some(scan)) => {
                    self.queue.wait(bytes.len(), piece.mask);
                    let ready = scan.data(plain, piece.is_last)?;
                    self.queue.release(ready, &mut out);
                }
                (Kind::Control, Some(scan)) => {
                    scan.control(plain, piece.is_last)?;
                    self.queue.add(bytes, &mut out);
                }
                _ => self.queue.add(bytes, &mut out),
            }
        }
        if self.queue.ready > MAX_WAITING {
            return Err(Break {
                reason: Reason::RequestTooLarge,
                code: TOO_LARGE,
            });
        }
        self.is_between = self.frames.is_between() && self.queue.is_empty();
        Ok(out)
    }

    /// Looks for the bottle's own secrets.
    fn search(&mut self, kind: Kind, plain: Bytes) -> Result<(), Reason> {
        if self.all.is_empty() {
            return Ok(());
        }
        let own = self.route.credential.as_ref();
        let own = own.and_then(Credential::placeholder);
        let stream = match kind {
            Kind::Control => &mut self.control,
            _ => &mut self.data,
        };
        // What it would hold back is only remembered: without its end a secret is none.
        stream
            .inspect(plain, |found| body_may_hold(found, &self.all, own))
            .map(|_| ())
            .map_err(reason_for)
    }
}

/// From the destination to the agent.
struct Inward<'a> {
    frames: Frames,
    order: Order,
    route: &'a Route,
    data: Option<Stream>,
    /// The payload of a control frame as far as it has come; such a frame has 125 bytes at most.
    control: Vec<u8>,
    inbound: Option<Inbound>,
    queue: Queue,
    /// Whether what has gone on ends with a frame.
    is_between: bool,
    has_hits: bool,
}

impl<'a> Inward<'a> {
    fn new(route: &'a Route, found: &Arc<Found>) -> Self {
        let needles = route.credential.as_ref().and_then(Credential::needles);
        Self {
            frames: Frames::new(false),
            order: Order::default(),
            route,
            data: needles.cloned().map(Stream::new),
            control: Vec::new(),
            inbound: route.dlp.inbound(found),
            queue: Queue::default(),
            is_between: true,
            has_hits: false,
        }
    }

    fn pass(&mut self, chunk: &[u8]) -> Result<Vec<u8>, Break> {
        let (mut at, mut out) = (0, Vec::with_capacity(chunk.len()));
        while let Some(piece) = self.frames.next(chunk, at).map_err(|_| Break {
            reason: Reason::UpstreamFailed,
            code: PROTOCOL_ERROR,
        })? {
            at = piece.range.end;
            let bytes = &chunk[piece.range.clone()];
            if piece.kind == Kind::Data {
                self.order.take(&piece, bytes).map_err(|disorder| {
                    Break::of(disorder, Reason::UpstreamFailed, Reason::ResponseTooLarge)
                })?;
            }
            if piece.kind == Kind::Control {
                self.control.extend_from_slice(bytes);
                if piece.is_last {
                    self.end_control(&mut out)?;
                }
                continue;
            }
            let looks = self.data.is_some() || self.inbound.is_some();
            if piece.kind != Kind::Data || !looks {
                self.queue.add(bytes, &mut out);
                continue;
            }
            self.queue.wait(bytes.len(), [0; 4]);
            let mut ready = Bytes::copy_from_slice(bytes);
            let mut has_hit = false;
            if let Some(stream) = &mut self.data {
                let before = stream.hits();
                ready = stream.redact(ready);
                has_hit = stream.hits() > before;
                if piece.is_last {
                    ready = [ready, stream.finish_redacted()].concat().into();
                }
            }
            self.count(has_hit)?;
            if let Some(inbound) = &mut self.inbound {
                ready = inbound.pass(ready, piece.is_last);
            }
            self.queue.release(ready, &mut out);
        }
        if self.queue.ready > MAX_WAITING {
            return Err(Break {
                reason: Reason::ResponseTooLarge,
                code: TOO_LARGE,
            });
        }
        self.is_between = self.frames.is_between() && self.queue.is_empty();
        Ok(out)
    }

    /// A ping, a pong or a close is there as a whole. The reason of a close may quote the credential it is about.
    fn end_control(&mut self, out: &mut Vec<u8>) -> Result<(), Break> {
        let mut payload = std::mem::take(&mut self.control);
        let needles = self.route.credential.as_ref().and_then(Credential::needles);
        let has_hit = needles.is_some_and(|needles| needles.redact(&mut payload));
        self.count(has_hit)?;
        self.queue.add(&payload, out);
        Ok(())
    }

    /// Notes a sighting of the credential: each one, as in answers, for a conversation is a search as well.
    fn count(&mut self, has_hit: bool) -> Result<(), Reason> {
        if !has_hit {
            return Ok(());
        }
        self.has_hits = true;
        self.route.suspension.count();
        self.route.suspension.check()
    }
}

/// What could not go on yet, in order.
#[derive(Default)]
struct Queue {
    waiting: VecDeque<Waiting>,
    /// How much of it goes on as it is.
    ready: usize,
}

enum Waiting {
    /// Goes on as it is, when everything before it is gone.
    Ready(Vec<u8>),
    /// So many bytes of a message that is being looked through, and what the next of them is masked with.
    Data(usize, [u8; 4]),
}

impl Queue {
    fn is_empty(&self) -> bool {
        self.waiting.is_empty()
    }

    /// Adds what is not looked through.
    fn add(&mut self, bytes: &[u8], out: &mut Vec<u8>) {
        if self.waiting.is_empty() {
            out.extend_from_slice(bytes);
            return;
        }
        self.ready += bytes.len();
        match self.waiting.back_mut() {
            Some(Waiting::Ready(before)) => before.extend_from_slice(bytes),
            _ => self.waiting.push_back(Waiting::Ready(bytes.to_vec())),
        }
    }

    /// Adds what is given to [`Self::release`] later.
    fn wait(&mut self, count: usize, mask: [u8; 4]) {
        if count > 0 {
            self.waiting.push_back(Waiting::Data(count, mask));
        }
    }

    /// Writes what may go on: `data` is the next of the message's bytes.
    fn release(&mut self, mut data: Bytes, out: &mut Vec<u8>) {
        while let Some(first) = self.waiting.front_mut() {
            match first {
                Waiting::Ready(bytes) => {
                    self.ready -= bytes.len();
                    out.append(bytes);
                }
                Waiting::Data(left, mask) => {
                    let count = data.len().min(*left);
                    let from = out.len();
                    out.extend_from_slice(&data.split_to(count));
                    apply(*mask, &mut out[from..]);
                    mask.rotate_left(count % 4);
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

#[cfg(test)]
mod tests {
    use super::*;
    use tokio::io::{AsyncReadExt, duplex};

    /// What is read at once does not depend on how little came before.
    #[tokio::test]
    async fn a_small_message_does_not_make_the_next_one_slow() {
        let (mut near, from) = duplex(2 * CHUNK);
        let (write, mut far) = duplex(2 * CHUNK);
        let (mut count, mut pieces) = (0, Vec::new());
        let mut to = End::new(write, &mut count);
        let silence = Silence::new();
        let copied = copy(from, &mut to, &silence, |chunk| {
            pieces.push(chunk.len());
            Ok(chunk.to_vec())
        });
        let talk = async {
            let mut heard = [0; 3];
            near.write_all(b"abc").await.unwrap();
            far.read_exact(&mut heard).await.unwrap();
            near.write_all(&[b'x'; CHUNK]).await.unwrap();
            drop(near);
            let mut rest = Vec::new();
            far.read_to_end(&mut rest).await.unwrap();
            rest.len()
        };
        let (ended, rest) = tokio::join!(copied, talk);
        assert!(ended.is_ok());
        assert_eq!((rest, count), (CHUNK, 3 + CHUNK as u64));
        assert_eq!(pieces, [3, CHUNK]);
    }
}
