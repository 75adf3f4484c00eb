//! One lock a bottle, held by every process that works on it.
//!
//! The lock's descriptor is inherited by the engine's clients. When the runner is killed, the client it started goes
//! on; because it still holds the lock, a following `down` waits for it instead of racing it.

use std::fs::{self, File};
use std::os::fd::AsFd as _;
use std::os::unix::fs::MetadataExt as _;
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

    /// Takes the lock if nobody has it. One whose file was just taken away, with its folder or for a new one, still counts
    /// as somebody's.
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
        if !is_still_at(&file, &path).at("look at", &path)? {
            return Ok(None);
        }
        fcntl(file.as_fd(), FcntlArg::F_SETFD(FdFlag::empty()))
            .map_err(std::io::Error::from)
            .at("share", &path)?;
        Ok(Some(Self { _file: file }))
    }
}

/// Whoever removes a bottle removes its lock file while holding it. A file that was opened before that can be locked
/// after it, and would lock nothing: the next to come makes another one of the same name.
fn is_still_at(file: &File, path: &Path) -> std::io::Result<bool> {
    let ours = file.metadata()?;
    match fs::symlink_metadata(path) {
        Ok(there) => Ok((there.dev(), there.ino()) == (ours.dev(), ours.ino())),
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(false),
        Err(error) => Err(error),
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicUsize, Ordering};

    use bottle_plan::planner;
    use bottle_plan::state::StateHome;

    use super::*;

    #[test]
    fn a_lock_that_goes_with_its_folder_is_never_held_twice() {
        let root = tempfile::tempdir().expect("temp dir");
        let home = StateHome::open(&root.path().join("home")).expect("opens");
        let folder = home.folder("s").expect("a slug");
        let inside = AtomicUsize::new(0);
        let taken = AtomicUsize::new(0);
        thread::scope(|scope| {
            for _ in 0..4 {
                scope.spawn(|| {
                    for _ in 0..2000 {
                        // The folder may go between its making and its lock, which is an error and no lock.
                        let lock = state::private_dir(&folder)
                            .and_then(|()| BottleLock::attempt(&folder))
                            .ok()
                            .flatten();
                        if let Some(_lock) = lock {
                            assert_eq!(inside.fetch_add(1, Ordering::SeqCst), 0, "held twice");
                            taken.fetch_add(1, Ordering::SeqCst);
                            thread::yield_now();
                            inside.fetch_sub(1, Ordering::SeqCst);
                            planner::release(&home, "s").expect("removes");
                        }
                    }
                });
            }
        });
        assert!(taken.load(Ordering::SeqCst) > 0);
    }
}
