//! Ctrl-C and its relatives: noticed at once, acted on where it is safe.

use std::sync::Arc;
use std::sync::OnceLock;
use std::sync::atomic::{AtomicUsize, Ordering};

use bottle_plan::failure::{Failure, PathContext as _, Result};
use signal_hook::consts::{SIGHUP, SIGINT, SIGTERM};

static SEEN: OnceLock<Arc<AtomicUsize>> = OnceLock::new();

/// From now on SIGINT, SIGTERM and SIGHUP are remembered instead of ending the process.
///
/// # Errors
/// When the handlers cannot be set.
pub fn watch() -> Result<()> {
    let seen = SEEN.get_or_init(|| Arc::new(AtomicUsize::new(0)));
    for signal in [SIGINT, SIGTERM, SIGHUP] {
        signal_hook::flag::register_usize(signal, Arc::clone(seen), signal.unsigned_abs() as usize)
            .at("watch signals for", std::path::Path::new("this process"))?;
    }
    Ok(())
}

/// The signal that came, if one came since [`watch`].
#[must_use]
pub fn signal() -> Option<u8> {
    let number = SEEN.get().map_or(0, |seen| seen.load(Ordering::Relaxed));
    u8::try_from(number).ok().filter(|number| *number != 0)
}

/// Forgets a signal, so that the undoing it caused is not interrupted by it.
pub fn clear() {
    if let Some(seen) = SEEN.get() {
        seen.store(0, Ordering::Relaxed);
    }
}

/// An error when a signal came; long work calls this between its steps.
///
/// # Errors
/// When a signal came.
pub fn check() -> Result<()> {
    match signal() {
        Some(number) => Err(Failure::failed(format!("interrupted by signal {number}"))),
        None => Ok(()),
    }
}
