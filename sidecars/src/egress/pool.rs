//! Connections to destinations between two requests, and how much one host gets at once.
//!
//! A connection was opened under a policy, to a destination that was looked up, checked and verified; it is
//! used again only for the same destination under the same policy. Each worker has a pool of its own, so that
//! both ends of an exchange are served by one thread.

use std::collections::HashMap;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{self, Arc, PoisonError, Weak};
use std::time::{Duration, Instant};

use bottle_plan::host::Host;
use tokio::sync::{Mutex, MutexGuard, OwnedSemaphorePermit, Semaphore};
use tokio::time::{sleep, timeout};

use super::upstream::{Upstream, Wanted};
use crate::reason::Reason;

/// Requests and tunnels at once to one host, of all workers together. Fewer than any server's limit on the
/// streams of a connection, so that one connection is enough where many requests share it.
const PER_HOST: usize = 64;
/// How long a request waits for another one to the same host to end.
const PATIENCE: Duration = Duration::from_secs(10);
/// How long a connection is kept that nobody uses. Most servers keep theirs longer.
const IDLE: Duration = Duration::from_secs(30);
/// How often that is looked at.
const SWEEP: Duration = Duration::from_secs(5);
/// Connections kept by one worker.
const MAX_IDLE: usize = 128;
/// Hosts that are counted before those nobody uses are forgotten.
const MAX_HOSTS: usize = 256;

/// What is known of a host, whoever talks to it.
struct Known {
    places: Arc<Semaphore>,
    /// Held while a connection is opened that others can share.
    opening: Mutex<()>,
    /// Whether there is nothing to share, because the host speaks HTTP/1 only.
    is_h1: AtomicBool,
}

/// One of a host's places; given back when it is dropped.
pub(crate) struct Place {
    known: Arc<Known>,
    _permit: OwnedSemaphorePermit,
}

impl Place {
    /// Waits for whoever is opening a connection that can be shared; then it is one's own turn. None if there is
    /// nothing to wait for.
    pub(crate) async fn turn(&self) -> Option<MutexGuard<'_, ()>> {
        if self.known.is_h1.load(Ordering::Relaxed) {
            return None;
        }
        Some(self.known.opening.lock().await)
    }

    /// Notes what the host chose.
    pub(crate) fn set_h1(&self, is_h1: bool) {
        self.known.is_h1.store(is_h1, Ordering::Relaxed);
    }
}

/// All hosts.
#[derive(Default)]
pub(crate) struct Hosts(sync::Mutex<HashMap<Host, Arc<Known>>>);

impl Hosts {
    /// Takes a place, waiting for one if it must.
    pub(crate) async fn place(&self, host: &Host) -> Result<Place, Reason> {
        let known = self.known(host);
        let permit = match known.places.clone().try_acquire_owned() {
            Ok(permit) => permit,
            Err(_) => timeout(PATIENCE, known.places.clone().acquire_owned())
                .await
                .ok()
                .and_then(Result::ok)
                .ok_or(Reason::TooManyConnections)?,
        };
        Ok(Place {
            known,
            _permit: permit,
        })
    }

    fn known(&self, host: &Host) -> Arc<Known> {
        let mut hosts = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(known) = hosts.get(host) {
            return known.clone();
        }
        if hosts.len() >= MAX_HOSTS {
            // Whoever has a place holds on to it.
            hosts.retain(|_, known| Arc::strong_count(known) > 1);
        }
        let known = Arc::new(Known {
            places: Arc::new(Semaphore::new(PER_HOST)),
            opening: Mutex::default(),
            is_h1: AtomicBool::new(false),
        });
        hosts.insert(host.clone(), known.clone());
        known
    }
}

/// The idle connections of one worker.
#[derive(Default)]
pub(crate) struct Pool {
    state: sync::Mutex<State>,
}

#[derive(Default)]
struct State {
    /// The one used last is at the end.
    idle: Vec<Idle>,
    is_swept: bool,
}

struct Idle {
    since: Instant,
    upstream: Upstream,
}

impl Pool {
    fn state(&self) -> sync::MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A connection for this, if one is free.
    pub(crate) fn take(&self, wanted: &Wanted<'_>) -> Option<Upstream> {
        let mut state = self.state();
        let fits = |idle: &Idle| idle.upstream.fits(wanted) && idle.upstream.is_ready();
        let at = state.idle.iter().rposition(fits)?;
        if let Some(shared) = state.idle[at].upstream.share() {
            state.idle[at].since = Instant::now();
            return Some(shared);
        }
        Some(state.idle.remove(at).upstream)
    }

    /// Whether the destination is connected to, in whatever protocol: it was reached, and is who it says.
    pub(crate) fn reaches(&self, wanted: &Wanted<'_>) -> bool {
        let state = self.state();
        let open = |idle: &Idle| !idle.upstream.is_closed() && idle.upstream.is_for(wanted);
        state.idle.iter().any(open)
    }

    /// Keeps a connection for the next request.
    pub(crate) fn put(self: &Arc<Self>, upstream: Upstream) {
        let mut state = self.state();
        if state.idle.len() >= MAX_IDLE {
            // The oldest has waited in vain the longest.
            state.idle.remove(0);
        }
        state.idle.push(Idle {
            since: Instant::now(),
            upstream,
        });
        if !std::mem::replace(&mut state.is_swept, true) {
            tokio::spawn(sweep(Arc::downgrade(self)));
        }
    }

    /// Drops what is closed or too old; says whether nothing is left.
    fn sweep(&self) -> bool {
        let mut state = self.state();
        state
            .idle
            .retain(|idle| !idle.upstream.is_closed() && idle.since.elapsed() < IDLE);
        state.is_swept = !state.idle.is_empty();
        !state.is_swept
    }
}

/// Looks after a pool until it is empty; the next connection put into it calls for the next sweep.
async fn sweep(pool: Weak<Pool>) {
    loop {
        sleep(SWEEP).await;
        let Some(pool) = pool.upgrade() else { return };
        if pool.sweep() {
            return;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_host_has_so_many_places_and_others_have_their_own() {
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_time()
            .start_paused(true)
            .build();
        runtime.unwrap().block_on(async {
            let hosts = Hosts::default();
            let (busy, quiet) = (
                Host::parse("a.test").unwrap(),
                Host::parse("b.test").unwrap(),
            );
            let mut taken = Vec::new();
            for _ in 0..PER_HOST {
                taken.push(hosts.place(&busy).await.unwrap());
            }
            assert_eq!(
                hosts.place(&busy).await.err(),
                Some(Reason::TooManyConnections)
            );
            assert!(hosts.place(&quiet).await.is_ok());
            taken.pop();
            assert!(hosts.place(&busy).await.is_ok());
            for number in 0..MAX_HOSTS * 2 {
                let host = Host::parse(&format!("n{number}.test")).unwrap();
                assert!(hosts.place(&host).await.is_ok());
            }
            assert!(hosts.0.lock().unwrap().len() <= MAX_HOSTS);
            assert_eq!(hosts.known(&busy).places.available_permits(), 1);
        });
    }
}
