//! What the engine says of containers and networks, against what a bottle must be.

use bottle_plan::failure::{Failure, Result, printable};
use bottle_plan::handle::Containers;
use bottle_plan::plan::Plan;
use bottle_plan::strict::IN_A_SIDECAR;
use serde_json::Value;

use super::card::{Line, host_config, json};
use crate::engine::Engine;
use crate::{inspect, networks};

/// The lines of the category `containers`.
pub(super) fn all(engine: &Engine, plan: &Plan, names: &Containers) -> Result<Vec<Line>> {
    let mut lines = vec![
        as_planned(
            "agent",
            "the agent's container beside its plan",
            inspect::check_agent(engine, plan, &names.agent),
        ),
        as_planned(
            "networks",
            "its networks beside the plan",
            networks::verify(engine, plan),
        ),
    ];
    for (role, container) in names.sidecars() {
        let found = json(
            engine,
            &[
                "container",
                "inspect",
                "--format={{json .}}",
                "--",
                container,
            ],
        )?;
        let wrong: Vec<&str> = faults(role, &found);
        lines.push(Line::new(
            "containers",
            role,
            "the sidecar's container beside what every sidecar is",
            "as hard as it should be",
            wrong.is_empty(),
            or_nothing(&wrong),
        ));
    }
    let agent = host_config(engine, &names.agent)?;
    let resources = &plan.agent.resources;
    let limits = [
        ("/Memory", resources.memory),
        ("/MemorySwap", resources.memory),
        ("/PidsLimit", u64::from(resources.pids)),
        ("/NanoCpus", u64::from(resources.millicpus) * 1_000_000),
    ];
    let off: Vec<&str> = limits
        .iter()
        .filter(|(at, limit)| agent.pointer(at).and_then(Value::as_u64) != Some(*limit))
        .map(|(at, _)| *at)
        .collect();
    lines.push(Line::new(
        "limits",
        "configured",
        "memory, swap, processes and processors beside the plan",
        "as planned",
        off.is_empty(),
        or_nothing(&off),
    ));
    Ok(lines)
}

fn as_planned(name: &str, tried: &str, checked: Result<()>) -> Line {
    let (passed, seen) = match checked {
        Ok(()) => (true, "as planned".to_owned()),
        Err(failure) => (false, printable(&Failure::chain(&failure))),
    };
    Line::new(
        "containers",
        name,
        tried,
        "nothing the plan does not grant",
        passed,
        seen,
    )
}

fn or_nothing(found: &[&str]) -> String {
    match found {
        [] => "as it should be".to_owned(),
        found => found.join(", "),
    }
}

/// What is softer at a sidecar than it must be.
fn faults(role: &str, found: &Value) -> Vec<&'static str> {
    let host = &found["HostConfig"];
    let list = |name: &str| host[name].as_array().map_or(0, Vec::len);
    let options = host["SecurityOpt"].to_string();
    let user = found.pointer("/Config/User").and_then(Value::as_str);
    let published = found
        .pointer("/NetworkSettings/Ports")
        .and_then(Value::as_object)
        .is_some_and(|ports| ports.values().any(|port| !port.is_null()));
    let writable = found["Mounts"]
        .as_array()
        .into_iter()
        .flatten()
        .any(|mount| {
            let own = [
                "/var/lib/bottle/audit",
                "/var/lib/bottle/denials",
                IN_A_SIDECAR,
            ];
            let is_own = own.iter().any(|place| mount["Destination"] == *place);
            mount["RW"] == true && !is_own
        });
    let checks = [
        (host["Privileged"] != false, "privileged"),
        (
            host["CapDrop"] != serde_json::json!(["ALL"]),
            "capabilities kept",
        ),
        (list("CapAdd") > 0, "capabilities added"),
        (
            !options.contains("no-new-privileges"),
            "may gain privileges",
        ),
        (!options.contains("seccomp={"), "no seccomp profile of ours"),
        (
            user.is_none_or(|user| user.is_empty() || user.starts_with("0:")),
            "root",
        ),
        // git-gate writes repositories; the static sidecars write nothing.
        (
            role == "egress" && host["ReadonlyRootfs"] != true,
            "a root it can write to",
        ),
        (
            host["Sysctls"]["net.ipv4.ip_forward"] != "0",
            "forwards packets",
        ),
        (list("Devices") > 0, "devices"),
        (published, "published ports"),
        (role == "egress" && writable, "a mount it can write to"),
        (
            host["Memory"].as_u64().unwrap_or(0) == 0,
            "no limit of memory",
        ),
        (
            host["PidsLimit"].as_i64().unwrap_or(0) <= 0,
            "no limit of processes",
        ),
        (
            host["NetworkMode"] == "host" || host["PidMode"] == "host",
            "a namespace of the host",
        ),
    ];
    let wrong = checks.into_iter().filter(|(wrong, _)| *wrong);
    wrong.map(|(_, what)| what).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn a_soft_sidecar_is_described() {
        let hard = json!({
            "Config": {"User": "65532:65532"},
            "HostConfig": {
                "Privileged": false, "CapDrop": ["ALL"], "CapAdd": null, "ReadonlyRootfs": true,
                "SecurityOpt": ["no-new-privileges:true", "seccomp={}"], "Memory": 1, "PidsLimit": 1,
                "Sysctls": {"net.ipv4.ip_forward": "0"}, "Devices": [], "NetworkMode": "x", "PidMode": ""
            },
            "Mounts": [{"RW": true, "Destination": "/var/lib/bottle/audit"}],
            "NetworkSettings": {"Ports": {"53/udp": null}}
        });
        assert_eq!(faults("egress", &hard), Vec::<&str>::new());
        for (pointer, value, fault) in [
            ("/HostConfig/Privileged", json!(true), "privileged"),
            ("/HostConfig/CapDrop", json!(null), "capabilities kept"),
            ("/HostConfig/Sysctls", json!(null), "forwards packets"),
            (
                "/HostConfig/SecurityOpt",
                json!(["no-new-privileges:true"]),
                "no seccomp profile of ours",
            ),
            (
                "/HostConfig/ReadonlyRootfs",
                json!(false),
                "a root it can write to",
            ),
            ("/HostConfig/Memory", json!(0), "no limit of memory"),
            ("/Config/User", json!(""), "root"),
            (
                "/NetworkSettings/Ports",
                json!({"80/tcp": [{"HostPort": "1"}]}),
                "published ports",
            ),
        ] {
            let mut soft = hard.clone();
            *soft.pointer_mut(pointer).expect("there") = value;
            assert_eq!(faults("egress", &soft), [fault], "{pointer}");
        }
    }
}
