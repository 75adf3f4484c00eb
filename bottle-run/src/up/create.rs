//! The containers are created: compose makes them from the rendered file, and from what only this engine and this
//! installation can say, which is laid over it.

use std::time::Duration;

use bottle_plan::failure::{Failure, Result};
use bottle_plan::handle::Containers;
use bottle_plan::plan::{Plan, Runtime};
use bottle_plan::state;

use super::Ready;
use crate::engine::{Call, Engine};
use crate::gvisor;
use crate::secrets::Secrets;

/// Laid over the compose file.
const OVERRIDE: &str = "override.json";

/// With `runtime: auto` gVisor is used where the engine has it, which only the engine can say.
pub(super) fn runtime(
    engine: &Engine,
    plan: &Plan,
    say: &dyn Fn(&str),
) -> Result<Option<&'static str>> {
    let runtimes = match plan.runtime {
        Runtime::Runc => return Ok(None),
        _ => engine
            .call([
                "info",
                "--format={{range $name, $_ := .Runtimes}}{{$name}} {{end}}",
            ])
            .run()?
            .text(),
    };
    let has = |name: &str| runtimes.split(' ').any(|known| known == name);
    let wanted = match plan.runtime {
        Runtime::Auto if has(gvisor::RUNTIME) && plan.is_strict() => {
            say(
                "runtime: runc: gVisor, which the engine has, has no way to the sockets of isolation strict",
            );
            return Ok(None);
        }
        Runtime::Auto if has(gvisor::RUNTIME) => gvisor::RUNTIME,
        Runtime::Auto | Runtime::Runc => return Ok(None),
        Runtime::Runsc => "runsc",
        Runtime::Kata => "kata",
    };
    if !has(wanted) {
        return Err(
            Failure::invalid(format!("the engine has no runtime `{wanted}`")).hint(format!(
                "it has {}; register it with the engine, or say `runtime: auto`",
                runtimes.replace(' ', ", ")
            )),
        );
    }
    Ok(Some(wanted))
}

/// What only this engine and this installation can say is laid over the file: the image of exactly our sidecar, and
/// the agent's runtime.
pub(super) fn write_override(
    plan: &Plan,
    names: &Containers,
    ready: &Ready,
    runtime: Option<&str>,
) -> Result<()> {
    let image = |role| match role {
        "git-gate" => ready.gate_image.as_ref(),
        "supervise" => ready.supervise_image.as_ref(),
        _ => None,
    };
    let image = |role| image(role).unwrap_or(&ready.image);
    let mut services: serde_json::Value = names
        .sidecars()
        .map(|(role, _)| (role, serde_json::json!({"image": image(role)})))
        .collect();
    let mut agent = serde_json::Map::new();
    if let Some(runtime) = runtime {
        agent.insert("runtime".to_owned(), runtime.into());
        if runtime == gvisor::RUNTIME {
            agent.extend(gvisor::agent(plan)?);
        }
    }
    if let Some(image) = &ready.resumed {
        agent.insert("image".to_owned(), image.as_str().into());
    }
    if !agent.is_empty() {
        services["agent"] = agent.into();
    }
    let text = state::to_json(&serde_json::json!({"services": services}))?;
    state::write_atomic(&plan.state.join(OVERRIDE), text.as_bytes(), 0o600)
}

/// Creates the containers; none is started.
pub(super) fn containers(engine: &Engine, plan: &Plan, secrets: &Secrets) -> Result<()> {
    let mut call = compose(engine, plan)
        .arg("--file")
        .arg(plan.state.join(OVERRIDE));
    for (slot, value) in secrets.slots.iter().chain(&secrets.git) {
        call = call.env(slot, value.expose());
    }
    call.args(["up", "--no-start", "--no-build", "--quiet-pull"])
        .within(Duration::from_secs(180))
        .run()
        .map(drop)
        .map_err(|failure| failure.while_doing("creating the containers"))
}

/// `docker compose` on the bottle's file, deaf to every `.env` and override around it.
fn compose(engine: &Engine, plan: &Plan) -> Call {
    engine
        .call(["compose"])
        .args(["--env-file", "/dev/null"])
        .args(["--project-name", plan.project.as_str()])
        .arg("--project-directory")
        .arg(plan.state.join("empty"))
        .arg("--file")
        .arg(plan.state.join("docker-compose.yml"))
}
