//! What one plan lets an agent do that another does not, in plain words.
//!
//! Routes, environment and limits are compared by what they allow, not by how they are written. Whatever no rule here
//! speaks of is compared as JSON, so a key that is added to the plan cannot be forgotten: plans whose digests differ
//! never give an empty list.

mod agent;
mod gate;
mod rest;
mod routes;

use std::fmt;

use serde::Serialize;

use crate::digest;
use crate::failure::{Result, printable};
use crate::plan::Plan;

/// The schema tag of [`Diff`].
pub const DIFF_SCHEMA: &str = "bottle.diff/v1";

/// Two plans side by side.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, schemars::JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Diff {
    /// Always `bottle.diff/v1`.
    #[schemars(extend("const" = DIFF_SCHEMA))]
    pub schema: &'static str,
    /// The first plan.
    pub old: Side,
    /// The second plan.
    pub new: Side,
    /// Whether both have the same digest: whoever approved one has approved the other.
    pub same: bool,
    /// What differs; empty exactly when `same`.
    pub changes: Vec<Change>,
}

/// One of the two.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, schemars::JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Side {
    /// The bottle.
    pub slug: String,
    /// Its agent.
    pub name: String,
    /// The digest, computed from what the plan grants and not taken from it.
    pub digest: String,
}

/// One difference.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, schemars::JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Change {
    /// What it means for the agent.
    pub effect: Effect,
    /// `egress`, `env`, `workspace`, `container`, `resources`, `git`, `supervise`, `agent`, `source` or `other`.
    pub area: &'static str,
    /// For a person; never a value of the environment.
    pub text: String,
}

/// What a difference means for the agent.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, schemars::JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum Effect {
    /// The new plan allows it, the old one did not.
    Gains,
    /// The old plan allowed it, the new one does not.
    Loses,
    /// Neither more nor less as far as this can tell.
    Changes,
}

impl fmt::Display for Effect {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Gains => "gains",
            Self::Loses => "loses",
            Self::Changes => "changes",
        })
    }
}

/// Collects the differences of one area.
struct Changes {
    area: &'static str,
    list: Vec<Change>,
}

impl Changes {
    fn of(area: &'static str) -> Self {
        let list = Vec::new();
        Self { area, list }
    }

    fn add(&mut self, effect: Effect, text: impl Into<String>) {
        let (area, text) = (self.area, text.into());
        self.list.push(Change { effect, area, text });
    }

    /// What is only in `new` is gained, what is only in `old` lost.
    fn sets(&mut self, old: &[String], new: &[String]) {
        let missing_in = |other: &[String], text: &&String| !other.contains(*text);
        for text in new.iter().filter(|text| missing_in(old, text)) {
            self.add(Effect::Gains, text.as_str());
        }
        for text in old.iter().filter(|text| missing_in(new, text)) {
            self.add(Effect::Loses, text.as_str());
        }
    }
}

/// Compares two plans.
///
/// # Errors
/// Never in practice; a plan can always be written as JSON.
pub fn diff(old: &Plan, new: &Plan) -> Result<Diff> {
    let (from, to) = (side(old)?, side(new)?);
    let same = from.digest == to.digest;
    let mut changes = Vec::new();
    if !same {
        let parts = [
            routes::changes(&old.egress, &new.egress),
            agent::changes(old, new),
            gate::changes(&digest::authority(old)?, &digest::authority(new)?),
        ];
        changes.extend(parts.into_iter().flatten());
        changes.extend(rest::changes(
            digest::authority(old)?,
            digest::authority(new)?,
        ));
        changes.sort();
        changes.dedup();
    }
    if !same && changes.is_empty() {
        let mut written = Changes::of("other");
        written.add(
            Effect::Changes,
            "how the same authority is written (an order, or two rules instead of one)",
        );
        changes = written.list;
    }
    Ok(Diff {
        schema: DIFF_SCHEMA,
        old: from,
        new: to,
        same,
        changes,
    })
}

fn side(plan: &Plan) -> Result<Side> {
    Ok(Side {
        slug: plan.slug.clone(),
        name: plan.agent.name.clone(),
        digest: digest::of(plan)?,
    })
}

impl Diff {
    /// One line a difference, `gains: …`; empty when there is none. Every text comes from a plan, so nothing in it may
    /// act on a terminal.
    #[must_use]
    pub fn lines(&self) -> String {
        let line = |change: &Change| {
            let text = printable(&change.text).replace(['\n', '\t'], " ");
            format!("{}: {text}\n", change.effect)
        };
        self.changes.iter().map(line).collect()
    }
}

#[cfg(test)]
mod tests;
