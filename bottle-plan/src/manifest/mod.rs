//! Manifests: what a person writes. The key vocabulary is bot-bottle's, plus ours.

mod kinds;
pub mod load;
pub(crate) mod locate;
pub mod merge;
pub mod provider;
pub mod values;

pub use locate::meant;

use std::collections::BTreeMap;
use std::fmt;

use schemars::JsonSchema;
use serde::Deserialize;
use serde::de::{self, Deserializer, MapAccess, Visitor};

use crate::plan::{Isolation, Runtime, Sign, WorkspaceMode};
use crate::policy::{Dlp, GitAccess, HeaderMatch, Mode, OnFull, Scheme, Tls};
use crate::request::OnTimeout;
use values::{ByteSize, Memory, OneOrMany, PathRule, Seconds};

/// The schema tag a manifest may carry.
pub const MANIFEST_SCHEMA: &str = "bottle.manifest/v1";

/// A bottle: what an agent in it may reach, hold and use. Only ever read from the home, never from a repository.
#[derive(Clone, Debug, Default, PartialEq, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Bottle {
    /// `bottle.manifest/v1`, when written.
    #[schemars(extend("enum" = [MANIFEST_SCHEMA, null]))]
    pub schema: Option<String>,
    /// Bottles this one builds on; a list is folded from left to right.
    pub extends: Option<OneOrMany>,
    /// An image to run.
    pub image: Option<String>,
    /// A Dockerfile to build, relative to this file.
    pub dockerfile: Option<String>,
    /// An agent we know how to set up.
    pub agent_provider: Option<AgentProvider>,
    /// What `attach` and `run` start.
    pub command: Option<Vec<String>>,
    /// `NAME: value`: a literal, `${HOST_VARIABLE}`, or `?question` asked at `up`.
    #[serde(default)]
    pub env: BTreeMap<String, String>,
    /// The way out.
    pub egress: Option<Egress>,
    /// The way to push.
    #[serde(rename = "git-gate")]
    pub git_gate: Option<GitGate>,
    /// Whether and how the agent can ask the operator.
    pub supervise: Option<Supervise>,
    /// The files it works on.
    pub workspace: Option<Workspace>,
    /// Skill folders, by name.
    pub skills: Option<Vec<String>>,
    /// Limits.
    pub resources: Option<Resources>,
    /// `auto`, `runc`, `runsc` or `kata`.
    pub runtime: Option<Runtime>,
    /// What is loosened or tightened.
    pub hardening: Option<Hardening>,
    /// `network` or `strict`.
    pub isolation: Option<Isolation>,
}

/// An agent: a bottle to run in, skills, and a prompt. May be shipped by a repository.
#[derive(Clone, Debug, Default, PartialEq, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Agent {
    /// `bottle.manifest/v1`, when written.
    #[schemars(extend("enum" = [MANIFEST_SCHEMA, null]))]
    pub schema: Option<String>,
    /// The bottle, or several to be folded from left to right.
    pub bottle: Option<OneOrMany>,
    /// Skill folders, by name.
    #[serde(default)]
    pub skills: Vec<String>,
    /// The git identity; repositories belong to bottles.
    #[serde(rename = "git-gate")]
    pub git_gate: Option<AgentGit>,
    /// The system prompt; in a `.md` file the body.
    pub prompt: Option<String>,
    // Claude Code's subagent files may be used as they are: their other keys are read and not used.
    name: Option<String>,
    description: Option<String>,
    model: Option<String>,
    color: Option<String>,
    memory: Option<String>,
}

/// One self-contained file, for `--manifest`.
#[derive(Clone, Debug, Default, PartialEq, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct SingleFile {
    /// `bottle.manifest/v1`, when written.
    #[schemars(extend("enum" = [MANIFEST_SCHEMA, null]))]
    pub schema: Option<String>,
    /// The bottle; `extends` looks in the home.
    pub bottle: Bottle,
    /// The agent.
    #[serde(default)]
    pub agent: Agent,
}

/// The part of `git-gate` an agent may set.
#[derive(Clone, Debug, Default, PartialEq, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct AgentGit {
    /// Laid over the bottle's, field by field.
    pub user: Option<GitUser>,
}

/// A provider of agents.
#[derive(Clone, Debug, Default, PartialEq, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct AgentProvider {
    /// A built-in one, or a folder in the home's `providers/`.
    pub template: String,
    /// A Dockerfile instead of the provider's.
    pub dockerfile: Option<String>,
    /// The host variable with its credential.
    pub auth_token: Option<String>,
    /// Whether the host's own login is used.
    #[serde(default)]
    pub forward_host_credentials: bool,
    /// What the provider itself understands.
    #[serde(default)]
    pub settings: BTreeMap<String, serde_json::Value>,
}

/// The way out.
#[derive(Clone, Debug, Default, PartialEq, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Egress {
    /// 0 nothing but failures, 1 denials, 2 every request.
    pub log: Option<u8>,
    /// More roots to trust upstream, PEM, relative to this file.
    pub upstream_ca: Option<String>,
    /// The host variable with the proxy to go through, such as `HTTPS_PROXY`; none unless written.
    pub upstream_proxy: Option<String>,
    /// How much is kept on record.
    pub audit: Option<Audit>,
    /// `enforce` unless written; `observe` lets the agent reach every public host, to learn what routes it needs.
    pub mode: Option<Mode>,
    /// The only destinations.
    #[serde(default)]
    pub routes: Vec<Route>,
}

/// How much is kept on record, and what happens when it cannot be written.
#[derive(Clone, Debug, Default, PartialEq, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Audit {
    /// Of all files together; `256m` unless written.
    pub max_bytes: Option<ByteSize>,
    /// In so many files; 4 unless written.
    pub files: Option<u32>,
    /// `deny` unless written, or `allow`.
    #[serde(default)]
    pub on_full: OnFull,
}

/// One destination.
#[derive(Clone, Debug, Default, PartialEq, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Route {
    /// A name, or `*.` and a name of two labels or more.
    pub host: String,
    /// `https` unless written.
    #[serde(default)]
    pub scheme: Scheme,
    /// `[443]`, or `[80]` for http, unless written.
    #[serde(default)]
    pub ports: Vec<u16>,
    /// Any entry suffices; none: all is allowed.
    #[serde(default)]
    pub matches: Vec<Match>,
    /// The credential.
    pub auth: Option<Auth>,
    /// `inspect` unless written.
    #[serde(default)]
    pub tls: Tls,
    /// Private ranges this route may reach.
    #[serde(default)]
    pub private: Vec<String>,
    /// Git over HTTPS.
    #[serde(default)]
    pub git: GitAccess,
    /// Content checks.
    pub dlp: Option<Dlp>,
    /// Budgets.
    pub limits: Option<Limits>,
    /// Filled in when the file is read.
    #[serde(skip)]
    pub written_at: Option<String>,
}

/// One alternative of a route.
#[derive(Clone, Debug, Default, PartialEq, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Match {
    /// `/prefix`, or `{type: exact|prefix|regex, value: …}`.
    #[serde(default)]
    pub paths: Vec<PathRule>,
    /// Methods, in any case.
    #[serde(default)]
    pub methods: Vec<String>,
    /// Headers that must be there.
    #[serde(default)]
    pub headers: Vec<HeaderMatch>,
}

/// A credential.
#[derive(Clone, Debug, Default, PartialEq, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Auth {
    /// `Bearer`, `token`, `Basic`, `header` or `query`.
    pub scheme: String,
    /// The header, or the query key.
    pub header: Option<String>,
    /// The host variable that holds the value.
    pub token_ref: String,
    /// The user of `Basic`.
    pub user: Option<String>,
}

/// Budgets of a route.
#[derive(Clone, Debug, Default, PartialEq, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Limits {
    /// Bytes of request bodies, `10m`.
    pub bytes_out: Option<ByteSize>,
    /// Requests.
    pub requests: Option<u64>,
    /// The window, `1h`.
    pub per: Option<Seconds>,
}

/// The way to push.
#[derive(Clone, Debug, Default, PartialEq, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct GitGate {
    /// The agent's identity.
    pub user: Option<GitUser>,
    /// Repositories by name.
    pub repos: Option<BTreeMap<String, Repo>>,
}

/// A git identity.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct GitUser {
    /// `user.name`.
    pub name: Option<String>,
    /// `user.email`.
    pub email: Option<String>,
}

/// A repository.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Repo {
    /// The upstream: SSH, or HTTPS with a token.
    pub url: String,
    /// Its host key; needed for SSH.
    pub host_key: Option<String>,
    /// Where the key comes from.
    pub key: RepoKey,
    /// Refs the agent may push; `refs/heads/agent/*` unless written, and with an empty list none.
    pub refs: Option<Vec<String>>,
    /// What else a push must keep to.
    #[serde(default)]
    pub push: PushRules,
    /// Whether the gate signs pushes with a key of its own: `ssh`, or `ssh-if-asked`.
    pub sign: Option<Sign>,
}

/// What a push must keep to, beside the refs.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct PushRules {
    /// New commits in one push; 500 unless written.
    pub max_commits: Option<u64>,
    /// Bytes of one push; `100m` unless written.
    pub max_bytes: Option<ByteSize>,
    /// Paths that no push may change; the workflow files of the known forges and `.gitmodules` unless written.
    pub protected_paths: Option<Vec<String>>,
    /// Whether the operator looks at each push first.
    #[serde(default)]
    pub review: bool,
    /// How long a push that waits for the operator is held; `100s` unless written.
    pub hold: Option<Seconds>,
}

/// Where the key of a repository comes from.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct RepoKey {
    /// `static`, `token`, `gitea`, `github` or `gitlab`.
    pub provider: String,
    /// The key file of `static`.
    pub path: Option<String>,
    /// The host variable with the value of `token`.
    pub env: Option<String>,
    /// The user a `token` goes with; `x-access-token` unless written.
    pub user: Option<String>,
    /// The host variable with the forge's token.
    pub forge_token_env: Option<String>,
    /// The forge's API.
    pub api_url: Option<String>,
}

/// The files the agent works on.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Workspace {
    /// `cwd`, `none`, or a path.
    pub from: Option<String>,
    /// `copy` unless written.
    #[serde(default)]
    pub mode: WorkspaceMode,
    /// Whether a mounted one can only be read.
    #[serde(default)]
    pub read_only: bool,
    /// Whether a copied one is without what git ignores.
    #[serde(default)]
    pub ignore: bool,
    /// `/workspace` unless written.
    pub workdir: Option<String>,
}

/// Limits of the agent's container.
#[derive(Clone, Debug, Default, PartialEq, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Resources {
    /// `4g` unless written.
    pub memory: Option<Memory>,
    /// 2 unless written.
    pub cpus: Option<f64>,
    /// 2048 unless written.
    pub pids: Option<u32>,
    /// No limit unless written.
    pub disk: Option<ByteSize>,
}

/// What differs from the strictest container.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Hardening {
    /// A root file system the agent cannot write to.
    #[serde(default)]
    pub read_only: bool,
    /// Capabilities given back.
    #[serde(default)]
    pub cap_add: Vec<String>,
}

/// `true`, `false`, or how.
#[derive(Clone, Debug, PartialEq, Eq, JsonSchema)]
#[schemars(with = "SuperviseSchema")]
pub enum Supervise {
    /// With everything as usual, or not at all.
    Switch(bool),
    /// With something of it said.
    Options(SuperviseOptions),
}

#[derive(JsonSchema)]
#[serde(untagged)]
#[allow(dead_code, reason = "only its schema is used")]
enum SuperviseSchema {
    Switch(bool),
    Options(SuperviseOptions),
}

/// How the agent can ask the operator.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct SuperviseOptions {
    /// How long a request waits for an answer; 10m when not written.
    pub timeout: Option<Seconds>,
    /// What happens then: `deny`, or `allow_readonly`.
    #[serde(default)]
    pub on_timeout: OnTimeout,
    /// Hosts it may ask for; any public one when not written.
    #[serde(default)]
    pub hosts: Vec<String>,
}

impl<'de> Deserialize<'de> for Supervise {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Written;
        impl<'de> Visitor<'de> for Written {
            type Value = Supervise;
            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("true, false, or a mapping with `timeout`, `on_timeout` and `hosts`")
            }
            fn visit_bool<E: de::Error>(self, on: bool) -> Result<Supervise, E> {
                Ok(Supervise::Switch(on))
            }
            fn visit_map<A: MapAccess<'de>>(self, map: A) -> Result<Supervise, A::Error> {
                let options = de::value::MapAccessDeserializer::new(map);
                SuperviseOptions::deserialize(options).map(Supervise::Options)
            }
        }
        deserializer.deserialize_any(Written)
    }
}
