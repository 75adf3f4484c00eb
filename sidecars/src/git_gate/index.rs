//! What lets git answer from a mirror without walking all of its history: a bitmap over its packs, from which a clone is sent
//! as it lies there, and a graph of its commits. Both say nothing that the objects do not say.

use std::fs;
use std::io;
use std::path::Path;
use std::sync::Mutex;
use std::time::{Duration, SystemTime};

use super::git;
use super::repo::Repo;
use crate::program::say;

/// How long one of them may take. Without it the mirror is slower, and nothing else.
const LIMIT: Duration = Duration::from_secs(10 * 60);

/// So many new packs are served without being in it.
const NEW_PACKS: usize = 32;

/// Held by whoever is at work on it.
#[derive(Default)]
pub(super) struct Indexing(Mutex<()>);

/// Writes both when there are none, or when many packs have come since. Beside fetches and pushes: they only add packs, and
/// what is not in an index is found as before.
pub(super) fn refresh(repo: &Repo) {
    let Ok(_alone) = repo.indexing.0.try_lock() else {
        return;
    };
    let done = is_due(&repo.path.join("objects/pack")).and_then(|is_due| {
        if is_due {
            run(repo, &["multi-pack-index", "write", "--bitmap"])?;
            run(repo, &["commit-graph", "write", "--reachable"])?;
        }
        Ok(())
    });
    if let Err(error) = done {
        say!("indexing {}: {error}", repo.rules.name);
    }
}

fn is_due(packs: &Path) -> io::Result<bool> {
    let indexed = match fs::metadata(packs.join("multi-pack-index")) {
        Ok(index) => Some(index.modified()?),
        Err(error) if error.kind() == io::ErrorKind::NotFound => None,
        Err(error) => return Err(error),
    };
    let mut fresh = 0;
    for entry in fs::read_dir(packs)? {
        let entry = entry?;
        if entry.path().extension().is_some_and(|kind| kind == "pack") {
            let since = indexed.unwrap_or(SystemTime::UNIX_EPOCH);
            fresh += usize::from(entry.metadata()?.modified()? > since);
        }
    }
    Ok(fresh >= if indexed.is_some() { NEW_PACKS } else { 1 })
}

fn run(repo: &Repo, args: &[&str]) -> io::Result<()> {
    let mut command = git::git(&repo.path);
    command.args(args);
    let done = git::finish(&mut command, Vec::new(), LIMIT, &mut |_| {})?;
    if done.status.success() {
        return Ok(());
    }
    Err(io::Error::other(format!(
        "git {}: {}",
        args[0], done.stderr
    )))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_index_is_written_for_the_first_pack_and_then_for_many() {
        let folder = tempfile::tempdir().expect("a folder");
        let packs = folder.path();
        let due = || is_due(packs).expect("readable");
        let later = SystemTime::now() + Duration::from_secs(60);
        let pack = |number: usize| {
            let file = fs::File::create(packs.join(format!("pack-{number}.pack"))).expect("a file");
            file.set_modified(later).expect("a time");
        };
        assert!(!due(), "there is nothing to index");
        pack(0);
        assert!(due());
        let index = fs::File::create(packs.join("multi-pack-index")).expect("a file");
        index.set_modified(later).expect("a time");
        assert!(!due(), "all of it is in the index");
        index
            .set_modified(later - Duration::from_secs(1))
            .expect("a time");
        (1..NEW_PACKS - 1).for_each(pack);
        assert!(!due());
        pack(NEW_PACKS - 1);
        assert!(due());
    }
}
