//! The record of what the bottle did and tried: one JSON line each, chained by hashes, written by a thread of
//! its own. What cannot be recorded does not happen.
//!
//! A place in the writer's queue is taken *before* a request is let through, so finishing a record can neither
//! wait nor fail, also when it is dropped half-way. When the writer cannot write it keeps what it has, closes
//! the gate to new requests, and opens it again once everything is down; unless the operator wants requests to go on:
//! then what could not be written is counted, and the count is the next record.

mod chain;
mod denials;
mod flood;
mod record;
mod writer;

use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU8, AtomicU64, Ordering};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use bottle_plan::policy::OnFull;
use tokio::runtime::Builder;
use tokio::sync::mpsc::{OwnedPermit, Sender, channel};
use tokio::time::timeout;

use crate::reason::Reason;
use chain::Chain;
use denials::Denials;

pub use chain::AuditLimits;
pub(crate) use record::{Record, Way};

/// Records that may be open or waiting at once; more than all connections can have under way.
const QUEUE: usize = 1024;
/// How long a request waits for a place before it is refused.
const PATIENCE: Duration = Duration::from_secs(5);

/// The way to the writer; cheap to clone.
#[derive(Clone)]
pub(crate) struct Audit {
    queue: Sender<Record>,
    shared: Arc<Shared>,
}

struct Shared {
    bottle: Arc<str>,
    writable: AtomicBool,
    /// What of it is also said on stderr: nothing, what was not allowed, everything.
    log: AtomicU8,
    /// Together they make an id no other run of this bottle uses.
    run: u64,
    next: AtomicU64,
    /// Whether the agent can turn a denial into a request.
    can_ask: bool,
    /// Whether requests wait for the record.
    on_full: OnFull,
}

/// The writer's thread.
pub(crate) struct Writer(JoinHandle<()>);

/// An open record with its place in the queue. Dropping it sends it.
pub(crate) struct Entry {
    record: Option<Record>,
    place: Option<OwnedPermit<Record>>,
    began: Instant,
}

impl Audit {
    /// Opens the files, goes on with their chain and starts the writer.
    pub(crate) fn open(
        folder: &Path,
        (limits, on_full): (AuditLimits, OnFull),
        bottle: Arc<str>,
        denials: Option<&Path>,
    ) -> std::io::Result<(Self, Writer)> {
        let chain = Chain::open(folder, limits)?;
        let denials = denials.and_then(Denials::open);
        let runtime = Builder::new_current_thread().enable_time().build()?;
        let (queue, records) = channel(QUEUE);
        let now = SystemTime::now()
            .duration_since(UNIX_EPOCH)
            .unwrap_or_default();
        let shared = Arc::new(Shared {
            bottle,
            writable: AtomicBool::new(true),
            log: AtomicU8::new(0),
            run: u64::try_from(now.as_micros()).unwrap_or(u64::MAX),
            next: AtomicU64::new(0),
            can_ask: denials.is_some(),
            on_full,
        });
        let state = shared.clone();
        let writer = thread::Builder::new()
            .name("audit".into())
            .stack_size(256 * 1024);
        let writer = Writer(writer.spawn(move || {
            runtime.block_on(writer::Writer::new(chain, denials, &state).run(records));
        })?);
        Ok((Self { queue, shared }, writer))
    }

    /// Whether records reach the file at the moment.
    pub(crate) fn is_writable(&self) -> bool {
        self.shared.writable.load(Ordering::Relaxed) && !self.queue.is_closed()
    }

    /// How many records were begun.
    pub(crate) fn count(&self) -> u64 {
        self.shared.next.load(Ordering::Relaxed)
    }

    /// Sets what is also said on stderr.
    pub(crate) fn set_log(&self, level: u8) {
        self.shared.log.store(level, Ordering::Relaxed);
    }

    /// Opens a record.
    pub(crate) async fn begin(&self, way: Way) -> Result<Entry, Reason> {
        if !self.is_writable() {
            return Err(Reason::AuditUnavailable);
        }
        let place = match self.queue.clone().try_reserve_owned() {
            Ok(place) => place,
            Err(_) => match timeout(PATIENCE, self.queue.clone().reserve_owned()).await {
                Ok(Ok(place)) => place,
                _ => return Err(Reason::AuditUnavailable),
            },
        };
        let mut record = Record::new(self.shared.bottle.clone(), self.shared.id(), way);
        record.can_ask = self.shared.can_ask;
        Ok(Entry {
            record: Some(record),
            place: Some(place),
            began: Instant::now(),
        })
    }
}

impl Shared {
    fn id(&self) -> String {
        let number = self.next.fetch_add(1, Ordering::Relaxed);
        format!("{:x}-{number:x}", self.run)
    }

    fn note(&self, reason: Reason) -> Record {
        Record::note(self.bottle.clone(), self.id(), reason)
    }

    fn log_level(&self) -> u8 {
        self.log.load(Ordering::Relaxed)
    }

    /// Opens or closes the gate; says how it was.
    fn set_writable(&self, writable: bool) -> bool {
        self.writable.swap(writable, Ordering::Relaxed)
    }
}

impl Writer {
    /// Waits until everything is written. Call it after the last [`Audit`] is gone.
    pub(crate) fn finish(self) {
        // A panic of the writer has been seen as a closed gate; there is nothing left to do about it here.
        let _ = self.0.join();
    }
}

impl Entry {
    /// The record, to fill in.
    pub(crate) fn record(&mut self) -> &mut Record {
        // `record` is only empty while dropping; a spare one keeps this total.
        self.record
            .get_or_insert_with(|| Record::new("".into(), String::new(), Way::Proxy))
    }

    /// Hands the record on; what is left here leaves none.
    pub(crate) fn hand_over(&mut self) -> Self {
        Self {
            record: self.record.take(),
            place: self.place.take(),
            began: self.began,
        }
    }

    /// Gives the place back without a record: what it was taken for will leave records of its own.
    pub(crate) fn cancel(&mut self) {
        self.record = None;
        self.place = None;
    }
}

impl Drop for Entry {
    fn drop(&mut self) {
        if let (Some(mut record), Some(place)) = (self.record.take(), self.place.take()) {
            record.end(self.began.elapsed());
            place.send(record);
        }
    }
}
