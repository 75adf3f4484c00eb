//! The handle: what `bottle-run up` prints, and what other tools need to find the bottle again.

use std::path::PathBuf;

use serde::{Deserialize, Serialize};

/// The schema tag of [`Handle`].
pub const HANDLE_SCHEMA: &str = "bottle.handle/v1";

/// A running bottle.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "manifest", derive(schemars::JsonSchema))]
#[serde(deny_unknown_fields)]
pub struct Handle {
    /// Always [`HANDLE_SCHEMA`].
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
}

impl Containers {
    /// The names in `project`; fixed, so that anybody can tell them from the slug.
    #[must_use]
    pub fn of(project: &str) -> Self {
        Self {
            agent: format!("{project}-agent"),
            egress: format!("{project}-egress"),
        }
    }
}
