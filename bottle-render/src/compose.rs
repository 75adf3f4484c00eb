//! The Compose target: what of a plan becomes which key.

mod agent;
mod egress;
mod git_gate;
pub(crate) mod model;
mod networks;
mod sidecar;
mod supervise;

use std::collections::BTreeMap;
use std::net::Ipv4Addr;
use std::path::Path;

use bottle_plan::failure::{Failure, Result};
use bottle_plan::plan::Plan;
use ipnet::Ipv4Net;

use crate::carried::Carried;
use crate::check::check;
use model::{Bind, Compose, Logging, Mount, Text};

/// The label that says which part of its bottle a container is.
pub(crate) const ROLE_LABEL: &str = "bottle.role";

/// How a plan is rendered.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Options {
    /// Networks are defined in the file, for people who run Compose by hand. Otherwise they are `bottle-run`'s, which
    /// verifies them: Compose takes any network that has the name and labels it looks for.
    pub standalone: bool,
}

/// Renders `plan`.
///
/// # Errors
/// When [`check()`] refuses it.
pub fn compose(plan: &Plan, options: Options) -> Result<Compose> {
    check(plan)?;
    if options.standalone && plan.is_strict() {
        return Err(Failure::invalid(
            "isolation `strict` cannot be rendered with --standalone: its forwarder and its sockets are made by bottle-run",
        )
        .hint("render it without --standalone, for bottle-run up"));
    }
    let mut services = BTreeMap::from([
        ("agent", agent::service(plan)?),
        ("egress", egress::service(plan)?),
    ]);
    if let Some(supervise) = supervise::service(plan)? {
        services.insert("supervise", supervise);
    }
    if let Some(gate) = &plan.git_gate {
        services.insert("git-gate", git_gate::service(plan, gate)?);
    }
    Ok(Compose {
        name: plan.project.as_str().into(),
        services,
        networks: networks::networks(plan, options)?,
        plan: Carried::new(plan)?,
    })
}

/// The egress sidecar's fixed address on the egress network: its third. Only the one on the internal network is in the
/// plan.
///
/// # Errors
/// When the plan's range is none.
pub fn egress_outside_address(plan: &Plan) -> Result<Ipv4Addr> {
    outside_address(plan, 3)
}

/// The address with this number on the egress network.
fn outside_address(plan: &Plan, n: u32) -> Result<Ipv4Addr> {
    let range = &plan.networks.egress.subnet;
    let range = range.parse().map_err(|error| {
        Failure::invalid(format!("`{range}` is not an IPv4 range")).because(error)
    })?;
    Ok(nth_address(range, n))
}

pub(crate) fn nth_address(range: Ipv4Net, n: u32) -> Ipv4Addr {
    Ipv4Addr::from(u32::from(range.network()).saturating_add(n))
}

fn texts<const N: usize>(texts: [&str; N]) -> Vec<Text> {
    texts.into_iter().map(Text::from).collect()
}

fn keyed<const N: usize>(pairs: [(&'static str, &str); N]) -> BTreeMap<&'static str, Text> {
    pairs
        .into_iter()
        .map(|(key, value)| (key, value.into()))
        .collect()
}

/// What holds for every container of a bottle. A process never gets more rights than it starts with, and the kernel
/// answers only the calls of our own profile, whose list an old engine would not have.
fn security_opt(plan: &Plan) -> Result<Vec<Text>> {
    let profile = plan.state.join("seccomp.json");
    // With `=` and not the other spelling, `seccomp:`, which Compose splits at an `=` in the path.
    Ok(vec![
        "no-new-privileges:true".into(),
        format!("seccomp={}", host_text(&profile)?).into(),
    ])
}

/// IPv6 off: with it, a bridge without an IPv4 address is still reached by its link-local one.
const IPV6_OFF: [(&str, &str); 2] = [
    ("net.ipv6.conf.all.disable_ipv6", "1"),
    ("net.ipv6.conf.default.disable_ipv6", "1"),
];

/// Without a limit, output alone fills the host's disk.
fn logging() -> Logging {
    Logging {
        driver: "local".into(),
        options: keyed([("max-size", "10m"), ("max-file", "3")]),
    }
}

/// The plan's labels, as they also are on networks and images.
fn shared_labels(plan: &Plan) -> Vec<Text> {
    plan.labels
        .iter()
        .map(|(key, value)| format!("{key}={value}").into())
        .collect()
}

fn labels(plan: &Plan, role: &str) -> Vec<Text> {
    let mut labels = shared_labels(plan);
    labels.push(format!("{ROLE_LABEL}={role}").into());
    labels
}

fn bind(source: &Path, target: &str, read_only: bool) -> Result<Mount> {
    Ok(Mount {
        kind: "bind".into(),
        source: host_text(source)?.into(),
        target: target.into(),
        read_only,
        bind: Bind {
            create_host_path: false,
        },
    })
}

fn host_text(path: &Path) -> Result<&str> {
    path.to_str()
        .ok_or_else(|| Failure::invalid(format!("the path {} is not UTF-8", path.display())))
}
