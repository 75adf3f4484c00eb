//! Limits: whether they hold when somebody runs into them. Each of these runs in a process of its own.

use std::fs::File;
use std::sync::mpsc;
use std::thread;

use nix::sys::resource::{Resource, getrlimit, setrlimit};

use super::{Deadline, Outcome, describe};

/// Enough for a thread that only waits.
const STACK: usize = 16 << 10;

const MEBIBYTE: usize = 1 << 20;

/// Makes threads until one is refused. Open means that `most` were made.
pub(super) fn threads(most: usize, deadline: Deadline) -> Outcome {
    let (hold, held) = mpsc::channel::<()>();
    let held = std::sync::Arc::new(std::sync::Mutex::new(held));
    let mut made = 0;
    let outcome = loop {
        if made == most {
            break Outcome::open(format!("{most} threads"));
        }
        if deadline.left().is_none() {
            break Outcome::not_tried(format!("only {made} threads in the time there was"));
        }
        let held = std::sync::Arc::clone(&held);
        let wait = move || drop(held.lock().map(|held| held.recv()));
        match thread::Builder::new().stack_size(STACK).spawn(wait) {
            Ok(_) => made += 1,
            Err(error) => break Outcome::closed(format!("{} after {made}", describe(&error))),
        }
    };
    drop(hold);
    outcome
}

/// Takes and touches memory. Whoever gets an answer from this got the memory: at a limit the process is killed.
pub(super) fn memory(mebibytes: usize) -> Outcome {
    let mut held = Vec::new();
    for taken in 0..mebibytes {
        let mut piece: Vec<u8> = Vec::new();
        if piece.try_reserve_exact(MEBIBYTE).is_err() {
            return Outcome::closed(format!("refused after {taken} MiB"));
        }
        // Not zeros: those the kernel need not store.
        piece.resize(MEBIBYTE, 0x5a);
        held.push(std::hint::black_box(piece));
    }
    Outcome::open(format!("{mebibytes} MiB"))
}

/// Opens files until one is refused, and asks for a higher limit. Open means that either worked.
pub(super) fn files(most: usize) -> Outcome {
    if let Ok((_, hard)) = getrlimit(Resource::RLIMIT_NOFILE)
        && setrlimit(Resource::RLIMIT_NOFILE, hard, hard + 1).is_ok()
    {
        return Outcome::open(format!("the limit of {hard} was raised"));
    }
    let mut held = Vec::new();
    while held.len() < most {
        match File::open("/dev/null") {
            Ok(file) => held.push(file),
            Err(error) => {
                return Outcome::closed(format!("{} after {}", describe(&error), held.len()));
            }
        }
    }
    Outcome::open(format!("{most} files"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;

    #[test]
    fn what_is_given_is_open() {
        let soon = Deadline::new(Duration::from_secs(5));
        assert_eq!(threads(3, soon), Outcome::open("3 threads"));
        assert_eq!(memory(2), Outcome::open("2 MiB"));
    }
}
