//! The objects of a push that the upstream does not have: which they are, and what is in them. They are read as objects,
//! one by one, and not as differences, because what a difference shows is for the agent to decide.

use std::io::{self, BufRead as _, BufReader, Read as _, Write as _};
use std::path::Path;
use std::process::{Command, Stdio};
use std::thread;
use std::time::Duration;

use super::git::{Group, finish, git};
use super::rules::{Command as Update, Refusal, is_oid, printable};
use super::secrets::Secrets;
use crate::reason::Reason;

/// How long a look at the history may take.
const LIMIT: Duration = Duration::from_secs(300);

/// What of an object is in memory at once. Trees, commits and tags are no larger.
const PIECE: usize = 16 << 20;

/// So much of a piece is seen again with the next one, so that nothing is cut in two unseen.
const OVERLAP: usize = 64 * 1024;

/// The most objects in one push.
const MOST_OBJECTS: usize = 200_000;

/// The kinds of objects.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    Commit,
    Tree,
    Blob,
    Tag,
}

/// A new object.
#[derive(Clone, Debug)]
pub(super) struct Object {
    pub(super) oid: String,
    pub(super) kind: Kind,
    pub(super) size: u64,
    /// A path under which it can be found; for people.
    path: String,
}

/// What a push brings.
pub(super) struct New {
    /// The kind of what each update points at, in their order; nothing where there is no such object.
    pub(super) tips: Vec<Option<Kind>>,
    /// What the upstream does not have.
    pub(super) objects: Vec<Object>,
}

impl Object {
    /// Where a person finds it, without a secret that its path may hold.
    pub(super) fn place(&self, secrets: &Secrets) -> String {
        let short = &self.oid[..12];
        let path = secrets.shown(&self.path);
        match self.kind {
            Kind::Commit => format!("commit {short}"),
            Kind::Tag => format!("tag {short}"),
            Kind::Tree if path.is_empty() => format!("the file names of tree {short}"),
            Kind::Tree => format!("the file names in {path}"),
            Kind::Blob if path.is_empty() => format!("file {short}"),
            Kind::Blob => format!("{path} (file {short})"),
        }
    }
}

/// Git in the mirror, with the quarantine laid over it.
pub(super) struct Quarantine<'a> {
    pub(super) mirror: &'a Path,
    pub(super) objects: &'a Path,
}

impl Quarantine<'_> {
    /// Makes a command see what is in quarantine.
    pub(super) fn lay_over(&self, command: &mut Command) {
        command
            .env("GIT_OBJECT_DIRECTORY", self.objects)
            .env(
                "GIT_ALTERNATE_OBJECT_DIRECTORIES",
                self.mirror.join("objects"),
            )
            .env("GIT_QUARANTINE_PATH", self.objects);
    }

    pub(super) fn git(&self) -> Command {
        let mut command = git(self.mirror);
        self.lay_over(&mut command);
        command
    }

    pub(super) fn run(&self, args: &[&str], input: Vec<u8>) -> io::Result<Vec<u8>> {
        let done = finish(self.git().args(args), input, LIMIT, &mut |_| {})?;
        if done.status.success() {
            return Ok(done.stdout);
        }
        Err(io::Error::other(format!(
            "git {}: {}",
            args[0], done.stderr
        )))
    }

    /// What is reachable from what is pushed and from none of the mirror's refs, all of which the upstream has.
    pub(super) fn new_objects(&self, updates: &[Update]) -> io::Result<New> {
        let mut oids: String = updates
            .iter()
            .flat_map(|update| [update.new.as_str(), "\n"])
            .collect();
        let input = format!("{oids}--not\n--all\n");
        let listed = self.run(&["rev-list", "--objects", "--stdin"], input.into_bytes())?;
        let listed = String::from_utf8_lossy(&listed).into_owned();
        let lines: Vec<(&str, &str)> = listed
            .lines()
            .map(|line| line.split_once(' ').unwrap_or((line, "")))
            .filter(|(oid, _)| is_oid(oid))
            .collect();
        if lines.len() > MOST_OBJECTS {
            return Err(io::Error::new(
                io::ErrorKind::FileTooLarge,
                format!("more than {MOST_OBJECTS} objects"),
            ));
        }
        oids.extend(lines.iter().flat_map(|(oid, _)| [*oid, "\n"]));
        let format = "--batch-check=%(objecttype) %(objectsize)";
        let checked = self.run(&["cat-file", format, "--buffer"], oids.into_bytes())?;
        let checked = String::from_utf8_lossy(&checked).into_owned();
        let mut checked = checked.lines().map(|line| line.split_once(' '));
        let kind = |line: Option<(&str, _)>| line.and_then(|(kind, _)| kind_of(kind));
        let tips: Vec<Option<Kind>> = checked.by_ref().take(updates.len()).map(kind).collect();
        let objects: Option<Vec<Object>> = lines
            .iter()
            .zip(checked)
            .map(|((oid, path), line)| {
                let (kind, size) = line?;
                Some(Object {
                    oid: (*oid).to_owned(),
                    kind: kind_of(kind)?,
                    size: size.parse().ok()?,
                    path: printable(path),
                })
            })
            .collect();
        let objects = objects
            .filter(|objects| tips.len() == updates.len() && objects.len() == lines.len())
            .ok_or_else(|| io::Error::other("git does not know its own objects"))?;
        Ok(New { tips, objects })
    }

    /// Whether `new` has `old` in its history.
    pub(super) fn goes_on_from(&self, old: &str, new: &str) -> io::Result<bool> {
        let mut command = self.git();
        command.args(["merge-base", "--is-ancestor", old, new]);
        let done = finish(&mut command, Vec::new(), LIMIT, &mut |_| {})?;
        match done.status.code() {
            Some(0) => Ok(true),
            Some(1) => Ok(false),
            _ => Err(io::Error::other(done.stderr)),
        }
    }

    /// The paths below `folders` (everywhere, if there are none) that commits change, merges only where they differ from
    /// all their parents. Elsewhere git does not even look: few objects can be trees with more names than there is memory.
    pub(super) fn changed_paths(
        &self,
        commits: &[&Object],
        folders: &[String],
    ) -> io::Result<Vec<Vec<u8>>> {
        let oids: String = commits
            .iter()
            .flat_map(|commit| [commit.oid.as_str(), "\n"])
            .collect();
        let args = [
            "diff-tree",
            "--stdin",
            "-r",
            "-c",
            "--root",
            "-z",
            "--name-only",
            "--no-renames",
            "--no-commit-id",
            "--",
        ];
        let places: Vec<String> = folders
            .iter()
            .map(|folder| format!(":(top,literal,icase){folder}"))
            .collect();
        let args: Vec<&str> = args
            .into_iter()
            .chain(places.iter().map(String::as_str))
            .collect();
        let listed = self.run(&args, oids.into_bytes())?;
        Ok(listed
            .split(|byte| *byte == 0)
            .map(<[u8]>::to_vec)
            .filter(|path| !path.is_empty())
            .collect())
    }

    /// Reads the objects in turn and hands each on, the large ones in pieces.
    pub(super) fn read(&self, objects: &[Object], look: &mut Look<'_>) -> Result<(), Stop> {
        let mut command = self.git();
        command
            .args(["cat-file", "--batch", "--buffer"])
            .stdin(Stdio::piped())
            .stderr(Stdio::null());
        let mut child = command.spawn()?;
        let group = Group::of(child.id());
        let (Some(mut stdin), Some(stdout)) = (child.stdin.take(), child.stdout.take()) else {
            return Err(io::Error::other("no pipes to git").into());
        };
        let mut stdout = BufReader::with_capacity(1 << 20, stdout);
        let result = thread::scope(|scope| {
            scope.spawn(move || {
                for object in objects {
                    if stdin
                        .write_all(object.oid.as_bytes())
                        .and_then(|()| stdin.write_all(b"\n"))
                        .is_err()
                    {
                        return;
                    }
                }
            });
            let result = objects
                .iter()
                .try_for_each(|object| read_one(&mut stdout, object, look));
            if result.is_err() {
                group.kill();
            }
            result
        });
        group.kill();
        child.wait()?;
        result
    }
}

/// What looks at an object, piece by piece.
pub(super) type Look<'a> = dyn FnMut(&Object, &[u8]) -> Result<(), Stop> + 'a;

/// Why reading ends before the end.
pub(super) enum Stop {
    /// What was read is not to be pushed.
    Refusal(Refusal),
    /// It cannot be read.
    Failed(io::Error),
}

impl From<io::Error> for Stop {
    fn from(error: io::Error) -> Self {
        Self::Failed(error)
    }
}

impl From<Refusal> for Stop {
    fn from(refusal: Refusal) -> Self {
        Self::Refusal(refusal)
    }
}

fn read_one(
    stdout: &mut impl io::BufRead,
    object: &Object,
    look: &mut Look<'_>,
) -> Result<(), Stop> {
    let mut head = String::new();
    stdout.take(200).read_line(&mut head)?;
    let expected = head
        .trim_end()
        .strip_prefix(&object.oid)
        .and_then(|rest| rest.rsplit_once(' '));
    if expected.and_then(|(_, size)| size.parse().ok()) != Some(object.size) {
        return Err(io::Error::other(format!("git does not show {}", object.oid)).into());
    }
    let size = usize::try_from(object.size).unwrap_or(usize::MAX);
    if size > PIECE && object.kind != Kind::Blob {
        return Err(Refusal::new(
            Reason::GitObjectInvalid,
            format!("the {:?} {} is too large", object.kind, object.oid),
        )
        .into());
    }
    let mut left = size;
    let mut piece = Vec::with_capacity(size.min(PIECE));
    loop {
        let more = left.min(PIECE - piece.len());
        stdout.take(more as u64).read_to_end(&mut piece)?;
        left -= more;
        look(object, &piece)?;
        if left == 0 {
            break;
        }
        let seen = piece.len() - OVERLAP.min(piece.len());
        piece.drain(..seen);
    }
    let mut end = [0];
    stdout.read_exact(&mut end)?;
    Ok(())
}

fn kind_of(text: &str) -> Option<Kind> {
    match text {
        "commit" => Some(Kind::Commit),
        "tree" => Some(Kind::Tree),
        "blob" => Some(Kind::Blob),
        "tag" => Some(Kind::Tag),
        _ => None,
    }
}
