//! What a process takes, looked at again and again, and whether it grows.

use std::fs;

use nix::unistd::Pid;

/// A process at one moment.
#[derive(Clone, Copy, Debug)]
pub struct Taken {
    /// Pages of its own, not those of files, which the kernel takes back when it likes.
    pub kib: u64,
    /// Open file descriptors.
    pub fds: u64,
    /// Threads.
    pub threads: u64,
}

impl Taken {
    /// What the process takes now.
    ///
    /// # Errors
    /// When it is gone, or not ours to look at.
    pub fn by(pid: Pid) -> Result<Self, String> {
        let path = format!("/proc/{pid}/status");
        let status = fs::read_to_string(&path).map_err(|error| format!("{path}: {error}"))?;
        let field = |name: &str| -> u64 {
            let line = status.lines().find_map(|line| line.strip_prefix(name));
            let number = line.and_then(|line| line.split_whitespace().next()?.parse().ok());
            number.unwrap_or_default()
        };
        let open = format!("/proc/{pid}/fd");
        let fds = fs::read_dir(&open).map_err(|error| format!("{open}: {error}"))?;
        Ok(Self {
            kib: field("RssAnon:") + field("RssShmem:"),
            fds: fds.count() as u64,
            threads: field("Threads:"),
        })
    }
}

/// How much more the last third of `series` takes than the first, beyond a tenth and `slack`. Medians, so that a moment
/// says nothing.
#[must_use]
pub fn growth(series: &[u64], slack: u64) -> Option<(u64, u64)> {
    let third = series.len() / 3;
    let median = |part: &[u64]| {
        let mut part = part.to_vec();
        part.sort_unstable();
        part.get(part.len() / 2).copied().unwrap_or_default()
    };
    let (first, last) = (
        median(&series[..third]),
        median(&series[series.len() - third..]),
    );
    (last > first + first / 10 + slack).then_some((first, last))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_grows_is_seen_and_what_swings_is_not() {
        let leaks: Vec<u64> = (0..9).map(|round| 20 + round).collect();
        assert_eq!(growth(&leaks, 2), Some((21, 27)));
        let swings: Vec<u64> = (0..9).map(|round| 20 + round % 3).collect();
        assert_eq!(growth(&swings, 2), None);
        let slowly: Vec<u64> = (0..80).map(|round| 8000 + round * 64).collect();
        assert!(growth(&slowly, 1024).is_some());
        let once: Vec<u64> = (0..80)
            .map(|round| if round == 79 { 60_000 } else { 8000 })
            .collect();
        assert_eq!(growth(&once, 1024), None);
    }
}
