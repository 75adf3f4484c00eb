//! The egress sidecar: the agent's only way out, and the only container that holds its credentials.

use bottle_plan::failure::Result;
use bottle_plan::plan::{Plan, UPSTREAM_PROXY};

use super::model::Service;
use super::sidecar::{bare, base, place};
use super::{bind, egress_outside_address, supervise};

const MEMORY: u64 = 256 << 20;

pub(super) fn service(plan: &Plan) -> Result<Service> {
    let mut service = base(plan, "egress", MEMORY)?;
    // Ports 53, 80 and 443 without a capability. Docker's default since 20.10, but not every engine's.
    service
        .sysctls
        .insert("net.ipv4.ip_unprivileged_port_start", "0".into());
    let slots = plan.egress.slots.iter().map(|slot| slot.slot.as_str());
    let proxy = plan.egress.upstream_proxy.as_ref();
    service.environment = bare(slots.chain(proxy.map(|_| UPSTREAM_PROXY)));
    service.volumes = vec![
        bind(&plan.state.join("egress"), "/etc/bottle", true)?,
        bind(&plan.state.join("audit"), "/var/lib/bottle/audit", false)?,
    ];
    service.volumes.extend(supervise::seen_by_egress(plan)?);
    let outside = Some(egress_outside_address(plan)?);
    let inside = plan.networks.addresses.egress;
    place(&mut service, plan, "egress", inside, outside)?;
    Ok(service)
}
