//! The handle: what `bottle-run up` prints, and what other tools need to find the bottle again.

use std::path::PathBuf;

use serde::{Deserialize, Serialize};

use crate::plan::Plan;

/// The schema tag of [`Handle`].
pub const HANDLE_SCHEMA: &str = "bottle.handle/v1";

/// A running bottle.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "manifest", derive(schemars::JsonSchema))]
#[serde(deny_unknown_fields)]
pub struct Handle {
    /// Always `bottle.handle/v1`.
    #[cfg_attr(feature = "manifest", schemars(extend("const" = HANDLE_SCHEMA)))]
    pub schema: String,
    /// The bottle.
    pub slug: String,
    /// Its Compose project.
    pub project: String,
    /// Digest of the plan it runs.
    pub plan_digest: String,
    /// Its folder in the state home.
    pub state: PathBuf,
    /// Container names by role.
    pub containers: Containers,
    /// SHA-256 of the certificate its agent trusts.
    pub ca_fingerprint: String,
    /// When it was started, RFC 3339.
    pub started_at: String,
}

/// The containers of a bottle.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "manifest", derive(schemars::JsonSchema))]
#[serde(deny_unknown_fields)]
pub struct Containers {
    /// The agent's.
    pub agent: String,
    /// The egress sidecar's.
    pub egress: String,
    /// The git-gate sidecar's, in a bottle that has one.
    #[serde(default, rename = "git-gate", skip_serializing_if = "Option::is_none")]
    pub git_gate: Option<String>,
    /// The supervise sidecar's, in a bottle that has one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub supervise: Option<String>,
}

impl Containers {
    /// The names for `plan`; fixed, so that anybody can tell them from the slug.
    #[must_use]
    pub fn of(plan: &Plan) -> Self {
        let name = |role| format!("{}-{role}", plan.project);
        Self {
            agent: name("agent"),
            egress: name("egress"),
            git_gate: plan.git_gate.as_ref().map(|_| name("git-gate")),
            supervise: plan.supervise.as_ref().map(|_| name("supervise")),
        }
    }

    /// The sidecars by role, egress first.
    pub fn sidecars(&self) -> impl Iterator<Item = (&'static str, &str)> {
        let optional = [
            ("git-gate", self.git_gate.as_deref()),
            ("supervise", self.supervise.as_deref()),
        ];
        let optional = optional
            .into_iter()
            .filter_map(|(role, name)| Some((role, name?)));
        std::iter::once(("egress", self.egress.as_str())).chain(optional)
    }
}
