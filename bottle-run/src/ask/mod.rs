//! What agents ask their operator, over all bottles of a home: found, shown, decided.
//!
//! The files are the interface (`bottle-plan schema request`): whoever can read the state folder sees what is asked, and
//! these commands are one way of answering. What a sidecar wrote is checked again before it is believed, and everything
//! in it that came from the agent is shown escaped.

mod decide;
pub mod files;
mod follow;
mod manifest_edit;
mod promote;
mod push;
mod show;

use std::path::PathBuf;

use bottle_plan::failure::{Failure, Result};
use bottle_plan::granted::{self, Granted};
use bottle_plan::request::{self, Answer, Grant, Request};
use bottle_plan::state::StateHome;
use serde::Serialize;
use time::OffsetDateTime;

pub use decide::{Approval, Decision, Limits, answer, approve, deny, revoke};
pub use follow::follow;
pub use promote::{PROMOTION_SCHEMA, Promotion, policy_diff, promote};
pub use push::push_page;
pub use show::{grants_table, request_page, requests_table};

/// The schema tag of [`Requests`].
pub const REQUESTS_SCHEMA: &str = "bottle.requests/v1";
/// The schema tag of [`Grants`].
pub const GRANTS_SCHEMA: &str = "bottle.grants/v1";

/// A request with what became of it.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Asked {
    /// The bottle.
    pub slug: String,
    /// The request, as the sidecar wrote it.
    pub request: Request,
    /// SHA-256 of its file: `approve --expect` makes sure that it is still what was read.
    pub sha256: String,
    /// What became of it.
    pub status: Status,
    /// What it asks in plain words, escaped.
    pub words: String,
    /// Its answer.
    pub answer: Option<Answer>,
    /// Its grant.
    pub grant: Option<Grant>,
}

/// What became of a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Status {
    /// It can be answered.
    Waiting,
    /// It became a grant.
    Approved,
    /// It was refused.
    Denied,
    /// A question was answered.
    Answered,
    /// Nobody answered in time.
    Expired,
    /// The bottle went down first.
    Closed,
}

/// `requests --json`.
#[derive(Debug, Serialize)]
pub struct Requests {
    /// Always [`REQUESTS_SCHEMA`].
    pub schema: &'static str,
    /// Oldest first.
    pub requests: Vec<Asked>,
}

/// `grants --json`.
#[derive(Debug, Serialize)]
pub struct Grants {
    /// Always [`GRANTS_SCHEMA`].
    pub schema: &'static str,
    /// Oldest first.
    pub grants: Vec<GrantEntry>,
}

/// A grant of a bottle.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct GrantEntry {
    /// The grant.
    pub grant: Grant,
    /// How often it was used; known for those that end by use.
    pub used: Option<u64>,
    /// Whether it still allows anything.
    pub live: bool,
    /// What it allows, in plain words, escaped.
    pub words: String,
    /// How it ends, or that it has.
    pub end: String,
}

/// The folders of one bottle.
pub(crate) struct Folder {
    pub(crate) slug: String,
    pub(crate) state: PathBuf,
}

impl Folder {
    pub(crate) fn of(home: &StateHome, slug: &str) -> Result<Self> {
        Ok(Self {
            state: home.folder(slug)?,
            slug: slug.to_owned(),
        })
    }

    pub(crate) fn requests(&self) -> PathBuf {
        self.state.join("supervise/requests")
    }

    pub(crate) fn answers(&self) -> PathBuf {
        self.state.join("supervise/answers")
    }

    pub(crate) fn grants(&self) -> PathBuf {
        self.state.join("grants")
    }

    /// The request with this very id.
    pub(crate) fn asked(&self, id: &str, now: OffsetDateTime) -> Option<Asked> {
        let (request, bytes): (Request, _) = granted::read(&self.requests(), id)?;
        // The sidecar's word is not enough: names of files and bottles are ours to give.
        if request.id != id || request.bottle != self.slug || request.check().is_err() {
            return None;
        }
        let grant: Option<Grant> =
            granted::read(&self.grants(), &request::grant_id(id)).map(|(grant, _)| grant);
        let answer: Option<Answer> = granted::read(&self.answers(), id).map(|(answer, _)| answer);
        let status = match (&grant, &answer) {
            (Some(_), _) => Status::Approved,
            (None, Some(answer)) => match answer.verdict {
                request::Verdict::Denied => Status::Denied,
                request::Verdict::Answered => Status::Answered,
                request::Verdict::Closed => Status::Closed,
            },
            (None, None) if request.is_late(now) => Status::Expired,
            (None, None) => Status::Waiting,
        };
        Some(Asked {
            slug: self.slug.clone(),
            words: escaped(&granted::ask_in_words(&request.ask)),
            sha256: bottle_plan::audit::hash(&bytes),
            status,
            answer,
            grant,
            request,
        })
    }

    /// All its requests.
    pub(crate) fn all(&self, now: OffsetDateTime) -> impl Iterator<Item = Asked> {
        let ids = granted::ids(&self.requests(), 'r');
        ids.into_iter().filter_map(move |id| self.asked(&id, now))
    }
}

/// One line of the agent's: nothing in it can steer a terminal, and it has no end of line.
#[must_use]
pub fn escaped(text: &str) -> String {
    bottle_plan::failure::printable(text)
        .replace('\n', "\\n")
        .replace('\t', " ")
}

/// Every request of every bottle, oldest first; with `all` also those that are over.
#[must_use]
pub fn requests(home: &StateHome, all: bool) -> Vec<Asked> {
    let now = OffsetDateTime::now_utc();
    let mut found: Vec<Asked> = folders(home)
        .iter()
        .flat_map(|folder| folder.all(now).collect::<Vec<_>>())
        .filter(|asked| all || asked.status == Status::Waiting)
        .collect();
    found.sort_by(|a, b| {
        let key = |asked: &Asked| (asked.request.created_at.clone(), asked.request.id.clone());
        key(a).cmp(&key(b))
    });
    found
}

/// Every grant of every bottle, oldest first; with `all` also those that are over.
#[must_use]
pub fn grants(home: &StateHome, all: bool) -> Vec<GrantEntry> {
    let mut found: Vec<GrantEntry> = folders(home)
        .iter()
        .flat_map(|folder| grants_of(&folder.state, all))
        .collect();
    found.sort_by(|a, b| a.grant.created_at.cmp(&b.grant.created_at));
    found
}

/// The grants of one bottle.
#[must_use]
pub fn grants_of(state: &std::path::Path, all: bool) -> Vec<GrantEntry> {
    let now = OffsetDateTime::now_utc();
    let entry = |granted: Granted| GrantEntry {
        live: granted.is_live(now),
        words: escaped(&granted::scope_in_words(&granted.grant.scope)),
        end: granted.end_in_words(now),
        used: granted.used,
        grant: granted.grant,
    };
    granted::grants(state)
        .into_iter()
        .map(entry)
        .filter(|entry| all || entry.live)
        .collect()
}

/// How many requests of a bottle wait.
#[must_use]
pub fn waiting(home: &StateHome, slug: &str) -> usize {
    let now = OffsetDateTime::now_utc();
    Folder::of(home, slug).map_or(0, |folder| {
        folder
            .all(now)
            .filter(|asked| asked.status == Status::Waiting)
            .count()
    })
}

/// The request that `given` is the beginning of, of whatever bottle.
///
/// # Errors
/// Not found, when there is none; a conflict, when there is more than one.
pub fn find(home: &StateHome, given: &str) -> Result<Asked> {
    let now = OffsetDateTime::now_utc();
    let folders = folders(home);
    let all = folders.iter().flat_map(|folder| {
        let ids = granted::ids(&folder.requests(), 'r').into_iter();
        ids.map(move |id| (folder, id))
    });
    let (folder, id) = one(given, 'r', all, "request", "bottle-run requests --all")?;
    folder
        .asked(&id, now)
        .ok_or_else(|| Failure::failed(format!("the file of request {id} cannot be believed")))
}

/// The folder and id of the grant that `given` is the beginning of.
pub(crate) fn find_grant(home: &StateHome, given: &str) -> Result<(Folder, String)> {
    let folders = folders(home);
    let all = folders.iter().flat_map(|folder| {
        let ids = granted::ids(&folder.grants(), 'g').into_iter();
        ids.map(move |id| (folder, id))
    });
    let (folder, id) = one(given, 'g', all, "grant", "bottle-run grants --all")?;
    Ok((Folder::of(home, &folder.slug)?, id))
}

fn one<'a>(
    given: &str,
    kind: char,
    all: impl Iterator<Item = (&'a Folder, String)>,
    what: &str,
    list: &str,
) -> Result<(&'a Folder, String)> {
    let prefix = format!("{kind}-");
    let bare = given.strip_prefix(&prefix).unwrap_or(given);
    let begins = |id: &str| !bare.is_empty() && id[prefix.len()..].starts_with(bare);
    let mut fits: Vec<_> = all.filter(|(_, id)| begins(id)).collect();
    match (fits.pop(), fits.len()) {
        (Some(found), 0) => Ok(found),
        (None, _) => Err(Failure::not_found(format!("there is no {what} `{given}`"))
            .hint(format!("{list} shows what there is"))),
        (Some(_), more) => Err(Failure::conflict(format!(
            "{} {what}s begin with `{given}`",
            more + 1
        ))
        .hint("write more of the id")),
    }
}

fn folders(home: &StateHome) -> Vec<Folder> {
    let bottles = home.bottles().into_iter();
    bottles
        .filter_map(|bottle| Folder::of(home, &bottle.slug).ok())
        .collect()
}
