//! What is counted, and what it says in the end.

use std::io;
use std::time::Instant;

use serde_json::{Value, json};

/// The count of one worker, or of all.
#[derive(Debug, Default)]
pub(super) struct Tally {
    /// What is begun before does not count.
    pub(super) counts_from: Option<Instant>,
    last_end: Option<Instant>,
    nanoseconds: Vec<u64>,
    bytes: u64,
    connections: u64,
    /// Also those of the warm-up: the processor time of a proxy is for all of them.
    requests_total: u64,
    errors: u64,
    first_error: Option<String>,
}

impl Tally {
    /// What is there, or nothing and one more error.
    pub(super) fn keep<T>(&mut self, result: io::Result<T>) -> Option<T> {
        result.map_err(|error| self.failure(&error)).ok()
    }

    pub(super) fn success(&mut self, begun: Instant, bytes: u64, dialled: bool) {
        self.requests_total += 1;
        if self.counts_from.is_some_and(|from| begun < from) {
            return;
        }
        let ended = Instant::now();
        let taken = ended.duration_since(begun).as_nanos();
        self.nanoseconds
            .push(u64::try_from(taken).unwrap_or(u64::MAX));
        self.last_end = Some(ended);
        self.bytes += bytes;
        self.connections += u64::from(dialled);
    }

    /// Errors of the warm-up are errors too.
    pub(super) fn failure(&mut self, error: &io::Error) {
        self.errors += 1;
        self.first_error.get_or_insert_with(|| error.to_string());
    }

    pub(super) fn sum(tallies: impl IntoIterator<Item = Self>) -> Self {
        tallies.into_iter().fold(Self::default(), |mut sum, tally| {
            sum.counts_from = sum.counts_from.or(tally.counts_from);
            sum.last_end = sum.last_end.max(tally.last_end);
            sum.nanoseconds.extend(tally.nanoseconds);
            sum.bytes += tally.bytes;
            sum.connections += tally.connections;
            sum.requests_total += tally.requests_total;
            sum.errors += tally.errors;
            sum.first_error = sum.first_error.or(tally.first_error);
            sum
        })
    }

    /// Rates are over the time from the end of the warm-up to the end of the last request that counts.
    pub(super) fn report(mut self) -> Value {
        self.nanoseconds.sort_unstable();
        let seconds = match (self.counts_from, self.last_end) {
            (Some(from), Some(end)) => end.duration_since(from).as_secs_f64(),
            _ => 0.0,
        };
        let per_second = |count: f64| {
            if seconds > 0.0 { count / seconds } else { 0.0 }
        };
        let count = self.nanoseconds.len();
        let mean = self.nanoseconds.iter().sum::<u64>() as f64 / count.max(1) as f64;
        json!({
            "requests_per_s": rounded(per_second(count as f64)),
            "p50_us": rounded(percentile(&self.nanoseconds, 50) / 1e3),
            "p99_us": rounded(percentile(&self.nanoseconds, 99) / 1e3),
            "mean_us": rounded(mean / 1e3),
            "bytes_per_s": per_second(self.bytes as f64).round(),
            "connections_per_s": rounded(per_second(self.connections as f64)),
            "requests": count,
            "requests_total": self.requests_total,
            "seconds": rounded(seconds),
            "errors": self.errors,
            "first_error": self.first_error,
        })
    }
}

/// The nearest rank: the smallest value that at least so many per cent of them do not exceed.
fn percentile(sorted: &[u64], percent: usize) -> f64 {
    let rank = (sorted.len() * percent).div_ceil(100);
    sorted.get(rank.saturating_sub(1)).copied().unwrap_or(0) as f64
}

/// To hundredths: more digits than that are noise.
fn rounded(value: f64) -> f64 {
    (value * 100.0).round() / 100.0
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[test]
    fn percentiles_are_ranks() {
        let hundred: Vec<u64> = (1..=100).collect();
        assert_eq!(percentile(&hundred, 50), 50.0);
        assert_eq!(percentile(&hundred, 99), 99.0);
        assert_eq!(percentile(&[7], 99), 7.0);
        assert_eq!(percentile(&[], 99), 0.0);
    }

    #[test]
    fn only_what_begins_after_the_warm_up_counts() {
        let from = Instant::now();
        let mut tally = Tally {
            counts_from: Some(from),
            ..Tally::default()
        };
        if let Some(before) = from.checked_sub(Duration::from_secs(1)) {
            tally.success(before, 10, true);
        }
        tally.success(from, 5, false);
        let other = Tally {
            errors: 2,
            first_error: Some("why".to_owned()),
            ..Tally::default()
        };
        let report = Tally::sum([other, tally]).report();
        assert_eq!(report["requests"], 1);
        assert_eq!(report["requests_total"], 2);
        assert_eq!(report["connections_per_s"], 0.0);
        assert_eq!(report["errors"], 2);
        assert_eq!(report["first_error"], "why");
    }

    #[test]
    fn nothing_is_a_report_too() {
        assert_eq!(Tally::default().report()["requests_per_s"], 0.0);
    }
}
