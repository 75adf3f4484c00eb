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
            session: None,
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
    let bottle =
        "agent_provider: {template: claude}\nenv: {ANTHROPIC_API_KEY: '${ANTHROPIC_API_KEY}'}\n";
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
