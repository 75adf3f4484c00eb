//! git-gate on the host's side: its image, and the files that are mounted into it.
//!
//! The mirrors and the audit stay when the bottle goes down; what is in `config` (keys among it) does not.

use std::fs;
use std::path::Path;

use bottle_plan::failure::{Failure, PathContext as _, Result};
use bottle_plan::git::{
    GATE_SCHEMA, Gate, GateRepo, SIGNING_KEY, TokenSlot, secret_slot, token_slot,
};
use bottle_plan::plan::{EnvSource, GitGate, Plan, Repo, RepoKey};
use bottle_plan::state::{StateHome, private_dir, to_json, write_atomic};
use nix::unistd::geteuid;

use crate::engine::Engine;
use crate::files::{give, given_dir, user};
use crate::images::{self, SidecarBinary};
use crate::keys;

/// What the gate writes to, and what stays when the bottle goes down.
const GIVEN: [&str; 3] = ["mirrors", "audit", "reviews"];

/// The image of the gate, built when it is not there; nothing for a bottle without one.
///
/// # Errors
/// When it cannot be built.
pub fn image(
    engine: &Engine,
    plan: &Plan,
    binary: &SidecarBinary,
    progress: bool,
) -> Result<Option<String>> {
    plan.git_gate
        .as_ref()
        .map(|gate| images::ensure_git_gate(engine, &gate.image, binary, progress))
        .transpose()
}

/// Writes everything the gate's container mounts, and has keys minted for those repositories that want one.
///
/// # Errors
/// When a key cannot be read or minted, or something cannot be written.
pub fn write(plan: &Plan, home: &StateHome) -> Result<()> {
    let Some(gate) = &plan.git_gate else {
        return Ok(());
    };
    let folder = plan.state.join("git-gate");
    let config = folder.join("config");
    let keys = config.join("keys");
    private_dir(&folder)?;
    for name in GIVEN {
        given_dir(&folder.join(name))?;
    }
    private_dir(&config)?;
    private_dir(&keys)?;
    let document = to_json(&document(plan, gate))?;
    write_atomic(&config.join("gate.json"), document.as_bytes(), 0o600)?;
    write_atomic(&config.join("passwd"), passwd(plan)?.as_bytes(), 0o644)?;
    if let Some(path) = &plan.egress.upstream_ca {
        let own = fs::read(path).at("read", path)?;
        write_atomic(&config.join("upstream-ca.pem"), &own, 0o600)?;
    }
    for repo in &gate.repos {
        write_key(repo, &keys)?;
    }
    if gate.repos.iter().any(|repo| repo.sign.is_some()) {
        let key = folder.join(SIGNING_KEY);
        keys::signing(&key, &plan.slug)?;
        let private = fs::read(&key).at("read", &key)?;
        write_atomic(&config.join(SIGNING_KEY), &private, 0o600)?;
    }
    // Last: it is the one step that reaches out of this machine.
    keys::mint(home, plan, &keys)?;
    hand_to_gate(plan, &folder)
}

fn write_key(repo: &Repo, keys: &Path) -> Result<()> {
    if let RepoKey::Static { path } = &repo.key {
        let key = fs::read(path).at("read the key", path).map_err(|failure| {
            failure
                .while_doing(format!("git-gate.repos.{}", repo.name))
                .hint("`key.path` names a private key without a passphrase")
        })?;
        check_key(&key, path)?;
        write_atomic(&keys.join(&repo.name), &key, 0o600)?;
    }
    if let Some(line) = known_hosts(repo) {
        let path = keys.join(format!("{}.known_hosts", repo.name));
        write_atomic(&path, line.as_bytes(), 0o600)?;
    }
    Ok(())
}

/// A key that cannot work is said so now, and not by ssh in the middle of the first fetch.
fn check_key(key: &[u8], path: &Path) -> Result<()> {
    let text = String::from_utf8_lossy(key);
    if text.contains("PRIVATE KEY-----") && !text.contains("ENCRYPTED") {
        return Ok(());
    }
    Err(Failure::invalid(format!(
        "{} is not a private key without a passphrase",
        path.display()
    ))
    .hint("ssh-keygen -t ed25519 -N '' -f FILE makes one; give its public half to the forge"))
}

/// The upstream's line of known_hosts, with its name in front as ssh looks for it.
fn known_hosts(repo: &Repo) -> Option<String> {
    let key = repo.host_key.as_deref()?.trim();
    let (host, port) = ssh_place(&repo.url)?;
    let host = host.to_ascii_lowercase();
    let name = match port {
        None | Some("22") => host,
        Some(port) => format!("[{host}]:{port}"),
    };
    let is_type = |word: &str| {
        ["ssh-", "ecdsa-", "sk-"]
            .iter()
            .any(|begin| word.starts_with(begin))
    };
    // With or without the host in front: ssh-keyscan writes it, and a forge's page does not.
    let words: Vec<&str> = key.split_whitespace().collect();
    let at = words.iter().position(|word| is_type(word))?;
    Some(format!("{name} {}\n", words[at..].join(" ")))
}

/// Host and port of an SSH address of either form.
fn ssh_place(url: &str) -> Option<(&str, Option<&str>)> {
    match url.strip_prefix("ssh://") {
        Some(rest) => {
            let (place, _) = rest.split_once('@')?.1.split_once('/')?;
            Some(match place.split_once(':') {
                Some((host, port)) => (host, Some(port)),
                None => (place, None),
            })
        }
        None => Some((url.split_once('@')?.1.split_once(':')?.0, None)),
    }
}

/// What the gate enforces for this plan.
fn document(plan: &Plan, gate: &GitGate) -> Gate {
    let is_secret = |from: &EnvSource| matches!(from, EnvSource::Host(_) | EnvSource::Prompt(_));
    let given = plan
        .agent
        .env
        .iter()
        .filter(|entry| is_secret(&entry.from))
        .count();
    let slots = plan.egress.slots.iter().map(|slot| slot.slot.clone());
    let repos = gate.repos.iter().enumerate().map(|(index, repo)| GateRepo {
        name: repo.name.clone(),
        url: repo.url.clone(),
        token: match &repo.key {
            RepoKey::Token { user, .. } => Some(TokenSlot {
                slot: token_slot(index),
                user: user.clone(),
            }),
            _ => None,
        },
        refs: repo.refs.clone(),
        push: repo.push.clone(),
        sign: repo.sign,
    });
    Gate {
        schema: GATE_SCHEMA.to_owned(),
        bottle: plan.slug.clone(),
        plan_digest: plan.digest.clone(),
        listen: plan.seen_by_agent().git_gate.into(),
        log: plan.egress.log,
        asking: plan.supervise.as_ref().map(|supervise| supervise.timeout),
        secrets: slots.chain((0..given).map(secret_slot)).collect(),
        repos: repos.collect(),
    }
}

fn passwd(plan: &Plan) -> Result<String> {
    let (uid, gid) = user(&plan.sidecar.user)?;
    Ok(format!(
        "root:x:0:0:root:/nonexistent:/usr/sbin/nologin\ngit-gate:x:{uid}:{gid}::/nonexistent:/usr/sbin/nologin\n"
    ))
}

/// The gate runs as a user of its own when we are root: what is mounted into it must be that user's.
fn hand_to_gate(plan: &Plan, folder: &Path) -> Result<()> {
    if !geteuid().is_root() {
        return Ok(());
    }
    let (uid, gid) = user(&plan.sidecar.user)?;
    for name in GIVEN.iter().chain(&["config"]) {
        give_all(&folder.join(name), uid, gid, 2)?;
    }
    Ok(())
}

/// A folder and what is in it. Deeper than that is only what the gate made itself.
fn give_all(path: &Path, uid: u32, gid: u32, depth: u32) -> Result<()> {
    give(path, uid, gid)?;
    if depth > 0 && path.is_dir() {
        for entry in fs::read_dir(path).at("read", path)? {
            give_all(&entry.at("read", path)?.path(), uid, gid, depth - 1)?;
        }
    }
    Ok(())
}

/// What of a push the agent's git holds before it sends it. What fits goes in one request; before a larger push git makes
/// another one, to see whether it may.
const POST_BUFFER: &str = "8m";

/// The agent's gitconfig: every way its upstreams can be spelled leads to the gate.
#[must_use]
pub fn instead_of(plan: &Plan) -> String {
    let mut text = String::new();
    let gate = format!("http://git-gate:{}", bottle_plan::git::GATE_PORT);
    if repos(plan).next().is_some() {
        text.push_str(&format!(
            "[http \"{gate}\"]\n\tpostBuffer = {POST_BUFFER}\n"
        ));
    }
    for repo in repos(plan) {
        text.push_str(&format!("[url \"{gate}/{}.git\"]\n", repo.name));
        for spelling in spellings(&repo.url) {
            text.push_str(&format!("\tinsteadOf = \"{spelling}\"\n"));
        }
    }
    text
}

/// The ways an address is written: scp-like, ssh:// and https:// with and without port and user, with and without `.git`.
/// The longest first is not needed: git itself takes the longest that fits.
fn spellings(url: &str) -> Vec<String> {
    let Some((user, host, port, path)) = parts(url) else {
        return vec![url.to_owned()];
    };
    let bare = path.trim_matches('/').trim_end_matches(".git");
    let mut all = Vec::new();
    for path in [format!("{bare}.git"), bare.to_owned()] {
        for user in [format!("{user}@"), String::new()] {
            for port in ports(port) {
                all.push(format!("ssh://{user}{host}{port}/{path}"));
                all.push(format!("git+ssh://{user}{host}{port}/{path}"));
            }
            if matches!(port, None | Some("22" | "443")) {
                all.push(format!("{user}{host}:{path}"));
                all.push(format!("{user}{host}:/{path}"));
            }
        }
        for web in [
            format!("https://{host}"),
            format!("https://{host}:443"),
            format!("http://{host}"),
            format!("git://{host}"),
        ] {
            all.push(format!("{web}/{path}"));
        }
        if let (true, Some(port)) = (url.starts_with("https://"), port) {
            all.push(format!("https://{host}:{port}/{path}"));
        }
    }
    all
}

fn ports(port: Option<&str>) -> Vec<String> {
    match port {
        None | Some("22" | "443") => vec![String::new(), ":22".to_owned()],
        Some(port) => vec![format!(":{port}")],
    }
}

/// User, host, port and path of an address.
pub(crate) fn parts(url: &str) -> Option<(&str, &str, Option<&str>, &str)> {
    let (place, path) = match url.split_once("://") {
        Some((_, rest)) => rest.split_once('/')?,
        None => url.split_once(':')?,
    };
    let (user, place) = place.split_once('@').unwrap_or(("git", place));
    let (host, port) = match place.split_once(':') {
        Some((host, port)) => (host, Some(port)),
        None => (place, None),
    };
    Some((user, host, port, path))
}

pub(crate) fn repos(plan: &Plan) -> impl Iterator<Item = &Repo> {
    plan.git_gate.iter().flat_map(|gate| &gate.repos)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_address_is_known_in_every_spelling() {
        let all = spellings("git@github.com:owner/app.git");
        for expected in [
            "git@github.com:owner/app.git",
            "git@github.com:owner/app",
            "github.com:owner/app",
            "ssh://git@github.com/owner/app.git",
            "ssh://git@github.com:22/owner/app",
            "ssh://github.com/owner/app",
            "https://github.com/owner/app",
            "https://github.com/owner/app.git",
        ] {
            assert!(all.iter().any(|url| url == expected), "{expected}: {all:?}");
        }
        let all = spellings("ssh://git@git.example.com:2222/o/r");
        assert!(all.contains(&"ssh://git@git.example.com:2222/o/r.git".to_owned()));
        // Another port is another server, and the scp-like form can name none.
        assert!(!all.contains(&"ssh://git@git.example.com/o/r".to_owned()));
        assert!(!all.contains(&"git@git.example.com:o/r".to_owned()));
        let all = spellings("https://git.example.com:8443/o/r.git");
        assert!(all.contains(&"https://git.example.com:8443/o/r".to_owned()));
    }

    #[test]
    fn the_host_key_is_pinned_to_the_name_ssh_looks_for() {
        let repo = |url: &str, host_key: &str| Repo {
            name: "demo".into(),
            url: url.into(),
            host_key: Some(host_key.into()),
            key: RepoKey::Static { path: "/k".into() },
            refs: Vec::new(),
            push: bottle_plan::plan::PushRules {
                max_commits: 1,
                max_bytes: 1,
                protected_paths: Vec::new(),
                review: false,
                hold: None,
            },
            sign: None,
        };
        for (url, key, expected) in [
            (
                "git@h.example.com:o/r",
                "ssh-ed25519 AAAA",
                "h.example.com ssh-ed25519 AAAA\n",
            ),
            (
                "git@h.example.com:o/r",
                "other ssh-ed25519 AAAA",
                "h.example.com ssh-ed25519 AAAA\n",
            ),
            (
                "ssh://git@H.example.com:2222/o/r",
                "ssh-ed25519 AAAA x",
                "[h.example.com]:2222 ssh-ed25519 AAAA x\n",
            ),
            (
                "ssh://git@h.example.com:22/o/r",
                "ecdsa-sha2-nistp256 AAAA",
                "h.example.com ecdsa-sha2-nistp256 AAAA\n",
            ),
        ] {
            assert_eq!(
                known_hosts(&repo(url, key)).as_deref(),
                Some(expected),
                "{url} {key}"
            );
        }
        assert_eq!(known_hosts(&repo("git@h:o/r", "no key")), None);
    }
}
