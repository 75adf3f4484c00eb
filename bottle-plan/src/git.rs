//! Git in a bottle: what the plan says of it, and the document the git-gate sidecar reads.

use std::net::IpAddr;
use std::path::PathBuf;

use serde::{Deserialize, Serialize};

/// The schema tag of [`Gate`].
pub const GATE_SCHEMA: &str = "bottle.gate/v1";

/// The port of the gate on the internal network.
pub const GATE_PORT: u16 = 9418;

/// The git-gate sidecar.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "manifest", derive(schemars::JsonSchema))]
#[serde(deny_unknown_fields)]
pub struct GitGate {
    /// Its image, built by `bottle-run`: git, OpenSSH and gitleaks beside the static `bottle-services`.
    pub image: String,
    /// The repositories the agent can reach.
    pub repos: Vec<Repo>,
}

/// One repository behind git-gate.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "manifest", derive(schemars::JsonSchema))]
#[serde(deny_unknown_fields)]
pub struct Repo {
    /// Its name at the gate.
    pub name: String,
    /// The upstream: SSH, or HTTPS with a token.
    pub url: String,
    /// The upstream's host key, as in known_hosts.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub host_key: Option<String>,
    /// Where the key comes from.
    pub key: RepoKey,
    /// Refs the agent may push, `refs/heads/agent/*`; `*` is any text, as in a refspec. Empty: it can only read.
    pub refs: Vec<String>,
    /// What else a push must keep to.
    pub push: PushRules,
    /// Whether the gate signs what it pushes there.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub sign: Option<Sign>,
}

/// Signing of pushes (not of commits, whose ids would change) with a key that the gate alone holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "manifest", derive(schemars::JsonSchema))]
#[serde(rename_all = "kebab-case")]
pub enum Sign {
    /// Always: an upstream that does not ask for a signed push gets none.
    Ssh,
    /// Where the upstream asks for it.
    SshIfAsked,
}

impl Repo {
    /// Whether nothing may be pushed.
    #[must_use]
    pub fn is_read_only(&self) -> bool {
        self.refs.is_empty()
    }
}

/// What a push must keep to, beside the refs.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "manifest", derive(schemars::JsonSchema))]
#[serde(deny_unknown_fields)]
pub struct PushRules {
    /// Commits in one push that the upstream does not have.
    pub max_commits: u64,
    /// Bytes of one push, as it is sent and also unpacked.
    pub max_bytes: u64,
    /// Paths that no pushed commit may change, as in .gitignore: `.github/workflows/**`.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub protected_paths: Vec<String>,
    /// Whether the operator looks at each push before it goes on.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub review: bool,
    /// Seconds that a push which needs the operator is held; [`HOLD_SECONDS`] when not written.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub hold: Option<u64>,
}

/// Agents give up on a command after two minutes; before that the push ends by itself and says how to go on.
pub const HOLD_SECONDS: u64 = 100;

/// Where the key of a repository comes from.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "manifest", derive(schemars::JsonSchema))]
#[serde(tag = "provider", rename_all = "lowercase", deny_unknown_fields)]
pub enum RepoKey {
    /// A key file of the host.
    Static {
        /// Its path.
        path: PathBuf,
    },
    /// A token for HTTPS, read from the host at `up`.
    Token {
        /// The host variable that holds it.
        env: String,
        /// The user it goes with.
        user: String,
    },
    /// Minted for the bottle at a Gitea or Forgejo.
    Gitea(Forge),
    /// Minted at GitHub.
    Github(Forge),
    /// Minted at a GitLab.
    Gitlab(Forge),
}

impl RepoKey {
    /// The forge that is asked for a key, by its name in the manifest.
    #[must_use]
    pub fn forge(&self) -> Option<(&'static str, &Forge)> {
        match self {
            Self::Static { .. } | Self::Token { .. } => None,
            Self::Gitea(forge) => Some(("gitea", forge)),
            Self::Github(forge) => Some(("github", forge)),
            Self::Gitlab(forge) => Some(("gitlab", forge)),
        }
    }
}

/// How a forge is asked for a deploy key.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "manifest", derive(schemars::JsonSchema))]
#[serde(deny_unknown_fields)]
pub struct Forge {
    /// The host variable with the forge's token.
    pub forge_token_env: String,
    /// The API, when it is not at the repository's host.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub api_url: Option<String>,
}

/// What one bottle's git-gate enforces, and nothing it does not need to know. `bottle-run` writes it as
/// `git-gate/config/gate.json` in the state folder.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "manifest", derive(schemars::JsonSchema))]
#[serde(deny_unknown_fields)]
pub struct Gate {
    /// Always `bottle.gate/v1`.
    #[cfg_attr(feature = "manifest", schemars(extend("const" = GATE_SCHEMA)))]
    pub schema: String,
    /// The bottle's slug; goes into every audit record.
    pub bottle: String,
    /// Digest of the plan this came from.
    pub plan_digest: String,
    /// The sidecar's address on the internal network; it listens on that alone.
    pub listen: IpAddr,
    /// As in the policy document.
    pub log: u8,
    /// Seconds a request to the operator waits for an answer; none: nobody can be asked.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub asking: Option<u64>,
    /// Variables of the sidecar whose values must not be pushed.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub secrets: Vec<String>,
    /// The repositories.
    pub repos: Vec<GateRepo>,
}

/// One repository, as the gate has it. The key of an SSH upstream is `keys/NAME`, its host key `keys/NAME.known_hosts`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "manifest", derive(schemars::JsonSchema))]
#[serde(deny_unknown_fields)]
pub struct GateRepo {
    /// Its name.
    pub name: String,
    /// The upstream.
    pub url: String,
    /// The variable of the sidecar with the token of an HTTPS upstream, and the user it goes with.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub token: Option<TokenSlot>,
    /// Refs the agent may push.
    pub refs: Vec<String>,
    /// What else a push must keep to.
    pub push: PushRules,
    /// Whether pushes there are signed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub sign: Option<Sign>,
}

/// A token by reference.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "manifest", derive(schemars::JsonSchema))]
#[serde(deny_unknown_fields)]
pub struct TokenSlot {
    /// The variable of the sidecar.
    pub slot: String,
    /// The user.
    pub user: String,
}

/// The gate's variable for the token of the repository with this number in the plan.
#[must_use]
pub fn token_slot(index: usize) -> String {
    format!("GIT_GATE_TOKEN_{index}")
}

/// The gate's variable for a value that the agent was given; the number is its place among those.
#[must_use]
pub fn secret_slot(index: usize) -> String {
    format!("GIT_GATE_SECRET_{index}")
}

/// The name of the file in which the gate shows the operator what this push would change.
#[must_use]
pub fn review_file(repo: &str, reference: &str, object: &str) -> String {
    let key = crate::audit::hash(format!("{repo}\n{reference}\n{object}").as_bytes());
    format!("{key}.diff")
}

/// The most such a file holds.
pub const MAX_REVIEW: u64 = 256 << 10;

/// A difference that nothing in a repository decides the looks of, so that nothing is hidden from who reads it.
pub const PLAIN_DIFF: [&str; 6] = [
    "diff",
    "--no-ext-diff",
    "--no-textconv",
    "--no-color",
    "--no-renames",
    "--submodule=short",
];

/// The signing key of the gate in its `config`, and its public half in the folder above.
pub const SIGNING_KEY: &str = "signing-key";
