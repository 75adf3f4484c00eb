//! Repositories behind git-gate and the agent's identity.

use super::{Inputs, check_variable, on_host};
use crate::failure::{Failure, Result};
use crate::manifest::{self, GitUser};
use crate::plan::{self, Forge, GitGate, Repo, RepoKey};

/// What an agent may push unless the manifest says more.
const DEFAULT_REFS: &str = "refs/heads/agent/*";

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
    Ok(Some(GitGate { repos }))
}

fn repo(name: &str, written: &manifest::Repo, inputs: &Inputs<'_>) -> Result<Repo> {
    let plain = |b: u8| b.is_ascii_alphanumeric() || b"-_.".contains(&b);
    if name.starts_with(['.', '-']) || !name.bytes().all(plain) {
        return Err(Failure::invalid(
            "the name of a repository is letters, digits, `-`, `_` and `.`",
        ));
    }
    check_url(&written.url)?;
    if let Some(key) = written.host_key.as_ref()
        && (key.chars().any(char::is_control) || key.split_whitespace().count() < 2)
    {
        return Err(Failure::invalid("host_key is not a line of known_hosts")
            .hint("`ssh-keyscan HOST` prints it: `ssh-ed25519 AAAA…`"));
    }
    let refs = written
        .refs
        .clone()
        .unwrap_or_else(|| vec![DEFAULT_REFS.to_owned()]);
    for pattern in &refs {
        let plain = |b: u8| b.is_ascii_alphanumeric() || b"-_./*".contains(&b);
        if !pattern.starts_with("refs/") || pattern.contains("..") || !pattern.bytes().all(plain) {
            return Err(
                Failure::invalid(format!("refs: `{pattern}` is not a ref pattern"))
                    .hint("write it whole, such as refs/heads/agent/*"),
            );
        }
    }
    Ok(Repo {
        name: name.to_owned(),
        url: written.url.clone(),
        host_key: written.host_key.clone(),
        key: key(&written.key, inputs)?,
        refs,
    })
}

fn key(written: &manifest::RepoKey, inputs: &Inputs<'_>) -> Result<RepoKey> {
    if written.provider == "static" {
        let path = written.path.as_deref().ok_or_else(|| {
            Failure::invalid("`key: {provider: static}` needs `path`")
                .hint("the file with the private key")
        })?;
        return Ok(RepoKey::Static {
            path: on_host(path, &inputs.places.home, inputs)?,
        });
    }
    let variable = written.forge_token_env.as_deref().unwrap_or_default();
    if variable.is_empty() {
        return Err(Failure::invalid(format!(
            "`key: {{provider: {}}}` needs `forge_token_env`",
            written.provider
        ))
        .hint("the host variable with the forge's token"));
    }
    check_variable(variable, "forge_token_env")?;
    let forge = Forge {
        forge_token_env: variable.to_owned(),
        api_url: written.api_url.clone(),
    };
    match written.provider.as_str() {
        "gitea" => Ok(RepoKey::Gitea(forge)),
        "github" => Ok(RepoKey::Github(forge)),
        "gitlab" => Ok(RepoKey::Gitlab(forge)),
        other => Err(
            Failure::invalid(format!("key.provider: `{other}` is not known"))
                .hint("one of static, gitea, github, gitlab"),
        ),
    }
}

/// `ssh://user@host[:port]/path` or `user@host:path`; anything git could read as an option or a command is refused.
fn check_url(url: &str) -> Result<()> {
    let plain = |b: u8| b.is_ascii_alphanumeric() || b"-_./:@~".contains(&b);
    let rest = url.strip_prefix("ssh://").unwrap_or(url);
    let shape = rest.split_once('@').is_some_and(|(user, place)| {
        !user.is_empty()
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
    use super::check_url;

    #[test]
    fn addresses_of_repositories() {
        for good in [
            "git@github.com:o/r.git",
            "ssh://git@github.com/o/r.git",
            "ssh://git@git.example.com:2222/o/r",
        ] {
            assert!(check_url(good).is_ok(), "{good}");
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
            assert!(check_url(bad).is_err() || bad == "ssh://-oX@h/p", "{bad}");
        }
    }
}
