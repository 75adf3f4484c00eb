//! What the HTTP library forgives in a request's head, and we do not.
//!
//! It takes a bare line feed for the end of a line, and of a head with both a length and chunks it drops the length,
//! so that nobody behind it can tell. Both are harmless by themselves, because every message is framed anew; but no
//! honest client sends them, and a record is owed. So the bytes are looked at on their way to the library: only to
//! number the heads and to know which one is the first bad one, never to change anything. Whatever cannot be followed
//! is bad, and so is a head the library has seen and this has not.

use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::task::{Context, Poll};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

/// No field that frames a message is longer.
const MAX_LINE: usize = 64;

/// What is known of a connection's heads. The session that answers has a handle to it.
#[derive(Default)]
pub(crate) struct Verdicts {
    /// Heads that are whole and good; after a bad one there are no more.
    good: AtomicU64,
    answered: AtomicU64,
}

impl Verdicts {
    /// To be called once a request, in their order: whether its head is good.
    pub(crate) fn next_is_good(&self) -> bool {
        let number = self.answered.fetch_add(1, Ordering::Relaxed);
        number < self.good.load(Ordering::Relaxed)
    }
}

/// Follows the messages of a connection from head to head.
#[derive(Default)]
pub(crate) struct Follower {
    state: State,
    /// The beginning of the line that is being read.
    line: Vec<u8>,
    /// Its length so far, and the last of its bytes.
    length: usize,
    last: u8,
    framing: Framing,
    is_bad: bool,
}

/// What comes next.
#[derive(Clone, Copy, Default)]
enum State {
    /// A line of a head, perhaps the first.
    #[default]
    Start,
    Field,
    /// So many bytes of a body.
    Body(u64),
    /// The line with a chunk's size, so many bytes of it and its line end, the lines after the last.
    Size,
    Chunk(u64),
    ChunkEnd,
    Trailer,
    /// Nothing is known any more.
    Lost,
}

/// How a message says where it ends, and whether it has said who it is for.
#[derive(Default)]
struct Framing {
    has_host: bool,
    length: Option<u64>,
    is_chunked: bool,
}

impl Follower {
    /// Takes the next bytes; `head` is called at the end of each head, and told whether it is good.
    pub(crate) fn follow(&mut self, mut data: &[u8], mut head: impl FnMut(bool)) {
        while !data.is_empty() {
            match &mut self.state {
                State::Lost => return,
                State::Body(left) | State::Chunk(left) => {
                    let count =
                        usize::try_from(*left).map_or(data.len(), |left| left.min(data.len()));
                    data = &data[count..];
                    *left -= count as u64;
                    if *left == 0 {
                        self.state = match self.state {
                            State::Chunk(_) => State::ChunkEnd,
                            _ => State::Start,
                        };
                    }
                }
                _ => {
                    let end = data.iter().position(|&b| b == b'\n');
                    let piece = &data[..end.unwrap_or(data.len())];
                    let room = MAX_LINE.saturating_sub(self.line.len()).min(piece.len());
                    self.line.extend_from_slice(&piece[..room]);
                    self.length += piece.len();
                    self.last = piece.last().copied().unwrap_or(self.last);
                    let Some(end) = end else { return };
                    data = &data[end + 1..];
                    self.end_line(&mut head);
                }
            }
        }
    }

    fn end_line(&mut self, head: &mut impl FnMut(bool)) {
        let mut line = std::mem::take(&mut self.line);
        let is_cut = std::mem::take(&mut self.length) > MAX_LINE;
        let has_return = std::mem::take(&mut self.last) == b'\r';
        if has_return && !is_cut {
            line.pop();
        }
        self.is_bad |= !has_return;
        self.state = match self.state {
            // Empty lines before a message belong to none.
            State::Start if line.is_empty() => State::Start,
            State::Start => State::Field,
            State::Field if line.is_empty() => self.end_head(head),
            State::Field => {
                self.is_bad |= !self.framing.note(&line, is_cut);
                State::Field
            }
            State::Size => size(&line, is_cut),
            State::ChunkEnd if line.is_empty() => State::Size,
            State::Trailer if line.is_empty() => State::Start,
            State::Trailer => State::Trailer,
            _ => State::Lost,
        };
        // Kept for the next line, so that a head costs no allocation but the first.
        line.clear();
        self.line = line;
    }

    fn end_head(&mut self, head: &mut impl FnMut(bool)) -> State {
        let framing = std::mem::take(&mut self.framing);
        if self.is_bad || (framing.is_chunked && framing.length.is_some()) {
            head(false);
            return State::Lost;
        }
        head(true);
        match framing.length {
            _ if framing.is_chunked => State::Size,
            None | Some(0) => State::Start,
            Some(length) => State::Body(length),
        }
    }
}

impl Framing {
    /// Notes what a field says; false if that can be read in two ways.
    fn note(&mut self, line: &[u8], is_cut: bool) -> bool {
        let Some(colon) = line.iter().position(|&b| b == b':') else {
            return true;
        };
        let (name, value) = (&line[..colon], line[colon + 1..].trim_ascii());
        if name.eq_ignore_ascii_case(b"host") {
            return !std::mem::replace(&mut self.has_host, true);
        }
        if name.eq_ignore_ascii_case(b"content-length") {
            let length = std::str::from_utf8(value).ok();
            let length = length.filter(|text| text.bytes().all(|b| b.is_ascii_digit()));
            let length = length.and_then(|text| text.parse().ok());
            return !is_cut
                && length.is_some()
                && self.length.replace(length.unwrap_or(0)).is_none();
        }
        if name.eq_ignore_ascii_case(b"transfer-encoding") {
            let chunked = value.eq_ignore_ascii_case(b"chunked");
            return !is_cut && chunked && !std::mem::replace(&mut self.is_chunked, true);
        }
        true
    }
}

/// Reads the line before a chunk: only what comes before an extension counts.
fn size(line: &[u8], is_cut: bool) -> State {
    let semicolon = line.iter().position(|&b| b == b';');
    let digits = &line[..semicolon.unwrap_or(line.len())];
    let text = std::str::from_utf8(digits.trim_ascii_end()).unwrap_or_default();
    let plain = text.bytes().all(|b| b.is_ascii_hexdigit()) && (semicolon.is_some() || !is_cut);
    match u64::from_str_radix(text, 16) {
        Ok(0) if plain => State::Trailer,
        Ok(size) if plain => State::Chunk(size),
        _ => State::Lost,
    }
}

/// Marks a request whose head is bad.
#[derive(Clone, Copy)]
pub(crate) struct BadHead;

/// A connection whose heads are looked at as they are read.
pub(crate) struct Heads<S> {
    stream: S,
    follower: Follower,
    verdicts: Arc<Verdicts>,
}

impl<S> Heads<S> {
    pub(crate) fn new(stream: S) -> Self {
        Self {
            stream,
            follower: Follower::default(),
            verdicts: Arc::default(),
        }
    }

    pub(crate) fn verdicts(&self) -> Arc<Verdicts> {
        self.verdicts.clone()
    }

    /// The connection alone.
    pub(crate) fn into_inner(self) -> S {
        self.stream
    }
}

impl<S: AsyncRead + Unpin> AsyncRead for Heads<S> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        out: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let before = out.filled().len();
        let read = Pin::new(&mut self.stream).poll_read(cx, out);
        let Self {
            follower, verdicts, ..
        } = &mut *self;
        follower.follow(&out.filled()[before..], |is_good| {
            if is_good {
                verdicts.good.fetch_add(1, Ordering::Relaxed);
            }
        });
        read
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for Heads<S> {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        data: &[u8],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write(cx, data)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        data: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write_vectored(cx, data)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(cx)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    /// What is said of each head, however the bytes are cut.
    fn verdicts(text: &str) -> Vec<bool> {
        let follow = |size: usize| {
            let (mut follower, mut seen) = (Follower::default(), Vec::new());
            for piece in text.as_bytes().chunks(size) {
                follower.follow(piece, |is_good| seen.push(is_good));
            }
            seen
        };
        let whole = follow(text.len().max(1));
        (1..text.len()).for_each(|size| assert_eq!(follow(size), whole, "{size}: {text}"));
        whole
    }

    #[test]
    fn messages_are_followed() {
        let long = "x".repeat(200);
        for (text, expected) in [
            ("GET / HTTP/1.1\r\nhost: a\r\n\r\n".to_owned(), 1),
            (
                "\r\n\r\nGET / HTTP/1.1\r\nhost: a\r\n\r\nGET / HTTP/1.1\r\n\r\n".into(),
                2,
            ),
            (
                "POST / HTTP/1.1\r\ncontent-length:  3 \r\n\r\n\n\n\nGET / HTTP/1.1\r\n\r\n".into(),
                2,
            ),
            (
                format!("GET /{long} HTTP/1.1\r\nx: {long}\r\n\r\nGET / HTTP/1.1\r\n\r\n"),
                2,
            ),
            (
                format!(
                    "POST / HTTP/1.1\r\nTransfer-Encoding: Chunked\r\n\r\n3;a={long}\r\n\n\n\n\r\nA \r\n0123456789\r\n0\r\nx: y\r\n\r\nGET / HTTP/1.1\r\n\r\n"
                ),
                2,
            ),
        ] {
            assert_eq!(verdicts(&text), vec![true; expected], "{text}");
        }
    }

    #[test]
    fn what_can_be_read_in_two_ways_is_bad() {
        let long = " ".repeat(80);
        for fields in [
            "content-length: 5\r\ntransfer-encoding: chunked\r\n",
            "transfer-encoding: chunked\r\nContent-Length: 5\r\n",
            "content-length: 5\r\ncontent-length: 5\r\n",
            "content-length: 5\r\ncontent-length: 6\r\n",
            "content-length: 5, 5\r\n",
            "content-length: +5\r\n",
            "content-length: 99999999999999999999\r\n",
            "content-length:\r\n",
            &format!("content-length:{long}5\r\n"),
            "transfer-encoding: gzip, chunked\r\n",
            "transfer-encoding: chunked\r\ntransfer-encoding: chunked\r\n",
            "host: a\r\n",
            "x: y\n",
        ] {
            let text = format!(
                "POST / HTTP/1.1\r\nhost: a\r\n{fields}\r\n0\r\n\r\nGET / HTTP/1.1\r\n\r\n"
            );
            assert_eq!(verdicts(&text), [false], "{fields}");
        }
        for text in [
            "GET / HTTP/1.1\n\r\n",
            "GET / HTTP/1.1\r\n\n",
            "\nGET / HTTP/1.1\r\n\r\n",
        ] {
            assert_eq!(verdicts(text), [false], "{text:?}");
        }
        // What cannot be followed is followed by nothing good.
        for body in ["x\r\n", "3\r\nabcd\r\n", "-1\r\n", "3\nabc\r\n0\r\n\r\n"] {
            let text = format!(
                "POST / HTTP/1.1\r\ntransfer-encoding: chunked\r\n\r\n{body}GET / HTTP/1.1\r\n\r\n"
            );
            assert_ne!(verdicts(&text).get(1), Some(&true), "{body:?}");
        }
    }

    proptest! {
        /// Bodies of any bytes, framed in either way, are never taken for heads.
        #[test]
        fn bodies_are_passed_over(bodies in proptest::collection::vec((any::<bool>(), "[\\x00-\\x7f]{0,90}"), 1..5)) {
            let mut text = String::new();
            for (chunked, body) in &bodies {
                let length = body.len();
                text += "POST / HTTP/1.1\r\n";
                text += &match chunked {
                    false => format!("content-length: {length}\r\n\r\n{body}"),
                    true if length == 0 => "transfer-encoding: chunked\r\n\r\n0\r\n\r\n".into(),
                    true => format!("transfer-encoding: chunked\r\n\r\n{length:x}\r\n{body}\r\n0\r\n\r\n"),
                };
            }
            prop_assert_eq!(verdicts(&text), vec![true; bodies.len()]);
        }
    }
}
