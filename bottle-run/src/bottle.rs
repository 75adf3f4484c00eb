//! A bottle of the state home, found by its slug.

use std::fs;
use std::path::{Path, PathBuf};

use bottle_plan::digest;
use bottle_plan::failure::{Failure, Kind, PathContext as _, Result};
use bottle_plan::handle::{Containers, HANDLE_SCHEMA, Handle};
use bottle_plan::plan::{PLAN_SCHEMA, Plan};
use bottle_plan::state::{self, StateHome};

use crate::engine::Engine;

/// The home the tools work in.
#[derive(Clone, Debug)]
pub struct Home {
    /// Its state folder.
    pub state: StateHome,
    /// The label its resources carry.
    pub label: String,
}

impl Home {
    /// The home at `given`, or `~/.bottle`.
    ///
    /// # Errors
    /// When there is no HOME to start from.
    pub fn find(given: Option<&Path>) -> Result<Self> {
        let path = match (given, std::env::var_os("HOME")) {
            (Some(path), _) => path.to_owned(),
            (None, Some(home)) if Path::new(&home).is_absolute() => {
                PathBuf::from(home).join(".bottle")
            }
            (None, _) => {
                return Err(Failure::invalid("neither HOME nor BOTTLE_HOME is set")
                    .hint("give a folder with --home DIR"));
            }
        };
        let path = state::real_path(&path);
        Ok(Self {
            label: digest::short(&path.to_string_lossy()),
            state: StateHome::at(&path),
        })
    }

    /// The plan a bottle was last started with.
    ///
    /// # Errors
    /// Not found, when it was never started here.
    pub fn plan(&self, slug: &str) -> Result<Plan> {
        let path = self.state.folder(slug)?.join("plan.json");
        match fs::read(&path) {
            Ok(bytes) => state::parse_document(&bytes, PLAN_SCHEMA)
                .map_err(|failure| failure.while_doing(format!("reading {}", path.display()))),
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => Err(self.nothing(slug)),
            Err(error) => Err(error).at("read", &path),
        }
    }

    fn nothing(&self, slug: &str) -> Failure {
        let known = self.state.bottles();
        let failure = Failure::not_found(format!("no bottle `{slug}` was started here"));
        if let Some(planned) = known.iter().find(|bottle| bottle.slug == slug) {
            let name = &planned.name;
            return failure.hint(format!(
                "it was only planned: bottle-plan {name} --slug {slug} | bottle-render | bottle-run up"
            ));
        }
        let started: Vec<String> = known
            .into_iter()
            .filter(|bottle| bottle.started_at.is_some())
            .map(|bottle| bottle.slug)
            .collect();
        if started.is_empty() {
            failure.hint("start one: bottle-plan NAME | bottle-render | bottle-run up")
        } else {
            failure.hint(format!("there are: {}", started.join(", ")))
        }
    }
}

/// Whether the agent's container runs; the error says what to do about it when not.
///
/// # Errors
/// Not found, when it does not run.
pub fn check_running(engine: &Engine, plan: &Plan) -> Result<()> {
    let agent = Containers::of(plan).agent;
    let output = engine
        .call([
            "container",
            "inspect",
            "--format={{.State.Status}}",
            "--",
            &agent,
        ])
        .output()?;
    match output.text().as_str() {
        "running" if output.status.success() => Ok(()),
        "paused" => Err(
            Failure::conflict(format!("the bottle `{}` is paused", plan.slug))
                .hint(format!("docker unpause {agent}")),
        ),
        _ if output.status.success() || output.stderr.contains("No such container") => Err(
            Failure::not_found(format!("the bottle `{}` is not running", plan.slug)).hint(format!(
                "bottle-plan {} --slug {} | bottle-render | bottle-run up",
                plan.agent.name, plan.slug
            )),
        ),
        _ => Err(crate::engine::failure_of(
            "docker container inspect",
            &output,
        )),
    }
}

/// A slug as given, or for `-` the one of the handle on stdin.
///
/// # Errors
/// When stdin holds no handle.
pub fn slug_or_stdin(given: &str) -> Result<String> {
    if given != "-" {
        return Ok(given.to_owned());
    }
    let bytes = bottle_plan::tool::read_stdin("a handle", "bottle-run up prints one")?;
    let handle: Handle = state::parse_document(&bytes, HANDLE_SCHEMA)?;
    Ok(handle.slug)
}

/// Around `exec` every failure of ours has one code, so that it cannot be taken for the command's.
#[must_use]
pub fn around_exec(failure: Failure) -> Failure {
    failure.with_kind(Kind::AroundExec)
}
