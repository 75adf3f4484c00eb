//! What bottles there are, and how they are.

use std::collections::BTreeMap;
use std::fmt::Write as _;

use bottle_plan::failure::{Result, printable};
use bottle_plan::plan::Plan;
use bottle_plan::policy::Mode;
use bottle_plan::state::Metadata;
use serde::Serialize;

use crate::ask::{self, GrantEntry};
use crate::bottle::Home;
use crate::containers::{self, Container, Labels};
use crate::engine::Engine;
use crate::sessions::{self, Session};

/// The schema tag of [`List`].
pub const LIST_SCHEMA: &str = "bottle.list/v1";

/// All bottles of a home.
#[derive(Debug, Serialize)]
pub struct List {
    /// Always [`LIST_SCHEMA`].
    pub schema: &'static str,
    /// The bottles, by slug.
    pub bottles: Vec<Entry>,
}

/// One bottle.
#[derive(Debug, Serialize)]
pub struct Entry {
    /// Its slug.
    pub slug: String,
    /// Its agent.
    pub name: String,
    /// How it is.
    pub status: Status,
    /// `observe`: its way out is (or was, when it last ran) open to every public host.
    pub mode: Mode,
    /// When it was last started.
    pub started_at: Option<String>,
    /// When it was last stopped.
    pub stopped_at: Option<String>,
    /// Networks its agent is on that its plan does not have: somebody attached it while it ran.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub foreign_networks: Vec<String>,
    /// Role → what the engine says of the container.
    pub containers: BTreeMap<String, String>,
    /// What runs in it on terminals of its own; in the document only, as every bottle has to be asked.
    pub sessions: Vec<Session>,
    /// Requests of its agent that wait for an answer.
    pub waiting: usize,
    /// What it may do beyond its plan at the moment.
    pub grants: Vec<GrantEntry>,
}

/// How a bottle is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Status {
    /// Planned, never started.
    Planned,
    /// All of it runs.
    Running,
    /// The agent runs, and a sidecar does not, is being brought back, or does not answer: it is cut off.
    Degraded,
    /// The agent is on a network its plan does not have: it may have another way out than egress.
    Exposed,
    /// There are containers, and the agent does not run: an interrupted start, or it ended.
    Broken,
    /// It was stopped.
    Stopped,
}

/// Asks the state home and the engine.
///
/// # Errors
/// When the engine does not answer.
pub fn list(engine: &Engine, home: &Home) -> Result<List> {
    let mut containers =
        containers::by_slug(containers::list(engine, &Labels::of_home(&home.label))?);
    let mut bottles: Vec<Entry> = home
        .state
        .bottles()
        .into_iter()
        .map(|metadata| {
            let found = containers.remove(&metadata.slug).unwrap_or_default();
            let plan = home.plan(&metadata.slug).ok();
            let entry = entry(Some(&metadata), &metadata.slug, &found);
            let foreign = plan.as_ref().map(|plan| foreign_networks(plan, &found));
            let foreign = foreign.unwrap_or_default();
            Entry {
                status: if foreign.is_empty() {
                    entry.status
                } else {
                    Status::Exposed
                },
                foreign_networks: foreign,
                mode: plan.map(|plan| plan.egress.mode).unwrap_or_default(),
                waiting: ask::waiting(&home.state, &metadata.slug),
                grants: home
                    .state
                    .folder(&metadata.slug)
                    .map(|folder| ask::grants_of(&folder, false))
                    .unwrap_or_default(),
                ..entry
            }
        })
        .collect();
    // Their state folder is gone, but they are there.
    bottles.extend(
        containers
            .iter()
            .map(|(slug, found)| entry(None, slug, found)),
    );
    Ok(List {
        schema: LIST_SCHEMA,
        bottles,
    })
}

/// The networks of the agent's container beside the one that leads nowhere.
fn foreign_networks(plan: &Plan, found: &[Container]) -> Vec<String> {
    let own = plan.networks.internal.name.as_str();
    let agents = found.iter().filter(|container| container.role() == "agent");
    agents
        .flat_map(|container| container.networks.split(','))
        .filter(|name| !name.is_empty() && *name != own && *name != "none")
        .map(str::to_owned)
        .collect()
}

fn entry(metadata: Option<&Metadata>, slug: &str, found: &[Container]) -> Entry {
    let runs = |role: &str| {
        found
            .iter()
            .any(|c| c.role() == role && c.state == "running")
    };
    // One that runs and does not answer is as good as gone.
    let sidecars_run = found
        .iter()
        .filter(|c| c.role() != "agent")
        .all(|c| c.state == "running" && !c.status.contains("(unhealthy)"));
    let status = match (found.is_empty(), runs("agent")) {
        (true, _) if metadata.is_some_and(|m| m.started_at.is_none()) => Status::Planned,
        (true, _) => Status::Stopped,
        (false, true) if runs("egress") && sidecars_run => Status::Running,
        (false, true) => Status::Degraded,
        (false, false) => Status::Broken,
    };
    Entry {
        slug: slug.to_owned(),
        name: metadata.map(|m| m.name.clone()).unwrap_or_default(),
        status,
        mode: Mode::default(),
        foreign_networks: Vec::new(),
        started_at: metadata.and_then(|m| m.started_at.clone()),
        stopped_at: metadata.and_then(|m| m.stopped_at.clone()),
        containers: found
            .iter()
            .map(|c| (c.role().to_owned(), c.status.clone()))
            .collect(),
        waiting: 0,
        grants: Vec::new(),
        sessions: Vec::new(),
    }
}

/// Asks the running bottles what sessions they have.
pub fn add_sessions(engine: &Engine, home: &Home, list: &mut List) {
    let runs = |entry: &&mut Entry| matches!(entry.status, Status::Running | Status::Degraded);
    let (entries, plans): (Vec<_>, Vec<_>) = list
        .bottles
        .iter_mut()
        .filter(runs)
        .filter_map(|entry| home.plan(&entry.slug).ok().map(|plan| (entry, plan)))
        .unzip();
    let found = sessions::of_all(engine, &plans);
    for (entry, sessions) in entries.into_iter().zip(found) {
        entry.sessions = sessions;
    }
}

/// The list for a person: one line a bottle.
#[must_use]
pub fn table(list: &List) -> String {
    let width = list
        .bottles
        .iter()
        .map(|b| b.slug.len())
        .max()
        .unwrap_or(0)
        .max(4);
    let mut text = format!(
        "{:width$}  {:9}  {:20}  AGENT\n",
        "SLUG", "STATUS", "STARTED"
    );
    for bottle in &list.bottles {
        let status = format!("{:?}", bottle.status).to_lowercase();
        let started = bottle
            .started_at
            .as_deref()
            .map_or("-", |at| at.get(..19).unwrap_or(at));
        let _ = writeln!(
            text,
            "{:width$}  {status:9}  {started:20}  {}{}",
            bottle.slug,
            // That of an imported bottle was chosen elsewhere.
            printable(&bottle.name),
            match bottle.mode {
                Mode::Enforce => "",
                Mode::Observe => "  (open: egress.mode is observe)",
            }
        );
        if !bottle.foreign_networks.is_empty() {
            let _ = writeln!(
                text,
                "{:width$}  EXPOSED: its agent is on {}, which its plan does not have (bottle-run down {})",
                "",
                bottle.foreign_networks.join(", "),
                bottle.slug
            );
        }
        if bottle.waiting > 0 {
            let _ = writeln!(
                text,
                "{:width$}  asks: {} waiting (bottle-run requests)",
                "", bottle.waiting
            );
        }
        for grant in &bottle.grants {
            let _ = writeln!(
                text,
                "{:width$}  {}: may {} ({})",
                "", grant.grant.id, grant.words, grant.end
            );
        }
    }
    text
}
