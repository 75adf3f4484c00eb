//! The supervise sidecar: on the agent's network alone, without a secret. It can write requests and read answers.

use bottle_plan::failure::Result;
use bottle_plan::plan::Plan;
use bottle_plan::request::OnTimeout;

use super::bind;
use super::model::{Mount, Service};
use super::sidecar::{base, place};

const MEMORY: u64 = 64 << 20;

/// None in a bottle whose agent cannot ask.
pub(super) fn service(plan: &Plan) -> Result<Option<Service>> {
    let Some(supervise) = &plan.supervise else {
        return Ok(None);
    };
    let mut service = base(plan, "supervise", MEMORY)?;
    service.image = supervise.image.as_str().into();
    let folder = plan.state.join("supervise");
    service.volumes = vec![
        bind(&folder.join("config"), "/etc/bottle", true)?,
        bind(&folder.join("requests"), "/var/lib/bottle/requests", false)?,
        bind(&folder.join("answers"), "/var/lib/bottle/answers", true)?,
        bind(&plan.state.join("grants"), "/var/lib/bottle/grants", true)?,
        bind(&folder.join("denials"), "/var/lib/bottle/denials", true)?,
    ];
    let inside = plan.networks.addresses.supervise;
    place(&mut service, plan, "supervise", inside, None)?;
    Ok(Some(service))
}

/// What egress sees of it: grants, a place for denials, and what nobody answered where the manifest says that this means
/// something.
pub(super) fn seen_by_egress(plan: &Plan) -> Result<Vec<Mount>> {
    let Some(supervise) = &plan.supervise else {
        return Ok(Vec::new());
    };
    let folder = plan.state.join("supervise");
    let mut mounts = vec![
        bind(&plan.state.join("grants"), "/var/lib/bottle/grants", true)?,
        bind(&folder.join("denials"), "/var/lib/bottle/denials", false)?,
    ];
    if supervise.on_timeout == OnTimeout::AllowReadonly {
        mounts.push(bind(
            &folder.join("requests"),
            "/var/lib/bottle/requests",
            true,
        )?);
        mounts.push(bind(
            &folder.join("answers"),
            "/var/lib/bottle/answers",
            true,
        )?);
    }
    Ok(mounts)
}

/// What git-gate sees of it: it asks in its own name, reads what was decided, and shows the operator what a push changes.
pub(super) fn seen_by_git_gate(plan: &Plan) -> Result<Vec<Mount>> {
    if plan.supervise.is_none() {
        return Ok(Vec::new());
    }
    let folder = plan.state.join("supervise");
    let reviews = plan.state.join("git-gate/reviews");
    Ok(vec![
        bind(&plan.state.join("grants"), "/var/lib/bottle/grants", true)?,
        bind(&folder.join("answers"), "/var/lib/bottle/answers", true)?,
        bind(&folder.join("requests"), "/var/lib/bottle/requests", false)?,
        bind(&folder.join("denials"), "/var/lib/bottle/denials", false)?,
        bind(&reviews, "/var/lib/bottle/reviews", false)?,
    ])
}
