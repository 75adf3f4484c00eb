//! Accepting connections and giving each to the worker that has least to do.
//!
//! A worker is a thread with a scheduler of its own. A connection stays with its worker, so both sides of an
//! exchange wake each other without crossing threads; that is most of what a proxy's latency is made of.

use std::convert::Infallible;
use std::future::Future;
use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread::{self, JoinHandle};
use std::time::Duration;

use hyper::Request;
use hyper::Response;
use hyper::body::Incoming;
use hyper::header::{CONNECTION, HeaderValue};
use hyper::server::conn::http1;
use hyper::service::{Service, service_fn};
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::runtime::Builder;
use tokio::sync::OwnedSemaphorePermit;
use tokio::sync::mpsc::{UnboundedReceiver, UnboundedSender, unbounded_channel};
use tokio::time::sleep;

use super::body::Answer;
use super::heads::{BadHead, Heads, Verdicts};
use super::pool::Pool;
use super::session::Session;
use super::{Egress, Local, proxy, transparent};
use crate::audit::Way;
use crate::headers::MAX_FIELDS;
use crate::listener::{Connection, Listener, Parked};
use crate::reason::Reason;

/// How long a client that has proved nothing may take for a head, or be silent between two.
pub(crate) const HEAD_TIMEOUT: Duration = Duration::from_secs(10);
/// The same inside a tunnel to an allowed destination.
pub(crate) const KEEP_ALIVE: Duration = Duration::from_secs(60);
/// How long a request's head may be.
const MAX_HEAD: usize = 64 * 1024;
/// The pause after a failed accept (no descriptors left, say): the loop must neither end nor spin.
const BACK_OFF: Duration = Duration::from_millis(50);
/// Two are enough for what an agent does, and few enough for what a sidecar may take.
const MAX_WORKERS: usize = 2;

/// The ports to listen on.
#[derive(Clone, Copy, Debug)]
pub struct Ports {
    /// The explicit proxy.
    pub proxy: u16,
    /// Transparent TLS.
    pub https: u16,
    /// Transparent HTTP.
    pub http: u16,
    /// DNS, UDP and TCP.
    pub dns: u16,
}

impl Default for Ports {
    fn default() -> Self {
        Self {
            proxy: 3128,
            https: 443,
            http: 80,
            dns: 53,
        }
    }
}

/// Where the agent finds the listeners.
#[derive(Clone, Copy, Debug)]
pub struct Bound {
    /// The explicit proxy.
    pub proxy: SocketAddr,
    /// Transparent TLS.
    pub https: SocketAddr,
    /// Transparent HTTP.
    pub http: SocketAddr,
    /// DNS.
    pub dns: SocketAddr,
}

/// What a connection is for.
#[derive(Clone, Copy)]
pub(crate) enum Kind {
    Proxy,
    Https,
    Http,
}

/// Counts a connection until the last clone of it is gone.
pub(crate) type Guard = Arc<Counted>;

pub(crate) struct Counted {
    _place: OwnedSemaphorePermit,
    load: Arc<AtomicUsize>,
}

impl Drop for Counted {
    fn drop(&mut self) {
        self.load.fetch_sub(1, Ordering::Relaxed);
    }
}

struct Job {
    kind: Kind,
    stream: Parked,
    guard: Guard,
}

struct Worker {
    queue: UnboundedSender<Job>,
    load: Arc<AtomicUsize>,
}

/// The workers. They end when this is dropped; the handles are for waiting for it.
pub(crate) struct Workers(Vec<Worker>);

impl Workers {
    pub(crate) fn start(egress: &Arc<Egress>) -> io::Result<(Self, Vec<JoinHandle<()>>)> {
        let count = thread::available_parallelism().map_or(1, |n| n.get().min(MAX_WORKERS));
        let mut workers = Vec::new();
        let mut threads = Vec::new();
        for number in 0..count {
            let (queue, jobs) = unbounded_channel();
            let runtime = Builder::new_current_thread()
                .enable_io()
                .enable_time()
                .max_blocking_threads(8)
                .build()?;
            let local = Arc::new(Local {
                egress: egress.clone(),
                pool: Arc::new(Pool::default()),
            });
            let thread = thread::Builder::new().name(format!("worker-{number}"));
            threads.push(thread.spawn(move || {
                runtime.block_on(work(local, jobs));
                // Whatever is still open is dropped here, and its records are sent.
                runtime.shutdown_background();
            })?);
            workers.push(Worker {
                queue,
                load: Arc::default(),
            });
        }
        Ok((Self(workers), threads))
    }

    /// Accepts until the proxy goes down.
    pub(crate) async fn accept(
        self: Arc<Self>,
        egress: Arc<Egress>,
        listener: Listener,
        kind: Kind,
    ) {
        let mut draining = egress.draining.subscribe();
        loop {
            let accepted = tokio::select! {
                accepted = listener.accept() => accepted,
                _ = draining.wait_for(|draining| *draining) => return,
            };
            let Ok(stream) = accepted.and_then(Connection::park) else {
                sleep(BACK_OFF).await;
                continue;
            };
            if !self.hand_over(&egress, stream, kind) {
                record_refusal(&egress, kind).await;
            }
        }
    }

    fn hand_over(&self, egress: &Egress, stream: Parked, kind: Kind) -> bool {
        let Ok(place) = egress.connections.clone().try_acquire_owned() else {
            return false;
        };
        let Some(worker) = self
            .0
            .iter()
            .min_by_key(|worker| worker.load.load(Ordering::Relaxed))
        else {
            return false;
        };
        worker.load.fetch_add(1, Ordering::Relaxed);
        let guard = Arc::new(Counted {
            _place: place,
            load: worker.load.clone(),
        });
        worker
            .queue
            .send(Job {
                kind,
                stream,
                guard,
            })
            .is_ok()
    }
}

async fn record_refusal(egress: &Egress, kind: Kind) {
    let way = match kind {
        Kind::Proxy => Way::Proxy,
        Kind::Https | Kind::Http => Way::Transparent,
    };
    if let Ok(mut entry) = egress.audit.begin(way).await {
        entry.record().reason = Reason::TooManyConnections;
    }
}

async fn work(local: Arc<Local>, mut jobs: UnboundedReceiver<Job>) {
    while let Some(Job {
        kind,
        stream,
        guard,
    }) = jobs.recv().await
    {
        // It was a non-blocking socket already; failing means it is gone.
        let Ok(stream) = stream.resume() else {
            continue;
        };
        let local = local.clone();
        match kind {
            Kind::Proxy => drop(tokio::spawn(proxy::serve(local, stream, guard))),
            Kind::Https => drop(tokio::spawn(transparent::serve_https(local, stream, guard))),
            Kind::Http => drop(tokio::spawn(transparent::serve_http(local, stream, guard))),
        }
    }
}

/// Serves HTTP/1 on a connection until either side ends it or the proxy goes down.
pub(crate) async fn serve<I, S>(session: &Session, stream: I, head_timeout: Duration, service: S)
where
    I: AsyncRead + AsyncWrite + Send + Unpin + 'static,
    S: Service<Request<Incoming>, Response = Response<Answer>, Error = Infallible>,
{
    let stream = Heads::new(stream);
    let service = strict(stream.verdicts(), service);
    let connection = http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(head_timeout)
        .max_buf_size(MAX_HEAD)
        .max_headers(MAX_FIELDS)
        .serve_connection(TokioIo::new(stream), service)
        .with_upgrades();
    let mut connection = std::pin::pin!(connection);
    let mut draining = session.egress().draining.subscribe();
    let ended = tokio::select! {
        ended = connection.as_mut() => Some(ended),
        _ = draining.wait_for(|draining| *draining) => None,
    };
    let ended = match ended {
        Some(ended) => ended,
        None => {
            connection.as_mut().graceful_shutdown();
            connection.await
        }
    };
    // How else a client's connection ends is its own affair; what it asked for is in the records. What is no request
    // never got one.
    if let Err(error) = ended
        && error.is_parse()
    {
        session.record_malformed(error.is_parse_too_large()).await;
    }
}

/// The service, with requests marked whose head the library should not have taken. They are the last of their
/// connection.
fn strict<S>(
    verdicts: Arc<Verdicts>,
    service: S,
) -> impl Service<
    Request<Incoming>,
    Response = Response<Answer>,
    Error = Infallible,
    Future = impl Future<Output = Result<Response<Answer>, Infallible>>,
>
where
    S: Service<Request<Incoming>, Response = Response<Answer>, Error = Infallible>,
{
    service_fn(move |mut request: Request<Incoming>| {
        let is_good = verdicts.next_is_good();
        if !is_good {
            request.extensions_mut().insert(BadHead);
        }
        let answer = service.call(request);
        async move {
            let mut answer = answer.await?;
            if !is_good {
                let close = HeaderValue::from_static("close");
                answer.headers_mut().insert(CONNECTION, close);
            }
            Ok(answer)
        }
    })
}
