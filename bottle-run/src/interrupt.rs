//! Ctrl-C and its relatives: noticed at once, acted on where it is safe.
//!
//! A first signal lets a short call of the engine end (cutting it off would leave the engine in the middle of something
//! nobody waits for) and then undoes what was started; a second one cuts the call off as well.

use std::path::Path;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, OnceLock};

use bottle_plan::failure::{Failure, PathContext as _, Result};
use signal_hook::consts::{SIGHUP, SIGINT, SIGTERM};

static NEWEST: OnceLock<Arc<AtomicUsize>> = OnceLock::new();
static FIRST: AtomicUsize = AtomicUsize::new(0);
static AGAIN: AtomicBool = AtomicBool::new(false);

/// From now on SIGINT, SIGTERM and SIGHUP are remembered instead of ending the process.
///
/// # Errors
/// When the handlers cannot be set.
pub fn watch() -> Result<()> {
    let newest = NEWEST.get_or_init(|| Arc::new(AtomicUsize::new(0)));
    for signal in [SIGINT, SIGTERM, SIGHUP] {
        let number = signal.unsigned_abs() as usize;
        signal_hook::flag::register_usize(signal, Arc::clone(newest), number)
            .at("watch signals for", Path::new("this process"))?;
    }
    Ok(())
}

/// The first signal since [`watch`] or [`clear`], if one came.
#[must_use]
pub fn signal() -> Option<u8> {
    let newest = NEWEST
        .get()
        .map_or(0, |newest| newest.swap(0, Ordering::Relaxed));
    if newest != 0
        && FIRST
            .compare_exchange(0, newest, Ordering::Relaxed, Ordering::Relaxed)
            .is_err()
    {
        AGAIN.store(true, Ordering::Relaxed);
    }
    u8::try_from(FIRST.load(Ordering::Relaxed))
        .ok()
        .filter(|number| *number != 0)
}

/// Whether a second one came.
#[must_use]
pub fn insisted() -> bool {
    signal().is_some() && AGAIN.load(Ordering::Relaxed)
}

/// Forgets signals, so that the undoing they caused is not interrupted by them.
pub fn clear() {
    let _ = signal();
    FIRST.store(0, Ordering::Relaxed);
    AGAIN.store(false, Ordering::Relaxed);
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
