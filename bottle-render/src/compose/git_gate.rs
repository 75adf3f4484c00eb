//! git-gate: the agent's only way to an upstream repository, and the only container that holds its keys.

use bottle_plan::failure::Result;
use bottle_plan::git::{GitGate, RepoKey, secret_slot, token_slot};
use bottle_plan::plan::{EnvSource, Plan};

use super::model::{Service, Text};
use super::sidecar::{bare, base, place};
use super::{bind, outside_address, supervise, texts};

/// Git maps packs and keeps deltas in memory, and what is being scanned lies in /tmp, which counts too.
const MEMORY: u64 = 1 << 30;

/// For one batch of what is being scanned.
const SCRATCH: &str = "/tmp:rw,noexec,nosuid,nodev,size=256m,mode=1777";

pub(super) fn service(plan: &Plan, gate: &GitGate) -> Result<Service> {
    let mut service = base(plan, "git-gate", MEMORY)?;
    service.image = gate.image.as_str().into();
    service.tmpfs = texts([SCRATCH]);
    service.environment = environment(plan, gate);
    let folder = plan.state.join("git-gate");
    let config = folder.join("config");
    service.volumes = vec![
        bind(&config, "/etc/bottle", true)?,
        // OpenSSH does not work for a user that has no line here, and the number is the operator's.
        bind(&config.join("passwd"), "/etc/passwd", true)?,
        bind(&folder.join("mirrors"), "/var/lib/bottle/mirrors", false)?,
        bind(&folder.join("audit"), "/var/lib/bottle/audit", false)?,
    ];
    service.volumes.extend(supervise::seen_by_git_gate(plan)?);
    let outside = Some(outside_address(plan, 4)?);
    let inside = plan.networks.addresses.git_gate;
    place(&mut service, plan, "git-gate", inside, outside)?;
    Ok(service)
}

/// The tokens of HTTPS upstreams, and every value that must not be pushed: what egress puts in, and what the agent was
/// given.
fn environment(plan: &Plan, gate: &GitGate) -> Vec<Text> {
    let egress = plan.egress.slots.iter().map(|slot| slot.slot.clone());
    let is_token = |key: &RepoKey| matches!(key, RepoKey::Token { .. });
    let repos = gate.repos.iter().enumerate();
    let tokens = repos
        .filter(|(_, repo)| is_token(&repo.key))
        .map(|(index, _)| token_slot(index));
    let is_secret = |from: &EnvSource| matches!(from, EnvSource::Host(_) | EnvSource::Prompt(_));
    let given = plan.agent.env.iter().filter(|entry| is_secret(&entry.from));
    let given = given.enumerate().map(|(index, _)| secret_slot(index));
    let names: Vec<String> = egress.chain(tokens).chain(given).collect();
    bare(names.iter().map(String::as_str))
}
