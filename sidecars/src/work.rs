//! `bottle-sidecar work`: what the agent has made, as a git bundle on stdout.
//!
//! Runs inside the agent's container, as its user, with the image's git: hooks, filters and settings that the agent
//! wrote run here, where they can do what the agent can do anyway. The host takes nothing but the bytes of the bundle.
//!
//! Nothing of the agent's repository is changed. The commit of its working tree, the index and the references are made
//! in a folder beside it that borrows the repository's objects.

use std::ffi::{OsStr, OsString};
use std::fs;
use std::io::{self, BufRead as _, Write as _};
use std::os::unix::ffi::{OsStrExt as _, OsStringExt as _};
use std::os::unix::fs::DirBuilderExt as _;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode, Stdio};

use crate::agent_env::NOT_THERE;

/// Larger files of the working tree are left out and named: a sparse one would be read for days.
const LARGEST_FILE: u64 = 256 << 20;

/// Names of files that are left out that are worth a line each.
const NAMED: usize = 20;

/// The host says which commits it has, one a line; more than this is not asked for.
const MOST_KNOWN: usize = 4096;

/// Nobody waits longer, and the call of the engine that started us may be gone.
const SECONDS: u32 = 900;

const USAGE: &str = "usage: work bundle [--committed] DIR < commits > bundle";

/// Runs the subcommand. The exit code 127 says that there is no git.
pub(crate) fn run(args: &[String]) -> ExitCode {
    let words: Vec<&str> = args.iter().map(String::as_str).collect();
    let (folder, committed) = match words.as_slice() {
        ["bundle", "--committed", folder] => (folder, true),
        ["bundle", folder] => (folder, false),
        _ => return complain(USAGE, 2),
    };
    nix::unistd::alarm::set(SECONDS);
    match bundle(Path::new(folder), committed) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            complain("there is no git in the image", NOT_THERE)
        }
        Err(error) => complain(&error.to_string(), 1),
    }
}

fn complain(text: &str, code: u8) -> ExitCode {
    let _ = writeln!(io::stderr(), "bottle: work: {text}");
    ExitCode::from(code)
}

fn bundle(folder: &Path, committed: bool) -> io::Result<()> {
    let beside = Beside::make(folder)?;
    let head = beside.repository.as_ref().and_then(|_| {
        let found = beside.git(&["rev-parse", "--verify", "--quiet", "HEAD^{commit}"]);
        found.ok().filter(|id| !id.is_empty())
    });
    let mut tips = Vec::new();
    if let Some(head) = &head {
        beside.refer("refs/bottle/head", head)?;
        tips.push(head.clone());
        // The name is only shown and may be any; git has checked its form.
        if let Ok(branch) = beside.git(&["symbolic-ref", "--quiet", "HEAD"])
            && let Some(name) = branch.strip_prefix("refs/heads/")
        {
            beside.refer(&format!("refs/bottle/on/{name}"), head)?;
        }
    }
    if !committed && let Some(work) = beside.commit_working_tree(head.as_deref())? {
        beside.refer("refs/bottle/work", &work)?;
        tips.push(work);
    }
    if tips.is_empty() {
        return Ok(());
    }
    let known = beside.known_of(&read_known()?)?;
    let mut wanted = String::from("--glob=refs/bottle/*\n");
    for id in &known {
        // The tips are sent although the host has them: their names are only in the bundle when they are.
        let not = if tips.contains(id) { "^@" } else { "" };
        for id in beside.commits(&format!("{id}{not}"))? {
            wanted.push_str(&format!("^{id}\n"));
        }
    }
    let mut bundle = beside.references();
    bundle.args(["bundle", "create", "--quiet", "-", "--stdin"]);
    run_git(bundle, wanted.into_bytes(), Stdio::inherit()).map(drop)
}

/// A bare repository of our own beside the agent's, gone with this value.
struct Beside {
    root: PathBuf,
    folder: PathBuf,
    /// The agent's, when the folder is the top of one.
    repository: Option<PathBuf>,
    borrowed: OsString,
}

impl Beside {
    fn make(folder: &Path) -> io::Result<Self> {
        let home = std::env::var_os("HOME").map_or_else(std::env::temp_dir, PathBuf::from);
        let root = [home, std::env::temp_dir()]
            .into_iter()
            .map(|place| place.join(format!(".bottle-work-{}", std::process::id())))
            .find(|root| fs::DirBuilder::new().mode(0o700).create(root).is_ok())
            .ok_or_else(|| io::Error::other("there is no place to write to"))?;
        let mut beside = Self {
            root,
            folder: folder.to_owned(),
            repository: None,
            borrowed: OsString::new(),
        };
        let asked = |what: &[&str]| {
            let mut git = plain_git(folder);
            git.arg("rev-parse").args(what);
            feed(git, Vec::new())
        };
        let mut format = "sha1".to_owned();
        match asked(&["--show-cdup"]) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Err(error),
            // Only a repository whose top this is: not one that a folder above belongs to.
            Ok(up) if up.is_empty() => {
                let path = |bytes: Vec<u8>| folder.join(OsString::from_vec(bytes));
                beside.repository = Some(path(asked(&["--absolute-git-dir"])?));
                beside.borrowed = path(asked(&["--git-path", "objects"])?).into();
                if let Ok(known) = asked(&["--show-object-format"]) {
                    format = String::from_utf8_lossy(&known).into_owned();
                }
            }
            _ => {}
        }
        let mut init = plain_git(folder);
        init.args(["init", "--quiet", "--bare", "--template="])
            .arg(format!("--object-format={format}"))
            .arg(beside.own());
        feed(init, Vec::new())?;
        Ok(beside)
    }

    fn own(&self) -> PathBuf {
        self.root.join("git")
    }

    /// Git on the agent's repository (or, without one, on ours), writing objects and index to ours only.
    fn command(&self) -> Command {
        let own = self.own();
        let mut git = plain_git(&self.folder);
        git.env("GIT_DIR", self.repository.as_ref().unwrap_or(&own))
            .env("GIT_WORK_TREE", &self.folder)
            .env("GIT_OBJECT_DIRECTORY", own.join("objects"))
            .env("GIT_INDEX_FILE", self.root.join("index"));
        self.borrow_objects(git)
    }

    /// Git on our own repository, where the references are.
    fn references(&self) -> Command {
        let mut git = plain_git(&self.folder);
        git.env("GIT_DIR", self.own());
        self.borrow_objects(git)
    }

    fn borrow_objects(&self, mut git: Command) -> Command {
        if !self.borrowed.is_empty() {
            // Quoted as git reads lists of paths: one that begins with a quote, or has a colon.
            let mut quoted = vec![b'"'];
            for byte in self.borrowed.as_bytes() {
                match byte {
                    b'"' | b'\\' => quoted.extend([b'\\', *byte]),
                    b'\n' => quoted.extend(b"\\n"),
                    _ => quoted.push(*byte),
                }
            }
            quoted.push(b'"');
            git.env(
                "GIT_ALTERNATE_OBJECT_DIRECTORIES",
                OsStr::from_bytes(&quoted),
            );
        }
        git
    }

    fn git(&self, args: &[&str]) -> io::Result<String> {
        let mut git = self.command();
        git.args(args);
        text(feed(git, Vec::new())?)
    }

    fn refer(&self, name: &str, id: &str) -> io::Result<()> {
        let mut git = self.references();
        git.args(["update-ref", name, id]);
        feed(git, Vec::new()).map(drop)
    }

    /// The commits a name stands for: one, or the parents of one.
    fn commits(&self, name: &str) -> io::Result<Vec<String>> {
        if !name.ends_with("^@") {
            return Ok(vec![name.to_owned()]);
        }
        let mut git = self.references();
        git.args(["rev-parse", name]);
        let ids = text(feed(git, Vec::new())?)?;
        Ok(ids.lines().map(str::to_owned).collect())
    }

    /// The working tree as a commit on top of `head`; nothing when it has nothing that `head` has not.
    fn commit_working_tree(&self, head: Option<&str>) -> io::Result<Option<String>> {
        if let Some(repository) = &self.repository {
            // With what the index knows unchanged files are not read again.
            let _ = fs::copy(repository.join("index"), self.root.join("index"));
        }
        let large = self.too_large()?;
        let add = |options: &[&str]| {
            let mut add = self.command();
            add.args(options)
                .args(["add", "--all", "--ignore-errors", "--", "."]);
            for name in &large {
                let mut pathspec = b":(exclude,literal,top)".to_vec();
                pathspec.extend(name);
                add.arg(OsString::from_vec(pathspec));
            }
            feed(add, Vec::new())
        };
        // What cannot be read is named by git on stderr; the rest is in. A filter of the repository's that does not work
        // ends git altogether: then the files are taken as they are.
        let mut as_they_are = Vec::new();
        if add(&[]).is_err() {
            as_they_are.push(format!("--attr-source={}", self.nothing()?));
            let options: Vec<&str> = as_they_are.iter().map(String::as_str).collect();
            let _ = add(&options);
        }
        // It looks again at files that changed in the second in which they were added, through the filter as well.
        let mut write = self.command();
        write.args(&as_they_are).arg("write-tree");
        let tree = text(feed(write, Vec::new())?)?;
        let mut commit = self.command();
        commit.args([
            "commit-tree",
            "-m",
            "what was not committed in the bottle",
            &tree,
        ]);
        match head {
            Some(head) if self.git(&["rev-parse", &format!("{head}^{{tree}}")])? == tree => {
                return Ok(None);
            }
            Some(head) => commit.args(["-p", head]),
            None if self.git(&["ls-files", "-z"])?.is_empty() => return Ok(None),
            None => &mut commit,
        };
        // The same work gives the same commit, whenever it is asked for.
        let date = match head {
            Some(head) => self.git(&["log", "-1", "--format=%ct", head])?,
            None => "0".to_owned(),
        };
        for who in ["AUTHOR", "COMMITTER"] {
            commit
                .env(format!("GIT_{who}_DATE"), format!("@{date} +0000"))
                .env(format!("GIT_{who}_NAME"), "bottle")
                .env(format!("GIT_{who}_EMAIL"), "bottle@localhost");
        }
        text(feed(commit, Vec::new())?).map(Some)
    }

    /// The tree without anything, which has no attributes.
    fn nothing(&self) -> io::Result<String> {
        self.git(&["hash-object", "-t", "tree", "-w", "--stdin"])
    }

    fn too_large(&self) -> io::Result<Vec<Vec<u8>>> {
        let mut list = self.command();
        list.args([
            "ls-files",
            "-z",
            "--cached",
            "--others",
            "--exclude-standard",
        ]);
        let listed = feed(list, Vec::new())?;
        let large = |name: &&[u8]| {
            let path = self.folder.join(OsStr::from_bytes(name));
            fs::symlink_metadata(path)
                .is_ok_and(|found| found.is_file() && found.len() > LARGEST_FILE)
        };
        let names = listed
            .split(|byte| *byte == 0)
            .filter(|name| !name.is_empty());
        let found: Vec<Vec<u8>> = names.filter(large).map(<[u8]>::to_vec).collect();
        for name in found.iter().take(NAMED) {
            let name = String::from_utf8_lossy(name);
            let _ = writeln!(
                io::stderr(),
                "left out, larger than 256 MiB: {}",
                name.escape_debug()
            );
        }
        Ok(found)
    }

    /// Which of the host's commits are here too.
    fn known_of(&self, ids: &[String]) -> io::Result<Vec<String>> {
        let mut check = self.references();
        check.args(["cat-file", "--batch-check"]);
        let asked: String = ids.iter().map(|id| format!("{id}\n")).collect();
        let said = text(feed(check, asked.into_bytes())?)?;
        Ok(said
            .lines()
            .filter_map(|line| line.split_once(" commit ").map(|(id, _)| id.to_owned()))
            .collect())
    }
}

impl Drop for Beside {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.root);
    }
}

fn read_known() -> io::Result<Vec<String>> {
    let mut known = Vec::new();
    for line in io::stdin().lock().lines().take(MOST_KNOWN) {
        let line = line?;
        if matches!(line.len(), 40 | 64) && line.bytes().all(|byte| byte.is_ascii_hexdigit()) {
            known.push(line);
        }
    }
    Ok(known)
}

fn plain_git(folder: &Path) -> Command {
    let mut git = Command::new("git");
    // The folder may be another user's: it is mounted, or the agent changed it. It is the agent's own affair.
    git.args(["-c", "safe.directory=*", "-c", "gc.auto=0"])
        .current_dir(folder)
        .env("LC_ALL", "C.UTF-8")
        .env("GIT_TERMINAL_PROMPT", "0");
    git
}

/// Runs it with these bytes on stdin, and gives what it printed when it ended well. The final newline is not kept.
fn feed(git: Command, bytes: Vec<u8>) -> io::Result<Vec<u8>> {
    run_git(git, bytes, Stdio::piped())
}

fn run_git(mut git: Command, bytes: Vec<u8>, stdout: Stdio) -> io::Result<Vec<u8>> {
    git.stdin(Stdio::piped()).stdout(stdout);
    let mut child = git.stderr(Stdio::inherit()).spawn()?;
    let feeder = child.stdin.take().map(|mut pipe| {
        // One that does not read to the end has its reasons; its exit code says them.
        std::thread::spawn(move || drop(pipe.write_all(&bytes)))
    });
    let output = child.wait_with_output()?;
    if let Some(feeder) = feeder {
        let _ = feeder.join();
    }
    if !output.status.success() {
        let what: Vec<_> = git
            .get_args()
            .skip(4)
            .take(2)
            .map(OsStr::to_string_lossy)
            .collect();
        return Err(io::Error::other(format!(
            "git {} did not work",
            what.join(" ")
        )));
    }
    let mut printed = output.stdout;
    if printed.last() == Some(&b'\n') {
        printed.pop();
    }
    Ok(printed)
}

fn text(bytes: Vec<u8>) -> io::Result<String> {
    String::from_utf8(bytes).map_err(|_| io::Error::other("git printed what is not text"))
}
