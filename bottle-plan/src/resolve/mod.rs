//! Manifest to plan: everything checked, everything decided, nothing asked of Docker or the network.

mod agent;
mod egress;
#[cfg(test)]
pub(crate) mod fixture;
mod git;
mod provider;

pub use egress::OBSERVE_WARNING;

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

use ipnet::Ipv4Net;

use crate::digest;
use crate::failure::{Failure, Result};
use crate::host::HostPattern;
use crate::manifest;
use crate::manifest::load::{Manifest, Places};
use crate::plan::{PLAN_SCHEMA, Plan, Sidecar, Step, Supervise, Workspace, WorkspaceMode};
use crate::{state, strict, subnet};

/// The port of the supervise server inside a bottle.
const SUPERVISE_PORT: u16 = 9100;

/// The user of the agent: numeric, so that the image's own passwd cannot change who it is.
pub const AGENT_UID: u32 = 10_001;

/// The user of the sidecars when the tools run as root, who owns too much to be imitated.
pub const SIDECAR_UID: u32 = 65_532;

/// What a plan needs besides the manifest.
#[derive(Clone, Debug)]
pub struct Inputs<'a> {
    /// Where manifests and skills are found.
    pub places: &'a Places,
    /// The user's home directory, for `~/`.
    pub user_home: Option<PathBuf>,
    /// The bottle's name.
    pub slug: &'a str,
    /// Its folder in the state home.
    pub state: PathBuf,
    /// Its range of addresses.
    pub range: Ipv4Net,
    /// Tells this start of a bottle from its earlier ones, so that it gets other placeholders.
    pub session: Option<String>,
    /// Takes the place of the manifest's `workspace.from`.
    pub workspace: Option<PathBuf>,
}

/// A file the plan needs in the state folder: a built-in Dockerfile.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BuiltInFile {
    /// Absolute, below the state folder.
    pub path: PathBuf,
    /// What to write.
    pub text: &'static str,
}

/// A plan and what has to be on disk for it.
#[derive(Clone, Debug)]
pub struct Resolved {
    /// The plan.
    pub plan: Plan,
    /// Files to write before it is handed on.
    pub files: Vec<BuiltInFile>,
    /// What the user should know about.
    pub warnings: Vec<String>,
}

/// Resolves `manifest` for one bottle.
///
/// # Errors
/// When a value is wrong; the message names the file and, where it can, the line.
pub fn resolve(manifest: &Manifest, inputs: &Inputs<'_>) -> Result<Resolved> {
    let bottle = &manifest.bottle;
    let project = format!("bottle-{}", inputs.slug);
    let networks = subnet::networks(&project, inputs.range);
    let provider = provider::find(manifest, inputs)?;
    let mut warnings = Vec::new();
    let (egress, placeholders, upstream_ca) =
        egress::resolve(manifest, inputs, provider.as_ref(), &mut warnings)?;
    let git_gate = git::gate(bottle.git_gate.as_ref(), inputs)?;
    let supervise = supervise(bottle.supervise.as_ref())?;
    git::check_review(git_gate.as_ref(), supervise.is_some())?;
    let workspace = workspace(manifest, inputs)?;
    let mut sources = manifest.sources.clone();
    let around = agent::Around {
        provider: provider.as_ref(),
        placeholders: &placeholders,
        workdir: &workspace.workdir,
        supervise: supervise.as_ref(),
    };
    let agent = agent::resolve(manifest, inputs, &around, &mut warnings)?;
    sources.extend(provider.map(|provider| provider.source));
    sources.extend(agent.source);
    sources.extend(upstream_ca);

    let mut provision = vec![Step::User, Step::Ca];
    if !agent.agent.files.is_empty() {
        provision.push(Step::Provider);
    }
    if agent.agent.prompt.is_some() {
        provision.push(Step::Prompt);
    }
    if !agent.agent.skills.is_empty() {
        provision.push(Step::Skills);
    }
    if workspace.from.is_some() && workspace.mode == WorkspaceMode::Copy {
        provision.push(Step::Workspace);
    }
    if agent.agent.git_user != Default::default() || git_gate.is_some() {
        provision.push(Step::Git);
    }

    let runtime = bottle.runtime.unwrap_or_default();
    let isolation = bottle.isolation.unwrap_or_default();
    strict::check(isolation, runtime)?;
    let mut plan = Plan {
        schema: PLAN_SCHEMA.to_owned(),
        slug: inputs.slug.to_owned(),
        digest: String::new(),
        labels: BTreeMap::from([
            ("bottle.slug".to_owned(), inputs.slug.to_owned()),
            (
                "bottle.home".to_owned(),
                digest::short(&path_text(&inputs.places.home)),
            ),
        ]),
        project,
        state: inputs.state.clone(),
        sources,
        agent: agent.agent,
        sidecar: Sidecar {
            image: format!("bottle-sidecar:{}", env!("CARGO_PKG_VERSION")),
            user: sidecar_user(),
        },
        networks,
        egress,
        git_gate,
        supervise,
        workspace,
        runtime,
        isolation,
        provision,
        resume: None,
    };
    plan.digest = digest::of(&plan)?;
    plan.labels
        .insert("bottle.plan".to_owned(), plan.digest.clone());
    Ok(Resolved {
        plan,
        files: agent.files,
        warnings,
    })
}

/// How long a person usually has to answer.
const ANSWER_SECONDS: u64 = 600;
/// Longer, and the agent's own clients have given up.
const LONGEST_ANSWER: u64 = 86_400;

fn supervise(written: Option<&manifest::Supervise>) -> Result<Option<Supervise>> {
    let written = match written {
        None | Some(manifest::Supervise::Switch(false)) => return Ok(None),
        Some(manifest::Supervise::Switch(true)) => &manifest::SuperviseOptions::default(),
        Some(manifest::Supervise::Options(options)) => options,
    };
    let timeout = written.timeout.map_or(ANSWER_SECONDS, |seconds| seconds.0);
    if !(1..=LONGEST_ANSWER).contains(&timeout) {
        return Err(
            Failure::invalid(format!("supervise.timeout: {timeout} s is not usable"))
                .hint("from 1s to 24h; 10m when not written"),
        );
    }
    let host = |text: &String| {
        HostPattern::parse(text)
            .map(|host| host.to_string())
            .map_err(|error| Failure::invalid(format!("supervise.hosts: `{text}`: {error}")))
    };
    Ok(Some(Supervise {
        image: format!("bottle-services:{}", env!("CARGO_PKG_VERSION")),
        port: SUPERVISE_PORT,
        timeout,
        on_timeout: written.on_timeout,
        hosts: written.hosts.iter().map(host).collect::<Result<_>>()?,
    }))
}

fn sidecar_user() -> String {
    let uid = nix::unistd::geteuid();
    if uid.is_root() {
        format!("{SIDECAR_UID}:{SIDECAR_UID}")
    } else {
        format!("{uid}:{}", nix::unistd::getegid())
    }
}

fn workspace(manifest: &Manifest, inputs: &Inputs<'_>) -> Result<Workspace> {
    let written = manifest.bottle.workspace.clone().unwrap_or_default();
    let from = match (&inputs.workspace, written.from.as_deref()) {
        (Some(given), _) => Some(given.clone()),
        (None, None | Some("none")) => None,
        (None, Some("cwd")) => Some(inputs.places.cwd.clone()),
        (None, Some(path)) => Some(on_host(path, &inputs.places.cwd, inputs)?),
    };
    let from = from
        .map(|folder| workspace_folder(&folder, inputs))
        .transpose()?;
    let mounted = written.mode == WorkspaceMode::Mount;
    if written.read_only && !mounted {
        return Err(Failure::invalid("workspace.read_only is for `mode: mount`")
            .hint("a copy is the agent's own: the folder on the host stays as it is"));
    }
    if written.ignore && mounted {
        return Err(Failure::invalid("workspace.ignore is for `mode: copy`")
            .hint("a folder is mounted with everything in it"));
    }
    if mounted && from.is_none() {
        return Err(Failure::invalid("workspace: there is nothing to mount")
            .hint("add `from: cwd`, or a folder"));
    }
    let workdir = written.workdir.unwrap_or_else(|| "/workspace".to_owned());
    agent::check_container_path(&workdir)?;
    Ok(Workspace {
        from,
        mode: written.mode,
        read_only: written.read_only,
        ignore: written.ignore,
        workdir,
    })
}

/// The folder the agent is to work on, as the system knows it: by a link or `..` another folder would be looked at here
/// than is given to the agent.
fn workspace_folder(given: &Path, inputs: &Inputs<'_>) -> Result<PathBuf> {
    let folder = fs::canonicalize(given)
        .ok()
        .filter(|folder| folder.is_dir());
    let Some(folder) = folder else {
        return Err(Failure::not_found(format!(
            "the workspace {} is not a folder",
            given.display()
        ))
        .hint("set `workspace: {from: cwd}`, a folder, or `none`"));
    };
    let real = |place: &Path| state::real_path(place);
    let home = real(&inputs.places.home);
    let user_home = inputs.user_home.as_deref().map(real);
    let holds = [Some(&home), user_home.as_ref()]
        .into_iter()
        .flatten()
        .any(|place| place.starts_with(&folder));
    if holds || folder == Path::new("/") || folder.starts_with(home.join("state")) {
        return Err(Failure::refused(format!(
            "the workspace {} holds your home or the bottles' own folder",
            folder.display()
        ))
        .hint("give the agent the one folder it is to work on"));
    }
    Ok(folder)
}

/// A path of the host as manifests write it: absolute (a manifest's own files are by now), `~/…`, or relative to `base`.
fn on_host(text: &str, base: &Path, inputs: &Inputs<'_>) -> Result<PathBuf> {
    if text.is_empty() || text.chars().any(char::is_control) {
        return Err(Failure::invalid(format!("{text:?} is not a path")));
    }
    let Some(rest) = text.strip_prefix("~/") else {
        return Ok(base.join(text));
    };
    let home = inputs.user_home.as_ref().ok_or_else(|| {
        Failure::invalid(format!("`{text}` needs HOME, which is not set"))
            .hint("write the whole path")
    })?;
    Ok(home.join(rest))
}

fn path_text(path: &Path) -> String {
    path.to_string_lossy().into_owned()
}

/// A name an environment variable can have.
fn check_variable(name: &str, what: &str) -> Result<()> {
    let plain = |b: u8| b.is_ascii_alphanumeric() || b == b'_';
    let starts = name.bytes().next().is_some_and(|b| !b.is_ascii_digit());
    if starts && name.len() <= 128 && name.bytes().all(plain) {
        return Ok(());
    }
    Err(Failure::invalid(format!(
        "{what}: `{name}` is not a name of an environment variable"
    ))
    .hint("letters, digits and `_`, not beginning with a digit"))
}
