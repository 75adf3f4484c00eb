//! The plan: everything about one bottle resolved, and no secret in it.

mod agent;

use std::collections::BTreeMap;
use std::net::Ipv4Addr;
use std::path::PathBuf;

use serde::{Deserialize, Serialize};

pub use self::agent::{
    Agent, AgentFile, Build, EnvSource, EnvVar, GitUser, Hardening, Image, Provider, Resources,
    Skill,
};
pub use crate::git::{Forge, GitGate, PushRules, Repo, RepoKey, Sign};
use crate::policy::{AuditRules, Mode, POLICY_SCHEMA, Policy, Route};
use crate::request::OnTimeout;
use crate::strict::LOOPBACK;

/// The schema tag of [`Plan`].
pub const PLAN_SCHEMA: &str = "bottle.plan/v1";

/// The static binary in the agent's container: isolation probe, way in for secrets, and forwarder where there is no
/// network.
pub const HELPER: &str = "/usr/local/lib/bottle/bottle-sidecar";

/// One bottle, fully resolved. Same manifests, same slug: same bytes.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "manifest", derive(schemars::JsonSchema))]
#[serde(deny_unknown_fields)]
pub struct Plan {
    /// Always `bottle.plan/v1`.
    #[cfg_attr(feature = "manifest", schemars(extend("const" = PLAN_SCHEMA)))]
    pub schema: String,
    /// The bottle's name on this host: `[a-z0-9][a-z0-9-]{0,39}`.
    pub slug: String,
    /// `sha256:` and the SHA-256 of the canonical JSON of all that gives authority; what an approval binds to.
    pub digest: String,
    /// The Compose project.
    pub project: String,
    /// The bottle's folder in the state home; absolute.
    pub state: PathBuf,
    /// The files the plan was made from.
    pub sources: Vec<Source>,
    /// The untrusted one.
    pub agent: Agent,
    /// The image and user of the sidecars.
    pub sidecar: Sidecar,
    /// Where agent and sidecars meet, and where the sidecars go out.
    pub networks: Networks,
    /// The only way out.
    pub egress: Egress,
    /// Checked pushes.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub git_gate: Option<GitGate>,
    /// Asking the operator.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub supervise: Option<Supervise>,
    /// The files the agent works on.
    pub workspace: Workspace,
    /// The container runtime; `auto` takes gVisor when the engine has it.
    pub runtime: Runtime,
    /// How the agent is cut off.
    pub isolation: Isolation,
    /// What is done to the agent's container before anything runs in it, in order.
    pub provision: Vec<Step>,
    /// Labels on every container, network and image of the bottle.
    pub labels: BTreeMap<String, String>,
    /// Go on from a snapshot instead of the agent's image.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub resume: Option<Resume>,
}

/// What a bottle goes on from. It is no part of the digest: what an agent left in its own image grants it nothing.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "manifest", derive(schemars::JsonSchema))]
#[serde(deny_unknown_fields)]
pub struct Resume {
    /// The bottle whose snapshots these are.
    pub slug: String,
    /// The first that the engine has is taken; when it has none, the agent's image is.
    pub images: Vec<ResumeImage>,
}

/// A snapshot that can be gone on from.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "manifest", derive(schemars::JsonSchema))]
#[serde(deny_unknown_fields)]
pub struct ResumeImage {
    /// Its number.
    pub number: u32,
    /// The engine's id of the image, `sha256:…`. The name could be given to another one.
    pub image: String,
}

impl Plan {
    /// What the egress sidecar enforces for this plan.
    #[must_use]
    pub fn policy(&self) -> Policy {
        let networks = &self.networks;
        Policy {
            schema: POLICY_SCHEMA.to_owned(),
            bottle: self.slug.clone(),
            plan_digest: self.digest.clone(),
            listen: self.seen_by_agent().egress.into(),
            // The egress network itself is not here: a destination may be put there on purpose, with `private:`.
            own_networks: vec![
                networks.internal.subnet.clone(),
                format!("{}/32", networks.egress.gateway),
            ],
            log: self.egress.log,
            mode: self.egress.mode,
            audit: self.egress.audit,
            routes: self.egress.routes.clone(),
        }
    }

    /// Whether the agent has no network.
    #[must_use]
    pub fn is_strict(&self) -> bool {
        self.isolation == Isolation::Strict
    }

    /// Where the agent finds its sidecars, and itself.
    #[must_use]
    pub fn seen_by_agent(&self) -> Addresses {
        if !self.is_strict() {
            return self.networks.addresses.clone();
        }
        Addresses {
            egress: LOOPBACK,
            agent: LOOPBACK,
            git_gate: LOOPBACK,
            supervise: LOOPBACK,
        }
    }

    /// `NAME:ADDRESS` of each sidecar, for the hosts file of an agent that has nobody to ask.
    #[must_use]
    pub fn sidecar_hosts(&self) -> Vec<String> {
        let seen = self.seen_by_agent();
        let sidecars = [
            ("egress", seen.egress, true),
            ("git-gate", seen.git_gate, self.git_gate.is_some()),
            ("supervise", seen.supervise, self.supervise.is_some()),
        ];
        let there = sidecars.into_iter().filter(|(.., is_there)| *is_there);
        there
            .map(|(name, address, _)| format!("{name}:{address}"))
            .collect()
    }
}

/// A file that went into the plan.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "manifest", derive(schemars::JsonSchema))]
#[serde(deny_unknown_fields)]
pub struct Source {
    /// What it was read as: `agent` or `bottle`.
    pub role: String,
    /// The name it was asked for by.
    pub name: String,
    /// Where it is.
    pub path: PathBuf,
    /// SHA-256 of its bytes, hexadecimal.
    pub sha256: String,
}

/// What all sidecars share.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "manifest", derive(schemars::JsonSchema))]
#[serde(deny_unknown_fields)]
pub struct Sidecar {
    /// The image, built by `bottle-run` from the static `bottle-sidecar` beside it.
    pub image: String,
    /// Numeric `uid:gid`: the owner of the state folder, so that 0600 files can be read by it and nobody else.
    pub user: String,
}

/// The bottle's networks and the fixed addresses in them. With isolation `strict` there is no internal one.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "manifest", derive(schemars::JsonSchema))]
#[serde(deny_unknown_fields)]
pub struct Networks {
    /// Agent and sidecars; leads nowhere.
    pub internal: Network,
    /// Egress to the outside.
    pub egress: Network,
    /// Addresses on the internal network.
    pub addresses: Addresses,
}

/// One network.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "manifest", derive(schemars::JsonSchema))]
#[serde(deny_unknown_fields)]
pub struct Network {
    /// Its name in the engine.
    pub name: String,
    /// Its range, CIDR.
    pub subnet: String,
    /// The address the engine would give the host there. On the internal network nobody has it.
    pub gateway: Ipv4Addr,
}

/// Fixed addresses on the internal network: with only some fixed, another container can take one first.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "manifest", derive(schemars::JsonSchema))]
#[serde(deny_unknown_fields)]
pub struct Addresses {
    /// The egress sidecar.
    pub egress: Ipv4Addr,
    /// The agent.
    pub agent: Ipv4Addr,
    /// The git-gate sidecar.
    pub git_gate: Ipv4Addr,
    /// The supervise sidecar.
    pub supervise: Ipv4Addr,
}

/// The variable of the egress sidecar with the proxy it goes through.
pub const UPSTREAM_PROXY: &str = "BOTTLE_UPSTREAM_PROXY";

/// The egress sidecar.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "manifest", derive(schemars::JsonSchema))]
#[serde(deny_unknown_fields)]
pub struct Egress {
    /// The bottle's certificate authority.
    pub ca: Ca,
    /// More roots the sidecar trusts upstream, PEM; absolute path.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub upstream_ca: Option<PathBuf>,
    /// The host variable that names the proxy all of it goes through; its value, which may hold a password, is in the
    /// sidecar's environment alone.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub upstream_proxy: Option<String>,
    /// As in the policy document.
    #[serde(default, skip_serializing_if = "AuditRules::is_usual")]
    pub audit: AuditRules,
    /// As in the policy document.
    pub log: u8,
    /// Where the values of the credentials come from.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub slots: Vec<Slot>,
    /// What becomes of a destination that no route serves.
    #[serde(default, skip_serializing_if = "Mode::is_enforce")]
    pub mode: Mode,
    /// The only destinations, unless `mode` says otherwise.
    pub routes: Vec<Route>,
}

/// The bottle's certificate authority, by reference.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "manifest", derive(schemars::JsonSchema))]
#[serde(deny_unknown_fields)]
pub struct Ca {
    /// The folder with `mitmproxy-ca.pem` and `mitmproxy-ca-cert.pem`; absolute.
    pub dir: PathBuf,
    /// Days a new one is valid.
    pub days: u32,
    /// SHA-256 of the certificate; filled in by `bottle-ca`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub fingerprint: Option<String>,
    /// When it ends, RFC 3339; filled in by `bottle-ca`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub not_after: Option<String>,
}

/// A credential by reference: the sidecar's variable and the host's.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "manifest", derive(schemars::JsonSchema))]
#[serde(deny_unknown_fields)]
pub struct Slot {
    /// `EGRESS_TOKEN_<n>`, a variable of the sidecar.
    pub slot: String,
    /// The host variable it is read from at `up`.
    pub host: String,
}

/// The supervise sidecar.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "manifest", derive(schemars::JsonSchema))]
#[serde(deny_unknown_fields)]
pub struct Supervise {
    /// Its image, built by `bottle-run` from the static `bottle-services` beside it.
    pub image: String,
    /// The port of its MCP server.
    pub port: u16,
    /// Seconds a request waits for an answer.
    pub timeout: u64,
    /// What happens then.
    pub on_timeout: OnTimeout,
    /// Hosts the agent may ask for, as in routes; empty: any public one. The CA signs for no other.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub hosts: Vec<String>,
}

/// The files the agent works on.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "manifest", derive(schemars::JsonSchema))]
#[serde(deny_unknown_fields)]
pub struct Workspace {
    /// The folder on the host; none: an empty one in the bottle.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub from: Option<PathBuf>,
    /// Copied in before the start, or mounted.
    pub mode: WorkspaceMode,
    /// Mounted so that the agent cannot write.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub read_only: bool,
    /// Copied without what git ignores.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub ignore: bool,
    /// Where it is in the bottle.
    pub workdir: String,
}

/// How the workspace gets in.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "manifest", derive(schemars::JsonSchema))]
#[serde(rename_all = "lowercase")]
pub enum WorkspaceMode {
    /// Copied: the host's files stay as they are.
    #[default]
    Copy,
    /// Bind-mounted: the agent changes the host's files.
    Mount,
}

/// The container runtime of the agent.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "manifest", derive(schemars::JsonSchema))]
#[serde(rename_all = "lowercase")]
pub enum Runtime {
    /// gVisor when the engine lists it, else its default.
    #[default]
    Auto,
    /// The engine's runc.
    Runc,
    /// gVisor.
    Runsc,
    /// Kata Containers.
    Kata,
}

/// How the agent is cut off.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "manifest", derive(schemars::JsonSchema))]
#[serde(rename_all = "lowercase")]
pub enum Isolation {
    /// A network without a host or a way out.
    #[default]
    Network,
    /// No network at all; sidecars by unix sockets.
    Strict,
}

/// A step of provisioning.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "manifest", derive(schemars::JsonSchema))]
#[serde(rename_all = "snake_case")]
pub enum Step {
    /// User, home and work directory.
    User,
    /// The CA into the trust stores.
    Ca,
    /// The provider's files.
    Provider,
    /// The prompt file.
    Prompt,
    /// The skills.
    Skills,
    /// The workspace.
    Workspace,
    /// The git identity and `insteadOf`.
    Git,
}
