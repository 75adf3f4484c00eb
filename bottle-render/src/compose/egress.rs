//! The egress sidecar: the only container with a way out, and the only one that holds credentials.

use std::collections::BTreeMap;

use bottle_plan::failure::Result;
use bottle_plan::plan::Plan;

use super::model::{Endpoint, Healthcheck, Service};
use super::{IPV6_OFF, bind, egress_outside_address, keyed, labels, logging, security_opt, texts};

const MEMORY: u64 = 256 << 20;
const PROCESSES: u32 = 256;
/// Two for each of the connections it admits, and room.
const OPEN_FILES: u64 = 4096;

pub(super) fn service(plan: &Plan) -> Result<Service> {
    let mut sysctls = keyed(IPV6_OFF);
    // Containers inherit forwarding from the host: a frame sent to the sidecar's hardware address would be routed out.
    sysctls.insert("net.ipv4.ip_forward", "0".into());
    // Ports 53, 80 and 443 without a capability. Docker's default since 20.10, but not every engine's.
    sysctls.insert("net.ipv4.ip_unprivileged_port_start", "0".into());
    Ok(Service {
        container_name: format!("{}-egress", plan.project).into(),
        image: plan.sidecar.image.as_str().into(),
        pull_policy: "never".into(),
        entrypoint: None,
        command: Some(texts(["egress"])),
        user: plan.sidecar.user.as_str().into(),
        hostname: "egress".into(),
        working_dir: None,
        init: None,
        // Once dead, it stays dead: the agent is then cut off, and people see why.
        restart: "no".into(),
        stop_grace_period: "2s".into(),
        runtime: None,
        depends_on: BTreeMap::new(),
        // Bare names: the values are in the environment of the `docker compose` child and in no file.
        environment: plan
            .egress
            .slots
            .iter()
            .map(|slot| slot.slot.as_str().into())
            .collect(),
        read_only: true,
        volumes: vec![
            bind(&plan.state.join("egress"), "/etc/bottle", true)?,
            bind(&plan.state.join("audit"), "/var/lib/bottle/audit", false)?,
        ],
        tmpfs: texts(["/tmp:rw,noexec,nosuid,nodev,size=16m,mode=1777"]),
        cap_drop: texts(["ALL"]),
        cap_add: Vec::new(),
        security_opt: security_opt(plan)?,
        ipc: "private".into(),
        sysctls,
        ulimits: BTreeMap::from([("core", 0), ("nofile", OPEN_FILES)]),
        pids_limit: PROCESSES,
        mem_limit: MEMORY,
        memswap_limit: MEMORY,
        cpus: None,
        shm_size: None,
        oom_score_adj: None,
        networks: BTreeMap::from([
            (
                "egress",
                Endpoint {
                    ipv4_address: egress_outside_address(plan)?,
                },
            ),
            (
                "internal",
                Endpoint {
                    ipv4_address: plan.networks.addresses.egress,
                },
            ),
        ]),
        dns: Vec::new(),
        dns_search: Vec::new(),
        dns_opt: Vec::new(),
        healthcheck: Some(Healthcheck {
            test: texts(["CMD", "/bottle-sidecar", "health"]),
            interval: "2s".into(),
            timeout: "3s".into(),
            retries: 3,
            start_period: "5s".into(),
        }),
        logging: logging(),
        labels: labels(plan, "egress"),
    })
}
