//! What several targets share: input that says itself where it is cut, and a future that never waits.

use std::pin::{Pin, pin};
use std::task::{Context, Poll, Waker};

use hyper::body::Bytes;
use tokio::io::{AsyncRead, ReadBuf};

/// Input in pieces. `|` cuts; `~` and the two bytes after it stand for what `insert` makes of them, because no fuzzer
/// guesses thirty characters and their checksum. Visible characters, so that seeds can be read.
pub(super) fn pieces(script: &[u8], insert: impl Fn(u8, u8) -> Vec<u8>) -> Vec<Bytes> {
    let mut pieces = vec![Vec::new()];
    let mut rest = script;
    while let [first, tail @ ..] = rest {
        rest = tail;
        let last = pieces.len() - 1;
        match (first, tail) {
            (b'|', _) => pieces.push(Vec::new()),
            (b'~', [a, b, tail @ ..]) => {
                pieces[last].extend(insert(*a, *b));
                rest = tail;
            }
            _ => pieces[last].push(*first),
        }
    }
    pieces.into_iter().map(Bytes::from).collect()
}

/// The result of a future all of whose input is there.
pub(super) fn at_once<F: Future>(future: F) -> F::Output {
    let mut future = pin!(future);
    let mut context = Context::from_waker(Waker::noop());
    // Some futures yield once in a while to be fair; they wake themselves, so asking again is enough.
    for _ in 0..10_000 {
        if let Poll::Ready(output) = future.as_mut().poll(&mut context) {
            return output;
        }
    }
    unreachable!("it waits, although nothing is outstanding")
}

/// A connection that brings at most `size` bytes at once.
pub(super) struct Dripping<'a> {
    pub(super) rest: &'a [u8],
    pub(super) size: usize,
}

impl AsyncRead for Dripping<'_> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        _: &mut Context<'_>,
        out: &mut ReadBuf<'_>,
    ) -> Poll<std::io::Result<()>> {
        let count = self.size.min(out.remaining()).min(self.rest.len());
        let (now, rest) = self.rest.split_at(count);
        out.put_slice(now);
        self.rest = rest;
        Poll::Ready(Ok(()))
    }
}
