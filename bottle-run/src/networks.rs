//! The bottle's networks: made, proved and removed here, because compose takes any network of the right name.

use std::collections::BTreeMap;

use bottle_plan::failure::{Failure, Result};
use bottle_plan::plan::{Network, Plan};
use bottle_plan::subnet;
use serde::Deserialize;

use crate::engine::{Engine, at_once};

/// What makes the agent's network lead nowhere. `inhibit_ipv4` keeps the host from having an address on the bridge
/// (with `--internal` alone every service of the host that listens on all addresses answers); the gateway modes say
/// the same to Engine 28 and later, and are ignored before.
const INTERNAL_OPTIONS: [(&str, &str); 3] = [
    ("com.docker.network.bridge.inhibit_ipv4", "true"),
    ("com.docker.network.bridge.gateway_mode_ipv4", "isolated"),
    ("com.docker.network.bridge.gateway_mode_ipv6", "isolated"),
];

/// The bottle's networks; an agent without a network has no internal one.
fn of_bottle(plan: &Plan) -> impl Iterator<Item = &Network> {
    let internal = Some(&plan.networks.internal).filter(|_| !plan.is_strict());
    internal.into_iter().chain([&plan.networks.egress])
}

/// Their names in the engine.
pub fn names(plan: &Plan) -> impl Iterator<Item = &str> {
    of_bottle(plan).map(|network| network.name.as_str())
}

/// Makes the networks and checks that the engine made what was asked for.
///
/// # Errors
/// When one cannot be made, or is not as it must be. What was made is left for [`remove`].
pub fn create(engine: &Engine, plan: &Plan) -> Result<()> {
    let networks = &plan.networks;
    let routes = subnet::host_routes();
    for network in [&networks.internal, &networks.egress] {
        if let Some(route) = subnet::overlapping(&network.subnet, &routes) {
            return Err(Failure::conflict(format!(
                "{} of the network {} is part of {route}, which this host routes elsewhere by now",
                network.subnet, network.name
            ))
            .hint("plan it anew under another slug, or give another block with --subnets; or end what made the route, such as a VPN"));
        }
    }
    let (internal, egress) = at_once(
        || match plan.is_strict() {
            true => Ok(()),
            false => create_one(engine, plan, &networks.internal, true),
        },
        || create_one(engine, plan, &networks.egress, false),
    )?;
    internal.and(egress)?;
    verify(engine, plan)
}

fn create_one(engine: &Engine, plan: &Plan, network: &Network, internal: bool) -> Result<()> {
    let mut args = vec!["network".to_owned(), "create".to_owned()];
    args.push("--driver=bridge".to_owned());
    args.push(format!("--subnet={}", network.subnet));
    args.push(format!("--gateway={}", network.gateway));
    args.push(format!("--ip-range={}", subnet::not_ours(&network.subnet)?));
    for (name, value) in &plan.labels {
        args.push(format!("--label={name}={value}"));
    }
    if internal {
        args.push("--internal".to_owned());
        for (name, value) in INTERNAL_OPTIONS {
            args.push(format!("--opt={name}={value}"));
        }
    }
    args.extend(["--".to_owned(), network.name.clone()]);
    engine.call(args).run().map(drop).map_err(|failure| {
        if failure.chain().contains("already exists") {
            Failure::conflict(format!(
                "there is a network `{}` that this bottle did not make",
                network.name
            ))
            .hint(format!(
                "see what it is: docker network inspect {}",
                network.name
            ))
        } else {
            failure.while_doing(format!("making the network {}", network.name))
        }
    })
}

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Inspected {
    name: String,
    driver: String,
    internal: bool,
    #[serde(rename = "EnableIPv6")]
    enable_ipv6: bool,
    #[serde(rename = "IPAM")]
    ipam: Ipam,
    #[serde(default)]
    options: BTreeMap<String, String>,
    #[serde(default)]
    labels: BTreeMap<String, String>,
    #[serde(default)]
    containers: BTreeMap<String, Attached>,
}

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Ipam {
    #[serde(default)]
    config: Vec<Range>,
}

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Range {
    #[serde(default)]
    subnet: String,
}

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Attached {
    name: String,
}

/// Checks the networks against the plan: an engine, a plugin or a person may have made something else of them.
///
/// # Errors
/// Refused, when one differs.
pub fn verify(engine: &Engine, plan: &Plan) -> Result<()> {
    let output = engine
        .call(["network", "inspect", "--"])
        .args(names(plan))
        .run()?;
    let found: Vec<Inspected> = serde_json::from_slice(&output.stdout).map_err(|error| {
        Failure::failed("cannot read what the engine says of the networks").because(error)
    })?;
    for network in of_bottle(plan) {
        let seen = found
            .iter()
            .find(|seen| seen.name == network.name)
            .ok_or_else(|| Failure::failed(format!("the network {} is gone", network.name)))?;
        if let Some(difference) = difference(plan, network, seen) {
            return Err(Failure::refused(format!(
                "the network {} is not safe: {difference}",
                network.name
            ))
            .hint(format!("bottle-run down {}, then start again", plan.slug)));
        }
    }
    Ok(())
}

fn difference(plan: &Plan, network: &Network, seen: &Inspected) -> Option<String> {
    let internal = network.name == plan.networks.internal.name;
    if seen.driver != "bridge" {
        return Some(format!("its driver is {}", seen.driver));
    }
    if seen.internal != internal {
        return Some(format!("internal is {}", seen.internal));
    }
    if seen.enable_ipv6 {
        return Some("IPv6 is on".to_owned());
    }
    let subnets: Vec<&str> = seen
        .ipam
        .config
        .iter()
        .map(|range| range.subnet.as_str())
        .collect();
    if subnets != [network.subnet.as_str()] {
        return Some(format!("its range is {}", subnets.join(", ")));
    }
    if let Some((name, _)) = plan
        .labels
        .iter()
        .find(|(name, value)| seen.labels.get(*name) != Some(value))
    {
        return Some(format!("its label {name} is not this bottle's"));
    }
    let option =
        |(name, value): &&(&str, &str)| seen.options.get(*name).map(String::as_str) != Some(value);
    if internal && let Some((name, _)) = INTERNAL_OPTIONS.iter().find(option) {
        return Some(format!("the option {name} is missing"));
    }
    // Only this bottle's containers, and only once they are there.
    let ours = format!("{}-", plan.project);
    seen.containers
        .values()
        .find(|attached| !attached.name.starts_with(&ours))
        .map(|attached| format!("the container {} is on it", attached.name))
}
