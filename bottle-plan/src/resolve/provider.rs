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
mod tests {
    use super::*;
    use crate::failure::Kind;
    use crate::manifest::load::{Places, by_name};
    use crate::plan::EnvSource;
    use crate::resolve::{Resolved, resolve};

    #[test]
    fn values_are_put_in_once_and_unknown_names_are_errors() {
        let known = [("a", "{{b}}"), ("b", "2")];
        assert_eq!(filled("x{{a}}y{{b}}", &known).expect("fills"), "x{{b}}y2");
        assert_eq!(
            filled("{\"k\": {\"l\": 1}}", &known).expect("fills"),
            "{\"k\": {\"l\": 1}}"
        );
        let failure = filled("{{c}}", &known).expect_err("unknown");
        assert_eq!(failure.hint_text(), Some("there are a, b"));
    }

    #[test]
    fn a_value_cannot_end_the_string_it_is_in() {
        assert_eq!(escaped("a\"b\\c\n"), "a\\\"b\\\\c\\n");
    }

    #[test]
    fn files_lie_in_the_home_or_in_etc() {
        assert_eq!(
            in_container("~/.claude.json", "/home/agent").expect("fits"),
            "/home/agent/.claude.json"
        );
        assert!(in_container("/etc/bottle/x.json", "/home/agent").is_ok());
        for bad in [
            "x",
            "/usr/bin/x",
            "~/../x",
            "/etc/../x",
            "~/",
            "/etc//x",
            "~x",
        ] {
            assert!(in_container(bad, "/home/agent").is_err(), "{bad}");
        }
    }

    #[test]
    fn everything_built_in_is_valid() {
        for built_in in &BUILT_IN {
            let document = document::parse(Path::new(built_in.name), built_in.yaml);
            let document = document.unwrap_or_else(|failure| panic!("{}", failure.chain()));
            check(&document).unwrap_or_else(|failure| panic!("{}", failure.chain()));
            assert!(!document.headless.is_empty());
        }
    }

    /// A home with one bottle, one agent that has a prompt, and files of providers.
    fn resolved(bottle: &str, providers: &[(&str, &str)]) -> Result<Resolved> {
        let root = tempfile::tempdir().expect("temp dir");
        let home = root.path().join("home");
        let agent = "bottle: web\nprompt: Be kind.\n";
        let files = [("bottles/web.yaml", bottle), ("agents/kind.yaml", agent)];
        for (name, text) in files.iter().chain(providers) {
            let path = home.join(name);
            std::fs::create_dir_all(path.parent().expect("below the home")).expect("mkdir");
            std::fs::write(path, text).expect("write");
        }
        let places = Places {
            home: home.clone(),
            cwd: root.path().to_owned(),
        };
        let manifest = by_name(&places, "kind", &[])?;
        resolve(
            &manifest,
            &Inputs {
                places: &places,
                user_home: None,
                slug: "s",
                state: home.join("state/s"),
                range: "10.213.0.0/27".parse().expect("valid"),
                workspace: None,
            },
        )
    }

    #[test]
    fn the_provider_owns_its_route_and_the_bottle_says_where_it_leads() {
        let bottle = "\
agent_provider: {template: claude}
egress:
  routes:
    - host: API.anthropic.com
      private: [10.1.0.0/16]
      limits: {requests: 5}
      auth: {scheme: Bearer, token_ref: MINE}
      matches: [{paths: [/]}]
    - {host: other.example.com}
";
        let Resolved { plan, warnings, .. } = resolved(bottle, &[]).expect("resolves");
        let [own, other] = plan.egress.routes.as_slice() else {
            panic!("{:?}", plan.egress.routes)
        };
        assert_eq!(own.source.as_deref(), Some("provider:claude"));
        assert_eq!(own.private, ["10.1.0.0/16"]);
        assert_eq!(
            own.limits.as_ref().and_then(|limits| limits.requests),
            Some(5)
        );
        let auth = own.auth.as_ref().expect("a credential");
        assert_eq!(auth.header, "x-api-key");
        assert!(
            !own.matches
                .iter()
                .any(|rule| rule.paths.iter().any(|path| path.value == "/"))
        );
        assert_eq!(other.host, "other.example.com");
        assert!(plan.egress.slots.iter().all(|slot| slot.host != "MINE"));
        assert!(
            matches!(warnings.as_slice(), [one] if one.contains("web.yaml:4")),
            "{warnings:?}"
        );
    }

    #[test]
    fn a_range_in_a_route_the_provider_owns_is_checked_where_it_was_written() {
        let bottle = "agent_provider: {template: claude}\negress: {routes: [{host: api.anthropic.com, private: [x]}]}\n";
        let failure = resolved(bottle, &[]).expect_err("no range");
        assert!(
            failure.chain().starts_with("web.yaml:2: "),
            "{}",
            failure.chain()
        );
    }

    #[test]
    fn the_credential_is_the_one_that_auth_token_means() {
        for (written, host, variable, header) in [
            ("", "ANTHROPIC_API_KEY", "ANTHROPIC_API_KEY", "x-api-key"),
            (
                ", auth_token: ANTHROPIC_API_KEY",
                "ANTHROPIC_API_KEY",
                "ANTHROPIC_API_KEY",
                "x-api-key",
            ),
            (
                ", auth_token: MINE",
                "MINE",
                "CLAUDE_CODE_OAUTH_TOKEN",
                "authorization",
            ),
        ] {
            let bottle = format!("agent_provider: {{template: claude{written}}}\n");
            let plan = resolved(&bottle, &[]).expect("resolves").plan;
            assert_eq!(plan.egress.slots[0].host, host);
            let auth = plan.egress.routes[0].auth.as_ref().expect("a credential");
            assert_eq!(auth.header, header);
            let placeholders: Vec<&str> = plan
                .agent
                .env
                .iter()
                .filter(|variable| matches!(variable.from, EnvSource::Placeholder(_)))
                .map(|variable| variable.name.as_str())
                .collect();
            assert_eq!(placeholders, [variable]);
        }
        assert!(resolved("agent_provider: {template: shell, auth_token: MINE}\n", &[]).is_err());
    }

    #[test]
    fn the_real_key_is_not_given_beside_the_placeholder() {
        let bottle = "agent_provider: {template: claude}\nenv: {ANTHROPIC_API_KEY: '${ANTHROPIC_API_KEY}'}\n";
        let failure = resolved(bottle, &[]).expect_err("refused");
        assert_eq!(failure.kind(), Kind::Refused);
    }

    const OWN: &str = "\
command: [kind-agent, '{{options}}', --loud]
headless: [kind-agent, '{{task}}']
env: {MODE: gentle, KEPT: '1'}
settings: {tone: {env: TONE, options: [--tone, '{{value}}']}}
prompt: {file: ~/.kind/prompt, options: ['--prompt={{prompt}}']}
mcp: {options: ['--mcp={{mcp_url}}']}
skills: ~/.kind/skills
files: [{path: ~/.kind/config, text: 'in \"{{workdir}}\"'}]
";

    #[test]
    fn a_provider_of_ones_own_is_filled_in_and_lies_below_the_bottle() {
        let bottle = "agent_provider: {template: kind, settings: {tone: soft}}\nimage: x\nsupervise: true\nenv: {MODE: stern}\n";
        let own = [("providers/kind/provider.yaml", OWN)];
        let agent = resolved(bottle, &own).expect("resolves").plan.agent;
        assert_eq!(
            agent.command,
            [
                "kind-agent",
                "--tone",
                "soft",
                "--prompt=/home/agent/.kind/prompt",
                "--mcp=http://supervise:9100/mcp",
                "--loud"
            ]
        );
        assert_eq!(agent.headless, ["kind-agent", "{{task}}"]);
        assert_eq!(
            agent.prompt_file.as_deref(),
            Some("/home/agent/.kind/prompt")
        );
        assert_eq!(
            agent.skills_folder.as_deref(),
            Some("/home/agent/.kind/skills")
        );
        assert_eq!(agent.files[0].text, "in \"/workspace\"");
        let value = |name: &str| {
            let found = agent.env.iter().find(|variable| variable.name == name);
            found.map(|variable| variable.from.clone())
        };
        let literal = |text: &str| Some(EnvSource::Literal(text.to_owned()));
        assert_eq!(value("MODE"), literal("stern"));
        assert_eq!(value("KEPT"), literal("1"));
        assert_eq!(value("TONE"), literal("soft"));
    }

    #[test]
    fn a_folder_with_a_dockerfile_alone_is_a_shell_in_that_image() {
        let own = [("providers/bare/Dockerfile", "FROM scratch\n")];
        let plan = resolved("agent_provider: {template: bare}\n", &own)
            .expect("resolves")
            .plan;
        assert_eq!(plan.agent.command, ["/bin/bash", "-l"]);
        assert!(plan.agent.image.reference.starts_with("bottle-agent-bare:"));
    }

    #[test]
    fn what_a_provider_does_not_know_is_an_error_with_its_place() {
        for (yaml, said) in [
            ("command: [x]\nhedless: [x]\n", "provider.yaml:2: "),
            ("command: [x]\nheadless: [x]\n", "where the task goes"),
            ("command: ['{{slug}}']\n", "stands for nothing"),
            (
                "command: [x]\nfiles: [{path: /usr/bin/x, text: ''}]\n",
                "no place for",
            ),
            (
                "command: [x]\nfiles: [{path: ~/x, text: '{{placeholder}}'}]\n",
                "stands for nothing",
            ),
            (
                "command: [x]\ncredentials: [{env: K, hosts: [a.example.com], scheme: Bearer}]\n",
                "has no route",
            ),
        ] {
            let own = [("providers/kind/provider.yaml", yaml)];
            let failure = resolved("agent_provider: {template: kind}\nimage: x\n", &own);
            let failure = failure.err().unwrap_or_else(|| panic!("{yaml}"));
            assert!(failure.chain().contains(said), "{}", failure.chain());
        }
        let missing = resolved("agent_provider: {template: nobody}\nimage: x\n", &[]);
        assert_eq!(
            missing.err().map(|failure| failure.kind()),
            Some(Kind::NotFound)
        );
    }
}
