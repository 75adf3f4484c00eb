//! What flows between two sides that were joined: how long both may be silent, and how much it was.

use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncReadExt};
use tokio::time::{Instant, timeout_at};

use crate::audit::Entry;
use crate::reason::Reason;

/// How long both sides may be silent. One of them may have nothing to say for longer: who listens is not gone.
pub(super) const IDLE: Duration = Duration::from_secs(600);

/// When something was last heard, from either side.
pub(super) struct Silence(Mutex<Instant>);

impl Silence {
    pub(super) fn new() -> Self {
        Self(Mutex::new(Instant::now()))
    }

    fn since(&self) -> Instant {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Something was heard.
    fn end(&self) {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = Instant::now();
    }

    /// Reads what comes next into the buffer's room; nothing when the side has ended, or both were silent for too long.
    pub(super) async fn read(
        &self,
        from: &mut (impl AsyncRead + Unpin),
        buffer: &mut Vec<u8>,
    ) -> Option<usize> {
        loop {
            let since = self.since();
            match timeout_at(since + IDLE, from.read_buf(buffer)).await {
                Ok(Ok(read)) if read > 0 => {
                    self.end();
                    return Some(read);
                }
                Ok(_) => return None,
                Err(_) if self.since() > since => {}
                Err(_) => return None,
            }
        }
    }
}

/// How much flowed and why it ended. Written down also when the proxy goes down meanwhile.
pub(super) struct Tally<'a> {
    pub(super) entry: &'a mut Entry,
    pub(super) sent: u64,
    pub(super) received: u64,
    pub(super) reason: Option<Reason>,
}

impl<'a> Tally<'a> {
    pub(super) fn new(entry: &'a mut Entry) -> Self {
        Self {
            entry,
            sent: 0,
            received: 0,
            reason: None,
        }
    }
}

impl Drop for Tally<'_> {
    fn drop(&mut self) {
        let record = self.entry.record();
        record.bytes_out = self.sent;
        record.bytes_in = self.received;
        record.reason = self.reason.unwrap_or(record.reason);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use tokio::io::{AsyncWriteExt, duplex};
    use tokio::time::sleep;

    #[tokio::test(start_paused = true)]
    async fn who_listens_is_not_silent() {
        let silence = Silence::new();
        let (mut talks, mut heard) = duplex(64);
        let (_listens, mut nothing) = duplex(64);
        let began = Instant::now();
        let talk = async {
            for _ in 0..5 {
                sleep(IDLE - Duration::from_secs(1)).await;
                talks.write_all(b"x").await.unwrap();
            }
        };
        let hear = async {
            let mut buffer = Vec::with_capacity(64);
            while silence.read(&mut heard, &mut buffer).await.is_some() {}
            assert_eq!(buffer, b"xxxxx");
        };
        let wait = async {
            let mut buffer = Vec::with_capacity(64);
            let read = silence.read(&mut nothing, &mut buffer).await;
            (read, began.elapsed())
        };
        let ((), (), (read, after)) = tokio::join!(talk, hear, wait);
        assert_eq!(read, None);
        let talked = (IDLE - Duration::from_secs(1)) * 5;
        assert!(after >= talked + IDLE, "{after:?}");
        // And both silent is the end.
        assert!(began.elapsed() < talked + IDLE + Duration::from_secs(1));
    }
}
