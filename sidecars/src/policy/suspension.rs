//! A route whose destination keeps sending the credential back is closed.
//!
//! What was seen was blacked out each time. An error page that quotes a header does this now and then; somebody who looks
//! for a way of writing the value that gets through does it again and again.

use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};

use crate::program::say;
use crate::reason::Reason;

/// So many sightings, in headers or bodies, close a route. Few enough to stop a search, enough for a clumsy API.
const TOLERATED: u32 = 16;

/// How often a route's destination sent the credential back. Shared by every connection; kept across reloads of an
/// unchanged route, so that opening another route does not open this one. It ends when the operator writes the route
/// anew, or with the process.
#[derive(Clone)]
pub(crate) struct Suspension {
    rule: Arc<str>,
    reflections: Arc<AtomicU32>,
}

impl Suspension {
    pub(crate) fn new(rule: &str) -> Self {
        Self {
            rule: rule.into(),
            reflections: Arc::default(),
        }
    }

    /// Counts a sighting; with the last tolerated one the route closes.
    pub(crate) fn count(&self) {
        if self.reflections.fetch_add(1, Ordering::Relaxed) + 1 == TOLERATED {
            say!(
                "{}: the destination sent the credential back {TOLERATED} times; the route is suspended",
                self.rule
            );
        }
    }

    /// Refuses if the route is closed.
    pub(crate) fn check(&self) -> Result<(), Reason> {
        if self.reflections.load(Ordering::Relaxed) >= TOLERATED {
            return Err(Reason::RouteSuspended);
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_route_closes_at_the_last_tolerated_sighting() {
        let route = Suspension::new("demo.yaml:1");
        for _ in 1..TOLERATED {
            route.count();
        }
        assert_eq!(route.check(), Ok(()));
        route.clone().count();
        assert_eq!(route.check(), Err(Reason::RouteSuspended));
    }
}
