//! One lock a bottle, held by every process that works on it.
//!
//! The lock's descriptor is inherited by the engine's clients. When the runner is killed, the client it started goes
//! on; because it still holds the lock, a following `down` waits for it instead of racing it.

use std::fs::File;
use std::os::fd::AsFd as _;
use std::path::Path;
use std::thread;
use std::time::{Duration, Instant};

use bottle_plan::failure::{Failure, PathContext as _, Result};
use bottle_plan::state;
use nix::fcntl::{FcntlArg, FdFlag, fcntl};

/// Longer than any engine call an orphaned client can still be in.
const PATIENCE: Duration = Duration::from_secs(90);

/// The lock of one bottle; free again when it is dropped and no child holds it any more.
#[derive(Debug)]
pub struct BottleLock {
    _file: File,
}

impl BottleLock {
    /// Takes the lock of the bottle in `folder` or says who has it.
    ///
    /// # Errors
    /// A conflict, when somebody has it.
    pub fn take(folder: &Path, slug: &str) -> Result<Self> {
        Self::attempt(folder)?.ok_or_else(|| {
            Failure::conflict(format!("another bottle-run is working on `{slug}`"))
                .hint("wait until it is done, then look with `bottle-run list`")
        })
    }

    /// Takes the lock, waiting for whoever has it; `waiting` is called once if that takes a while.
    ///
    /// # Errors
    /// A conflict, when it is still held after a minute and a half.
    pub fn wait(folder: &Path, slug: &str, waiting: impl FnOnce()) -> Result<Self> {
        let started = Instant::now();
        let mut waiting = Some(waiting);
        loop {
            if let Some(lock) = Self::attempt(folder)? {
                return Ok(lock);
            }
            if started.elapsed() > PATIENCE {
                return Err(
                    Failure::conflict(format!("`{slug}` is still being worked on"))
                        .hint("end the other bottle-run or docker compose process, then try again"),
                );
            }
            if started.elapsed() > Duration::from_millis(300)
                && let Some(waiting) = waiting.take()
            {
                waiting();
            }
            thread::sleep(Duration::from_millis(20));
        }
    }

    /// Takes the lock if nobody has it.
    ///
    /// # Errors
    /// When the lock file cannot be opened.
    pub fn attempt(folder: &Path) -> Result<Option<Self>> {
        // A folder's link would have the lock made, and all that follows removed, somewhere else.
        if folder.is_symlink() {
            let text = format!("{} is a symbolic link", folder.display());
            return Err(Failure::invalid(text).hint("remove it, or name the home it points into"));
        }
        let path = folder.join("lock");
        let file = state::open_lock_file(&path)?;
        match file.try_lock() {
            Ok(()) => {}
            Err(std::fs::TryLockError::WouldBlock) => return Ok(None),
            Err(std::fs::TryLockError::Error(error)) => return Err(error).at("lock", &path),
        }
        fcntl(file.as_fd(), FcntlArg::F_SETFD(FdFlag::empty()))
            .map_err(std::io::Error::from)
            .at("share", &path)?;
        Ok(Some(Self { _file: file }))
    }
}
