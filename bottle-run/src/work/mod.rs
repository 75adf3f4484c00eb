//! What the agent made, brought back: looked at (`diff`) and taken over (`pull`).
//!
//! It comes as a git bundle, made inside by the image's git and read here as hostile bytes: bounded in size and time,
//! checked object by object, into a bare repository of our own that has no hooks, no settings and no working tree. Only
//! from there does `pull` take it into a repository of yours, and what `diff` shows is what `pull` would take.

mod diff;
mod git;
mod pull;
mod start;

use std::ffi::OsStr;
use std::fs::{self, File};
use std::os::unix::ffi::OsStrExt as _;
use std::path::{Path, PathBuf};
use std::time::Duration;

use bottle_plan::failure::{Failure, PathContext as _, Result, printable};
use bottle_plan::handle::Containers;
use bottle_plan::plan::{Plan, WorkspaceMode};
use bottle_plan::state;

use crate::bottle;
use crate::engine::Engine;
use crate::lock::BottleLock;
use crate::provision::HELPER;
use git::{Git, failed};

pub(crate) use diff::for_terminal;
pub use diff::{DIFF_SCHEMA, Diff, Request as DiffRequest, Shown, diff, document};
pub use pull::{PULL_SCHEMA, Pulled, Request as PullRequest, pull};
pub use start::note;

/// The most that is taken out of a bottle, in bytes. What the host has already does not count: it is not sent.
const MOST: u64 = 4 << 30;

/// How long the bottle may take to make its bundle.
const LONG: Duration = Duration::from_secs(900);

/// The newest commits of the host are named to the bottle, so that it sends only what is new.
const KNOWN: &str = "--max-count=2000";

/// The helper's code for an image without git; the engine's is the same.
const NO_GIT: i32 = 127;

const BASE_OF_NOTHING: [&str; 2] = [
    "4b825dc642cb6eb9a060e54bf8d69288fbee4904",
    "6ef19b41225c5369f1c104d45d8d85efa9b057b53b14b4b9b939dd74decc5321",
];

/// What came out of the bottle, in a repository of ours that goes with this value.
struct Incoming {
    git: Git,
    folder: PathBuf,
    /// The newest commit: the working tree's, or the agent's last. None: there is nothing at all.
    tip: Option<String>,
    /// The agent's last commit.
    head: Option<String>,
    /// The branch the agent is on.
    branch: Option<String>,
    /// Where the work began, when it is here.
    base: Option<String>,
    /// The tree without anything, in the form of hash this repository has.
    nothing: &'static str,
    _lock: BottleLock,
}

impl Incoming {
    fn base_or_nothing(&self) -> &str {
        self.base.as_deref().unwrap_or(self.nothing)
    }

    fn has_uncommitted(&self) -> bool {
        self.tip.is_some() && self.tip != self.head
    }

    /// How many commits the agent made.
    fn commits(&self) -> Result<u64> {
        let Some(head) = &self.head else {
            return Ok(0);
        };
        let range = match &self.base {
            Some(base) => format!("{base}..{head}"),
            None => head.clone(),
        };
        let count = self
            .git
            .text(&["rev-list", "--count", "--end-of-options", &range])?;
        Ok(count.parse().unwrap_or_default())
    }
}

impl Drop for Incoming {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.folder);
    }
}

/// Fetches the work of a running bottle. `repository` is one of the host that may have most of it.
fn fetch(
    engine: &Engine,
    plan: &Plan,
    repository: Option<&Git>,
    committed: bool,
    say: &dyn Fn(&str),
) -> Result<Incoming> {
    bottle::check_running(engine, plan)?;
    let lock = BottleLock::take(&plan.state, &plan.slug)?;
    let folder = plan.state.join("incoming");
    if folder.exists() {
        fs::remove_dir_all(&folder).at("remove", &folder)?;
    }
    state::private_dir(&folder)?;
    let mut incoming = Incoming {
        git: Git::at(engine, &folder),
        folder,
        tip: None,
        head: None,
        branch: None,
        base: None,
        nothing: BASE_OF_NOTHING[0],
        _lock: lock,
    };
    let known = prepare(&mut incoming, repository)?;
    let start = start::read(plan)?;
    let bundle = incoming.folder.join("work.bundle");
    take_bundle(engine, plan, &bundle, &known, committed, say)?;
    if fs::metadata(&bundle).at("read", &bundle)?.len() > 0 {
        read_bundle(&incoming, &bundle)?;
    }
    let find = |name: &str| {
        let name = format!("{name}^{{commit}}");
        incoming.git.maybe(&[
            "rev-parse",
            "--verify",
            "--quiet",
            "--end-of-options",
            &name,
        ])
    };
    let work = find("refs/bottle/work")?;
    let head = find("refs/bottle/head")?;
    let base = match start.head.as_deref() {
        Some(base) => find(base)?,
        None => None,
    };
    let branches = ["for-each-ref", "--format=%(refname)", "refs/bottle/on/"];
    let branch = incoming.git.text(&branches)?;
    incoming.branch = branch.strip_prefix("refs/bottle/on/").map(str::to_owned);
    incoming.tip = work.or_else(|| head.clone());
    incoming.head = head;
    incoming.base = base;
    Ok(incoming)
}

/// Makes our repository, which borrows the host's objects, and says which commits those are.
fn prepare(incoming: &mut Incoming, repository: Option<&Git>) -> Result<Vec<u8>> {
    let format = match repository {
        Some(git) => git.text(&["rev-parse", "--show-object-format"])?,
        None => "sha1".to_owned(),
    };
    incoming.nothing = BASE_OF_NOTHING[usize::from(format == "sha256")];
    let format = format!("--object-format={format}");
    let init = ["init", "--quiet", "--bare", "--template=", &format, "."];
    incoming.git.text(&init)?;
    let Some(git) = repository else {
        return Ok(Vec::new());
    };
    let objects = git.text(&[
        "rev-parse",
        "--path-format=absolute",
        "--git-path",
        "objects",
    ])?;
    if objects.contains('\n') {
        return Err(Failure::invalid(
            "the path of the repository has a line break in it",
        ));
    }
    let alternates = incoming.folder.join("objects/info/alternates");
    fs::create_dir_all(incoming.folder.join("objects/info")).at("create", &alternates)?;
    fs::write(&alternates, format!("{objects}\n")).at("write", &alternates)?;
    let known = git.maybe(&["rev-list", KNOWN, "--all"])?;
    Ok(known.unwrap_or_default().into_bytes())
}

fn take_bundle(
    engine: &Engine,
    plan: &Plan,
    bundle: &Path,
    known: &[u8],
    committed: bool,
    say: &dyn Fn(&str),
) -> Result<()> {
    let container = Containers::of(plan).agent;
    let mut call = engine
        .call([
            "exec",
            "--interactive",
            &format!("--user={}", plan.agent.user),
            &container,
        ])
        .args([HELPER, "work", "bundle"]);
    if committed {
        call = call.arg("--committed");
    }
    let file = File::create_new(bundle).at("create", bundle)?;
    let output = call
        .arg(plan.workspace.workdir.as_str())
        .input(known.to_vec())
        .within(LONG)
        .output_into(file, MOST)?;
    if fs::metadata(bundle).at("read", bundle)?.len() > MOST {
        return Err(Failure::failed(format!(
            "the work in `{}` is larger than {} GiB",
            plan.slug,
            MOST >> 30
        ))
        .hint("see what it is: bottle-run exec SLUG -- du -sh /workspace"));
    }
    if output.status.code() == Some(NO_GIT) {
        return Err(
            Failure::failed("the image has no git to give the work back with").hint(format!(
                "docker cp {container}:{} DIR copies the folder as it is; look before you run git in it",
                plan.workspace.workdir
            )),
        );
    }
    if !output.status.success() {
        let said = printable(&output.stderr);
        return Err(Failure::failed(format!(
            "the bottle did not give its work: {said}"
        )));
    }
    // Files that were left out, and what git had to say about others.
    for line in output
        .stderr
        .lines()
        .filter(|line| !line.is_empty())
        .take(40)
    {
        say(&format!("from inside: {line}"));
    }
    Ok(())
}

fn read_bundle(incoming: &Incoming, bundle: &Path) -> Result<()> {
    let args = [
        "fetch",
        "--quiet",
        "--no-tags",
        "--no-write-fetch-head",
        "--no-recurse-submodules",
        "--no-auto-maintenance",
        "--end-of-options",
    ];
    let call = incoming
        .git
        .call(args)
        .arg(bundle)
        .arg("+refs/bottle/*:refs/bottle/*");
    let output = call.output()?;
    if output.status.success() {
        return Ok(());
    }
    let failure = failed(&["fetch"], &output).while_doing("checking what came out of the bottle");
    Err(match output.stderr.contains("lacks these prerequisite") {
        true => failure.hint(
            "the bottle builds on commits that are not here: give the right repository with --into",
        ),
        false => failure
            .hint("nothing was taken over; bottle-run exec SLUG -- git fsck looks at it inside"),
    })
}

/// The repository whose top this folder is, or is in; none when it is in none.
fn repository_of(engine: &Engine, folder: &Path) -> Result<Option<Git>> {
    let git = Git::at(engine, folder);
    if !folder.is_dir() {
        return Ok(None);
    }
    let found = git.call(["rev-parse", "--git-dir"]).output()?;
    if found.stderr.contains("dubious ownership") {
        return Err(failed(&["rev-parse"], &found));
    }
    Ok(found.status.success().then_some(git))
}

/// The repository the workspace was copied from. A mounted one is the agent's to change: nothing of it is used.
fn origin(engine: &Engine, plan: &Plan) -> Result<Option<Git>> {
    match (&plan.workspace.from, plan.workspace.mode) {
        (Some(from), WorkspaceMode::Copy) => repository_of(engine, from),
        _ => Ok(None),
    }
}

/// What git does not ignore in this folder, named from it: what is in the index, and what is new.
///
/// # Errors
/// Invalid, when the folder is in no repository.
pub fn not_ignored(engine: &Engine, folder: &Path) -> Result<Vec<PathBuf>> {
    let git = repository_of(engine, folder)?.ok_or_else(|| {
        Failure::invalid(format!(
            "workspace: {} is in no git repository",
            folder.display()
        ))
        .hint("`ignore: true` takes git's rules; take it out to copy everything")
    })?;
    let args = [
        "ls-files",
        "-z",
        "--cached",
        "--others",
        "--exclude-standard",
    ];
    let output = git.call(args).output()?;
    if !output.status.success() {
        return Err(failed(&args, &output));
    }
    let names = output.stdout.split(|byte| *byte == 0);
    let names = names.filter(|name| !name.is_empty());
    let mut names: Vec<PathBuf> = names
        .map(|name| PathBuf::from(OsStr::from_bytes(name)))
        .collect();
    names.dedup();
    Ok(names)
}
