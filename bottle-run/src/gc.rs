//! Gc: after any crash, what was begun is finished or undone, and nothing else is touched.
//!
//! A bottle is alive while somebody holds its lock, or while its agent runs and was handed over. Everything else with this
//! home's labels is dead and removed, whether its state folder is still there or not.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write as _;
use std::fs;
use std::path::Path;

use bottle_plan::failure::{Failure, PathContext as _, Result};
use bottle_plan::planner;
use bottle_plan::state::{self, StateHome};
use serde::Serialize;

use crate::bottle::Home;
use crate::containers::{self, CHECK_LABEL, Container, Labels};
use crate::engine::{Engine, at_once};
use crate::journal::{CHECK, Entry, Journal, START, STOP};
use crate::lock::BottleLock;
use crate::{down, keys};

/// The schema tag of [`Collected`].
pub const GC_SCHEMA: &str = "bottle.gc/v1";

/// Undoes one open entry of a journal. It is called under the bottle's lock, may be called again after a failure, and
/// takes what is gone already for done.
pub type Undo = fn(&Engine, &Entry) -> Result<()>;

/// The undo functions by kind of entry: where other parts of a bottle plug in what they make outside of the engine's
/// labels. See docs/reliability.md.
pub const UNDO: &[(&str, Undo)] = &[("image", remove_image)];

/// What was found and done.
#[derive(Clone, Debug, Serialize)]
pub struct Collected {
    /// Always [`GC_SCHEMA`].
    pub schema: &'static str,
    /// Nothing was done; this is what would be.
    pub dry_run: bool,
    /// What was removed (or would be).
    pub removed: Vec<Found>,
    /// Bottles that were left alone, and why.
    pub kept: Vec<Kept>,
    /// What could not be removed.
    pub failed: Vec<Failed>,
}

/// Something that a crash left.
#[derive(Clone, Debug, Serialize)]
pub struct Found {
    /// Whose it is.
    pub slug: String,
    /// `container`, `network`, `deploy-key`, `state`, or the kind of a journal's entry.
    pub kind: String,
    /// Its name.
    pub name: String,
    /// Of a deploy key the forge it was at: `gitea`, `github` or `gitlab`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub forge: Option<String>,
    /// Of a deploy key the repository there, `owner/name`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub repository: Option<String>,
}

impl Found {
    fn new(slug: &str, kind: &str, name: String) -> Self {
        Self {
            slug: slug.to_owned(),
            kind: kind.to_owned(),
            name,
            forge: None,
            repository: None,
        }
    }

    fn key(record: &keys::Record) -> Self {
        Self {
            forge: Some(record.forge.clone()),
            repository: Some(record.path.clone()),
            ..Self::new(&record.slug, "deploy-key", record.title.clone())
        }
    }
}

/// A bottle that is alive.
#[derive(Clone, Debug, Serialize)]
pub struct Kept {
    /// Which.
    pub slug: String,
    /// Why.
    pub why: &'static str,
}

/// Something that is still there.
#[derive(Clone, Debug, Serialize)]
pub struct Failed {
    /// Whose it is.
    pub slug: String,
    /// What went wrong.
    pub error: String,
}

/// Finds and removes.
///
/// # Errors
/// When the engine does not answer; what could not be removed is in the result.
pub fn collect(engine: &Engine, home: &Home, dry_run: bool) -> Result<Collected> {
    let seen = Seen::look(engine, home)?;
    let mut collected = Collected {
        schema: GC_SCHEMA,
        dry_run,
        removed: Vec::new(),
        kept: Vec::new(),
        failed: Vec::new(),
    };
    for slug in seen.slugs(&home.state) {
        crate::interrupt::check()?;
        let bottle = Bottle {
            engine,
            home,
            slug: &slug,
            containers: seen.containers.get(&slug).map_or(&[][..], Vec::as_slice),
            networks: seen.networks.get(&slug).map_or(&[][..], Vec::as_slice),
        };
        match bottle.collect(dry_run) {
            Ok(Outcome::Alive(why)) => collected.kept.push(Kept { slug, why }),
            Ok(Outcome::Dead(found)) => collected.removed.extend(found),
            Err(failure) => collected.failed.push(Failed {
                slug,
                error: failure.chain(),
            }),
        }
    }
    revoke_keys(engine, home, &mut collected)?;
    Ok(collected)
}

/// Deploy keys at a forge outlive everything that is here. Those of bottles with anything else to remove are gone by now.
fn revoke_keys(engine: &Engine, home: &Home, collected: &mut Collected) -> Result<()> {
    for record in keys::all(&home.state, None)? {
        let slug = &record.slug;
        let of_it = |found: &Found| found.slug == *slug && found.kind == "deploy-key";
        if collected.kept.iter().any(|kept| kept.slug == *slug)
            || collected.failed.iter().any(|failed| failed.slug == *slug)
            || collected.removed.iter().any(of_it) && collected.dry_run
        {
            continue;
        }
        // An `up` may have begun and ended since the engine and the records were looked at: the key would be that of a
        // bottle that lives. None may begin now.
        let revoked = under_lock(&home.state.folder(slug)?, || {
            let labels = Labels::of_bottle(&home.label, slug);
            let is_dead = keys::all(&home.state, Some(slug))?.contains(&record)
                && !containers::list(engine, &labels)?.iter().any(agent_runs);
            if is_dead && !collected.dry_run {
                keys::revoke_one(&home.state, &record)?;
            }
            Ok(is_dead)
        });
        match revoked {
            Ok(Some(true)) => collected.removed.push(Found::key(&record)),
            Ok(_) => {}
            Err(failure) => collected.failed.push(Failed {
                slug: record.slug,
                error: failure.chain(),
            }),
        }
    }
    Ok(())
}

/// Does `work` under a bottle's lock; nothing when somebody has it. The lock is in the folder: where that is gone, it is made
/// for as long, for without one an `up` of the same slug could start beside us.
fn under_lock<T>(folder: &Path, work: impl FnOnce() -> Result<T>) -> Result<Option<T>> {
    let is_gone = !folder.exists();
    if is_gone {
        state::private_dir(folder)?;
    }
    let outcome = match BottleLock::attempt(folder) {
        Ok(Some(_lock)) => {
            let outcome = work();
            if is_gone {
                // While it is ours: a moment later it could be the lock of an `up`.
                let _ = fs::remove_file(folder.join("lock"));
            }
            outcome.map(Some)
        }
        Ok(None) => Ok(None),
        Err(failure) => Err(failure),
    };
    if is_gone {
        // Only what is empty goes: what an `up` has put there by now stays.
        let _ = fs::remove_dir(folder);
    }
    outcome
}

/// What the engine has of this home, by bottle; also what a check made beside one.
struct Seen {
    containers: BTreeMap<String, Vec<Container>>,
    networks: BTreeMap<String, Vec<String>>,
}

impl Seen {
    fn look(engine: &Engine, home: &Home) -> Result<Self> {
        let of_home = Labels::of_home(&home.label);
        let of_checks = Labels::of_checks(&home.label);
        let (bottles, checks) =
            at_once(|| look_at(engine, &of_home), || look_at(engine, &of_checks))?;
        let mut seen = Self {
            containers: BTreeMap::new(),
            networks: BTreeMap::new(),
        };
        for (containers, networks) in [bottles?, checks?] {
            for container in containers {
                let slug = container.owner().to_owned();
                let known = seen.containers.entry(slug).or_default();
                if known.iter().all(|other| other.id != container.id) {
                    known.push(container);
                }
            }
            for (slug, name) in networks {
                let known = seen.networks.entry(slug).or_default();
                if !known.contains(&name) {
                    known.push(name);
                }
            }
        }
        Ok(seen)
    }

    fn slugs(&self, home: &StateHome) -> BTreeSet<String> {
        let mut slugs: BTreeSet<String> = self.containers.keys().cloned().collect();
        slugs.extend(self.networks.keys().cloned());
        slugs.extend(Journal::slugs(home));
        slugs.extend(home.bottles().into_iter().map(|bottle| bottle.slug));
        slugs.retain(|slug| bottle_plan::slug::check(slug).is_ok());
        slugs
    }
}

type OfTheEngine = (Vec<Container>, Vec<(String, String)>);

fn look_at(engine: &Engine, labels: &Labels) -> Result<OfTheEngine> {
    Ok((
        containers::list(engine, labels)?,
        containers::networks_by_slug(engine, labels)?,
    ))
}

fn agent_runs(container: &Container) -> bool {
    let runs = ["running", "paused", "restarting"].contains(&container.state.as_str());
    container.role() == "agent" && runs
}

enum Outcome {
    Alive(&'static str),
    Dead(Vec<Found>),
}

struct Bottle<'a> {
    engine: &'a Engine,
    home: &'a Home,
    slug: &'a str,
    containers: &'a [Container],
    networks: &'a [String],
}

impl Bottle<'_> {
    fn collect(&self, dry_run: bool) -> Result<Outcome> {
        let folder = self.home.state.folder(self.slug)?;
        if self.has_nothing(&folder)? {
            // Not even its lock is taken: an `up` that begins right now would take us for another one.
            return Ok(Outcome::Dead(Vec::new()));
        }
        let outcome = under_lock(&folder, || self.collect_held(&folder, dry_run))?;
        Ok(outcome.unwrap_or(Outcome::Alive("somebody is working on it")))
    }

    fn has_nothing(&self, folder: &Path) -> Result<bool> {
        let journal = Journal::of(&self.home.state, self.slug)?;
        Ok(self.containers.is_empty()
            && self.networks.is_empty()
            && half_written(folder).is_empty()
            && journal.open()?.is_empty())
    }

    fn collect_held(&self, folder: &Path, dry_run: bool) -> Result<Outcome> {
        let journal = Journal::of(&self.home.state, self.slug)?;
        let open = journal.open()?;
        let has = |kind: &str| open.iter().any(|entry| entry.kind == kind);
        let unfinished = has(START) || has(STOP) || has(CHECK);
        let runs = self.containers.iter().any(agent_runs);
        if runs && !unfinished && !self.is_of_a_check() {
            return Ok(Outcome::Alive("its agent runs"));
        }
        let found = self.found(folder, &open)?;
        if !dry_run && !found.is_empty() {
            self.remove(folder, &journal, &open)?;
        }
        Ok(Outcome::Dead(found))
    }

    /// A check holds the lock as long as it lives, so what it made for itself is dead by now.
    fn is_of_a_check(&self) -> bool {
        let mut agents = self.containers.iter().filter(|c| c.role() == "agent");
        agents.any(|agent| agent.label(CHECK_LABEL).is_some())
    }

    fn found(&self, folder: &Path, open: &[Entry]) -> Result<Vec<Found>> {
        let found = |kind: &str, name: String| Found::new(self.slug, kind, name);
        let mut all: Vec<Found> = Vec::new();
        all.extend(
            self.containers
                .iter()
                .map(|c| found("container", c.name.clone())),
        );
        all.extend(
            self.networks
                .iter()
                .map(|name| found("network", name.clone())),
        );
        if self.is_to_be_removed(open) {
            let keys = keys::all(&self.home.state, Some(self.slug))?;
            all.extend(keys.iter().map(Found::key));
        }
        for entry in open {
            let name = match entry.kind.as_str() {
                START => "a start that was not finished".to_owned(),
                STOP => "a removal that was not finished".to_owned(),
                CHECK => folder.display().to_string(),
                _ => entry.what.to_string(),
            };
            all.push(found(&entry.kind, name));
        }
        all.extend(
            half_written(folder)
                .into_iter()
                .map(|path| found("state", path.display().to_string())),
        );
        Ok(all)
    }

    /// Whether all that `up` makes goes, the deploy keys too.
    fn is_to_be_removed(&self, open: &[Entry]) -> bool {
        !self.containers.is_empty() || !self.networks.is_empty() || !open.is_empty()
    }

    fn remove(&self, folder: &Path, journal: &Journal, open: &[Entry]) -> Result<()> {
        let request = down::Request {
            home: &self.home.state,
            home_label: &self.home.label,
            slug: self.slug,
            purge: false,
        };
        if self.is_to_be_removed(open) {
            down::remove(self.engine, &request, folder)?;
            self.remove_of_checks()?;
            down::note_stopped(&request)?;
        }
        for entry in open {
            self.undo(entry)?;
            journal.end(entry.id)?;
        }
        for path in half_written(folder) {
            fs::remove_file(&path).at("remove", &path)?;
        }
        Ok(())
    }

    /// What a check made beside the bottle carries no slug, so that `list` does not show it.
    fn remove_of_checks(&self) -> Result<()> {
        let labels = Labels::of_check(&self.home.label, self.slug);
        down::remove_labelled(self.engine, &labels).map(drop)
    }

    fn undo(&self, entry: &Entry) -> Result<()> {
        match entry.kind.as_str() {
            START | STOP => Ok(()),
            CHECK => planner::release(&self.home.state, self.slug),
            kind => match UNDO.iter().find(|(known, _)| *known == kind) {
                Some((_, undo)) => undo(self.engine, entry)
                    .map_err(|failure| failure.while_doing(format!("undoing {kind}"))),
                None => Err(Failure::failed(format!(
                    "this version does not know how to undo `{kind}`: {}",
                    entry.what
                ))
                .hint("it was begun by a newer version; use that one")),
            },
        }
    }
}

/// Temporary files of writes that never became the file. A writer renames within milliseconds; an hour is for the planner,
/// which writes without the bottle's lock.
fn half_written(folder: &Path) -> Vec<std::path::PathBuf> {
    let old = |path: &Path| {
        let modified = fs::symlink_metadata(path).and_then(|found| found.modified());
        modified.is_ok_and(|at| at.elapsed().is_ok_and(|age| age.as_secs() > 3600))
    };
    let is_temporary = |path: &std::path::PathBuf| {
        path.file_name()
            .and_then(|name| name.to_str())
            .is_some_and(|name| name.starts_with(".new-"))
    };
    let places = [folder.to_owned(), folder.join("egress")];
    let entries = places.iter().flat_map(fs::read_dir).flatten().flatten();
    entries
        .map(|entry| entry.path())
        .filter(|path| is_temporary(path) && old(path))
        .collect()
}

/// An image that was being made: `{"reference": "NAME:TAG"}`. Only one with a bottle's label is removed.
fn remove_image(engine: &Engine, entry: &Entry) -> Result<()> {
    let Some(reference) = entry.what["reference"].as_str() else {
        return Err(Failure::failed("the entry names no image"));
    };
    let format = "{{index .Config.Labels \"bottle.home\"}}";
    let labelled = engine
        .call(["image", "inspect", "--format", format, "--", reference])
        .output()?;
    let gone = labelled.stderr.to_lowercase().contains("no such image");
    if gone {
        return Ok(());
    }
    if labelled.text().is_empty() {
        return Err(Failure::failed(format!(
            "the image {reference} is not labelled as a bottle's"
        )));
    }
    engine
        .call(["image", "rm", "--", reference])
        .run()
        .map(drop)
}

/// What was done, for a person.
#[must_use]
pub fn table(collected: &Collected) -> String {
    let mut text = String::new();
    let verb = if collected.dry_run {
        "would remove"
    } else {
        "removed"
    };
    for found in &collected.removed {
        let _ = write!(
            text,
            "{verb}  {}  {} {}",
            found.slug, found.kind, found.name
        );
        if let (Some(forge), Some(repository)) = (&found.forge, &found.repository) {
            let _ = write!(text, " ({forge}, {repository})");
        }
        text.push('\n');
    }
    for kept in &collected.kept {
        let _ = writeln!(text, "kept  {}  {}", kept.slug, kept.why);
    }
    text
}

/// Reservations that nobody started within a day: [`planner::drop_stale_reservations`].
///
/// # Errors
/// When the state home cannot be locked.
pub fn drop_reservations(home: &StateHome) -> Result<()> {
    if home.path().is_dir() {
        let _lock = home.lock()?;
        planner::drop_stale_reservations(home);
    }
    Ok(())
}
