//! What of a plan is about the agent: its image, its command, and what it is given and limited to.

use std::collections::BTreeMap;
use std::path::PathBuf;

use serde::{Deserialize, Serialize};

/// The agent's container.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "manifest", derive(schemars::JsonSchema))]
#[serde(deny_unknown_fields)]
pub struct Agent {
    /// The agent's (or, without one, the bottle's) name.
    pub name: String,
    /// Image or build.
    pub image: Image,
    /// What `attach` and `run` start in it.
    pub command: Vec<String>,
    /// The same for one task without a terminal; the word `{{task}}` stands for the task.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub headless: Vec<String>,
    /// Numeric `uid:gid`; never taken from the image.
    pub user: String,
    /// The user's home directory.
    pub home: String,
    /// Where commands start.
    pub workdir: String,
    /// Environment by source, never by value.
    pub env: Vec<EnvVar>,
    /// The system prompt, for providers that take one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub prompt: Option<String>,
    /// Where the prompt is written; `/etc/bottle/prompt.md` unless the provider says otherwise.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub prompt_file: Option<String>,
    /// Folders copied into the agent's skills folder.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub skills: Vec<Skill>,
    /// That folder; `.claude/skills` in the home unless the provider says otherwise.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub skills_folder: Option<String>,
    /// What the provider writes before the first start.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub files: Vec<AgentFile>,
    /// The provider template, when there is one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub provider: Option<Provider>,
    /// `git config` of the agent.
    #[serde(default, skip_serializing_if = "GitUser::is_empty")]
    pub git_user: GitUser,
    /// Limits of the container.
    pub resources: Resources,
    /// What is loosened or tightened.
    pub hardening: Hardening,
}

/// Where an image comes from.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "manifest", derive(schemars::JsonSchema))]
#[serde(deny_unknown_fields)]
pub struct Image {
    /// The image to run. With `build`, the tag the build gets.
    pub reference: String,
    /// The Dockerfile and its folder, when the image is built here.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub build: Option<Build>,
}

/// A build of the agent's image.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "manifest", derive(schemars::JsonSchema))]
#[serde(deny_unknown_fields)]
pub struct Build {
    /// Absolute path of the Dockerfile.
    pub dockerfile: PathBuf,
    /// Absolute path of the build context.
    pub context: PathBuf,
}

/// One variable of the agent's environment.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "manifest", derive(schemars::JsonSchema))]
#[serde(deny_unknown_fields)]
pub struct EnvVar {
    /// The variable.
    pub name: String,
    /// Where its value comes from.
    pub from: EnvSource,
}

/// Where the value of a variable comes from.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "manifest", derive(schemars::JsonSchema))]
#[serde(rename_all = "lowercase")]
pub enum EnvSource {
    /// Written in the manifest; not a secret.
    Literal(String),
    /// Copied from this variable of the host when a command starts.
    Host(String),
    /// Asked for at `up`, with this text.
    Prompt(String),
    /// The placeholder of that egress slot, as its route has it; the agent never sees what it stands for.
    Placeholder(String),
}

/// A skill folder on the host.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "manifest", derive(schemars::JsonSchema))]
#[serde(deny_unknown_fields)]
pub struct Skill {
    /// Its name.
    pub name: String,
    /// The folder.
    pub path: PathBuf,
}

/// A provider of agents.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "manifest", derive(schemars::JsonSchema))]
#[serde(deny_unknown_fields)]
pub struct Provider {
    /// `claude`, `codex`, `shell`, or a folder's name.
    pub template: String,
    /// The host variable with its credential.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub auth_token: Option<String>,
    /// Whether the host's own login is used (codex).
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub forward_host_credentials: bool,
    /// What the provider itself understands.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub settings: BTreeMap<String, serde_json::Value>,
}

/// A file of the provider's: below the home it is the agent's own, elsewhere it can only be read.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "manifest", derive(schemars::JsonSchema))]
#[serde(deny_unknown_fields)]
pub struct AgentFile {
    /// Where it is in the container; absolute.
    pub path: String,
    /// What is in it.
    pub text: String,
    /// The egress slot whose placeholder `{{placeholder}}` stands for, and `{{placeholder_end}}` for its last twenty
    /// characters.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub slot: Option<String>,
}

/// A git identity: claimed by the agent, vouched for by nobody.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "manifest", derive(schemars::JsonSchema))]
#[serde(deny_unknown_fields)]
pub struct GitUser {
    /// `user.name`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub name: Option<String>,
    /// `user.email`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub email: Option<String>,
}

impl GitUser {
    fn is_empty(&self) -> bool {
        *self == Self::default()
    }
}

/// Limits of the agent's container.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "manifest", derive(schemars::JsonSchema))]
#[serde(deny_unknown_fields)]
pub struct Resources {
    /// Memory and swap together, bytes.
    pub memory: u64,
    /// Processors, in thousandths.
    pub millicpus: u32,
    /// Processes and threads.
    pub pids: u32,
    /// Bytes of the writable layer, where the storage driver can limit it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub disk: Option<u64>,
}

/// What differs from the strictest container.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "manifest", derive(schemars::JsonSchema))]
#[serde(deny_unknown_fields)]
pub struct Hardening {
    /// A root file system the agent cannot write to.
    #[serde(default)]
    pub read_only: bool,
    /// Capabilities given back. Those that break the isolation are refused by the planner.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub cap_add: Vec<String>,
}
