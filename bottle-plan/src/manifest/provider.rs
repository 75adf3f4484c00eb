//! Providers: how an agent is installed, called and told what it needs. A folder of data, and never code of the host.

use std::collections::BTreeMap;
use std::path::Path;

use schemars::JsonSchema;
use serde::Deserialize;

use super::{Route, locate};
use crate::failure::{Failure, Result};

/// The schema tag a provider may carry.
pub const PROVIDER_SCHEMA: &str = "bottle.provider/v1";

/// `provider.yaml`: what lies below every bottle that names the provider.
///
/// `{{name}}` in words and texts stands for a value: `workdir`, `home`, `prompt` (the file it is in), `mcp_url`, `value`
/// (of a setting), `placeholder` and `placeholder_end` (its last twenty characters).
#[derive(Clone, Debug, Default, PartialEq, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Provider {
    /// `bottle.provider/v1`, when written.
    #[schemars(extend("enum" = [PROVIDER_SCHEMA, null]))]
    pub schema: Option<String>,
    /// What it is, in a few words.
    pub description: Option<String>,
    /// What `attach` and `run` start; the word `{{options}}` is where options of settings, prompt and MCP go.
    pub command: Vec<String>,
    /// The same for one task without a terminal; the word `{{task}}` is the task.
    #[serde(default)]
    pub headless: Vec<String>,
    /// As in a bottle, whose own win.
    #[serde(default)]
    pub env: BTreeMap<String, String>,
    /// What `agent_provider.settings` may hold.
    #[serde(default)]
    pub settings: BTreeMap<String, Setting>,
    /// Ways to pay; the first unless `agent_provider.auth_token` says another.
    #[serde(default)]
    pub credentials: Vec<Credential>,
    /// Routes that no bottle can change; it may add to them where they lead (`private`), `limits` and `dlp`.
    #[serde(default)]
    pub routes: Vec<Route>,
    /// How the system prompt is handed over.
    #[serde(default)]
    pub prompt: Prompt,
    /// The folder of the agent's skills.
    pub skills: Option<String>,
    /// How the supervise server is registered.
    #[serde(default)]
    pub mcp: Mcp,
    /// Files that are written before the first start.
    #[serde(default)]
    pub files: Vec<File>,
}

/// Where the value of a setting goes.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Setting {
    /// A variable of the agent.
    pub env: Option<String>,
    /// Options of its command, with `{{value}}`.
    #[serde(default)]
    pub options: Vec<String>,
}

/// A credential that the agent holds a placeholder of.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Credential {
    /// The agent's variable with the placeholder, and the host's with the value.
    pub env: String,
    /// The provider's routes it is put in on.
    pub hosts: Vec<String>,
    /// As in a route's `auth`.
    pub scheme: String,
    /// As in a route's `auth`.
    pub header: Option<String>,
    /// Whether it is the one meant when `agent_provider.auth_token` names a variable that is no credential's own.
    #[serde(default)]
    pub auth_token: bool,
}

/// How the system prompt is handed over.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Prompt {
    /// The file it is written to; `/etc/bottle/prompt.md` unless written.
    pub file: Option<String>,
    /// Options that are added when there is a prompt.
    #[serde(default)]
    pub options: Vec<String>,
}

/// How the supervise server is registered.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Mcp {
    /// Options that are added when there is one.
    #[serde(default)]
    pub options: Vec<String>,
    /// Files that are added when there is one.
    #[serde(default)]
    pub files: Vec<File>,
}

/// A file that is written before the first start.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct File {
    /// `~/…`, the agent's own, or `/etc/…`, which it can only read.
    pub path: String,
    /// What is in it; values are escaped as in strings of JSON and TOML.
    pub text: String,
}

/// Reads `text`, which is the file at `path`.
///
/// # Errors
/// When it is no provider.
pub fn parse(path: &Path, text: &str) -> Result<Provider> {
    let reader = serde_yaml::Deserializer::from_str(text);
    let provider: Provider = serde_path_to_error::deserialize(reader)
        .map_err(|error| locate::yaml_failure(path, text, &error))?;
    match &provider.schema {
        Some(schema) if schema != PROVIDER_SCHEMA => Err(Failure::invalid(locate::at(
            path,
            locate::line_of(text, schema),
            &format!("schema `{schema}` is not known; this version reads `{PROVIDER_SCHEMA}`"),
        ))),
        _ => Ok(provider),
    }
}
