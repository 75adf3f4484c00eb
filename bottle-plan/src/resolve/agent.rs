//! The agent's container: image, command, environment, limits.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use sha2::{Digest as _, Sha256};

use super::egress::Placeholders;
use super::provider::{self, Dockerfile};
use super::{AGENT_UID, BuiltInFile, Inputs, check_variable, git, on_host};
use crate::failure::{Failure, PathContext, Result};
use crate::manifest::load::{Manifest, hex};
use crate::manifest::{self};
use crate::plan::{
    Agent, Build, EnvSource, EnvVar, Hardening, Image, Provider, Resources, Skill, Source,
    Supervise,
};

const HOME: &str = "/home/agent";

/// Where the trust bundle is put; one file for every program that takes one.
const CA_BUNDLE: &str = "/etc/bottle/ca-bundle.pem";

/// The explicit proxy, by name: the name is answered by the engine, and is the same in every bottle.
const PROXY: &str = "http://egress:3128";
const NO_PROXY: &str = "localhost,127.0.0.1,::1,git-gate,supervise";

/// Variables that point programs at the bundle and the proxy, each with the program it is for.
const OWN_VARIABLES: &[(&str, &str)] = &[
    ("HOME", HOME),
    ("HTTP_PROXY", PROXY),
    ("HTTPS_PROXY", PROXY),
    ("ALL_PROXY", PROXY),
    ("NO_PROXY", NO_PROXY),
    ("http_proxy", PROXY),
    ("https_proxy", PROXY),
    ("all_proxy", PROXY),
    ("no_proxy", NO_PROXY),
    ("NODE_USE_ENV_PROXY", "1"), // Node's fetch looks at no proxy variable without it
    ("SSL_CERT_FILE", CA_BUNDLE), // OpenSSL, Go, rustls-native-certs
    ("CURL_CA_BUNDLE", CA_BUNDLE), // curl with its own TLS library
    ("REQUESTS_CA_BUNDLE", CA_BUNDLE), // Python requests
    ("NODE_EXTRA_CA_CERTS", CA_BUNDLE), // Node
    ("GIT_SSL_CAINFO", CA_BUNDLE), // git
    ("PIP_CERT", CA_BUNDLE),     // pip
    ("CARGO_HTTP_CAINFO", CA_BUNDLE), // cargo
    ("CODEX_CA_CERTIFICATE", CA_BUNDLE), // Codex: its rustls ignores the system store
    ("AWS_CA_BUNDLE", CA_BUNDLE), // AWS tools
    ("DENO_CERT", CA_BUNDLE),    // Deno
];

/// Capabilities that do not lead out of the container. The others do, or break the network's isolation (NET_RAW).
const HARMLESS_CAPABILITIES: [&str; 8] = [
    "CHOWN",
    "DAC_OVERRIDE",
    "FOWNER",
    "FSETID",
    "KILL",
    "SETGID",
    "SETUID",
    "NET_BIND_SERVICE",
];

const GIB: u64 = 1 << 30;

pub(super) struct ResolvedAgent {
    pub(super) agent: Agent,
    pub(super) source: Option<Source>,
    pub(super) files: Vec<BuiltInFile>,
}

/// What the rest of the plan says about the agent.
pub(super) struct Around<'a> {
    pub(super) provider: Option<&'a provider::Provider>,
    pub(super) placeholders: &'a Placeholders,
    pub(super) workdir: &'a str,
    pub(super) supervise: Option<&'a Supervise>,
}

pub(super) fn resolve(
    manifest: &Manifest,
    inputs: &Inputs<'_>,
    around: &Around<'_>,
    warnings: &mut Vec<String>,
) -> Result<ResolvedAgent> {
    let bottle = &manifest.bottle;
    let found = image(manifest, inputs, around.provider)?;
    let filled = around
        .provider
        .map(|provider| {
            let slot = provider.credential.as_ref();
            provider.fill(&provider::Values {
                home: HOME,
                workdir: around.workdir,
                has_prompt: manifest.agent.prompt.is_some(),
                mcp_url: around
                    .supervise
                    .map(|supervise| format!("http://supervise:{}/mcp", supervise.port)),
                slot: slot
                    .and_then(|chosen| around.placeholders.get(&chosen.env))
                    .map(String::as_str),
            })
        })
        .transpose()?;
    if bottle
        .agent_provider
        .as_ref()
        .is_some_and(|written| written.forward_host_credentials)
    {
        warnings.push(
            "agent_provider.forward_host_credentials is not in this version: the login of the host stays there, \
             and the agent works with a key"
                .to_owned(),
        );
    }
    let command = bottle
        .command
        .clone()
        .or_else(|| filled.as_ref().map(|filled| filled.command.clone()))
        .unwrap_or_else(|| vec!["/bin/bash".to_owned(), "-l".to_owned()]);
    if command.is_empty() || command.iter().any(|word| word.contains('\0')) || command[0].is_empty()
    {
        return Err(
            Failure::invalid("`command` is empty").hint("write it as a list, such as [bash, -l]")
        );
    }
    let mut names: Vec<&String> = Vec::new();
    for name in bottle.skills.iter().flatten().chain(&manifest.agent.skills) {
        if !names.contains(&name) {
            names.push(name);
        }
    }
    let agent = Agent {
        name: manifest.name.clone(),
        image: found.image,
        command,
        headless: filled
            .as_ref()
            .map(|filled| filled.headless.clone())
            .unwrap_or_default(),
        user: format!("{AGENT_UID}:{AGENT_UID}"),
        home: HOME.to_owned(),
        workdir: around.workdir.to_owned(),
        env: environment(bottle, around, filled.as_ref(), inputs.slug)?,
        prompt: manifest.agent.prompt.clone(),
        prompt_file: filled
            .as_ref()
            .map(|filled| filled.prompt_file.clone())
            .filter(|path| path != provider::PROMPT_FILE),
        skills_folder: filled.as_ref().and_then(|filled| filled.skills.clone()),
        skills: names
            .into_iter()
            .map(|name| skill(name, inputs))
            .collect::<Result<_>>()?,
        provider: bottle.agent_provider.as_ref().map(|provider| Provider {
            template: provider.template.clone(),
            auth_token: provider.auth_token.clone(),
            forward_host_credentials: provider.forward_host_credentials,
            settings: provider.settings.clone(),
        }),
        git_user: git::user(bottle.git_gate.as_ref(), manifest.agent.git_gate.as_ref())?,
        resources: resources(bottle.resources.as_ref())?,
        hardening: hardening(bottle.hardening.as_ref())?,
        files: filled.map(|filled| filled.files).unwrap_or_default(),
    };
    Ok(ResolvedAgent {
        agent,
        source: found.source,
        files: found.files,
    })
}

struct FoundImage {
    image: Image,
    source: Option<Source>,
    files: Vec<BuiltInFile>,
}

impl FoundImage {
    /// One that is built from a Dockerfile, and named by what is in that. `source` is where the text is said to be from.
    fn built(
        name: &str,
        dockerfile: PathBuf,
        context: PathBuf,
        source: PathBuf,
        text: &[u8],
    ) -> Self {
        let sha256 = hex(&Sha256::digest(text));
        Self {
            image: Image {
                reference: format!("bottle-agent-{name}:{}", &sha256[..12]),
                build: Some(Build {
                    dockerfile,
                    context,
                }),
            },
            source: Some(Source {
                role: "dockerfile".to_owned(),
                name: name.to_owned(),
                path: source,
                sha256,
            }),
            files: Vec::new(),
        }
    }
}

fn image(
    manifest: &Manifest,
    inputs: &Inputs<'_>,
    provider: Option<&provider::Provider>,
) -> Result<FoundImage> {
    let bottle = &manifest.bottle;
    let written = bottle.agent_provider.as_ref();
    let dockerfile = bottle
        .dockerfile
        .as_ref()
        .or(written.and_then(|p| p.dockerfile.as_ref()));
    match (&bottle.image, dockerfile, provider) {
        (Some(_), Some(_), _) => Err(
            Failure::invalid("`image` and a `dockerfile` are both given")
                .hint("keep the one that is meant"),
        ),
        (Some(reference), None, _) => {
            check_image(reference)?;
            Ok(FoundImage {
                image: Image {
                    reference: reference.clone(),
                    build: None,
                },
                source: None,
                files: Vec::new(),
            })
        }
        (None, Some(path), _) => {
            user_build(&manifest.name, &on_host(path, &inputs.places.home, inputs)?)
        }
        (None, None, Some(provider)) => provider_build(provider, inputs),
        (None, None, None) => Err(Failure::invalid(format!(
            "bottle `{}` says nothing about its image",
            manifest.name
        ))
        .hint(
            "add `image: debian:trixie-slim`, `dockerfile: PATH` or \
             `agent_provider: {template: shell}`",
        )),
    }
}

fn provider_build(provider: &provider::Provider, inputs: &Inputs<'_>) -> Result<FoundImage> {
    let name = &provider.name;
    let text = match &provider.dockerfile {
        Some(Dockerfile::BuiltIn(text)) => *text,
        Some(Dockerfile::Own(path)) => return user_build(name, path),
        None => {
            return Err(
                Failure::not_found(format!("the provider `{name}` has no Dockerfile"))
                    .hint("put one beside its provider.yaml, or give the bottle an `image:`"),
            );
        }
    };
    let context = inputs.state.join("build");
    let dockerfile = context.join("Dockerfile");
    let path = PathBuf::from(format!("built-in:{name}/Dockerfile"));
    let mut found = FoundImage::built(name, dockerfile.clone(), context, path, text.as_ref());
    found.files.push(BuiltInFile {
        path: dockerfile,
        text,
    });
    Ok(found)
}

fn user_build(name: &str, path: &Path) -> Result<FoundImage> {
    let dockerfile = std::fs::canonicalize(path).at("read", path)?;
    let text = std::fs::read(&dockerfile).at("read", &dockerfile)?;
    let context = dockerfile.parent().unwrap_or(Path::new("/")).to_owned();
    let path = dockerfile.clone();
    Ok(FoundImage::built(name, dockerfile, context, path, &text))
}

/// What the engine takes as a reference, so that it can never be read as an option.
fn check_image(reference: &str) -> Result<()> {
    let plain = |b: u8| b.is_ascii_alphanumeric() || b"-_./:@".contains(&b);
    let starts = reference
        .bytes()
        .next()
        .is_some_and(|b| b.is_ascii_alphanumeric());
    if starts && reference.len() <= 255 && reference.bytes().all(plain) {
        return Ok(());
    }
    Err(
        Failure::invalid(format!("image: `{reference}` is not an image"))
            .hint("such as debian:trixie-slim"),
    )
}

fn environment(
    bottle: &manifest::Bottle,
    around: &Around<'_>,
    filled: Option<&provider::Filled>,
    slug: &str,
) -> Result<Vec<EnvVar>> {
    let literal = |name: &str, value: &str| EnvVar {
        name: name.to_owned(),
        from: EnvSource::Literal(value.to_owned()),
    };
    let mut env: Vec<EnvVar> = OWN_VARIABLES
        .iter()
        .map(|(name, value)| literal(name, value))
        .collect();
    env.push(literal("BOTTLE_SLUG", slug));
    if let Some(chosen) = around.provider.and_then(|p| p.credential.as_ref())
        && bottle.env.contains_key(&chosen.env)
    {
        return Err(Failure::refused(format!(
            "env: `{}` holds the provider's placeholder: the agent works without the real one",
            chosen.env
        ))
        .hint("take it out; `agent_provider.auth_token` names another variable of yours"));
    }
    let mut written: BTreeMap<&String, &String> = filled
        .iter()
        .flat_map(|filled| filled.env.iter().map(|(name, value)| (name, value)))
        .collect();
    written.extend(&bottle.env);
    for (name, value) in written {
        check_variable(name, "env")?;
        if env.iter().any(|own| own.name == *name) {
            return Err(
                Failure::invalid(format!("env: `{name}` is set by the bottle itself"))
                    .hint("take it out: proxy and CA variables are right as they are"),
            );
        }
        env.push(EnvVar {
            name: name.clone(),
            from: env_source(name, value)?,
        });
    }
    for (name, slot) in around.placeholders {
        if !bottle.env.contains_key(name) {
            env.push(EnvVar {
                name: name.clone(),
                from: EnvSource::Placeholder(slot.clone()),
            });
        }
    }
    env.sort_by(|a, b| a.name.cmp(&b.name));
    Ok(env)
}

fn env_source(name: &str, value: &str) -> Result<EnvSource> {
    if let Some(message) = value.strip_prefix('?') {
        let message = if message.is_empty() { name } else { message };
        return Ok(EnvSource::Prompt(message.to_owned()));
    }
    if let Some(variable) = value
        .strip_prefix("${")
        .and_then(|rest| rest.strip_suffix('}'))
    {
        check_variable(variable, &format!("env.{name}"))?;
        return Ok(EnvSource::Host(variable.to_owned()));
    }
    if value.contains('\0') {
        return Err(Failure::invalid(format!(
            "env: the value of `{name}` has a NUL byte"
        )));
    }
    Ok(EnvSource::Literal(value.to_owned()))
}

fn skill(name: &str, inputs: &Inputs<'_>) -> Result<Skill> {
    let plain = |b: u8| b.is_ascii_alphanumeric() || b"-_".contains(&b);
    if name.is_empty() || !name.bytes().all(plain) {
        return Err(Failure::invalid(format!(
            "skills: `{name}` is not a skill's name"
        )));
    }
    let places = [
        Some(inputs.places.home.join("skills").join(name)),
        inputs
            .user_home
            .as_ref()
            .map(|home| home.join(".claude/skills").join(name)),
    ];
    let looked: Vec<PathBuf> = places.into_iter().flatten().collect();
    match looked.iter().find(|path| path.is_dir()) {
        Some(path) => Ok(Skill {
            name: name.to_owned(),
            path: path.clone(),
        }),
        None => {
            let list: Vec<String> = looked.iter().map(|p| p.display().to_string()).collect();
            Err(Failure::not_found(format!("skills: there is no `{name}`"))
                .hint(format!("looked for {}", list.join(" and "))))
        }
    }
}

fn resources(written: Option<&manifest::Resources>) -> Result<Resources> {
    let written = written.cloned().unwrap_or_default();
    let memory = written.memory.map_or(4 * GIB, |size| size.0);
    // Below this a shell does not start, and the engine's own message says nothing of the manifest.
    if memory < 32 << 20 {
        return Err(
            Failure::invalid(format!("resources.memory: {memory} bytes is too little"))
                .hint("at least 32m; 4g when not written"),
        );
    }
    let cpus = written.cpus.unwrap_or(2.0);
    if !(0.01..=1024.0).contains(&cpus) {
        return Err(Failure::invalid(format!(
            "resources.cpus: {cpus} is not between 0.01 and 1024"
        )));
    }
    let pids = written.pids.unwrap_or(2048);
    if pids < 16 {
        return Err(
            Failure::invalid(format!("resources.pids: {pids} is too few")).hint("at least 16"),
        );
    }
    #[allow(
        clippy::cast_possible_truncation,
        clippy::cast_sign_loss,
        reason = "between 10 and 1,024,000"
    )]
    let millicpus = (cpus * 1000.0).round() as u32;
    Ok(Resources {
        memory,
        millicpus,
        pids,
        disk: written.disk.map(|size| size.0),
    })
}

fn hardening(written: Option<&manifest::Hardening>) -> Result<Hardening> {
    let written = written.cloned().unwrap_or_default();
    let mut cap_add = Vec::new();
    for name in &written.cap_add {
        let upper = name.to_ascii_uppercase();
        let bare = upper.strip_prefix("CAP_").unwrap_or(&upper);
        if !HARMLESS_CAPABILITIES.contains(&bare) {
            return Err(Failure::refused(format!(
                "hardening.cap_add: {name} would break the isolation"
            ))
            .hint(format!(
                "can be given: {}",
                HARMLESS_CAPABILITIES.join(", ")
            )));
        }
        cap_add.push(bare.to_owned());
    }
    Ok(Hardening {
        read_only: written.read_only,
        cap_add,
    })
}

pub(super) fn check_container_path(path: &str) -> Result<()> {
    let system = [
        "/proc", "/sys", "/dev", "/run", "/etc", "/bin", "/sbin", "/lib", "/usr",
    ];
    let inside = |place: &str| {
        path == place
            || path
                .strip_prefix(place)
                .is_some_and(|rest| rest.starts_with('/'))
    };
    let bad = !path.starts_with('/')
        || path == "/"
        || path.contains("//")
        || path.chars().any(char::is_control)
        || path.split('/').any(|part| part == "." || part == "..")
        || system.iter().any(|place| inside(place));
    if bad {
        return Err(Failure::invalid(format!(
            "workspace.workdir: `{path}` cannot be the work directory"
        ))
        .hint("an absolute path outside the system's own folders, such as /workspace"));
    }
    Ok(())
}
