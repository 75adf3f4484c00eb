//! One repository: its rules, its mirror, its upstream.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Arc;

use bottle_plan::git::{GateRepo, SIGNING_KEY};
use tokio::sync::Mutex;
use zeroize::Zeroizing;

use super::fetch::Flights;
use super::index::Indexing;
use super::{credential, git};

/// How long connecting may take, and how long a silent connection is waited for.
const CONNECT_SECONDS: u32 = 10;
const SILENCE_SECONDS: u32 = 15;

/// A repository behind the gate.
pub(super) struct Repo {
    /// Its rules.
    pub(super) rules: GateRepo,
    /// The bare mirror.
    pub(super) path: PathBuf,
    /// The upstream's host, for the records.
    pub(super) host: Arc<str>,
    config_dir: PathBuf,
    token: Option<Zeroizing<String>>,
    /// Held by whoever changes refs of the mirror.
    pub(super) refs: Arc<Mutex<()>>,
    /// Fetches under way.
    pub(super) flights: Flights,
    /// Whether its index is being written.
    pub(super) indexing: Indexing,
}

impl Repo {
    /// The repository `rules` speaks of; its token is taken from the environment.
    pub(super) fn new(rules: GateRepo, mirrors: &Path, config_dir: &Path) -> Result<Self, String> {
        let plain = |b: u8| b.is_ascii_alphanumeric() || b"-_.".contains(&b);
        let name = &rules.name;
        if name.is_empty() || name.starts_with(['.', '-']) || !name.bytes().all(plain) {
            return Err(format!("`{name}` is no name of a repository"));
        }
        let token = match &rules.token {
            None => None,
            Some(slot) => {
                let value = std::env::var(&slot.slot).unwrap_or_default();
                if value.is_empty() || value.chars().any(char::is_control) {
                    return Err(format!("{} is not set or not usable", slot.slot));
                }
                Some(Zeroizing::new(value))
            }
        };
        Ok(Self {
            path: mirrors.join(format!("{name}.git")),
            host: host_of(&rules.url).into(),
            config_dir: config_dir.to_owned(),
            token,
            refs: Arc::default(),
            flights: Flights::default(),
            indexing: Indexing::default(),
            rules,
        })
    }

    /// `git` that may speak with the upstream, and with nobody else.
    pub(super) fn upstream_git(&self) -> Command {
        let mut command = git::git(&self.path);
        let (protocol, mut config) = if self.rules.token.is_some() {
            ("https", self.https())
        } else {
            command.env("GIT_SSH_COMMAND", self.ssh());
            command.env("GIT_SSH_VARIANT", "ssh");
            ("ssh", Vec::new())
        };
        command.env("GIT_ALLOW_PROTOCOL", protocol);
        config.push(("http.followRedirects", "false".to_owned()));
        if self.rules.sign.is_some() {
            config.extend(self.signing());
            command.env("GIT_COMMITTER_NAME", "git-gate");
            command.env("GIT_COMMITTER_EMAIL", "git-gate@bottle.invalid");
        }
        command.env("GIT_CONFIG_COUNT", config.len().to_string());
        for (number, (key, value)) in config.iter().enumerate() {
            command.env(format!("GIT_CONFIG_KEY_{number}"), key);
            command.env(format!("GIT_CONFIG_VALUE_{number}"), value);
        }
        if let (Some(slot), Some(token)) = (&self.rules.token, &self.token) {
            command.env(credential::USER, &slot.user);
            command.env(credential::TOKEN, token.as_str());
        }
        command
    }

    /// The gate's own key, which signs the list of refs that are pushed. The commits stay as they are.
    fn signing(&self) -> [(&'static str, String); 3] {
        let key = self.config_dir.join(SIGNING_KEY);
        [
            ("gpg.format", "ssh".to_owned()),
            ("gpg.ssh.program", "/usr/bin/ssh-keygen".to_owned()),
            ("user.signingKey", key.display().to_string()),
        ]
    }

    fn https(&self) -> Vec<(&'static str, String)> {
        let own = self.config_dir.join("upstream-ca.pem");
        let mut config = vec![
            // The empty one takes away what anybody else may have set.
            ("credential.helper", String::new()),
            (
                "credential.helper",
                "/bottle-sidecar git-gate-credential".to_owned(),
            ),
            ("http.lowSpeedLimit", "1000".to_owned()),
            ("http.lowSpeedTime", (4 * SILENCE_SECONDS).to_string()),
        ];
        if own.exists() {
            config.push(("http.sslCAInfo", own.display().to_string()));
        }
        config
    }

    /// Names and folders here are ours, so that the shell git calls sees nothing but plain words.
    fn ssh(&self) -> String {
        let key = self.config_dir.join("keys").join(&self.rules.name);
        let hosts = self
            .config_dir
            .join("keys")
            .join(format!("{}.known_hosts", self.rules.name));
        format!(
            "ssh -F /dev/null -i '{}' -o UserKnownHostsFile='{}' -o GlobalKnownHostsFile=/dev/null \
             -o StrictHostKeyChecking=yes -o UpdateHostKeys=no -o CheckHostIP=no -o BatchMode=yes -o IdentitiesOnly=yes \
             -o IdentityAgent=none -o ForwardAgent=no -o ClearAllForwardings=yes -o PermitLocalCommand=no \
             -o ControlMaster=no -o ControlPath=none -o LogLevel=ERROR \
             -o ConnectTimeout={CONNECT_SECONDS} -o ServerAliveInterval={SILENCE_SECONDS} -o ServerAliveCountMax=4",
            key.display(),
            hosts.display()
        )
    }
}

/// The host in an address of either form.
fn host_of(url: &str) -> String {
    let rest = url.split_once("://").map_or(url, |(_, rest)| rest);
    let rest = rest.split_once('@').map_or(rest, |(_, rest)| rest);
    rest.split([':', '/'])
        .next()
        .unwrap_or_default()
        .to_ascii_lowercase()
}

/// The path in an address of either form, without `.git`.
pub(super) fn path_of(url: &str) -> &str {
    let path = match url.split_once("://") {
        Some((_, rest)) => rest.split_once('/').map_or("", |(_, path)| path),
        None => url.split_once(':').map_or("", |(_, path)| path),
    };
    path.trim_matches('/').trim_end_matches(".git")
}

#[cfg(test)]
mod tests {
    use super::{host_of, path_of};

    #[test]
    fn hosts_of_addresses() {
        for url in [
            "git@git.example.com:o/r.git",
            "ssh://git@git.example.com/o/r",
            "ssh://git@git.example.com:2222/o/r",
            "https://git.example.com/o/r",
            "https://Git.Example.com:8443/o/r",
        ] {
            assert_eq!(host_of(url), "git.example.com", "{url}");
            assert_eq!(path_of(url), "o/r", "{url}");
        }
    }
}
