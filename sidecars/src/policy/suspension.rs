//! A route whose destination sent the credential back is closed: what was seen was blacked out, but the next
//! echo may be written in a way nobody thought of.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use crate::reason::Reason;

/// Whether a route is closed. Shared by every connection; kept across reloads of an unchanged route, so that
/// opening another route does not open this one. It ends when the operator writes the route anew, or with the
/// process.
#[derive(Clone)]
pub(crate) struct Suspension {
    rule: Arc<str>,
    is_suspended: Arc<AtomicBool>,
}

impl Suspension {
    pub(crate) fn new(rule: &str) -> Self {
        Self {
            rule: rule.into(),
            is_suspended: Arc::default(),
        }
    }

    /// Closes the route.
    pub(crate) fn suspend(&self) {
        if !self.is_suspended.swap(true, Ordering::Relaxed) {
            eprintln!(
                "bottle-sidecar: {}: the destination sent the credential back; the route is suspended",
                self.rule
            );
        }
    }

    /// Refuses if the route is closed.
    pub(crate) fn check(&self) -> Result<(), Reason> {
        if self.is_suspended.load(Ordering::Relaxed) {
            return Err(Reason::RouteSuspended);
        }
        Ok(())
    }
}
