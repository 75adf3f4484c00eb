//! The Compose document: the keys we emit, in the order in which they are written, and no others.

use std::collections::BTreeMap;
use std::net::Ipv4Addr;

use serde::{Serialize, Serializer};

use crate::carried::Carried;

/// A text as a container will see it. Written with each `$` doubled, because Compose interpolates every value.
///
/// It does not touch the keys of a mapping. Those are all ours here: what the plan names, stands in lists of `key=value`.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Text(String);

impl Text {
    /// The text itself, with no `$` doubled.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl<T: Into<String>> From<T> for Text {
    fn from(text: T) -> Self {
        Self(text.into())
    }
}

impl Serialize for Text {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serialize_doubled(&self.0, serializer)
    }
}

/// The one place where `$` is doubled.
pub(crate) fn serialize_doubled<S: Serializer>(
    text: &str,
    serializer: S,
) -> Result<S::Ok, S::Error> {
    if text.contains('$') {
        serializer.serialize_str(&text.replace('$', "$$"))
    } else {
        serializer.serialize_str(text)
    }
}

/// A Compose file.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Compose {
    /// The project.
    pub name: Text,
    /// By service name.
    pub services: BTreeMap<&'static str, Service>,
    /// By the name services use; the engine's is inside.
    pub networks: BTreeMap<&'static str, Network>,
    /// The plan all this was made from.
    #[serde(rename = "x-bottle")]
    pub plan: Carried,
}

/// A service. What is `None` or empty is not written.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Service {
    pub container_name: Text,
    pub image: Text,
    pub pull_policy: Text,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub entrypoint: Option<Vec<Text>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub command: Option<Vec<Text>>,
    pub user: Text,
    pub hostname: Text,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub working_dir: Option<Text>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub init: Option<bool>,
    pub restart: Text,
    pub stop_grace_period: Text,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub stop_signal: Option<Text>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub runtime: Option<Text>,
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub depends_on: BTreeMap<&'static str, Condition>,
    /// `NAME=value`, or a bare `NAME`: its value comes from Compose's own environment and is in no file.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub environment: Vec<Text>,
    pub read_only: bool,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub volumes: Vec<Mount>,
    pub tmpfs: Vec<Text>,
    pub cap_drop: Vec<Text>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub cap_add: Vec<Text>,
    pub security_opt: Vec<Text>,
    pub ipc: Text,
    pub sysctls: BTreeMap<&'static str, Text>,
    pub ulimits: BTreeMap<&'static str, u64>,
    pub pids_limit: u32,
    pub mem_limit: u64,
    pub memswap_limit: u64,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub cpus: Option<f64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub shm_size: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub oom_score_adj: Option<i16>,
    /// `none`, or nothing: then it has the networks below.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub network_mode: Option<Text>,
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub networks: BTreeMap<&'static str, Endpoint>,
    /// `NAME:ADDRESS`, for a container that has nobody to ask.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub extra_hosts: Vec<Text>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub dns: Vec<Ipv4Addr>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub dns_search: Vec<Text>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub dns_opt: Vec<Text>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub healthcheck: Option<Healthcheck>,
    pub logging: Logging,
    /// `key=value`. Not a mapping, in which Compose takes a key that begins with `x-` for an extension and drops it.
    pub labels: Vec<Text>,
}

/// What a service waits for.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Condition {
    pub condition: Text,
}

/// A bind mount, in the long syntax: the short one would split a path at its colons.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Mount {
    #[serde(rename = "type")]
    pub kind: Text,
    pub source: Text,
    pub target: Text,
    pub read_only: bool,
    pub bind: Bind,
}

/// How a bind mount is made.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Bind {
    /// Always false: a path that is not there is an error, not a new folder owned by root.
    pub create_host_path: bool,
}

/// A service's place on a network.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Endpoint {
    pub ipv4_address: Ipv4Addr,
}

/// How the engine finds out whether a service works.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Healthcheck {
    pub test: Vec<Text>,
    pub interval: Text,
    pub timeout: Text,
    pub retries: u32,
    pub start_period: Text,
}

/// Where a container's output goes.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Logging {
    pub driver: Text,
    pub options: BTreeMap<&'static str, Text>,
}

/// A network: one that is there, or one that Compose makes.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(untagged)]
pub enum Network {
    /// Made and verified by `bottle-run` before Compose runs.
    External(External),
    /// For people who run Compose by hand.
    Inline(Inline),
}

/// A network that is there.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct External {
    pub name: Text,
    pub external: bool,
}

/// A network that Compose makes.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Inline {
    pub name: Text,
    pub driver: Text,
    pub internal: bool,
    pub enable_ipv6: bool,
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub driver_opts: BTreeMap<&'static str, Text>,
    pub ipam: Ipam,
    pub labels: Vec<Text>,
}

/// The addresses of a network.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Ipam {
    pub config: Vec<IpamRange>,
}

/// One range of addresses.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct IpamRange {
    pub subnet: Text,
    pub gateway: Ipv4Addr,
    pub ip_range: Text,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_dollar_is_doubled_and_nothing_else_is_touched() {
        for (text, written) in [
            ("", ""),
            ("a", "a"),
            ("$", "$$"),
            ("$$X", "$$$$X"),
            ("${X:-y}", "$${X:-y}"),
        ] {
            let json = serde_json::to_value(Text::from(text)).expect("a string");
            assert_eq!(json, written);
        }
    }
}
