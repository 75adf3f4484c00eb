//! `pull`: the work as a branch of a repository on the host.

use std::path::PathBuf;

use bottle_plan::failure::{Failure, Result};
use bottle_plan::plan::{Plan, WorkspaceMode};
use serde::Serialize;

use super::git::{Git, failed};
use super::{Incoming, fetch, origin, repository_of};
use crate::engine::Engine;

/// The schema tag of [`Pulled`].
pub const PULL_SCHEMA: &str = "bottle.pull/v1";

/// What is asked for.
#[derive(Clone, Debug)]
pub struct Request {
    /// The branch; `bottle/SLUG` unless given.
    pub branch: Option<String>,
    /// The repository; the one the workspace was copied from unless given.
    pub into: Option<PathBuf>,
    /// Only what the agent committed.
    pub committed: bool,
    /// Takes the place of a branch of that name.
    pub replace: bool,
}

/// What was taken over.
#[derive(Debug, Serialize)]
pub struct Pulled {
    /// Always [`PULL_SCHEMA`].
    pub schema: &'static str,
    /// The bottle.
    pub slug: String,
    /// The repository.
    pub repository: PathBuf,
    /// The branch; none when there was nothing to take.
    pub branch: Option<String>,
    /// Its newest commit.
    pub commit: Option<String>,
    /// How many commits the agent made.
    pub commits: u64,
    /// Whether the newest commit holds what the agent had not committed.
    pub uncommitted: bool,
}

/// Brings the work of a running bottle into a branch. Neither the working tree nor the branch that is checked out is
/// touched.
///
/// # Errors
/// Conflict, when the branch is there and not to be replaced, or is checked out; not found, when there is no repository;
/// invalid, when the workspace is mounted or the branch has no such name; failed, when what came is not whole.
pub fn pull(engine: &Engine, plan: &Plan, request: &Request, say: &dyn Fn(&str)) -> Result<Pulled> {
    let git = destination(engine, plan, request)?;
    let usual = format!("bottle/{}", plan.slug);
    let name = request.branch.as_deref().unwrap_or(&usual);
    let branch = Branch::named(&git, name)?;
    let before = branch.commit()?;
    let incoming = fetch(engine, plan, Some(&git), request.committed, say)?;
    let mut pulled = Pulled {
        schema: PULL_SCHEMA,
        slug: plan.slug.clone(),
        repository: git.folder().to_owned(),
        branch: None,
        commit: None,
        commits: incoming.commits()?,
        uncommitted: incoming.has_uncommitted(),
    };
    let Some(tip) = incoming.tip.as_ref() else {
        return Ok(pulled);
    };
    if incoming.base.as_ref() == Some(tip) {
        return Ok(pulled);
    }
    if before.as_ref() != Some(tip) {
        branch.take(&incoming, tip, before.is_some(), request.replace)?;
    }
    pulled.branch = Some(branch.name);
    pulled.commit = Some(tip.clone());
    Ok(pulled)
}

fn destination(engine: &Engine, plan: &Plan, request: &Request) -> Result<Git> {
    if plan.workspace.mode == WorkspaceMode::Mount
        && let Some(from) = &plan.workspace.from
    {
        return Err(Failure::invalid(format!(
            "the workspace of `{}` is mounted: the work is in {} already",
            plan.slug,
            from.display()
        ))
        .hint(format!("bottle-run diff {} shows it", plan.slug)));
    }
    let found = match &request.into {
        Some(folder) => repository_of(engine, folder)?,
        None => origin(engine, plan)?,
    };
    found.ok_or_else(|| {
        let folder = request.into.as_ref().or(plan.workspace.from.as_ref());
        let what = match folder {
            Some(folder) => format!("{} is no git repository", folder.display()),
            None => format!("the workspace of `{}` came from no folder", plan.slug),
        };
        Failure::not_found(what)
            .hint("give one: bottle-run pull SLUG --into DIR; `git init DIR` makes one")
    })
}

struct Branch<'a> {
    git: &'a Git,
    name: String,
    reference: String,
}

impl<'a> Branch<'a> {
    fn named(git: &'a Git, name: &str) -> Result<Self> {
        let reference = format!("refs/heads/{name}");
        let good =
            !name.starts_with('-') && git.maybe(&["check-ref-format", &reference])?.is_some();
        if !good {
            return Err(
                Failure::invalid(format!("`{name}` cannot be the name of a branch"))
                    .hint("such as --branch agent/fix-login"),
            );
        }
        Ok(Self {
            git,
            name: name.to_owned(),
            reference,
        })
    }

    fn commit(&self) -> Result<Option<String>> {
        let commit = format!("{}^{{commit}}", self.reference);
        self.git
            .maybe(&["rev-parse", "--verify", "--quiet", &commit])
    }

    fn take(&self, incoming: &Incoming, tip: &str, exists: bool, replace: bool) -> Result<()> {
        if exists && !replace {
            return Err(Failure::conflict(format!("there is a branch `{}` already", self.name))
                .hint("--branch OTHER gives the work another name, --replace takes the place of this one"));
        }
        if self.is_checked_out()? {
            return Err(
                Failure::conflict(format!("the branch `{}` is checked out", self.name))
                    .hint("--branch OTHER gives the work another name"),
            );
        }
        self.copy_commits(incoming, tip)?;
        let force = if exists { &["--force"][..] } else { &[] };
        let args = [&["branch", "--no-track"], force, &[&self.name, tip]].concat();
        let output = self.git.call(args.iter().copied()).output()?;
        if output.status.success() {
            return Ok(());
        }
        // Somebody was here meanwhile, or a branch of another name is in the way.
        let conflict = ["cannot lock ref", "already exists", "cannot force update"];
        let failure = failed(&args, &output);
        Err(
            if conflict.iter().any(|text| output.stderr.contains(text)) {
                failure
                    .with_kind(bottle_plan::failure::Kind::Conflict)
                    .hint("--branch OTHER gives the work another name")
            } else {
                failure
            },
        )
    }

    /// Whether a working tree is on it, also as the branch of a first commit that was not made yet.
    fn is_checked_out(&self) -> Result<bool> {
        let trees = self.git.text(&["worktree", "list", "--porcelain"])?;
        let line = format!("branch {}", self.reference);
        Ok(trees.lines().any(|found| found == line))
    }

    /// Takes the commits over, with no name yet. Not by `git fetch`: that takes a folder for a URL, and the settings of
    /// this repository (`url.*.insteadOf`) could make another of it.
    fn copy_commits(&self, incoming: &Incoming, tip: &str) -> Result<()> {
        let from = if incoming.has_uncommitted() {
            "refs/bottle/work"
        } else {
            "refs/bottle/head"
        };
        let args = ["fetch-pack", "--quiet", "--no-progress"];
        let call = self.git.call(args).arg("--upload-pack=git-upload-pack");
        let output = call.arg(incoming.git.folder()).arg(from).output()?;
        if !output.status.success() {
            return Err(failed(&args, &output));
        }
        // Before it has a name: everything below it must be here.
        let whole = ["rev-list", "--objects", "--quiet", tip, "--not", "--all"];
        self.git.text(&whole).map(drop)
    }
}
