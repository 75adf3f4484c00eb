//! Where the work began: noted when the workspace is copied in, read when it is brought back.

use std::fs;
use std::path::PathBuf;

use bottle_plan::failure::{PathContext as _, Result};
use bottle_plan::plan::{Plan, Step};
use bottle_plan::state;
use serde::{Deserialize, Serialize};

use super::{Git, repository_of};
use crate::engine::Engine;

/// The schema tag of [`Start`].
const SCHEMA: &str = "bottle.workspace/v1";

/// In the state folder.
const FILE: &str = "workspace.json";

/// What a bottle's workspace was when it was copied.
#[derive(Debug, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Start {
    schema: String,
    /// The folder on the host.
    from: Option<PathBuf>,
    /// The commit that was checked out in it; none where it is in no repository, or in one without commits.
    pub(super) head: Option<String>,
}

/// Notes where the work begins, when the workspace is about to be copied in. A bottle that goes on from a snapshot
/// keeps the note of its first start.
///
/// # Errors
/// When the note cannot be written.
pub fn note(engine: &Engine, plan: &Plan) -> Result<()> {
    let copies = plan.provision.contains(&Step::Workspace);
    let Some(from) = plan.workspace.from.as_ref().filter(|_| copies) else {
        return Ok(());
    };
    // A repository that cannot be read is copied all the same; there is only less to compare with.
    let head = repository_of(engine, from)
        .ok()
        .flatten()
        .and_then(|git: Git| {
            git.maybe(&["rev-parse", "--verify", "--quiet", "HEAD^{commit}"])
                .ok()?
        });
    let start = Start {
        schema: SCHEMA.to_owned(),
        from: Some(from.clone()),
        head,
    };
    let text = state::to_json(&start)?;
    state::write_atomic(&plan.state.join(FILE), text.as_bytes(), 0o600)
}

pub(super) fn read(plan: &Plan) -> Result<Start> {
    let path = plan.state.join(FILE);
    match fs::read(&path) {
        Ok(bytes) => state::parse_document(&bytes, SCHEMA),
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(Start::default()),
        Err(error) => Err(error).at("read", &path),
    }
}
