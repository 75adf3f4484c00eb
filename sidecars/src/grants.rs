//! What the operator granted, as files: read a few times a second, applied without a restart. Egress takes the grants
//! that are routes, git-gate those that are pushes.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use bottle_plan::request::{self, Request, Scope};
use bottle_plan::supervise::{APPLIED_FILE, PUSHES_APPLIED_FILE};
use serde::de::DeserializeOwned;
use time::OffsetDateTime;

use crate::audit::Record;
use crate::policy::{Grant, Uses};
use crate::program::say;
use crate::reason::Reason;

/// Where grants, and with `allow_readonly` also requests and answers, are mounted.
pub(crate) struct Folders {
    grants: PathBuf,
    requests: PathBuf,
    answers: PathBuf,
    uses: PathBuf,
}

/// What a folder's files are told apart by: each is written whole, so a changed one is another inode.
type Print = BTreeSet<(PathBuf, u64, i64)>;

/// Whose grants they are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Taker {
    Egress,
    GitGate,
}

impl Taker {
    fn takes(self, scope: &Scope) -> bool {
        match scope {
            Scope::Egress { .. } => self == Self::Egress,
            Scope::Push { .. } => self == Self::GitGate,
        }
    }

    fn applied_file(self) -> &'static str {
        match self {
            Self::Egress => APPLIED_FILE,
            Self::GitGate => PUSHES_APPLIED_FILE,
        }
    }
}

/// What is in the folders, and what became of it.
pub(crate) struct Grants {
    taker: Taker,
    folders: Folders,
    print: Print,
    /// Those whose time is not over, used up or not: what was begun under one may go on.
    known: BTreeMap<String, (request::Grant, Grant)>,
    /// Those that were said to be over.
    over: BTreeSet<String>,
    /// When the next unanswered request becomes a grant, or a grant ends.
    due: Option<OffsetDateTime>,
}

/// What changed.
#[derive(Default)]
pub(crate) struct Changes {
    /// Grants that begin.
    pub(crate) begun: Vec<request::Grant>,
    /// Grants that ended.
    pub(crate) ended: Vec<request::Grant>,
    /// Whether the policy has to be made anew.
    pub(crate) policy: bool,
}

impl Changes {
    /// What goes into the audit, and as what.
    pub(crate) fn noted(&self) -> impl Iterator<Item = (&request::Grant, Reason)> {
        let begun = self.begun.iter().map(|grant| (grant, Reason::GrantBegun));
        let ended = self.ended.iter().map(|grant| (grant, Reason::GrantEnded));
        begun.chain(ended)
    }
}

/// Says in the audit's record which grant it is, whose, and where it leads.
pub(crate) fn describe(grant: &request::Grant, reason: Reason, record: &mut Record) {
    record.reason = reason;
    record.rule = Some(format!("{} by {}", grant.id, grant.by).into());
    match &grant.scope {
        Scope::Egress { route } => {
            record.host = Some(route.host.as_str().into());
            record.port = route.ports.first().copied();
        }
        Scope::Push {
            repo,
            reference,
            object,
        } => {
            let object = object.as_deref().unwrap_or("*");
            record.path = Some(format!("/{repo}/{reference}@{object}"));
        }
    }
}

impl Grants {
    /// The folders below `base`; uses are counted in `uses`. Nothing when there are none.
    pub(crate) fn open(base: &Path, uses: &Path, taker: Taker) -> Option<Self> {
        let grants = base.join("grants");
        grants.is_dir().then(|| Self {
            taker,
            folders: Folders {
                grants,
                requests: base.join("requests"),
                answers: base.join("answers"),
                uses: uses.to_owned(),
            },
            print: Print::new(),
            known: BTreeMap::new(),
            over: BTreeSet::new(),
            due: None,
        })
    }

    /// Those in force.
    pub(crate) fn known(&self) -> impl Iterator<Item = (request::Grant, Grant)> {
        self.known.values().cloned()
    }

    /// Tells the supervise sidecar what is in force, so that the agent hears of it when it works. A courtesy: without
    /// it the agent is told a little later.
    pub(crate) fn say_applied(&self, base: &Path) {
        let ids: Vec<&String> = self.known.keys().collect();
        let folder = base.join("denials");
        let name = self.taker.applied_file();
        let (path, new) = (folder.join(name), folder.join(format!(".new-{name}")));
        let written = serde_json::to_vec(&ids)
            .map_err(std::io::Error::from)
            .and_then(|text| fs::write(&new, text))
            .and_then(|()| fs::rename(&new, &path));
        if let Err(error) = written {
            say!("{}: {error}", path.display());
        }
    }

    /// Looks whether anything changed: a file, or the time.
    pub(crate) fn look(&mut self) -> Changes {
        let now = OffsetDateTime::now_utc();
        let print = self.folders.print();
        let is_due = self.due.is_some_and(|due| now >= due);
        let mut changes = Changes::default();
        if print != self.print || is_due {
            self.read(now, &mut changes);
            self.print = print;
        }
        for (id, (document, grant)) in &self.known {
            if !grant.is_live() && self.over.insert(id.clone()) {
                changes.ended.push(document.clone());
            }
        }
        changes
    }

    fn read(&mut self, now: OffsetDateTime, changes: &mut Changes) {
        let (found, due) = self.folders.read(now, self.taker);
        let gone: Vec<String> = self
            .known
            .keys()
            .filter(|id| !found.contains_key(*id))
            .cloned()
            .collect();
        for id in gone {
            if let Some((document, _)) = self.known.remove(&id) {
                changes.policy = true;
                if self.over.insert(id) {
                    changes.ended.push(document);
                }
            }
        }
        for (id, document) in found {
            if self.known.contains_key(&id) {
                continue;
            }
            match self.folders.uses_of(&document) {
                Ok(uses) => {
                    let grant = Grant::new(&document, uses);
                    if grant.is_live() {
                        changes.begun.push(document.clone());
                    } else {
                        // Used up by an earlier run, which has said so.
                        self.over.insert(id.clone());
                    }
                    changes.policy = true;
                    self.known.insert(id, (document, grant));
                }
                Err(error) => {
                    say!("grant {id} is not applied, its uses cannot be counted: {error}");
                }
            }
        }
        self.due = due;
    }
}

impl Folders {
    fn print(&self) -> Print {
        let folders = [&self.grants, &self.requests, &self.answers];
        let files = folders.into_iter().flat_map(|folder| json_files(folder));
        files
            .filter_map(|path| {
                let found = fs::symlink_metadata(&path).ok()?;
                Some((path, found.ino(), found.mtime_nsec()))
            })
            .collect()
    }

    /// The grants whose time is not over, and when to look again without a change.
    fn read(
        &self,
        now: OffsetDateTime,
        taker: Taker,
    ) -> (BTreeMap<String, request::Grant>, Option<OffsetDateTime>) {
        let mut all = BTreeMap::new();
        let mut next = Vec::new();
        // Written by the sidecar beside us; what nobody answered in time becomes what the manifest says.
        for (id, request, bytes) in documents::<Request>(&self.requests) {
            let fits = request.id == id && request.check().is_ok();
            if !fits || self.answers.join(format!("{id}.json")).exists() {
                continue;
            }
            if request.is_late(now) {
                all.extend(
                    request
                        .readonly_grant(&bytes)
                        .map(|grant| (grant.id.clone(), grant)),
                );
            } else {
                next.extend(request::time_of(&request.deadline));
            }
        }
        // Written by the operator, who has the last word.
        for (id, grant, _) in documents::<request::Grant>(&self.grants) {
            if grant.id == id && grant.check().is_ok() {
                all.insert(id, grant);
            }
        }
        all.retain(|_, grant| taker.takes(&grant.scope) && !grant.is_over(now));
        next.extend(
            all.values()
                .filter_map(|grant| request::time_of(grant.ends_at.as_deref()?)),
        );
        (all, next.into_iter().min())
    }

    fn uses_of(&self, grant: &request::Grant) -> std::io::Result<Option<Arc<Uses>>> {
        let path = self.uses.join(format!("{}.uses", grant.id));
        grant
            .uses
            .map(|uses| Uses::open(&path, uses).map(Arc::new))
            .transpose()
    }
}

fn json_files(folder: &Path) -> Vec<PathBuf> {
    let entries = fs::read_dir(folder).into_iter().flatten().flatten();
    let paths = entries.map(|entry| entry.path());
    paths
        .filter(|path| path.extension().is_some_and(|end| end == "json"))
        .collect()
}

/// Everything in `folder` that is what it should be: its name without the ending, what it says, its bytes.
fn documents<T: DeserializeOwned>(folder: &Path) -> Vec<(String, T, Vec<u8>)> {
    let read = |path: PathBuf| {
        let found = fs::symlink_metadata(&path).ok()?;
        if !found.is_file() || found.len() > request::MAX_FILE {
            return None;
        }
        let bytes = fs::read(&path).ok()?;
        let id = path.file_stem()?.to_str()?.to_owned();
        Some((id, serde_json::from_slice(&bytes).ok()?, bytes))
    };
    json_files(folder).into_iter().filter_map(read).collect()
}
