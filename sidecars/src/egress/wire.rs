//! A TCP connection as TLS wants it: read in large pieces when there is much, and not stuck for ever when the
//! other side takes nothing.
//!
//! The TLS library reads 4 KB at a time, which for a download is a system call every 4 KB. So as soon as a read
//! comes back full the next one goes through a buffer, and when it runs dry the buffer is given back: what
//! waits for a model's answer holds no memory. The same buffer puts the bytes of a `ClientHello` back in front.

use std::future::Future;
use std::io;
use std::pin::{Pin, pin};
use std::task::{Context, Poll, ready};
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, ReadBuf};
use tokio::time::{Sleep, sleep};

/// How much is read at once when there is much.
const LARGE: usize = 64 * 1024;
/// A buffered read that brought less than this was the last one of its kind.
const SMALL: usize = 8 * 1024;
/// How long the other side may take nothing of what is being sent.
const STALL: Duration = Duration::from_secs(60);

/// A stream with a buffer that is only there when it helps.
pub(crate) struct Wire<S> {
    stream: S,
    buffer: Vec<u8>,
    at: usize,
    is_bulk: bool,
    /// Only there while the other side lets us wait.
    stall: Option<Pin<Box<Sleep>>>,
}

impl<S> Wire<S> {
    pub(crate) fn new(stream: S) -> Self {
        Self::replay(Vec::new(), stream)
    }

    /// The same with some bytes put back in front.
    pub(crate) fn replay(buffer: Vec<u8>, stream: S) -> Self {
        Self {
            stream,
            buffer,
            at: 0,
            is_bulk: false,
            stall: None,
        }
    }

    fn take(&mut self, out: &mut ReadBuf<'_>) {
        let kept = &self.buffer[self.at..];
        let count = kept.len().min(out.remaining());
        out.put_slice(&kept[..count]);
        self.at += count;
        if self.at == self.buffer.len() {
            self.at = 0;
            self.buffer.clear();
            if !self.is_bulk {
                self.buffer = Vec::new();
            }
        }
    }

    /// Passes on how a write went, unless it has been going nowhere for too long.
    fn watch<T>(
        &mut self,
        cx: &mut Context<'_>,
        wrote: Poll<io::Result<T>>,
    ) -> Poll<io::Result<T>> {
        if wrote.is_ready() {
            self.stall = None;
            return wrote;
        }
        let stall = self.stall.get_or_insert_with(|| Box::pin(sleep(STALL)));
        ready!(stall.as_mut().poll(cx));
        Poll::Ready(Err(io::ErrorKind::TimedOut.into()))
    }
}

impl<S: AsyncRead + Unpin> AsyncRead for Wire<S> {
    fn poll_read(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        out: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        if this.buffer.is_empty() {
            if !this.is_bulk {
                let before = out.filled().len();
                ready!(Pin::new(&mut this.stream).poll_read(cx, out))?;
                this.is_bulk = out.remaining() == 0 && out.filled().len() > before;
                return Poll::Ready(Ok(()));
            }
            this.buffer.reserve(LARGE);
            let read = pin!(this.stream.read_buf(&mut this.buffer)).poll(cx);
            if read.is_pending() {
                this.buffer = Vec::new();
                this.is_bulk = false;
            }
            this.is_bulk = ready!(read)? >= SMALL;
        }
        this.take(out);
        Poll::Ready(Ok(()))
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for Wire<S> {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        data: &[u8],
    ) -> Poll<io::Result<usize>> {
        let wrote = Pin::new(&mut self.stream).poll_write(cx, data);
        self.watch(cx, wrote)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        data: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let wrote = Pin::new(&mut self.stream).poll_write_vectored(cx, data);
        self.watch(cx, wrote)
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
    use tokio::io::{AsyncWriteExt, duplex};

    fn block_on<F: Future>(future: F) -> F::Output {
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_time()
            .start_paused(true)
            .build();
        runtime.unwrap().block_on(future)
    }

    #[test]
    fn nothing_is_lost_whatever_the_sizes() {
        block_on(async {
            let (mut near, far) = duplex(200_000);
            let mut wire = Wire::replay(b"first ".to_vec(), far);
            let sent: Vec<u8> = (0..150_000u32).flat_map(u32::to_le_bytes).collect();
            let expected = [b"first ".as_slice(), &sent].concat();
            let send = async {
                for piece in sent.chunks(77_777) {
                    near.write_all(piece).await.unwrap();
                }
                drop(near);
            };
            let receive = async {
                let (mut got, mut size) = (Vec::new(), 1);
                loop {
                    let mut piece = vec![0; size];
                    match wire.read(&mut piece).await.unwrap() {
                        0 => return got,
                        read => got.extend_from_slice(&piece[..read]),
                    }
                    size = size * 7 % 9001 + 1;
                }
            };
            let ((), got) = tokio::join!(send, receive);
            assert!(got == expected);
        });
    }

    #[test]
    fn what_waits_holds_no_buffer() {
        block_on(async {
            let (mut near, far) = duplex(200_000);
            let mut wire = Wire::new(far);
            near.write_all(&[1; 20_000]).await.unwrap();
            let mut left = 20_000;
            while left > 0 {
                left -= wire.read(&mut [0; 4096]).await.unwrap();
            }
            let waiting = tokio::time::timeout(STALL, wire.read(&mut [0; 4096])).await;
            assert!(waiting.is_err());
            assert_eq!(wire.buffer.capacity(), 0);
        });
    }

    #[test]
    fn a_reader_that_reads_nothing_is_given_up() {
        block_on(async {
            let (_near, far) = duplex(10);
            let error = Wire::new(far).write_all(&[1; 20]).await.unwrap_err();
            assert_eq!(error.kind(), io::ErrorKind::TimedOut);
        });
    }
}
