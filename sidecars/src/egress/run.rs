//! Start, reload, drain.

use std::io;
use std::net::SocketAddr;
use std::path::Path;
use std::sync::{Arc, Mutex, PoisonError, mpsc};
use std::thread::{self, JoinHandle};
use std::time::Duration;

use bottle_plan::strict::socket;
use tokio::net::UdpSocket;
use tokio::runtime::Builder;
use tokio::signal::unix::{SignalKind, signal};
use tokio::time::{MissedTickBehavior, interval, timeout};
use zeroize::Zeroizing;

use super::listen::{Bound, Kind, Ports, Workers};
use super::{Egress, MAX_CONNECTIONS, Network, Settings, StartError, System, dns, status};
use crate::audit::{Way, Writer};
use crate::credential::Slots;
use crate::grants::{self, Grants, Taker};
use crate::listener::Side;
use crate::memory::{self, Tidy};
use crate::program::say;

/// How often the operator's files are looked at.
const LOOK: Duration = Duration::from_millis(200);
/// How long open connections have to end by themselves. The engine kills the container after two seconds, unless it is
/// told otherwise, and the last records must be written by then.
const GRACE: Duration = Duration::from_millis(1500);

/// A proxy that is running.
pub struct Running {
    settings: Settings,
    bound: Bound,
    egress: Arc<Egress>,
    front: JoinHandle<()>,
    workers: Vec<JoinHandle<()>>,
    writer: Writer,
    grants: Mutex<Option<Grants>>,
}

/// Starts the proxy; when this returns, every listener answers.
pub fn start(
    settings: Settings,
    network: Box<dyn Network>,
    slots: &Slots<'_>,
) -> Result<Running, StartError> {
    let (egress, writer) = Egress::new(&settings, network, slots)?;
    let egress = Arc::new(egress);
    let grants = Grants::open(&settings.asking_dir, &settings.audit_dir, Taker::Egress);
    let failed = |what: &str, error: io::Error| StartError::System {
        what: what.into(),
        error,
    };
    let (workers, threads) = Workers::start(&egress).map_err(|error| failed("worker", error))?;
    // What accepts has a thread of its own, so that a busy worker delays no one at the door.
    let runtime = Builder::new_current_thread()
        .enable_io()
        .enable_time()
        .build();
    let runtime = runtime.map_err(|error| failed("runtime", error))?;
    let (ready, opened) = mpsc::channel();
    let side = Side {
        address: egress.policy().listen,
        sockets: settings.sockets.clone(),
    };
    let (shared, socket, ports) = (
        egress.clone(),
        settings.status_socket.clone(),
        settings.ports,
    );
    let front = thread::Builder::new().name("front".into()).spawn(move || {
        runtime.block_on(async {
            let workers = Arc::new(workers);
            let bound = open_all(&shared, &socket, &side, ports, workers.clone()).await;
            let is_open = bound.is_ok();
            // Nobody waits any more if the thread that started us is gone.
            let _ = ready.send(bound);
            if is_open {
                drain(&shared).await;
            }
            // With their queues the workers end, and whatever is still open in them: not before this.
            drop(workers);
        });
    });
    let front = front.map_err(|error| failed("thread", error))?;
    match opened.recv() {
        Ok(bound) => Ok(Running {
            settings,
            bound: bound?,
            egress,
            front,
            workers: threads,
            writer,
            grants: Mutex::new(grants),
        }),
        Err(_) => Err(failed(
            "front",
            io::Error::other("ended before it was ready"),
        )),
    }
}

/// Waits until the proxy is told to go down, and then for its connections.
async fn drain(egress: &Egress) {
    // The sender lives in `egress`, so this ends only when the proxy goes down.
    let _ = egress
        .draining
        .subscribe()
        .wait_for(|draining| *draining)
        .await;
    let all = u32::try_from(MAX_CONNECTIONS).unwrap_or(u32::MAX);
    // Holding every place means that no connection is left.
    let _ = timeout(GRACE, egress.connections.acquire_many(all)).await;
}

async fn open_all(
    egress: &Arc<Egress>,
    status_socket: &Path,
    side: &Side,
    ports: Ports,
    workers: Arc<Workers>,
) -> Result<Bound, StartError> {
    let listen = async |name: &str, port: u16| {
        let listener = side.listen(name, port).await;
        let listener = listener.map_err(|error| StartError::System {
            what: format!("listener on {}", side.told(name, port)),
            error,
        })?;
        let seen = listener.address();
        let seen = seen.unwrap_or_else(|| SocketAddr::new(side.address, port));
        Ok::<_, StartError>((listener, seen))
    };
    let (dns, dns_address) = listen(socket::DNS, ports.dns).await?;
    // Without a network it is the forwarder that takes datagrams.
    let dns_udp = match dns.address() {
        Some(address) => {
            Some(
                UdpSocket::bind(address)
                    .await
                    .map_err(|error| StartError::System {
                        what: format!("listener on {address} by UDP"),
                        error,
                    })?,
            )
        }
        None => None,
    };
    let (proxy, proxy_address) = listen(socket::PROXY, ports.proxy).await?;
    let (https, https_address) = listen(socket::HTTPS, ports.https).await?;
    let (http, http_address) = listen(socket::HTTP, ports.http).await?;
    let bound = Bound {
        proxy: proxy_address,
        https: https_address,
        http: http_address,
        dns: dns_address,
    };
    for (listener, kind) in [
        (proxy, Kind::Proxy),
        (https, Kind::Https),
        (http, Kind::Http),
    ] {
        tokio::spawn(workers.clone().accept(egress.clone(), listener, kind));
    }
    if let Some(datagrams) = dns_udp {
        tokio::spawn(dns::serve_udp(egress.clone(), datagrams));
    }
    tokio::spawn(dns::serve_streams(egress.clone(), dns));
    // Last: whoever sees this socket may rely on all the others.
    let status = status::bind(status_socket).map_err(|error| StartError::File {
        path: status_socket.into(),
        error,
    })?;
    tokio::spawn(status::serve(egress.clone(), status));
    Ok(bound)
}

impl Running {
    /// Where the agent finds the listeners.
    pub fn bound(&self) -> Bound {
        self.bound
    }

    /// Reads the policy again. A bad one changes nothing.
    pub fn reload(&self, slots: &Slots<'_>) -> Result<(), StartError> {
        let grants = self.grants.lock().unwrap_or_else(PoisonError::into_inner);
        self.egress
            .reload(&self.settings.config_dir, grants.as_ref(), slots)
    }

    /// Applies what was granted or taken back since the last time, and records it.
    pub async fn apply_grants(&self, slots: &Slots<'_>) -> Result<(), StartError> {
        let changes = {
            let mut grants = self.grants.lock().unwrap_or_else(PoisonError::into_inner);
            grants.as_mut().map(Grants::look).unwrap_or_default()
        };
        // What cannot be recorded does not happen; what ends, ends in any case.
        let mut recorded = true;
        for (grant, reason) in changes.noted() {
            match self.egress.audit.begin(Way::Audit).await {
                Ok(mut entry) => grants::describe(grant, reason, entry.record()),
                Err(_) => recorded = false,
            }
        }
        if !recorded {
            say!(
                "a grant was not recorded, as the audit cannot be written; nothing is let through"
            );
        }
        if !changes.policy {
            return Ok(());
        }
        let grants = self.grants.lock().unwrap_or_else(PoisonError::into_inner);
        self.egress
            .apply_grants(&self.settings.config_dir, grants.as_ref(), slots)?;
        if let Some(grants) = grants.as_ref() {
            grants.say_applied(&self.settings.asking_dir);
        }
        Ok(())
    }

    /// Stops accepting, lets open connections finish for a while, and brings the audit to its end.
    pub fn stop(self) {
        self.egress.draining.send_replace(true);
        // With the front go the queues of the workers, so they end too, and with them what is still open. A
        // thread that panicked has nothing left to finish.
        for thread in std::iter::once(self.front).chain(self.workers) {
            let _ = thread.join();
        }
        status::remove(&self.settings.status_socket);
        // The last way to the writer.
        drop(self.egress);
        self.writer.finish();
    }
}

/// Runs until SIGTERM or SIGINT; SIGHUP reads the policy again.
pub fn run(settings: Settings) -> Result<(), StartError> {
    let slots = |name: &str| {
        std::env::var(name)
            .ok()
            .map(|value| Zeroizing::new(value.into_bytes()))
    };
    let system = |what: &str| {
        let what = what.to_owned();
        move |error| StartError::System { what, error }
    };
    let runtime = Builder::new_current_thread()
        .enable_io()
        .enable_time()
        .build()
        .map_err(system("runtime"))?;
    // Before anything else, so that a signal during the start is not lost.
    let (mut hangup, mut terminate, mut interrupt) = {
        let _entered = runtime.enter();
        let listen = |kind| signal(kind).map_err(system("signal handler"));
        (
            listen(SignalKind::hangup())?,
            listen(SignalKind::terminate())?,
            listen(SignalKind::interrupt())?,
        )
    };
    let running = start(settings, Box::new(System), &slots)?;
    say!("egress listens on {}", running.bound().proxy.ip());
    runtime.block_on(async {
        let mut look = interval(LOOK);
        look.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut tidy = Tidy::default();
        loop {
            tokio::select! {
                _ = look.tick() => {
                    if let Err(error) = running.apply_grants(&slots).await {
                        say!("grants not applied: {error}");
                    }
                    if tidy.is_due(running.egress.audit.count(), LOOK) {
                        memory::give_back();
                    }
                }
                _ = hangup.recv() => match running.reload(&slots) {
                    Ok(()) => say!("policy reloaded"),
                    Err(error) => say!("policy not reloaded, the last good one stays: {error}"),
                },
                _ = terminate.recv() => break,
                _ = interrupt.recv() => break,
            }
        }
    });
    running.stop();
    Ok(())
}
