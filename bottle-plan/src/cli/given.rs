//! A document named on the command line: a file, stdin, or a bottle.

use std::fs;
use std::path::{Path, PathBuf};

use bottle_plan::failure::{Failure, PathContext as _, Result};
use bottle_plan::plan::{PLAN_SCHEMA, Plan};
use bottle_plan::state::{self, StateHome};
use bottle_plan::{slug, tool};
use serde_json::Value;

/// The plan that `name` means.
pub(crate) fn plan(name: &str, home: &Path) -> Result<Plan> {
    let (value, place) = document(name, home)?;
    if value.get("x-bottle").is_some() {
        return Err(
            Failure::invalid(format!("{place} is a rendered file, not a plan"))
                .hint("give the plan it was rendered from: bottle-plan prints it"),
        );
    }
    state::document_from_value(value, PLAN_SCHEMA)
        .map_err(|failure| failure.while_doing(format!("reading {place}")))
}

/// The JSON document that `name` means, and how to speak of it.
pub(crate) fn document(name: &str, home: &Path) -> Result<(Value, String)> {
    let (bytes, place) = match name {
        "-" => (
            tool::read_stdin("a plan", "bottle-plan NAME prints one")?,
            "stdin".to_owned(),
        ),
        name => {
            let path = path(name, home)?;
            let bytes = fs::read(&path).at("read", &path)?;
            (bytes, path.display().to_string())
        }
    };
    let value = serde_json::from_slice(&bytes).map_err(|error| {
        Failure::invalid(format!("{place} is not valid JSON"))
            .because(error)
            .hint("give a plan, as bottle-plan prints it")
    })?;
    Ok((value, place))
}

/// A bottle's slug goes before a file of the same name in the working folder, which `./NAME` still means.
fn path(name: &str, home: &Path) -> Result<PathBuf> {
    let state = StateHome::at(home);
    if slug::check(name).is_err() {
        return Ok(PathBuf::from(name));
    }
    let (kept, file) = (state.folder(name)?.join("plan.json"), PathBuf::from(name));
    if kept.exists() {
        return Ok(kept);
    }
    if file.is_file() {
        return Ok(file);
    }
    let started: Vec<String> = state
        .bottles()
        .into_iter()
        .filter(|bottle| bottle.started_at.is_some())
        .map(|bottle| bottle.slug)
        .collect();
    let failure = Failure::not_found(format!(
        "`{name}` is neither a file nor a bottle that was started"
    ));
    Err(if started.is_empty() {
        failure.hint("give the file of a plan, or `-` for stdin")
    } else {
        failure.hint(format!("there are: {}", started.join(", ")))
    })
}
