//! Going on from a snapshot: the same bottle again, or another one that begins where it stood.
//!
//! What was in the container comes from the snapshot, and what the bottle may do from the manifests as they are now.

use std::path::Path;

use crate::diff;
use crate::failure::{Failure, PathContext as _, Result};
use crate::plan::{PLAN_SCHEMA, Plan, Resume, ResumeImage};
use crate::planner::Request;
use crate::snapshot::{Snapshot, Snapshots, Wanted};
use crate::state::{self, Origin, StateHome};

/// The folder of a state folder with one folder a snapshot.
pub const SNAPSHOTS_FOLDER: &str = "snapshots";

/// What is gone on from.
#[derive(Clone, Debug)]
pub enum Begin {
    /// The same bottle: its name, its addresses, its audit.
    Resume(Wanted),
    /// Another bottle, from a snapshot of this one.
    Fork(Wanted),
}

impl Begin {
    /// The snapshot that is wanted.
    #[must_use]
    pub const fn wanted(&self) -> &Wanted {
        match self {
            Self::Resume(wanted) | Self::Fork(wanted) => wanted,
        }
    }
}

/// What a new plan needs to know of the old one.
#[derive(Debug)]
pub(crate) struct Past {
    /// What goes into the plan.
    pub(crate) resume: Option<Resume>,
    /// Sets the new start apart from the old ones.
    pub(crate) session: Option<String>,
    /// What it is compared to.
    plan: Option<Plan>,
    /// What that is called.
    called: String,
}

impl Past {
    /// What is recorded of the bottle to go on from.
    pub(crate) fn read(home: &StateHome, begin: &Begin) -> Result<Self> {
        let wanted = begin.wanted();
        let metadata = home
            .metadata(&wanted.slug)?
            .ok_or_else(|| no_bottle(home, wanted))?;
        let snapshots = Snapshots::read(home, &wanted.slug)?;
        let chosen = snapshots.find(wanted.number);
        if chosen.is_none() && (wanted.number.is_some() || matches!(begin, Begin::Fork(_))) {
            return Err(no_snapshot(&snapshots, wanted));
        }
        let started = read_plan(&home.folder(&wanted.slug)?.join("plan.json"))?;
        let resume = match chosen {
            Some(_) => Some(candidates(&snapshots, wanted)),
            // A fork that was never frozen itself begins where it began.
            None => started.as_ref().and_then(|plan| plan.resume.clone()),
        };
        let (plan, called) = match chosen {
            Some(one) => (
                frozen_plan(home, one)?,
                format!("the snapshot {}@{}", one.slug, one.number),
            ),
            None => (started, "the last start".to_owned()),
        };
        Ok(Self {
            resume,
            session: metadata.started_at,
            plan,
            called,
        })
    }

    /// What the user should know about the plan that was made of it.
    pub(crate) fn warnings(&self, plan: &Plan) -> Result<Vec<String>> {
        let mut warnings = Vec::new();
        if self.resume.is_none() {
            warnings.push(format!(
                "`{}` has no snapshot: it begins from its image again",
                plan.slug
            ));
        }
        if let Some(before) = &self.plan {
            let mut changed = diff::diff(before, plan)?;
            // The hashes of the files say only that something changed; what changed is in the rest.
            changed.changes.retain(|change| change.area != "source");
            if !changed.changes.is_empty() {
                warnings.push(format!(
                    "the manifests changed since {}:\n{}",
                    self.called,
                    changed.lines().trim_end()
                ));
            }
        }
        Ok(warnings)
    }
}

/// The newest first; with a number only that one, since nobody who names one wants another.
fn candidates(snapshots: &Snapshots, wanted: &Wanted) -> Resume {
    let fits = |one: &&Snapshot| wanted.number.is_none_or(|number| number == one.number);
    let images = snapshots.snapshots.iter().rev().filter(fits);
    Resume {
        slug: wanted.slug.clone(),
        images: images
            .map(|one| ResumeImage {
                number: one.number,
                image: one.image.clone(),
            })
            .collect(),
    }
}

/// `request` with what it leaves open taken from where the bottle was planned first.
pub(crate) fn as_before(request: &Request, origin: Option<&Origin>, name: &str) -> Request {
    let mut request = request.clone();
    if request.name.is_none() && request.file.is_none() {
        request.file = origin.and_then(|origin| origin.manifest.clone());
        if request.file.is_none() {
            request.name = Some(name.to_owned());
        }
        if request.bottles.is_empty() {
            request.bottles = origin
                .map(|origin| origin.bottles.clone())
                .unwrap_or_default();
        }
    }
    if let Some(origin) = origin {
        if request.workspace.is_none() {
            request.workspace.clone_from(&origin.workspace);
        }
        if !request.cwd_given && origin.cwd.is_dir() {
            request.places.cwd.clone_from(&origin.cwd);
        }
    }
    request
}

/// The plan a snapshot's bottle ran when it was frozen.
///
/// # Errors
/// When it is there and cannot be read.
pub fn frozen_plan(home: &StateHome, snapshot: &Snapshot) -> Result<Option<Plan>> {
    let folder = home.folder(&snapshot.slug)?.join(SNAPSHOTS_FOLDER);
    read_plan(&folder.join(snapshot.number.to_string()).join("plan.json"))
}

fn read_plan(path: &Path) -> Result<Option<Plan>> {
    match std::fs::read(path) {
        Ok(bytes) => state::parse_document(&bytes, PLAN_SCHEMA)
            .map(Some)
            .map_err(|failure| failure.while_doing(format!("reading {}", path.display()))),
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(error).at("read", path),
    }
}

fn no_bottle(home: &StateHome, wanted: &Wanted) -> Failure {
    let failure = Failure::not_found(format!("there is no bottle `{}`", wanted.slug));
    let known: Vec<String> = home
        .bottles()
        .into_iter()
        .map(|bottle| bottle.slug)
        .collect();
    match known.as_slice() {
        [] => failure.hint("start one: bottle-plan NAME | bottle-render | bottle-run up"),
        _ => failure.hint(format!("there are: {}", known.join(", "))),
    }
}

/// The error for a snapshot that is not recorded.
#[must_use]
pub fn no_snapshot(snapshots: &Snapshots, wanted: &Wanted) -> Failure {
    let numbers: Vec<String> = snapshots
        .snapshots
        .iter()
        .map(|one| format!("{}@{}", one.slug, one.number))
        .collect();
    if numbers.is_empty() {
        return Failure::not_found(format!("`{}` has no snapshot", wanted.slug)).hint(format!(
            "while it runs: bottle-snapshot commit {}",
            wanted.slug
        ));
    }
    Failure::not_found(format!("there is no snapshot {wanted}"))
        .hint(format!("there are: {}", numbers.join(", ")))
}
