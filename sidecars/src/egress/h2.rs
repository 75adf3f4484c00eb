//! HTTP/2 towards the agent: many requests on one connection, each under the same rules as any other, and a
//! limit for everything one connection could ask for without end.

use std::convert::Infallible;
use std::pin::Pin;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Poll};
use std::time::{Duration, Instant};

use hyper::Request;
use hyper::body::{Body, Bytes, Frame, Incoming, SizeHint};
use hyper::server::conn::http2;
use hyper::service::service_fn;
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::sync::Notify;
use tokio::time::{sleep, timeout};

use super::body::{Answer, BodyError};
use super::listen::KEEP_ALIVE;
use super::session::Session;
use super::{Egress, MAX_CONNECTIONS};

/// Requests at once on one connection.
const MAX_STREAMS: u32 = 100;
/// The decoded size of a head.
const MAX_HEADERS: u32 = 32 * 1024;
/// How much of a request's body, and of all bodies together, is taken ahead of the destination. The agent is near, so
/// more would not be faster; and with all connections it must fit into what the sidecar may have.
const STREAM_WINDOW: u32 = 64 * 1024;
const CONNECTION_WINDOW: u32 = 256 * 1024;
const _: () = assert!(MAX_CONNECTIONS * CONNECTION_WINDOW as usize <= 64 << 20);
/// How much of an answer waits for the agent to take it.
const MAX_SEND_BUFFER: usize = 64 * 1024;
/// Requests given up half-way in a window of time: each costs us the work and the agent nothing.
const MAX_ABORTED: u32 = 200;
const ABORT_WINDOW: Duration = Duration::from_secs(10);
/// How long a connection that was told to end may take.
const GOODBYE: Duration = Duration::from_secs(10);

/// Serves HTTP/2 on a connection until either side ends it, nobody uses it, or the proxy goes down.
pub(crate) async fn serve<I>(egress: &Egress, stream: I, session: Arc<Session>)
where
    I: AsyncRead + AsyncWrite + Send + Unpin + 'static,
{
    let streams = Arc::new(Streams::new());
    let opened = streams.clone();
    let service = service_fn(move |request: Request<Incoming>| {
        let (session, ticket) = (session.clone(), Ticket::new(opened.clone()));
        async move {
            let response = session.answer(request).await?;
            Ok::<_, Infallible>(response.map(|answer| Tracked { answer, ticket }))
        }
    });
    // Extended CONNECT is never announced, so WebSocket stays on HTTP/1.
    let connection = http2::Builder::new(TokioExecutor::new())
        .timer(TokioTimer::new())
        .max_concurrent_streams(MAX_STREAMS)
        .max_header_list_size(MAX_HEADERS)
        .initial_stream_window_size(STREAM_WINDOW)
        .initial_connection_window_size(CONNECTION_WINDOW)
        .max_send_buf_size(MAX_SEND_BUFFER)
        .serve_connection(TokioIo::new(stream), service);
    let mut connection = std::pin::pin!(connection);
    let mut draining = egress.draining.subscribe();
    tokio::select! {
        _ = connection.as_mut() => return,
        () = streams.flood.notified() => return,
        () = streams.unused() => {}
        _ = draining.wait_for(|draining| *draining) => {}
    }
    connection.as_mut().graceful_shutdown();
    // How a client's connection ends is its own affair; what it asked for is in the records.
    let _ = timeout(GOODBYE, connection).await;
}

/// The requests of one connection.
struct Streams {
    open: AtomicUsize,
    state: Mutex<State>,
    flood: Notify,
}

struct State {
    last_used: Instant,
    window: Instant,
    aborted: u32,
}

impl Streams {
    fn new() -> Self {
        let now = Instant::now();
        Self {
            open: AtomicUsize::new(0),
            state: Mutex::new(State {
                last_used: now,
                window: now,
                aborted: 0,
            }),
            flood: Notify::new(),
        }
    }

    /// Waits until there has been no request for a while.
    async fn unused(&self) {
        loop {
            let last = self
                .state
                .lock()
                .unwrap_or_else(PoisonError::into_inner)
                .last_used;
            let rest = if self.open.load(Ordering::Relaxed) > 0 {
                KEEP_ALIVE
            } else {
                KEEP_ALIVE.saturating_sub(last.elapsed())
            };
            if rest.is_zero() {
                return;
            }
            sleep(rest).await;
        }
    }

    fn close(&self, is_done: bool) {
        self.open.fetch_sub(1, Ordering::Relaxed);
        let now = Instant::now();
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        state.last_used = now;
        if is_done {
            return;
        }
        if now - state.window > ABORT_WINDOW {
            (state.window, state.aborted) = (now, 0);
        }
        state.aborted += 1;
        if state.aborted > MAX_ABORTED {
            self.flood.notify_one();
        }
    }
}

/// One request: counts as given up unless it is said to be done.
struct Ticket {
    streams: Arc<Streams>,
    is_done: bool,
}

impl Ticket {
    fn new(streams: Arc<Streams>) -> Self {
        streams.open.fetch_add(1, Ordering::Relaxed);
        Self {
            streams,
            is_done: false,
        }
    }
}

impl Drop for Ticket {
    fn drop(&mut self) {
        self.streams.close(self.is_done);
    }
}

/// An answer with its ticket.
struct Tracked {
    answer: Answer,
    ticket: Ticket,
}

impl Body for Tracked {
    type Data = Bytes;
    type Error = BodyError;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BodyError>>> {
        let polled = Pin::new(&mut self.answer).poll_frame(cx);
        if matches!(polled, Poll::Ready(None | Some(Err(_)))) {
            self.ticket.is_done = true;
        }
        polled
    }

    fn is_end_stream(&self) -> bool {
        self.answer.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.answer.size_hint()
    }
}

impl Drop for Tracked {
    fn drop(&mut self) {
        self.ticket.is_done |= self.answer.is_end_stream();
    }
}
