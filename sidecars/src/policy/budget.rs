//! Budgets of a route: how many requests and how many bytes may leave by it in a window of time.

use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use bottle_plan::audit::Left;
use bottle_plan::policy::Limits;

use crate::reason::Reason;

/// What is left of a route's limits. Shared by every connection, kept across reloads of an unchanged route.
pub(crate) struct Budget {
    requests: u64,
    bytes: u64,
    window: Option<Duration>,
    spent: Mutex<Spent>,
}

struct Spent {
    since: Instant,
    requests: u64,
    bytes: u64,
}

impl Budget {
    pub(crate) fn new(limits: &Limits) -> Self {
        Self {
            requests: limits.requests.unwrap_or(u64::MAX),
            bytes: limits.bytes_out.unwrap_or(u64::MAX),
            window: limits.per.map(Duration::from_secs),
            spent: Mutex::new(Spent {
                since: Instant::now(),
                requests: 0,
                bytes: 0,
            }),
        }
    }

    /// Takes one request, if there is one left.
    pub(crate) fn take_request(&self) -> Result<(), Reason> {
        self.take(|budget, spent| {
            if spent.bytes >= budget.bytes {
                return Err(Reason::LimitBytes);
            }
            if spent.requests >= budget.requests {
                return Err(Reason::LimitRequests);
            }
            spent.requests += 1;
            Ok(())
        })
    }

    /// Takes bytes of a request body. What does not fit is not sent, so nothing is taken for it.
    pub(crate) fn take_bytes(&self, bytes: u64) -> Result<(), Reason> {
        self.take(|budget, spent| {
            let total = spent.bytes.saturating_add(bytes);
            if total > budget.bytes {
                return Err(Reason::LimitBytes);
            }
            spent.bytes = total;
            Ok(())
        })
    }

    /// What is left at the moment.
    pub(crate) fn left(&self) -> Left {
        let left =
            |limit: u64, spent: u64| (limit != u64::MAX).then(|| limit.saturating_sub(spent));
        self.take(|budget, spent| Left {
            requests: left(budget.requests, spent.requests),
            bytes_out: left(budget.bytes, spent.bytes),
        })
    }

    fn take<T>(&self, from: impl FnOnce(&Self, &mut Spent) -> T) -> T {
        let mut spent = self.spent.lock().unwrap_or_else(PoisonError::into_inner);
        if self
            .window
            .is_some_and(|window| spent.since.elapsed() >= window)
        {
            *spent = Spent {
                since: Instant::now(),
                requests: 0,
                bytes: 0,
            };
        }
        from(self, &mut spent)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn exactly_the_limit_fits() {
        let budget = Budget::new(&Limits {
            bytes_out: Some(10),
            requests: Some(2),
            per: None,
        });
        assert_eq!(budget.take_request(), Ok(()));
        assert_eq!(budget.take_bytes(4), Ok(()));
        assert_eq!(budget.take_bytes(7), Err(Reason::LimitBytes));
        assert_eq!(budget.take_bytes(5), Ok(()));
        assert_eq!(budget.take_request(), Ok(()));
        assert_eq!(budget.take_request(), Err(Reason::LimitRequests));
        assert_eq!(budget.take_bytes(1), Ok(()));
        assert_eq!(budget.take_request(), Err(Reason::LimitBytes));
    }

    #[test]
    fn a_new_window_begins_again() {
        let budget = Budget::new(&Limits {
            bytes_out: None,
            requests: Some(1),
            per: Some(0),
        });
        assert_eq!(budget.take_request(), Ok(()));
        assert_eq!(budget.take_request(), Ok(()));
    }
}
