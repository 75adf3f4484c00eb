//! The provider of a bottle: found, its credential chosen, its words filled in.

use std::path::{Path, PathBuf};

use sha2::{Digest as _, Sha256};

use super::{Inputs, check_variable};
use crate::failure::{Failure, PathContext, Result};
use crate::manifest::load::{Manifest, hex};
use crate::manifest::provider::{self as document, Credential};
use crate::manifest::{AgentProvider, Auth, Route};
use crate::plan::{AgentFile, Source};

/// Where the prompt is unless the provider has a place of its own for it.
pub(super) const PROMPT_FILE: &str = "/etc/bottle/prompt.md";

/// No provider a person writes comes near this; a device or an endless file does.
const MAX_BYTES: u64 = 1 << 20;

struct BuiltIn {
    name: &'static str,
    yaml: &'static str,
    dockerfile: &'static str,
}

macro_rules! built_in {
    ($name:literal) => {
        BuiltIn {
            name: $name,
            yaml: include_str!(concat!("../../providers/", $name, "/provider.yaml")),
            dockerfile: include_str!(concat!("../../providers/", $name, "/Dockerfile")),
        }
    };
}

const BUILT_IN: [BuiltIn; 3] = [built_in!("claude"), built_in!("codex"), built_in!("shell")];

/// What a folder with nothing but a Dockerfile says.
const ONLY_AN_IMAGE: &str = "command: [/bin/bash, -l]\n";

/// A provider's Dockerfile.
#[derive(Clone, Debug)]
pub(super) enum Dockerfile {
    BuiltIn(&'static str),
    Own(PathBuf),
}

/// The provider a bottle names.
#[derive(Clone, Debug)]
pub(super) struct Provider {
    pub(super) name: String,
    pub(super) document: document::Provider,
    pub(super) source: Source,
    pub(super) dockerfile: Option<Dockerfile>,
    pub(super) credential: Option<Chosen>,
    settings: Vec<(document::Setting, String)>,
}

/// The credential that is used.
#[derive(Clone, Debug)]
pub(super) struct Chosen {
    /// The agent's variable with the placeholder.
    pub(super) env: String,
    pub(super) auth: Auth,
    hosts: Vec<String>,
}

/// The provider, when the bottle names one.
pub(super) fn find(manifest: &Manifest, inputs: &Inputs<'_>) -> Result<Option<Provider>> {
    let Some(written) = &manifest.bottle.agent_provider else {
        return Ok(None);
    };
    let name = &written.template;
    let plain = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-';
    if name.is_empty() || name.starts_with('-') || !name.bytes().all(plain) {
        return Err(Failure::invalid(format!(
            "agent_provider.template: `{name}` is not a provider's name"
        )));
    }
    let built_in = BUILT_IN.iter().find(|built_in| built_in.name == name);
    let folder = inputs.places.home.join("providers").join(name);
    let own_dockerfile = folder.join("Dockerfile");
    let dockerfile = if own_dockerfile.is_file() {
        Some(Dockerfile::Own(own_dockerfile))
    } else {
        built_in.map(|built_in| Dockerfile::BuiltIn(built_in.dockerfile))
    };
    // File by file: whoever only wants another image need not repeat the rest.
    let own_yaml = folder.join("provider.yaml");
    let (path, yaml) = match (built_in, &dockerfile) {
        _ if own_yaml.is_file() => {
            let text = read(&own_yaml)?;
            (own_yaml, text)
        }
        (Some(built_in), _) => (
            PathBuf::from(format!("built-in:{name}/provider.yaml")),
            built_in.yaml.to_owned(),
        ),
        // An image alone is a provider too; its agent is a shell.
        (None, Some(Dockerfile::Own(path))) => (path.clone(), ONLY_AN_IMAGE.to_owned()),
        _ => return Err(unknown(name, &folder)),
    };
    let document = document::parse(&path, &yaml)?;
    check(&document).map_err(|failure| failure.while_doing(path.display().to_string()))?;
    Ok(Some(Provider {
        name: name.clone(),
        credential: choose(name, &document.credentials, written)?,
        settings: settings(name, &document, written)?,
        source: Source {
            role: "provider".to_owned(),
            name: name.clone(),
            sha256: hex(&Sha256::digest(&yaml)),
            path,
        },
        document,
        dockerfile,
    }))
}

fn read(path: &Path) -> Result<String> {
    let size = std::fs::metadata(path).at("read", path)?.len();
    if size > MAX_BYTES {
        return Err(Failure::invalid(format!(
            "{} is {size} bytes long; a provider is at most {MAX_BYTES}",
            path.display()
        )));
    }
    std::fs::read_to_string(path).at("read", path)
}

fn unknown(name: &str, folder: &Path) -> Failure {
    let names: Vec<&str> = BUILT_IN.iter().map(|built_in| built_in.name).collect();
    Failure::not_found(format!("there is no provider `{name}`")).hint(format!(
        "built in are {}; or put a provider.yaml and a Dockerfile into {}",
        names.join(", "),
        folder.display()
    ))
}

/// What serde cannot check.
fn check(document: &document::Provider) -> Result<()> {
    if document.command.is_empty() {
        return Err(Failure::invalid("`command` is empty"));
    }
    if !document.headless.is_empty() && !document.headless.iter().any(|word| word == "{{task}}") {
        return Err(
            Failure::invalid("`headless` does not say where the task goes")
                .hint("make `{{task}}` one of its words"),
        );
    }
    for credential in &document.credentials {
        check_variable(&credential.env, "credentials.env")?;
        let known = |host: &String| document.routes.iter().any(|route| route.host == *host);
        if let Some(host) = credential.hosts.iter().find(|host| !known(host)) {
            return Err(Failure::invalid(format!(
                "the credential {} is for `{host}`, which has no route here",
                credential.env
            )));
        }
    }
    Ok(())
}

/// The first one, or the one that `auth_token` means.
fn choose(
    name: &str,
    credentials: &[Credential],
    written: &AgentProvider,
) -> Result<Option<Chosen>> {
    let found = match &written.auth_token {
        None => credentials.first(),
        Some(variable) => {
            check_variable(variable, "agent_provider.auth_token")?;
            let own = credentials.iter().find(|known| known.env == *variable);
            let meant = own.or_else(|| credentials.iter().find(|known| known.auth_token));
            // One alone cannot be mistaken for another.
            let meant = meant.or(match credentials {
                [only] => Some(only),
                _ => None,
            });
            Some(meant.ok_or_else(|| {
                let names: Vec<&str> = credentials.iter().map(|known| known.env.as_str()).collect();
                Failure::invalid(format!(
                    "agent_provider.auth_token: `{name}` takes no credential in {variable}"
                ))
                .hint(match names.as_slice() {
                    [] => "take it out: this provider needs none".to_owned(),
                    names => format!("it takes {}", names.join(", ")),
                })
            })?)
        }
    };
    Ok(found.map(|credential| Chosen {
        env: credential.env.clone(),
        auth: Auth {
            scheme: credential.scheme.clone(),
            header: credential.header.clone(),
            token_ref: written
                .auth_token
                .clone()
                .unwrap_or_else(|| credential.env.clone()),
            user: None,
        },
        hosts: credential.hosts.clone(),
    }))
}

fn settings(
    name: &str,
    document: &document::Provider,
    written: &AgentProvider,
) -> Result<Vec<(document::Setting, String)>> {
    let one = |(key, value): (&String, &serde_json::Value)| {
        let setting = document.settings.get(key).ok_or_else(|| {
            let known: Vec<&str> = document.settings.keys().map(String::as_str).collect();
            Failure::invalid(format!(
                "agent_provider.settings: `{name}` knows no `{key}`"
            ))
            .hint(match known.as_slice() {
                [] => "it has no settings".to_owned(),
                known => format!("it knows {}", known.join(", ")),
            })
        })?;
        let text = match value {
            serde_json::Value::String(text) => text.clone(),
            serde_json::Value::Bool(_) | serde_json::Value::Number(_) => value.to_string(),
            _ => {
                return Err(Failure::invalid(format!(
                    "agent_provider.settings.{key} is not a single value"
                )));
            }
        };
        if text.contains('\0') {
            return Err(Failure::invalid(format!(
                "agent_provider.settings.{key} has a NUL byte"
            )));
        }
        Ok((setting.clone(), text))
    };
    written.settings.iter().map(one).collect()
}

/// What the words and texts of a provider are filled with.
#[derive(Clone, Debug)]
pub(super) struct Values<'a> {
    pub(super) home: &'a str,
    pub(super) workdir: &'a str,
    /// Whether there is a prompt to hand over.
    pub(super) has_prompt: bool,
    /// The address of the supervise server, when there is one.
    pub(super) mcp_url: Option<String>,
    /// The slot of the credential.
    pub(super) slot: Option<&'a str>,
}

/// What a provider makes of the agent.
pub(super) struct Filled {
    pub(super) command: Vec<String>,
    pub(super) headless: Vec<String>,
    pub(super) env: Vec<(String, String)>,
    pub(super) prompt_file: String,
    pub(super) skills: Option<String>,
    pub(super) files: Vec<AgentFile>,
}

impl Provider {
    /// Its routes, with the credential on those it is for.
    pub(super) fn routes(&self) -> impl Iterator<Item = Route> {
        self.document.routes.iter().map(|route| {
            let mut route = route.clone();
            route.written_at = Some(format!("provider:{}", self.name));
            if let Some(chosen) = &self.credential
                && chosen.hosts.contains(&route.host)
            {
                route.auth = Some(chosen.auth.clone());
            }
            route
        })
    }

    /// Everything filled in.
    pub(super) fn fill(&self, values: &Values<'_>) -> Result<Filled> {
        self.fill_in(values)
            .map_err(|failure| failure.while_doing(self.source.path.display().to_string()))
    }

    fn fill_in(&self, values: &Values<'_>) -> Result<Filled> {
        let document = &self.document;
        let prompt_file = match &document.prompt.file {
            Some(path) => in_container(path, values.home)?,
            None => PROMPT_FILE.to_owned(),
        };
        let mcp_url = values.mcp_url.as_deref();
        let mut known = vec![
            ("home", values.home),
            ("workdir", values.workdir),
            ("prompt", prompt_file.as_str()),
        ];
        known.extend(mcp_url.map(|url| ("mcp_url", url)));

        let mut options = Vec::new();
        let mut env: Vec<(String, String)> = document.env.clone().into_iter().collect();
        for (setting, value) in &self.settings {
            let mut known = known.clone();
            known.push(("value", value));
            options.extend(words(&setting.options, &known)?);
            env.extend(setting.env.iter().map(|name| (name.clone(), value.clone())));
        }
        if values.has_prompt {
            options.extend(words(&document.prompt.options, &known)?);
        }
        let mut files: Vec<&document::File> = document.files.iter().collect();
        if mcp_url.is_some() {
            options.extend(words(&document.mcp.options, &known)?);
            files.extend(&document.mcp.files);
        }
        let template = |template: &[String]| -> Result<Vec<String>> {
            let mut all = Vec::new();
            for word in template {
                match word.as_str() {
                    "{{options}}" => all.extend(options.iter().cloned()),
                    "{{task}}" => all.push(word.clone()),
                    _ => all.extend(words(std::slice::from_ref(word), &known)?),
                }
            }
            Ok(all)
        };
        Ok(Filled {
            command: template(&document.command)?,
            headless: template(&document.headless)?,
            env,
            skills: document
                .skills
                .as_ref()
                .map(|path| in_container(path, values.home))
                .transpose()?,
            files: files
                .into_iter()
                .map(|file| agent_file(file, &known, values))
                .collect::<Result<_>>()?,
            prompt_file,
        })
    }
}

fn agent_file(
    file: &document::File,
    known: &[(&str, &str)],
    values: &Values<'_>,
) -> Result<AgentFile> {
    let path = in_container(&file.path, values.home)?;
    let escaped: Vec<(&str, String)> = known
        .iter()
        .map(|(name, value)| (*name, escaped(value)))
        .collect();
    let mut known: Vec<(&str, &str)> = escaped
        .iter()
        .map(|(name, value)| (*name, value.as_str()))
        .collect();
    // It differs from bottle to bottle, and a plan's digest does not: filled in when the file is written.
    let late = ["placeholder", "placeholder_end"].map(|name| (name, format!("{{{{{name}}}}}")));
    if values.slot.is_some() {
        known.extend(late.iter().map(|(name, itself)| (*name, itself.as_str())));
    }
    let text = filled(&file.text, &known)
        .map_err(|failure| failure.while_doing(format!("files: {}", file.path)))?;
    let has_placeholder = late.iter().any(|(_, itself)| text.contains(itself));
    Ok(AgentFile {
        path,
        text,
        slot: values.slot.filter(|_| has_placeholder).map(str::to_owned),
    })
}

fn words(template: &[String], known: &[(&str, &str)]) -> Result<Vec<String>> {
    template.iter().map(|word| filled(word, known)).collect()
}

/// `text` with every `{{name}}` replaced, once: values are not looked through again.
fn filled(text: &str, known: &[(&str, &str)]) -> Result<String> {
    let mut whole = String::new();
    let mut rest = text;
    while let Some((before, after)) = rest.split_once("{{") {
        let Some((name, after)) = after.split_once("}}") else {
            break;
        };
        let found = known.iter().find(|(known, _)| *known == name);
        let (_, value) = found.ok_or_else(|| {
            let names: Vec<&str> = known.iter().map(|(name, _)| *name).collect();
            Failure::invalid(format!("`{{{{{name}}}}}` stands for nothing here"))
                .hint(format!("there are {}", names.join(", ")))
        })?;
        whole.push_str(before);
        whole.push_str(value);
        rest = after;
    }
    whole.push_str(rest);
    Ok(whole)
}

/// As it is written between the quotes of a string of JSON, which TOML reads alike.
fn escaped(value: &str) -> String {
    let quoted = serde_json::Value::from(value).to_string();
    quoted[1..quoted.len() - 1].to_owned()
}

/// `~/…` or `/etc/…`: what is elsewhere is the image's, or in memory.
fn in_container(path: &str, home: &str) -> Result<String> {
    let whole = match path.strip_prefix("~/") {
        Some(rest) => format!("{home}/{rest}"),
        None => path.to_owned(),
    };
    let parts = whole.split('/').skip(1);
    let plain = |part: &str| !matches!(part, "" | "." | "..");
    let fits = (path.starts_with("~/") || path.starts_with("/etc/"))
        && !whole.chars().any(char::is_control)
        && parts.clone().all(plain);
    if fits {
        return Ok(whole);
    }
    Err(
        Failure::invalid(format!("`{path}` is no place for a provider's file"))
            .hint("write ~/… for the agent's own, /etc/… for what it may only read"),
    )
}

#[cfg(test)]
#[path = "provider_tests.rs"]
mod tests;
