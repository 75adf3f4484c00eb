//! The bare mirror of an upstream: made, hardened, and cleared of what a killed gate left.

use std::fs;
use std::io;
use std::path::Path;
use std::process::Stdio;
use std::time::Duration;

use super::git;
use super::repo::Repo;

/// The hooks of the image; nothing in a mirror is ever run.
const HOOKS: &str = "/hooks";

/// Beside what git has in a repository.
const FILLED: &str = "filled";

/// Git would take as many as there are cores, and each may need 160 MB here (ten objects of `bigFileThreshold`): with these
/// the gate's memory is enough on any host.
const THREADS: u32 = 4;

/// Making a repository takes no time at all.
const QUICK: Duration = Duration::from_secs(60);

/// Whether there is a mirror to serve from.
pub(super) fn exists(repo: &Repo) -> bool {
    repo.path.join("HEAD").is_file() && repo.path.join("objects").is_dir()
}

/// Whether all of the upstream has been in it once. Until then a push would seem to bring the whole history.
pub(super) fn is_filled(repo: &Repo) -> bool {
    exists(repo) && repo.path.join(FILLED).is_file()
}

/// Notes that it is.
pub(super) fn note_filled(repo: &Repo) -> io::Result<()> {
    if is_filled(repo) {
        return Ok(());
    }
    fs::write(repo.path.join(FILLED), b"")
}

/// Makes the mirror when there is none, and writes its configuration anew in any case.
pub(super) fn prepare(repo: &Repo, is_sha256: bool) -> io::Result<()> {
    if !exists(repo) {
        let format = if is_sha256 { "sha256" } else { "sha1" };
        let mut command = git::git(&repo.path);
        command.args(["init", "--quiet", "--bare", "--template="]);
        command
            .arg(format!("--object-format={format}"))
            .stdout(Stdio::null());
        let done = git::finish(&mut command, Vec::new(), QUICK, &mut |_| {})?;
        if !done.status.success() {
            return Err(io::Error::other(done.stderr));
        }
    }
    configure(repo)
}

/// What git does in the mirror is decided here, each time anew: the file is in a folder that git children can write.
pub(super) fn configure(repo: &Repo) -> io::Result<()> {
    let path = repo.path.join("config");
    let is_sha256 = fs::read_to_string(&path)?
        .lines()
        .any(|line| line.trim().to_ascii_lowercase().replace(' ', "") == "objectformat=sha256");
    let fresh = repo.path.join("config.new");
    fs::write(&fresh, config(repo, is_sha256))?;
    fs::rename(&fresh, &path)
}

fn config(repo: &Repo, is_sha256: bool) -> String {
    let (version, format) = if is_sha256 {
        (1, "[extensions]\n\tobjectFormat = sha256\n")
    } else {
        (0, "")
    };
    let max_bytes = repo.rules.push.max_bytes;
    let receive = !repo.rules.refs.is_empty();
    format!(
        "[core]\n\trepositoryFormatVersion = {version}\n\tbare = true\n\thooksPath = {HOOKS}\n\tlogAllRefUpdates = false\n\
         \tprotectHFS = true\n\tprotectNTFS = true\n\tbigFileThreshold = 16m\n\tfsmonitor = false\n{format}\
         [gc]\n\tauto = 0\n[maintenance]\n\tauto = false\n\
         [protocol]\n\tversion = 2\n\
         [pack]\n\tthreads = {THREADS}\n\
         [http]\n\tgetanyfile = false\n\tuploadpack = true\n\treceivepack = {receive}\n\
         [uploadpack]\n\tallowFilter = true\n\tallowAnySHA1InWant = false\n\tallowTipSHA1InWant = false\n\
         \tallowReachableSHA1InWant = false\n\tallowRefInWant = false\n\thideRefs = refs/\n\
         \thideRefs = !refs/heads/\n\thideRefs = !refs/tags/\n\
         [transfer]\n\tadvertiseSID = false\n\tbundleURI = false\n\
         [receive]\n\tfsckObjects = true\n\tunpackLimit = 1\n\tmaxInputSize = {max_bytes}\n\tautogc = false\n\
         \tadvertiseAtomic = true\n\tadvertisePushOptions = false\n\tshallowUpdate = false\n\tupdateServerInfo = false\n\
         \tdenyDeletes = true\n\tdenyNonFastForwards = true\n"
    )
}

/// Takes away what a gate that was killed left: quarantines, half packs, locks. Nothing runs in the mirror yet.
pub(super) fn clear(repo: &Repo) -> io::Result<()> {
    if !exists(repo) {
        return Ok(());
    }
    clear_folder(&repo.path.join("objects"), &|name| {
        name.starts_with("tmp_objdir-") || name.starts_with("incoming-")
    })?;
    clear_folder(&repo.path.join("objects/pack"), &|name| {
        name.starts_with("tmp_") || name.starts_with(".tmp-") || name.ends_with(".lock")
    })?;
    let is_lock = |name: &str| name.ends_with(".lock");
    clear_folder(&repo.path, &is_lock)?;
    clear_folder(&repo.path.join("objects/info"), &is_lock)?;
    clear_locks(&repo.path.join("refs"), 0)?;
    configure(repo)
}

fn clear_folder(folder: &Path, is_left: &dyn Fn(&str) -> bool) -> io::Result<()> {
    for entry in fs::read_dir(folder)? {
        let entry = entry?;
        if entry.file_name().to_str().is_some_and(is_left) {
            let path = entry.path();
            if entry.file_type()?.is_dir() {
                fs::remove_dir_all(path)?;
            } else {
                fs::remove_file(path)?;
            }
        }
    }
    Ok(())
}

fn clear_locks(folder: &Path, depth: u32) -> io::Result<()> {
    for entry in fs::read_dir(folder)? {
        let entry = entry?;
        if entry.file_type()?.is_dir() {
            if depth < 64 {
                clear_locks(&entry.path(), depth + 1)?;
            }
        } else if entry.file_name().to_string_lossy().ends_with(".lock") {
            fs::remove_file(entry.path())?;
        }
    }
    Ok(())
}
