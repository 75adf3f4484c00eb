//! What bottles there are, and how they are.

use std::collections::BTreeMap;
use std::fmt::Write as _;

use bottle_plan::failure::Result;
use bottle_plan::policy::Mode;
use bottle_plan::state::Metadata;
use serde::Serialize;

use crate::bottle::Home;
use crate::containers::{self, Container, Labels};
use crate::engine::Engine;

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
    /// Role → what the engine says of the container.
    pub containers: BTreeMap<String, String>,
}

/// How a bottle is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Status {
    /// Planned, never started.
    Planned,
    /// All of it runs.
    Running,
    /// The agent runs without a sidecar: it is cut off.
    Degraded,
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
            let mode = home.plan(&metadata.slug).map(|plan| plan.egress.mode);
            Entry {
                mode: mode.unwrap_or_default(),
                ..entry(Some(&metadata), &metadata.slug, &found)
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

fn entry(metadata: Option<&Metadata>, slug: &str, found: &[Container]) -> Entry {
    let runs = |role: &str| {
        found
            .iter()
            .any(|c| c.role() == role && c.state == "running")
    };
    let sidecars_run = found
        .iter()
        .filter(|c| c.role() != "agent")
        .all(|c| c.state == "running");
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
        started_at: metadata.and_then(|m| m.started_at.clone()),
        stopped_at: metadata.and_then(|m| m.stopped_at.clone()),
        containers: found
            .iter()
            .map(|c| (c.role().to_owned(), c.status.clone()))
            .collect(),
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
            bottle.name,
            match bottle.mode {
                Mode::Enforce => "",
                Mode::Observe => "  (open: egress.mode is observe)",
            }
        );
    }
    text
}
