//! Repositories behind git-gate and the agent's identity.

use super::{Inputs, check_variable, on_host};
use crate::failure::{Failure, Result};
use crate::manifest::{self, GitUser};
use crate::plan::{self, Forge, GitGate, PushRules, Repo, RepoKey};

/// What an agent may push unless the manifest says more.
const DEFAULT_REFS: &str = "refs/heads/agent/*";

/// Far above what a person reviews, far below a history that is being poured in.
const MAX_COMMITS: u64 = 500;
const MAX_BYTES: u64 = 100 << 20;

/// What runs with the upstream's own rights as soon as it is pushed, or fetches from elsewhere.
const PROTECTED: [&str; 11] = [
    ".github/workflows/**",
    ".github/actions/**",
    ".gitea/workflows/**",
    ".forgejo/workflows/**",
    ".gitlab-ci.yml",
    ".woodpecker/**",
    ".woodpecker.yml",
    ".woodpecker.yaml",
    ".drone.yml",
    ".circleci/**",
    ".gitmodules",
];

/// Longer, and the agent's git has given up.
const LONGEST_HOLD: u64 = 3600;

/// The user that GitHub and GitLab both take with a token.
const TOKEN_USER: &str = "x-access-token";

pub(super) fn gate(
    written: Option<&manifest::GitGate>,
    inputs: &Inputs<'_>,
) -> Result<Option<GitGate>> {
    let repos = written.and_then(|gate| gate.repos.as_ref());
    let Some(repos) = repos.filter(|repos| !repos.is_empty()) else {
        return Ok(None);
    };
    let repos = repos
        .iter()
        .map(|(name, written)| {
            repo(name, written, inputs)
                .map_err(|failure| failure.while_doing(format!("git-gate.repos.{name}")))
        })
        .collect::<Result<_>>()?;
    Ok(Some(GitGate {
        image: format!("bottle-git-gate:{}", env!("CARGO_PKG_VERSION")),
        repos,
    }))
}

fn repo(name: &str, written: &manifest::Repo, inputs: &Inputs<'_>) -> Result<Repo> {
    let plain = |b: u8| b.is_ascii_alphanumeric() || b"-_.".contains(&b);
    // `.git` is what the gate puts behind it, and `..` is no folder of its own.
    if name.is_empty()
        || name.len() > 100
        || name.starts_with(['.', '-'])
        || name.ends_with(".git")
        || !name.bytes().all(plain)
    {
        return Err(Failure::invalid(
            "the name of a repository is letters, digits, `-`, `_` and `.`, without `.git` at its end",
        ));
    }
    let key = key(&written.key, inputs)?;
    check_address(written, &key)?;
    let refs = written
        .refs
        .clone()
        .unwrap_or_else(|| vec![DEFAULT_REFS.to_owned()]);
    refs.iter().try_for_each(|pattern| check_ref(pattern))?;
    Ok(Repo {
        name: name.to_owned(),
        url: written.url.clone(),
        host_key: written.host_key.clone(),
        key,
        refs,
        push: push_rules(&written.push)?,
        sign: written.sign,
    })
}

/// What has to be decided by a person needs a way to ask her.
pub(super) fn check_review(gate: Option<&GitGate>, can_ask: bool) -> Result<()> {
    let waits = |repo: &&Repo| repo.push.review;
    match gate.and_then(|gate| gate.repos.iter().find(waits)) {
        Some(repo) if !can_ask => Err(Failure::invalid(format!(
            "git-gate.repos.{}: `push.review` needs a way to ask you",
            repo.name
        ))
        .hint("add `supervise: true`; docs/supervise.md says what the agent can ask then")),
        _ => Ok(()),
    }
}

/// The address fits the key, and the host of an SSH address can be known again.
fn check_address(written: &manifest::Repo, key: &RepoKey) -> Result<()> {
    if matches!(key, RepoKey::Token { .. }) {
        return check_https(&written.url);
    }
    if written.url.starts_with("https://") {
        return Err(Failure::invalid(
            "an HTTPS address needs `key: {provider: token, env: VARIABLE}`",
        )
        .hint("or write it as git@host:owner/repo.git, for a key"));
    }
    check_ssh(&written.url)?;
    let hint = "`ssh-keyscan HOST` prints it: `ssh-ed25519 AAAA…`; compare it with what the host publishes";
    let Some(host_key) = &written.host_key else {
        return Err(Failure::invalid(
            "`host_key` is missing: without it anybody on the way could take the upstream's place",
        )
        .hint(hint));
    };
    if host_key.chars().any(char::is_control) || host_key.split_whitespace().count() < 2 {
        return Err(Failure::invalid("host_key is not a line of known_hosts").hint(hint));
    }
    Ok(())
}

fn check_ref(pattern: &str) -> Result<()> {
    let plain = |b: u8| b.is_ascii_alphanumeric() || b"-_./*".contains(&b);
    let rest = pattern
        .strip_prefix("refs/heads/")
        .or_else(|| pattern.strip_prefix("refs/tags/"));
    if rest.is_some_and(|rest| !rest.is_empty())
        && !pattern.contains("..")
        && pattern.bytes().all(plain)
    {
        return Ok(());
    }
    Err(Failure::invalid(format!(
        "refs: `{pattern}` is no pattern for branches or tags"
    ))
    .hint("write it whole, such as refs/heads/agent/* or refs/tags/agent-*"))
}

fn push_rules(written: &manifest::PushRules) -> Result<PushRules> {
    let protected_paths = match &written.protected_paths {
        Some(paths) => paths.clone(),
        None => PROTECTED.map(str::to_owned).to_vec(),
    };
    let unusable = |path: &&String| {
        path.is_empty() || path.starts_with(['/', '!']) || path.chars().any(char::is_control)
    };
    if let Some(path) = protected_paths.iter().find(unusable) {
        return Err(
            Failure::invalid(format!("push.protected_paths: `{path}` is no path pattern")).hint(
                "it begins at the top of the repository, without a slash: .github/workflows/**",
            ),
        );
    }
    let rules = PushRules {
        max_commits: written.max_commits.unwrap_or(MAX_COMMITS),
        max_bytes: written.max_bytes.map_or(MAX_BYTES, |size| size.0),
        protected_paths,
        review: written.review,
        hold: written.hold.map(|seconds| seconds.0),
    };
    if rules
        .hold
        .is_some_and(|hold| !(1..=LONGEST_HOLD).contains(&hold))
    {
        return Err(
            Failure::invalid("push.hold is from 1s to 1h").hint("100s when it is not written")
        );
    }
    if rules.max_commits == 0 || rules.max_bytes == 0 {
        return Err(Failure::invalid("push: a limit of 0 lets nothing through")
            .hint("`refs: []` makes the repository read-only"));
    }
    Ok(rules)
}

fn key(written: &manifest::RepoKey, inputs: &Inputs<'_>) -> Result<RepoKey> {
    match written.provider.as_str() {
        "static" => {
            let path = written.path.as_deref().ok_or_else(|| {
                Failure::invalid("`key: {provider: static}` needs `path`")
                    .hint("the file with the private key")
            })?;
            Ok(RepoKey::Static {
                path: on_host(path, &inputs.places.home, inputs)?,
            })
        }
        "token" => {
            let env = written.env.clone().unwrap_or_default();
            if env.is_empty() {
                return Err(Failure::invalid("`key: {provider: token}` needs `env`")
                    .hint("the host variable with the token"));
            }
            check_variable(&env, "key.env")?;
            let user = written
                .user
                .clone()
                .unwrap_or_else(|| TOKEN_USER.to_owned());
            if user.is_empty() || !user.bytes().all(|b| b.is_ascii_graphic() && b != b':') {
                return Err(Failure::invalid(
                    "key.user is visible ASCII without a colon",
                ));
            }
            Ok(RepoKey::Token { env, user })
        }
        "gitea" => forge(written).map(RepoKey::Gitea),
        "github" => forge(written).map(RepoKey::Github),
        "gitlab" => forge(written).map(RepoKey::Gitlab),
        other => Err(
            Failure::invalid(format!("key.provider: `{other}` is not known"))
                .hint("one of static, token, gitea, github, gitlab"),
        ),
    }
}

fn forge(written: &manifest::RepoKey) -> Result<Forge> {
    let variable = written.forge_token_env.as_deref().unwrap_or_default();
    if variable.is_empty() {
        return Err(Failure::invalid(format!(
            "`key: {{provider: {}}}` needs `forge_token_env`",
            written.provider
        ))
        .hint("the host variable with the forge's token"));
    }
    check_variable(variable, "forge_token_env")?;
    if let Some(url) = &written.api_url {
        let plain = |b: u8| b.is_ascii_graphic() && !b"\"\\<>{}|^`@?#".contains(&b);
        // The forge's token goes there: in the clear it may only to this machine.
        let here = ["http://127.0.0.1", "http://localhost"]
            .iter()
            .any(|begin| {
                url.strip_prefix(begin)
                    .is_some_and(|rest| rest.is_empty() || rest.starts_with([':', '/']))
            });
        let known = url.starts_with("https://") || here;
        if !known || !url.bytes().all(plain) {
            return Err(
                Failure::invalid(format!("key.api_url: `{url}` is not a URL"))
                    .hint("such as https://git.example.com/api/v1"),
            );
        }
    }
    Ok(Forge {
        forge_token_env: variable.to_owned(),
        api_url: written.api_url.clone(),
    })
}

/// `https://host[:port]/path`. A user or a token in it would be in the plan, in argv and in every message of git.
fn check_https(url: &str) -> Result<()> {
    let plain = |b: u8| b.is_ascii_alphanumeric() || b"-_./:~".contains(&b);
    let shape = url.strip_prefix("https://").is_some_and(|rest| {
        rest.split_once('/').is_some_and(|(place, path)| {
            !place.is_empty() && !place.starts_with(['-', '.', ':']) && !path.is_empty()
        })
    });
    if shape && !url.contains("..") && url.bytes().all(plain) {
        return Ok(());
    }
    Err(
        Failure::invalid(format!("`{url}` is not an HTTPS address of a repository"))
            .hint("write https://host/owner/repo.git, without a user or a token in it"),
    )
}

/// `ssh://user@host[:port]/path` or `user@host:path`; anything git could read as an option or a command is refused.
fn check_ssh(url: &str) -> Result<()> {
    let plain = |b: u8| b.is_ascii_alphanumeric() || b"-_./:@~".contains(&b);
    let rest = url.strip_prefix("ssh://").unwrap_or(url);
    let shape = rest.split_once('@').is_some_and(|(user, place)| {
        !user.is_empty()
            && !user.starts_with('-')
            && !user.contains([':', '/'])
            && !place.starts_with('-')
            && place.contains([':', '/'])
            && !place.contains('@')
    });
    if shape && !url.starts_with('-') && !rest.contains("://") && url.bytes().all(plain) {
        return Ok(());
    }
    Err(
        Failure::invalid(format!("`{url}` is not an SSH address of a repository"))
            .hint("write git@host:owner/repo.git or ssh://git@host:22/owner/repo.git"),
    )
}

/// The identity the agent's commits carry.
pub(super) fn user(
    bottle: Option<&manifest::GitGate>,
    agent: Option<&manifest::AgentGit>,
) -> Result<plan::GitUser> {
    let merged = manifest::merge::git_user(
        bottle.and_then(|gate| gate.user.clone()),
        agent.and_then(|gate| gate.user.clone()),
    );
    let GitUser { name, email } = merged.unwrap_or_default();
    for (key, value) in [("name", &name), ("email", &email)] {
        // A newline would begin a line of its own in the agent's gitconfig.
        if value
            .as_ref()
            .is_some_and(|text| text.chars().any(char::is_control))
        {
            return Err(Failure::invalid(format!(
                "git-gate.user.{key} has a control character"
            )));
        }
    }
    Ok(plan::GitUser { name, email })
}

#[cfg(test)]
mod tests {
    use super::{check_https, check_ref, check_ssh};

    #[test]
    fn addresses_of_repositories() {
        for good in [
            "git@github.com:o/r.git",
            "ssh://git@github.com/o/r.git",
            "ssh://git@git.example.com:2222/o/r",
        ] {
            assert!(check_ssh(good).is_ok(), "{good}");
        }
        for bad in [
            "https://github.com/o/r",
            "-oProxyCommand=x",
            "ext::sh -c x",
            "git@host",
            "ssh://-oX@h/p",
            "git@h:$(x)",
            "file:///etc",
            "git@-oX:p",
            "",
        ] {
            assert!(check_ssh(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn https_addresses_carry_no_user() {
        assert!(check_https("https://github.com/o/r.git").is_ok());
        assert!(check_https("https://git.example.com:8443/o/r").is_ok());
        for bad in [
            "http://github.com/o/r",
            "https://user:secret@github.com/o/r",
            "https://token@github.com/o/r",
            "https://github.com",
            "https:///o/r",
            "https://-x/o",
            "https://h/../x",
            "https://h/o?x=1",
        ] {
            assert!(check_https(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn only_branches_and_tags_can_be_pushed() {
        for good in ["refs/heads/agent/*", "refs/heads/*", "refs/tags/agent-*"] {
            assert!(check_ref(good).is_ok(), "{good}");
        }
        for bad in [
            "refs/*",
            "refs/replace/*",
            "refs/heads/",
            "refs/heads/../x",
            "agent/*",
            "refs/heads/a b",
            "",
        ] {
            assert!(check_ref(bad).is_err(), "{bad}");
        }
    }
}
