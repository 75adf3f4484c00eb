//! What the supervise sidecar is told: who it speaks for, how long it waits, and what to say of the policy.

use std::net::IpAddr;

use serde::{Deserialize, Serialize};

use crate::policy::{Route, Scheme};
use crate::request::OnTimeout;

/// The schema tag of [`Settings`].
pub const SUPERVISE_SCHEMA: &str = "bottle.supervise/v1";

/// `supervise.json`, written by `bottle-run up` and mounted read-only. It holds nothing the agent may not know.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "manifest", derive(schemars::JsonSchema))]
#[serde(deny_unknown_fields)]
pub struct Settings {
    /// Always `bottle.supervise/v1`.
    #[cfg_attr(feature = "manifest", schemars(extend("const" = SUPERVISE_SCHEMA)))]
    pub schema: String,
    /// The bottle.
    pub bottle: String,
    /// Digest of its plan.
    pub plan_digest: String,
    /// The sidecar's address on the internal network.
    pub listen: IpAddr,
    /// The port.
    pub port: u16,
    /// Seconds a request waits for an answer.
    pub timeout: u64,
    /// What happens then.
    pub on_timeout: OnTimeout,
    /// Hosts that can be asked for, as in routes; empty: any.
    pub hosts: Vec<String>,
    /// What the plan allows; without credentials and private ranges.
    pub routes: Vec<Route>,
    /// The repositories behind git-gate, and the refs that can be pushed.
    pub repos: Vec<Repo>,
}

/// A repository as the agent sees it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "manifest", derive(schemars::JsonSchema))]
#[serde(deny_unknown_fields)]
pub struct Repo {
    /// Its name at the gate.
    pub name: String,
    /// Refs that can be pushed; shell-style.
    pub refs: Vec<String>,
}

/// Where egress writes denials, and what that was before it was full; JSON lines, oldest first.
pub const DENIALS_FILE: &str = "denials.jsonl";
/// As [`DENIALS_FILE`].
pub const OLD_DENIALS_FILE: &str = "denials-old.jsonl";

/// Where git-gate does; the same lines.
pub const PUSH_DENIALS_FILE: &str = "push-denials.jsonl";
/// Where egress says which grants it applies.
pub const APPLIED_FILE: &str = "applied.json";
/// Where git-gate does.
pub const PUSHES_APPLIED_FILE: &str = "pushes-applied.json";

/// A request that egress refused and an operator could grant.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Denial {
    /// The id in the answer the agent got.
    pub id: String,
    /// The scheme.
    pub scheme: Scheme,
    /// The host.
    pub host: String,
    /// The port.
    pub port: u16,
    /// The method; `CONNECT` when no more than the destination was known.
    pub method: Option<String>,
    /// The path, without the query.
    pub path: Option<String>,
    /// Why, as in the audit.
    pub reason: String,
}

/// A push that git-gate refused and an operator could grant.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct PushDenial {
    /// The id the agent was told.
    pub id: String,
    /// The repository's name at the gate.
    pub repo: String,
    /// The full ref.
    #[serde(rename = "ref")]
    pub reference: String,
    /// What it was to point at.
    pub object: String,
}
