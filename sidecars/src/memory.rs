//! Memory that a load left behind goes back to the system when the load is over.
//!
//! The C library keeps what was freed, in a pool for each thread, and what is still in use between the free parts keeps it
//! from ever shrinking one. So it is told to, once it is quiet: it costs some milliseconds, and nobody waits for them then.

use std::time::Duration;

/// So long it is quiet before anything is given back; and again when connections that nobody uses have been closed.
const QUIET: [Duration; 2] = [Duration::from_secs(5), Duration::from_secs(45)];

/// Knows when it is time.
#[derive(Default)]
pub(crate) struct Tidy {
    /// The last number of what has been done.
    seen: u64,
    quiet: Duration,
}

impl Tidy {
    /// To be called again and again, `passed` after the last time, with the number of what has been done so far: whether
    /// it is time. A sidecar to which nothing happens is left alone.
    pub(crate) fn is_due(&mut self, done: u64, passed: Duration) -> bool {
        if done != self.seen {
            self.seen = done;
            self.quiet = Duration::ZERO;
            return false;
        }
        let before = self.quiet;
        self.quiet += passed;
        done > 0 && QUIET.iter().any(|at| before < *at && *at <= self.quiet)
    }
}

/// Gives free memory back.
#[cfg(target_env = "gnu")]
#[allow(unsafe_code)]
pub(crate) fn give_back() {
    // SAFETY: it takes a number, touches free memory alone, and may be called at any time by any thread.
    unsafe {
        nix::libc::malloc_trim(0);
    }
}

/// Other C libraries give back by themselves, or cannot be told.
#[cfg(not(target_env = "gnu"))]
pub(crate) fn give_back() {}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_is_due_twice_after_each_load() {
        let mut tidy = Tidy::default();
        let step = Duration::from_millis(200);
        let mut due =
            |done: u64, ticks: u32| (0..ticks).filter(|_| tidy.is_due(done, step)).count();
        assert_eq!(due(0, 1000), 0);
        for round in 1..3 {
            // As long as something happens, and a while after that, it is not.
            assert_eq!((0..100).map(|n| due(round * 1000 + n, 2)).sum::<usize>(), 0);
            let last = round * 1000 + 99;
            assert_eq!(
                (due(last, 22), due(last, 3), due(last, 170)),
                (0, 1, 0),
                "{round}"
            );
            assert_eq!((due(last, 40), due(last, 1000)), (1, 0), "{round}");
        }
    }

    /// What this process has in memory, in pages.
    #[cfg(target_env = "gnu")]
    fn resident() -> usize {
        let statm = std::fs::read_to_string("/proc/self/statm").unwrap();
        statm.split(' ').nth(1).unwrap().parse().unwrap()
    }

    /// As a load leaves it: here and there something is still in use.
    #[cfg(target_env = "gnu")]
    #[test]
    fn free_memory_goes_back() {
        let mut pieces: Vec<Option<Vec<u8>>> = (0..32_000).map(|_| Some(vec![1; 4000])).collect();
        for (number, piece) in pieces.iter_mut().enumerate() {
            if number % 100 != 0 {
                *piece = None;
            }
        }
        let before = resident();
        give_back();
        let after = resident();
        assert_eq!(pieces.iter().flatten().count(), 320);
        // Of 31,000 pages; others may have taken some meanwhile.
        assert!(after + 10_000 < before, "{before} pages, then {after}");
    }
}
