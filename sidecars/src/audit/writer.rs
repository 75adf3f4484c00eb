//! The thread that writes: everything that waits goes out in one write, and to the disk soon after.

use std::thread;
use std::time::{Duration, Instant};

use bottle_plan::policy::OnFull;
use tokio::sync::mpsc::Receiver;
use tokio::time::timeout_at;

use super::Shared;
use super::chain::Chain;
use super::denials::Denials;
use super::flood::Flood;
use super::record::Record;
use crate::program::say;
use crate::reason::Reason;

/// Records that come this close together are written at once: a wake-up for each costs more than the write.
const GATHER: Duration = Duration::from_millis(2);

/// Records in one write.
const BATCH: usize = 64;
/// How long a written record may wait for the disk. Each one waiting for its own would cost more than the rest
/// of the request.
const SYNC: Duration = Duration::from_millis(100);
/// How long the writer waits before it tries a failed write again.
const RETRY: Duration = Duration::from_millis(500);

/// What the thread holds.
pub(super) struct Writer<'a> {
    chain: Chain,
    flood: Flood,
    denials: Option<Denials>,
    shared: &'a Shared,
    /// Since when the file holds something the disk may not.
    dirty: Option<Instant>,
    /// Records that could not be written and are gone.
    lost: u64,
}

impl<'a> Writer<'a> {
    pub(super) fn new(chain: Chain, denials: Option<Denials>, shared: &'a Shared) -> Self {
        Self {
            chain,
            denials,
            flood: Flood::default(),
            shared,
            dirty: None,
            lost: 0,
        }
    }

    /// Writes until the last sender is gone.
    pub(super) async fn run(mut self, mut records: Receiver<Record>) {
        let mut batch = Vec::with_capacity(BATCH);
        loop {
            if records.len() < BATCH {
                tokio::time::sleep(GATHER).await;
            }
            let next = records.recv_many(&mut batch, BATCH);
            let due = self
                .flood
                .due()
                .into_iter()
                .chain(self.dirty.map(|at| at + SYNC));
            let is_last = match due.min() {
                None => next.await == 0,
                // Time is up: there may be nothing to write, but there is something to do.
                Some(due) => timeout_at(due.into(), next).await.is_ok_and(|got| got == 0),
            };
            let now = Instant::now();
            if let Some(denials) = &mut self.denials {
                denials.note(&batch);
            }
            self.flood.sift(&mut batch, now);
            batch.extend(self.flood.summaries((!is_last).then_some(now)));
            if is_last {
                batch.push(self.shared.note(Reason::AuditClosed));
            }
            if !batch.is_empty() && !self.write(&batch, &records) {
                return;
            }
            self.report(&mut batch);
            let sync = is_last || self.dirty.is_some_and(|at| now >= at + SYNC);
            if sync && !self.sync(&records) {
                return;
            }
            if sync {
                self.dirty = None;
            }
            if is_last {
                return;
            }
        }
    }

    fn write(&mut self, batch: &[Record], records: &Receiver<Record>) -> bool {
        if self.shared.on_full == OnFull::Allow {
            self.write_or_lose(batch);
            return true;
        }
        let written = self.insist(records, |chain, shared| {
            chain.make_room(|dropped| {
                let mut note = shared.note(Reason::AuditDropped);
                note.dropped = Some(dropped);
                note
            })?;
            let (lines, head) = chain.lines(batch);
            chain.append(&lines, head)
        });
        self.dirty.get_or_insert_with(Instant::now);
        written
    }

    /// Tries once. What cannot be written is counted, and the count goes before what can be again.
    fn write_or_lose(&mut self, batch: &[Record]) {
        let shared = self.shared;
        let written = self.chain.make_room(|dropped| {
            let mut note = shared.note(Reason::AuditDropped);
            note.dropped = Some(dropped);
            note
        });
        let written = written.and_then(|()| {
            if self.lost > 0 {
                let mut note = shared.note(Reason::AuditLost);
                note.count = self.lost;
                let (lines, head) = self.chain.lines(&[note]);
                self.chain.append(&lines, head)?;
                say!("audit is written again; {} records are lost", self.lost);
                self.lost = 0;
            }
            let (lines, head) = self.chain.lines(batch);
            self.chain.append(&lines, head)
        });
        match written {
            Ok(()) => {
                self.dirty.get_or_insert_with(Instant::now);
            }
            Err(error) => {
                if self.lost == 0 {
                    say!("audit cannot be written, and requests go on without it: {error}");
                }
                let gone: u64 = batch.iter().map(|record| record.count).sum();
                self.lost = self.lost.saturating_add(gone);
            }
        }
    }

    fn sync(&mut self, records: &Receiver<Record>) -> bool {
        if self.shared.on_full == OnFull::Deny {
            return self.insist(records, |chain, _| chain.sync());
        }
        if let Err(error) = self.chain.sync() {
            say!("audit may not have reached the disk: {error}");
        }
        true
    }

    /// Does it until it works; meanwhile nothing is let through. False when the proxy goes down before it does.
    fn insist(
        &mut self,
        records: &Receiver<Record>,
        mut action: impl FnMut(&mut Chain, &Shared) -> std::io::Result<()>,
    ) -> bool {
        while let Err(error) = action(&mut self.chain, self.shared) {
            if self.shared.set_writable(false) {
                say!("audit cannot be written, nothing is let through: {error}");
            }
            if records.is_closed() {
                return false;
            }
            thread::sleep(RETRY);
        }
        if !self.shared.set_writable(true) {
            say!("audit is written again");
        }
        true
    }

    /// Says on stderr what the policy wants said there.
    fn report(&self, batch: &mut Vec<Record>) {
        let level = self.shared.log_level();
        for record in batch.drain(..).filter(|record| record.is_worth(level)) {
            say!("{record}");
        }
    }
}
