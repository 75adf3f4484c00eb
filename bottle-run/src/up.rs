//! Up: from a rendered file to a bottle with its agent ready, or to nothing at all.
//!
//! The order is the safety: networks are proved before a container is on them, files go in before anything runs, the
//! sidecar answers before the agent starts, and the canary has tried to get out before the handle is printed.

mod create;

use std::time::SystemTime;

use bottle_plan::failure::{Failure, Result};
use bottle_plan::handle::{Containers, HANDLE_SCHEMA, Handle};
use bottle_plan::plan::Plan;
use bottle_plan::policy::Mode;
use bottle_plan::resolve::OBSERVE_WARNING;
use bottle_plan::state::{self, METADATA_SCHEMA, Metadata, StateHome};
use bottle_plan::{strict, tool};
use time::OffsetDateTime;
use time::format_description::well_known::Rfc3339;

use crate::containers::{self, Labels};
use crate::engine::{Engine, at_once};
use crate::images::{self, SidecarBinary};
use crate::journal::{Journal, START, STOP};
use crate::lock::BottleLock;
use crate::secrets::{self, Secrets};
use crate::{
    canary, check, down, files, git_gate, inspect, interrupt, networks, provision, resume, work,
};

/// How long a sidecar may take until it listens; it takes milliseconds.
const SIDECAR_READY_SECONDS: u32 = 20;

/// What is asked for.
#[derive(Clone, Debug)]
pub struct Request {
    /// The plan that rode in the rendered file.
    pub plan: Plan,
    /// The rendered file, as it came.
    pub compose: String,
    /// Show builds and pulls as they go on.
    pub progress: bool,
    /// Hand over only what passes the whole check.
    pub check: bool,
    /// Values that stand for variables of the host: the check's own credential.
    pub planted: Vec<(String, String)>,
    /// Ask on the terminal for values that can be had no other way.
    pub ask: bool,
}

/// The bottle's lock, and the state home it is in.
#[derive(Debug)]
pub struct Held {
    /// The home.
    pub home: StateHome,
    _lock: BottleLock,
}

/// Takes the bottle's lock, after a look at whether the plan can be done at all.
///
/// # Errors
/// Invalid, when it cannot; conflict, when another process has the lock.
pub fn hold(plan: &Plan, say: &dyn Fn(&str)) -> Result<Held> {
    check_supported(plan, say)?;
    let home = state_home(plan)?;
    state::private_dir(&plan.state)?;
    let lock = BottleLock::take(&plan.state, &plan.slug)?;
    Ok(Held { home, _lock: lock })
}

/// Starts the bottle. Whatever goes wrong, nothing of it is left.
///
/// # Errors
/// Invalid, when a credential is missing; conflict, when the bottle is up or being worked on; refused, when it cannot be
/// made safe; failed otherwise.
pub fn up(engine: &Engine, request: &Request, say: &dyn Fn(&str)) -> Result<Handle> {
    let held = hold(&request.plan, say)?;
    up_held(engine, request, &held, say)
}

/// As [`up`], for whoever holds the lock already and goes on holding it.
///
/// # Errors
/// As [`up`].
pub fn up_held(
    engine: &Engine,
    request: &Request,
    held: &Held,
    say: &dyn Fn(&str),
) -> Result<Handle> {
    let plan = &request.plan;
    let home = &held.home;
    let home_label = home_label(plan)?;
    let undo = down::Request {
        home,
        home_label,
        slug: &plan.slug,
        purge: false,
    };
    let journal = Journal::of(home, &plan.slug)?;
    let unfinished = journal
        .open()?
        .iter()
        .any(|entry| entry.kind == START || entry.kind == STOP);
    clear_leftovers(engine, &undo, plan, unfinished, say)?;
    journal.end_all(&[START, STOP])?;
    let begun = journal.begin(START, serde_json::Value::Null)?;
    let result = up_begun(engine, request, held, &undo, say);
    // What could not be undone stays open, for `gc`.
    match result {
        Ok(handle) => journal.end(begun).map(|()| handle),
        Err((failure, true)) => {
            let _ = journal.end(begun);
            Err(failure)
        }
        Err((failure, false)) => Err(failure),
    }
}

/// A failure, and whether nothing of the start is left.
type Undone = (Failure, bool);

fn up_begun(
    engine: &Engine,
    request: &Request,
    held: &Held,
    undo: &down::Request<'_>,
    say: &dyn Fn(&str),
) -> Result<Handle, Undone> {
    let ready = get_ready(engine, request, say).map_err(|failure| (failure, true))?;
    let plan = &request.plan;
    let home = &held.home;

    let started = start(engine, request, &ready, say);
    let result = started.and_then(|handle| {
        interrupt::check()?;
        if request.check {
            check::demand(&check::score(engine, home, plan, check::Depth::Alone)?)?;
        }
        note_started(home, plan, &handle)?;
        Ok(handle)
    });
    result.map_err(|failure| {
        // The signal that ended the start must not end the undoing.
        let signal = interrupt::signal();
        interrupt::clear();
        let undone = down::remove(engine, undo, &plan.state);
        let failure = match (signal, failure.hint_text()) {
            (None, None) => failure.hint(format!(
                "what the containers said is in {}",
                plan.state.join("compose.log").display()
            )),
            _ => failure,
        };
        match undone {
            Ok(_) => (failure, true),
            Err(more) => {
                let text = format!("{}; and undoing it: {}", failure.chain(), more.chain());
                let failure = Failure::new(failure.kind(), text).hint("bottle-run gc");
                (failure, false)
            }
        }
    })
}

fn get_ready(engine: &Engine, request: &Request, say: &dyn Fn(&str)) -> Result<Ready> {
    let plan = &request.plan;
    provision::check_sources(plan)?;
    let secrets = secrets::collect(plan, &request.planted, request.ask)?;
    let binary = SidecarBinary::find()?;
    let resumed = resume::image(engine, plan, say)?;
    let image = images::ensure(engine, plan, &binary, resumed.as_deref(), request.progress)?;
    let services = SidecarBinary::find_services(plan)?;
    let gate_image = match &services {
        Some(services) => git_gate::image(engine, plan, services, request.progress)?,
        None => None,
    };
    let supervise_image = match (&plan.supervise, &services) {
        (Some(supervise), Some(services)) => {
            Some(images::ensure_static(engine, &supervise.image, services)?)
        }
        _ => None,
    };
    interrupt::check()?;
    Ok(Ready {
        secrets,
        binary,
        image,
        gate_image,
        supervise_image,
        resumed,
    })
}

/// What is in hand before anything of the bottle is made.
struct Ready {
    secrets: Secrets,
    binary: SidecarBinary,
    /// The image egress runs.
    image: String,
    /// The one git-gate runs, in a bottle that has one.
    gate_image: Option<String>,
    /// The one supervise runs, in a bottle that has one.
    supervise_image: Option<String>,
    /// The snapshot the agent goes on from.
    resumed: Option<String>,
}

fn start(engine: &Engine, request: &Request, ready: &Ready, say: &dyn Fn(&str)) -> Result<Handle> {
    let Ready {
        secrets,
        binary,
        resumed,
        ..
    } = ready;
    let plan = &request.plan;
    let names = Containers::of(plan);
    // Files first: the CA is among them, and the sidecar's user must own what it is to read.
    let authority = mint(plan, say)?;
    files::write(plan, &request.compose)?;
    // A bottle that goes on from a snapshot keeps the note of where its work began.
    if resumed.is_none() {
        work::note(engine, plan)?;
    }
    git_gate::write(plan, &state_home(plan)?)?;
    let (created, chosen) = at_once(
        || networks::create(engine, plan),
        || create::runtime(engine, plan, say),
    )?;
    created?;
    interrupt::check()?;
    let chosen = chosen?;
    create::write_override(plan, &names, ready, chosen)?;
    create::containers(engine, plan, secrets)?;
    let (filled, answering) = at_once(
        || {
            inspect::check_agent(engine, plan, &names.agent)?;
            let ca = authority.cert_pem();
            provision::fill(engine, plan, &names.agent, &ca, binary, resumed.is_some())
        },
        || start_sidecars(engine, &names),
    )?;
    let filled = filled?;
    for line in &filled.notes {
        say(line);
    }
    answering?;
    interrupt::check()?;
    engine
        .call(["start", "--", &names.agent])
        .run()
        .map_err(|failure| failure.while_doing("starting the agent's container"))?;
    // Nothing but our own helper runs in it yet.
    let (as_planned, closed) = at_once(
        || networks::verify(engine, plan),
        || {
            if plan.is_strict() {
                wait_for_forwarder(engine, &names.agent)?;
            }
            canary::run(engine, plan, &names.agent)
        },
    )?;
    as_planned.and(closed)?;
    provision::settle(engine, plan, &names.agent, &filled, say)?;
    hand_over_secrets(engine, plan, &names.agent, secrets)?;
    Ok(Handle {
        schema: HANDLE_SCHEMA.to_owned(),
        slug: plan.slug.clone(),
        project: plan.project.clone(),
        plan_digest: plan.digest.clone(),
        state: plan.state.clone(),
        containers: names,
        ca_fingerprint: authority.fingerprint().to_owned(),
        started_at: now()?,
    })
}

/// What the plan asks for and this version does not do: an error where the bottle would be less safe than it says, a
/// warning where it only can do less.
fn check_supported(plan: &Plan, say: &dyn Fn(&str)) -> Result<()> {
    if plan.egress.mode == Mode::Observe {
        // Also under --quiet: a bottle that is open must not be started unseen.
        tool::say("bottle-run", &format!("warning: {OBSERVE_WARNING}"));
    }
    if plan.agent.hardening.read_only {
        return Err(Failure::invalid(
            "`hardening: {read_only: true}` is not supported in this version: files are put into the agent's container",
        )
        .hint("take it out of the manifest"));
    }
    strict::check(plan.isolation, plan.runtime)?;
    if plan.agent.resources.disk.is_some() {
        say("warning: resources.disk is not enforced in this version");
    }
    Ok(())
}

fn mint(plan: &Plan, say: &dyn Fn(&str)) -> Result<bottle_ca::Authority> {
    let value = serde_json::to_value(plan)
        .map_err(|error| Failure::failed("cannot write the plan as JSON").because(error))?;
    let request = bottle_ca::request_from_plan(&value)?;
    let (authority, outcome) = bottle_ca::ensure(&request, false, SystemTime::now().into())?;
    match (&plan.egress.ca.fingerprint, outcome) {
        (Some(planned), _) if planned.as_str() != authority.fingerprint() => {
            Err(Failure::conflict(format!(
                "the CA in {} is not the one of the plan",
                plan.egress.ca.dir.display()
            ))
            .hint("run the plan through bottle-ca again"))
        }
        (None, bottle_ca::Outcome::Minted) => {
            say(&format!("minted the CA {}", authority.fingerprint()));
            Ok(authority)
        }
        _ => Ok(authority),
    }
}

/// Starts the sidecars in one call and waits until each says that it is ready.
fn start_sidecars(engine: &Engine, names: &Containers) -> Result<()> {
    engine
        .call(["start", "--"])
        .args(names.sidecars().map(|(_, container)| container))
        .run()
        .map_err(|failure| failure.while_doing("starting the sidecars"))?;
    names
        .sidecars()
        .try_for_each(|(role, container)| wait_for_sidecar(engine, role, container))
}

fn wait_for_sidecar(engine: &Engine, role: &str, container: &str) -> Result<()> {
    let what = format!("the {role} sidecar");
    wait_until_ready(engine, &what, container, &["/bottle-sidecar", "health"])
}

/// What listens in the agent's container in place of the sidecars.
fn wait_for_forwarder(engine: &Engine, container: &str) -> Result<()> {
    let socket = format!("--status-socket={}", strict::FORWARDER_STATUS);
    let health = [provision::HELPER, "health", &socket];
    wait_until_ready(engine, "the forwarder", container, &health)
}

fn wait_until_ready(engine: &Engine, what: &str, container: &str, health: &[&str]) -> Result<()> {
    let ready = engine
        .call(["exec", container])
        .args(health.iter().copied())
        .arg(format!("--wait={SIDECAR_READY_SECONDS}"))
        .run();
    ready.map(drop).map_err(|failure| {
        let said = engine.call(["logs", "--tail=5", "--", container]).output();
        let said = said.map_or_else(|_| String::new(), |output| output.stderr);
        let failure = failure.while_doing(format!("waiting for {what}"));
        if said.is_empty() {
            failure
        } else {
            failure.hint(format!("it said: {said}"))
        }
    })
}

/// Values the agent may see go into a file in its memory, 0400: neither `docker inspect` nor an image has them.
fn hand_over_secrets(
    engine: &Engine,
    plan: &Plan,
    container: &str,
    secrets: &Secrets,
) -> Result<()> {
    if secrets.agent.is_empty() {
        return Ok(());
    }
    let mut bytes = Vec::new();
    for (name, value) in &secrets.agent {
        bytes.extend_from_slice(name.as_bytes());
        bytes.push(b'=');
        bytes.extend_from_slice(value.expose().as_bytes());
        bytes.push(0);
    }
    engine
        .call([
            "exec",
            "--interactive",
            &format!("--user={}", plan.agent.user),
            container,
        ])
        .args([provision::HELPER, "env", "--store"])
        .input(bytes)
        .run()
        .map(drop)
        .map_err(|failure| failure.while_doing("handing the environment to the agent"))
}

/// What an earlier start that was killed has left is removed; a bottle that runs is left alone.
fn clear_leftovers(
    engine: &Engine,
    undo: &down::Request<'_>,
    plan: &Plan,
    unfinished: bool,
    say: &dyn Fn(&str),
) -> Result<()> {
    let labels = Labels::of_bottle(undo.home_label, undo.slug);
    let (found, networks) = at_once(
        || containers::list(engine, &labels),
        || containers::networks(engine, &labels),
    )?;
    let (found, networks) = (found?, networks?);
    let agent_runs = found
        .iter()
        .any(|c| c.role() == "agent" && matches!(c.state.as_str(), "running" | "paused"));
    // An agent that was started and never handed over belongs to nobody.
    if agent_runs && !unfinished {
        return Err(
            Failure::conflict(format!("the bottle `{}` is already running", plan.slug)).hint(
                format!("bottle-run attach {0}, or bottle-run down {0}", plan.slug),
            ),
        );
    }
    if found.is_empty() && networks.is_empty() {
        return Ok(());
    }
    say("removing what an earlier start left");
    down::remove(engine, undo, &plan.state).map(drop)
}

fn note_started(home: &StateHome, plan: &Plan, handle: &Handle) -> Result<()> {
    let known = home.metadata(&plan.slug)?;
    let mut metadata = known.unwrap_or_else(|| Metadata {
        schema: METADATA_SCHEMA.to_owned(),
        slug: plan.slug.clone(),
        name: plan.agent.name.clone(),
        subnet: plan.networks.internal.subnet.clone(),
        created_at: handle.started_at.clone(),
        started_at: None,
        stopped_at: None,
        plan_digest: None,
        audit_head: None,
        preserved: false,
        origin: None,
    });
    metadata.started_at = Some(handle.started_at.clone());
    metadata.stopped_at = None;
    metadata.plan_digest = Some(plan.digest.clone());
    state::write_atomic(
        &plan.state.join("metadata.json"),
        state::to_json(&metadata)?.as_bytes(),
        0o600,
    )
}

/// The state home is where the plan's folder lies: `HOME/state/SLUG`.
fn state_home(plan: &Plan) -> Result<StateHome> {
    let home = plan.state.parent().and_then(|state| state.parent());
    let fits = plan
        .state
        .file_name()
        .is_some_and(|name| name == plan.slug.as_str())
        && plan
            .state
            .parent()
            .and_then(|state| state.file_name())
            .is_some_and(|name| name == "state");
    match home {
        Some(home) if fits => StateHome::open(home),
        _ => Err(Failure::invalid(format!(
            "the plan's state folder {} is not …/state/{}",
            plan.state.display(),
            plan.slug
        ))
        .hint("bottle-plan --home DIR decides where it is")),
    }
}

/// The label that everything of the plan's home carries.
///
/// # Errors
/// Invalid, when the plan has none.
pub fn home_label(plan: &Plan) -> Result<&str> {
    plan.labels
        .get("bottle.home")
        .map(String::as_str)
        .ok_or_else(|| {
            Failure::invalid("the plan has no label bottle.home").hint("make it with bottle-plan")
        })
}

fn now() -> Result<String> {
    OffsetDateTime::now_utc()
        .format(&Rfc3339)
        .map_err(|error| Failure::failed("the clock gives no date").because(error))
}
