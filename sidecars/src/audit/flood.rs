//! A flood of the same refusal is counted instead of listed: neither a broken retry loop nor an agent that wants
//! the interesting lines to rotate away can fill the audit with denials.
//!
//! Each (reason, host) has a bucket of lines. What finds it empty is counted, and the count becomes one record.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use super::record::Record;
use crate::reason::Reason;

/// Lines of one kind that are written one by one at first.
const BURST: f64 = 32.0;
/// Lines of one kind a second after that.
const RATE: f64 = 1.0;
/// A count is written this long after it began.
const EVERY: Duration = Duration::from_secs(10);
/// Hosts that are told apart. An agent can invent any number of them; the others share a bucket for each reason.
const MAX_HOSTS: usize = 256;

type Key = (Reason, Option<Arc<str>>);

/// The buckets.
#[derive(Default)]
pub(super) struct Flood {
    buckets: HashMap<Key, Bucket>,
    /// When the idle ones were last looked for; that is not done for every line of a flood.
    swept: Option<Instant>,
}

struct Bucket {
    lines: f64,
    at: Instant,
    counted: Option<Counted>,
}

/// What was not written.
struct Counted {
    /// The first of them, which becomes the summary.
    summary: Record,
    began: Instant,
    last: Instant,
}

impl Bucket {
    fn new(now: Instant) -> Self {
        Self {
            lines: BURST,
            at: now,
            counted: None,
        }
    }

    fn fill(&mut self, now: Instant) {
        let passed = now.saturating_duration_since(self.at).as_secs_f64();
        self.lines = (self.lines + passed * RATE).min(BURST);
        self.at = now;
    }

    fn is_idle(&self, now: Instant) -> bool {
        let passed = now.saturating_duration_since(self.at).as_secs_f64();
        self.counted.is_none() && self.lines + passed * RATE >= BURST
    }
}

impl Flood {
    /// Takes out of `records` what is one too many of its kind.
    pub(super) fn sift(&mut self, records: &mut Vec<Record>, now: Instant) {
        // Nearly always there is nothing but allowed requests.
        if records.iter().all(Record::is_allowed) {
            return;
        }
        let mut kept = Vec::with_capacity(records.len());
        for record in records.drain(..) {
            if record.is_allowed() {
                kept.push(record);
            } else {
                kept.extend(self.keep_or_count(record, now));
            }
        }
        *records = kept;
    }

    fn keep_or_count(&mut self, record: Record, now: Instant) -> Option<Record> {
        let key = self.key(&record, now);
        let shared = key.1.is_none();
        let bucket = self.buckets.entry(key).or_insert_with(|| Bucket::new(now));
        bucket.fill(now);
        if bucket.lines >= 1.0 {
            bucket.lines -= 1.0;
            return Some(record);
        }
        match &mut bucket.counted {
            Some(counted) => {
                counted.summary.count += 1;
                counted.summary.bytes_in += record.bytes_in;
                counted.summary.bytes_out += record.bytes_out;
                counted.last = now;
            }
            None => {
                bucket.counted = Some(Counted {
                    summary: record.into_summary(shared),
                    began: now,
                    last: now,
                });
            }
        }
        None
    }

    fn key(&mut self, record: &Record, now: Instant) -> Key {
        let key = (record.reason, record.host.clone());
        if self.buckets.len() >= MAX_HOSTS && !self.buckets.contains_key(&key) {
            let due = self
                .swept
                .is_none_or(|at| now.saturating_duration_since(at) >= Duration::from_secs(1));
            if due {
                self.swept = Some(now);
                self.buckets.retain(|_, bucket| !bucket.is_idle(now));
            }
            if self.buckets.len() >= MAX_HOSTS {
                return (record.reason, None);
            }
        }
        key
    }

    /// When the next count is to be written.
    pub(super) fn due(&self) -> Option<Instant> {
        let began = self
            .buckets
            .values()
            .filter_map(|bucket| bucket.counted.as_ref());
        began.map(|counted| counted.began + EVERY).min()
    }

    /// The counts that are to be written by `now`; all of them without it.
    pub(super) fn summaries(&mut self, now: Option<Instant>) -> Vec<Record> {
        let is_due = |counted: &mut Counted| now.is_none_or(|now| counted.began + EVERY <= now);
        let due = self
            .buckets
            .values_mut()
            .filter_map(|bucket| bucket.counted.take_if(is_due));
        let mut records: Vec<Record> = due
            .map(|counted| {
                let mut record = counted.summary;
                let span = counted.last.saturating_duration_since(counted.began);
                record.ms = u64::try_from(span.as_millis()).unwrap_or(u64::MAX);
                record
            })
            .collect();
        records.sort_by_key(|record| record.time);
        records
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::audit::Way;

    fn denied(host: &str) -> Record {
        let mut record = Record::new("demo".into(), "x".into(), Way::Proxy);
        record.reason = Reason::HostNotAllowed;
        record.host = Some(host.into());
        record
    }

    fn sift(flood: &mut Flood, record: Record, now: Instant) -> usize {
        let mut records = vec![record];
        flood.sift(&mut records, now);
        records.len()
    }

    #[test]
    fn the_first_are_listed_and_the_rest_counted() {
        let (mut flood, now) = (Flood::default(), Instant::now());
        let written: usize = (0..1000)
            .map(|_| sift(&mut flood, denied("evil.test"), now))
            .sum();
        assert_eq!(written, 32);
        assert_eq!(sift(&mut flood, denied("other.test"), now), 1);
        assert!(flood.summaries(Some(now)).is_empty());
        assert_eq!(flood.due(), Some(now + EVERY));
        let summaries = flood.summaries(Some(now + EVERY));
        assert_eq!(summaries.len(), 1);
        assert_eq!(summaries[0].count, 968);
        assert_eq!(summaries[0].host.as_deref(), Some("evil.test"));
        assert_eq!(flood.due(), None);
        // Time gives lines back.
        assert_eq!(sift(&mut flood, denied("evil.test"), now + EVERY), 1);
    }

    #[test]
    fn what_is_allowed_is_always_listed() {
        let (mut flood, now) = (Flood::default(), Instant::now());
        let allowed = || Record::new("demo".into(), "x".into(), Way::Proxy);
        assert!((0..1000).all(|_| sift(&mut flood, allowed(), now) == 1));
    }

    #[test]
    fn invented_hosts_do_not_get_around_it() {
        let (mut flood, now) = (Flood::default(), Instant::now());
        let written: usize = (0..100_000)
            .map(|n| sift(&mut flood, denied(&format!("h{n}.test")), now))
            .sum();
        assert!(written <= MAX_HOSTS + 32, "{written}");
        assert!(flood.buckets.len() <= MAX_HOSTS + 1);
        let summaries = flood.summaries(None);
        assert_eq!(summaries.len(), 1);
        assert_eq!(summaries[0].host, None);
        assert_eq!(summaries[0].count as usize, 100_000 - written);
        // Buckets nobody uses make room for others.
        let later = now + Duration::from_secs(60);
        sift(&mut flood, denied("new.test"), later);
        assert!(flood.buckets.len() < 10);
    }
}
