//! How slow a client may send a body: fast enough that holding a connection open costs it something.
//!
//! Only the time in which we wait for the client counts; a destination that takes its time is not its fault.

use std::future::Future;
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;

use tokio::time::{Instant, Sleep, sleep};

/// Waiting is added up to this much before it is looked at what came of it.
const WINDOW: Duration = Duration::from_secs(30);
/// Bytes a second there must be on average.
const RATE: u64 = 1024;

/// Watches one body.
#[derive(Default)]
pub(crate) struct Pace {
    waiting: Option<(Instant, Pin<Box<Sleep>>)>,
    waited: Duration,
    received: u64,
}

impl Pace {
    /// To be called when there is nothing to read; ready when that has gone on for too long.
    pub(crate) fn poll_idle(&mut self, cx: &mut Context<'_>, limit: Duration) -> Poll<()> {
        let (since, timer) = self
            .waiting
            .get_or_insert_with(|| (Instant::now(), Box::pin(sleep(limit))));
        let end = *since + limit;
        if timer.deadline() != end {
            timer.as_mut().reset(end);
        }
        timer.as_mut().poll(cx)
    }

    /// To be called with what was read; says whether it still comes fast enough.
    pub(crate) fn is_kept(&mut self, bytes: u64) -> bool {
        self.received += bytes;
        if let Some((since, _)) = self.waiting.take() {
            self.waited += since.elapsed();
        }
        if self.waited < WINDOW {
            return true;
        }
        let enough = self.received >= RATE * self.waited.as_secs();
        (self.waited, self.received) = (Duration::ZERO, 0);
        enough
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::future::poll_fn;

    /// Pieces of `bytes` every `pause` seconds; how many came before it was too slow.
    fn pieces(bytes: u64, pause: u64) -> usize {
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_time()
            .start_paused(true)
            .build();
        runtime.unwrap().block_on(async {
            let mut pace = Pace::default();
            for number in 0..100 {
                let mut arrives = Box::pin(sleep(Duration::from_secs(pause)));
                let idle = poll_fn(|cx| match arrives.as_mut().poll(cx) {
                    Poll::Ready(()) => Poll::Ready(false),
                    Poll::Pending => pace.poll_idle(cx, WINDOW).map(|()| true),
                });
                if idle.await || !pace.is_kept(bytes) {
                    return number;
                }
            }
            100
        })
    }

    #[test]
    fn slow_is_fine_and_dripping_is_not() {
        assert_eq!(pieces(1024, 1), 100);
        assert_eq!(pieces(20 * 1024, 20), 100);
        assert_eq!(pieces(1, 0), 100);
        assert_eq!(pieces(1, 10), 2);
        assert_eq!(pieces(1_000_000, 31), 0);
    }
}
