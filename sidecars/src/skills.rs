//! `bottle-sidecar skills`: puts the manifest's skills in place of what the agent's folder has under their names.
//!
//! Runs inside the agent's container, as its user, before the agent. An archive laid over a folder would leave the files
//! that an image or a snapshot has there already, so each skill is removed and then copied.

use std::fs;
use std::io::{self, Write as _};
use std::os::unix::fs::symlink;
use std::path::Path;
use std::process::ExitCode;

/// Copies the folders of these names from `FROM` to `TO`.
pub(crate) fn run(args: &[String]) -> ExitCode {
    let [from, to, names @ ..] = args else {
        let _ = writeln!(io::stderr(), "usage: skills FROM TO NAME…");
        return ExitCode::from(2);
    };
    match place(Path::new(from), Path::new(to), names) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            let _ = writeln!(io::stderr(), "bottle: skills: {error}");
            ExitCode::FAILURE
        }
    }
}

fn place(from: &Path, to: &Path, names: &[String]) -> io::Result<()> {
    fs::create_dir_all(to)?;
    for name in names {
        let target = to.join(name);
        remove(&target).map_err(|error| named(&target, &error))?;
        copy(&from.join(name), &target).map_err(|error| named(&target, &error))?;
    }
    Ok(())
}

fn named(path: &Path, error: &io::Error) -> io::Error {
    io::Error::new(error.kind(), format!("{}: {error}", path.display()))
}

/// A link is removed, not what it leads to.
fn remove(path: &Path) -> io::Result<()> {
    match fs::symlink_metadata(path) {
        Ok(found) if found.is_dir() => fs::remove_dir_all(path),
        Ok(_) => fs::remove_file(path),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        Err(error) => Err(error),
    }
}

fn copy(from: &Path, to: &Path) -> io::Result<()> {
    let found = fs::symlink_metadata(from)?;
    if found.is_symlink() {
        return symlink(fs::read_link(from)?, to);
    }
    if !found.is_dir() {
        return fs::copy(from, to).map(drop);
    }
    fs::create_dir(to)?;
    for entry in fs::read_dir(from)? {
        let entry = entry?;
        copy(&entry.path(), &to.join(entry.file_name()))?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_there_is_gone_and_the_rest_stays() {
        let root = tempfile::tempdir().expect("a folder");
        let (from, to) = (root.path().join("from"), root.path().join("to"));
        for folder in ["from/review/scripts", "to/review", "to/own"] {
            fs::create_dir_all(root.path().join(folder)).expect("a folder");
        }
        fs::write(from.join("review/SKILL.md"), "new").expect("a file");
        fs::write(from.join("review/scripts/run"), "#!").expect("a file");
        fs::write(to.join("review/SKILL.md"), "old").expect("a file");
        fs::write(to.join("review/planted"), "old").expect("a file");
        fs::write(to.join("own/SKILL.md"), "own").expect("a file");
        // Twice is once.
        for _ in 0..2 {
            place(&from, &to, &["review".to_owned()]).expect("places");
            assert_eq!(fs::read(to.join("review/SKILL.md")).expect("reads"), b"new");
            assert!(to.join("review/scripts/run").exists());
            assert!(!to.join("review/planted").exists());
            assert!(to.join("own/SKILL.md").exists());
        }
    }

    #[test]
    fn a_link_in_its_place_is_not_followed() {
        let root = tempfile::tempdir().expect("a folder");
        let (from, to) = (root.path().join("from"), root.path().join("to"));
        fs::create_dir_all(from.join("review")).expect("a folder");
        fs::create_dir_all(&to).expect("a folder");
        fs::write(root.path().join("precious"), "kept").expect("a file");
        symlink(root.path(), to.join("review")).expect("a link");
        place(&from, &to, &["review".to_owned()]).expect("places");
        assert!(root.path().join("precious").exists());
        assert!(
            fs::symlink_metadata(to.join("review"))
                .expect("there")
                .is_dir()
        );
    }
}
