//! What must not be inside: every secret value of a bottle, from where it lies while the bottle runs.

use std::collections::BTreeSet;
use std::fs;
use std::ops::Range;
use std::path::Path;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use bottle_plan::failure::{Failure, PathContext as _, Result};
use bottle_plan::forms::MIN_LENGTH;
use bottle_plan::handle::Containers;
use bottle_plan::plan::{EnvSource, Plan, RepoKey, UPSTREAM_PROXY};
use bottle_plan::snapshot::{LeftOut, ProvenValue, Reason, ValueKind};
use bottle_run::engine::{Engine, at_once};
use bottle_run::provision::HELPER;
use zeroize::Zeroizing;

/// Larger than any key file.
const MAX_KEY_FILE: u64 = 64 << 10;

/// Which ways of writing a value count.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Writing {
    /// Every one that is known.
    AnyForm,
    /// Only these bytes: they are themselves a way of writing something.
    Exact,
}

/// A value that must not be inside. It is wiped when dropped and never printed.
#[derive(Clone)]
pub struct Value {
    /// What it is called.
    pub name: String,
    /// What it is.
    pub kind: ValueKind,
    /// How it may be written.
    pub writing: Writing,
    /// The value.
    pub bytes: Zeroizing<Vec<u8>>,
}

impl std::fmt::Debug for Value {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Value({})", self.name)
    }
}

impl Value {
    /// A value that is looked for in every form.
    #[must_use]
    pub fn new(name: &str, kind: ValueKind, bytes: &[u8]) -> Self {
        Self {
            name: name.to_owned(),
            kind,
            writing: Writing::AnyForm,
            bytes: Zeroizing::new(bytes.to_vec()),
        }
    }

    /// Its name without its value.
    #[must_use]
    pub fn named(&self) -> ProvenValue {
        ProvenValue {
            name: self.name.clone(),
            kind: self.kind,
        }
    }
}

/// What the user says about values.
#[derive(Clone, Debug, Default)]
pub struct Choice {
    /// Go on without values that are not to be had any more.
    pub allow_missing: bool,
    /// Variables of the agent that are no secrets.
    pub not_secret: Vec<String>,
}

/// All values, and those that are not looked for.
#[derive(Debug, Default)]
pub struct Collected {
    /// What is looked for.
    pub values: Vec<Value>,
    /// What is not.
    pub left_out: Vec<LeftOut>,
}

/// What the containers of a bottle know of its values. One that is gone, paused or stopped knows nothing.
#[derive(Default)]
pub struct Known {
    /// The variables that egress was made with, `NAME=VALUE`.
    pub egress: Vec<Zeroizing<Vec<u8>>>,
    /// What the agent was given: such entries with a NUL behind each.
    pub agent: Zeroizing<Vec<u8>>,
}

/// Whether egress holds values of the host's.
#[must_use]
pub fn egress_has_some(plan: &Plan) -> bool {
    !plan.egress.slots.is_empty() || plan.egress.upstream_proxy.is_some()
}

/// [`Known::agent`], from the memory of its container.
///
/// # Errors
/// When the engine does not answer.
pub fn given(engine: &Engine, plan: &Plan) -> Result<Zeroizing<Vec<u8>>> {
    if given_to_agent(plan).next().is_none() {
        return Ok(Zeroizing::default());
    }
    let agent = Containers::of(plan).agent;
    let user = format!("--user={}", plan.agent.user);
    let stored = engine
        .call(["exec", &user, &agent, HELPER, "env", "--print"])
        .output()?;
    // What is missing then is said.
    let was_given = stored.status.success();
    let stored = Zeroizing::new(stored.stdout);
    Ok(if was_given {
        stored
    } else {
        Zeroizing::default()
    })
}

/// Asks the containers, and collects every secret value of the bottle.
///
/// # Errors
/// As [`collect_from`]; failed, when the engine does not answer.
pub fn collect(engine: &Engine, plan: &Plan, choice: &Choice) -> Result<Collected> {
    let egress = || match egress_has_some(plan) {
        true => crate::engine::container(engine, &Containers::of(plan).egress),
        false => Ok(None),
    };
    let (egress, agent) = at_once(egress, || given(engine, plan))?;
    let known = Known {
        egress: egress?
            .map(|mut container| container.take_environment())
            .unwrap_or_default(),
        agent: agent?,
    };
    collect_from(plan, choice, &known)
}

/// Collects every secret value of the bottle.
///
/// Credentials come from the sidecar that uses them, so that they are those of `up` and not of today's environment,
/// which is asked too: a variable that was changed since has two values, and both must not be inside.
///
/// # Errors
/// Invalid, when a value is not to be had any more and that was not allowed; failed, when a key cannot be read.
pub fn collect_from(plan: &Plan, choice: &Choice, known: &Known) -> Result<Collected> {
    check_names(plan, choice)?;
    let mut basket = Basket::default();
    for slot in &plan.egress.slots {
        let there = basket.take(
            &slot.host,
            ValueKind::Token,
            find(&known.egress, &slot.slot),
        );
        let here = basket.take_from_host(&slot.host, ValueKind::Token, &slot.host);
        basket.need(&slot.host, there || here);
    }
    if let Some(name) = &plan.egress.upstream_proxy {
        // Where the proxy is is no secret; how one gets into it is.
        let there = password(find(&known.egress, UPSTREAM_PROXY));
        let here = std::env::var(name).ok();
        let here = password(here.as_ref().map(String::as_bytes));
        for value in [there, here] {
            basket.take(name, ValueKind::Token, value);
        }
    }
    basket.agent_environment(plan, &known.agent, choice);
    basket.key_file(
        "the CA's key",
        ValueKind::CaKey,
        &plan.egress.ca.dir.join(bottle_ca::KEY_FILE),
        false,
    )?;
    basket.git_keys(plan)?;
    basket.finish(choice)
}

/// The part of a proxy's URL before the `@`, without the user's name: nothing where there is none.
fn password(proxy: Option<&[u8]>) -> Option<&[u8]> {
    let text = std::str::from_utf8(proxy?).ok()?;
    let (before, _) = text.rsplit_once('@')?;
    let (_, user) = before.split_once("://")?;
    user.split_once(':')
        .map(|(_, password)| password.as_bytes())
}

fn check_names(plan: &Plan, choice: &Choice) -> Result<()> {
    let known: Vec<&str> = given_to_agent(plan).map(|(name, _)| name).collect();
    match choice
        .not_secret
        .iter()
        .find(|name| !known.contains(&name.as_str()))
    {
        None => Ok(()),
        Some(name) => Err(Failure::invalid(format!(
            "--not-secret {name}: the agent is given no such variable of the host"
        ))
        .hint(if known.is_empty() {
            "it is given none".to_owned()
        } else {
            format!("it is given {}", known.join(", "))
        })),
    }
}

/// Variables of the agent whose values come from outside, with the host's name for them.
fn given_to_agent(plan: &Plan) -> impl Iterator<Item = (&str, Option<&str>)> {
    plan.agent
        .env
        .iter()
        .filter_map(|variable| match &variable.from {
            EnvSource::Host(host) => Some((variable.name.as_str(), Some(host.as_str()))),
            EnvSource::Prompt(_) => Some((variable.name.as_str(), None)),
            EnvSource::Literal(_) | EnvSource::Placeholder(_) => None,
        })
}

#[derive(Default)]
struct Basket {
    collected: Collected,
    missing: BTreeSet<String>,
}

impl Basket {
    /// Whether there was something to take.
    fn take(&mut self, name: &str, kind: ValueKind, value: Option<&[u8]>) -> bool {
        let Some(value) = value.filter(|value| !value.is_empty()) else {
            return false;
        };
        let known = |one: &Value| one.name == name && one.bytes.as_slice() == value;
        if value.len() < MIN_LENGTH {
            self.leave_out(name, Reason::TooShort);
        } else if !self.collected.values.iter().any(known) {
            self.collected.values.push(Value::new(name, kind, value));
        }
        true
    }

    fn take_from_host(&mut self, name: &str, kind: ValueKind, host: &str) -> bool {
        let value = std::env::var(host).map(Zeroizing::new).ok();
        // As `up` takes it: without the newline that a file ends with.
        let value = value
            .as_ref()
            .map(|text| text.strip_suffix('\n').unwrap_or(text));
        self.take(name, kind, value.map(str::as_bytes))
    }

    fn need(&mut self, name: &str, there: bool) {
        if !there {
            self.missing.insert(name.to_owned());
        }
    }

    fn leave_out(&mut self, name: &str, why: Reason) {
        let name = name.to_owned();
        if !self.collected.left_out.iter().any(|one| one.name == name) {
            self.collected.left_out.push(LeftOut { name, why });
        }
    }

    /// What the agent was given lies in its memory and, if it came from there, in our own environment. The agent could
    /// have changed its copy: a value it invented is looked for too, which does no harm.
    fn agent_environment(&mut self, plan: &Plan, stored: &[u8], choice: &Choice) {
        let entries: Vec<&[u8]> = stored.split(|byte| *byte == 0).collect();
        for (name, host) in given_to_agent(plan) {
            if choice.not_secret.iter().any(|given| given == name) {
                self.leave_out(name, Reason::NotSecret);
                continue;
            }
            let there = self.take(name, ValueKind::Environment, find(&entries, name));
            let here =
                host.is_some_and(|host| self.take_from_host(name, ValueKind::Environment, host));
            self.need(name, there || here);
        }
    }

    fn git_keys(&mut self, plan: &Plan) -> Result<()> {
        for repo in plan.git_gate.iter().flat_map(|gate| &gate.repos) {
            match &repo.key {
                RepoKey::Static { path } => {
                    let name = format!("the key of {}", repo.name);
                    self.key_file(&name, ValueKind::GitKey, path, true)?;
                }
                RepoKey::Token { env, .. } => {
                    let there = self.take_from_host(env, ValueKind::GitKey, env);
                    self.need(env, there);
                }
                RepoKey::Gitea(forge) | RepoKey::Github(forge) | RepoKey::Gitlab(forge) => {
                    let there = self.take_from_host(
                        &forge.forge_token_env,
                        ValueKind::GitKey,
                        &forge.forge_token_env,
                    );
                    self.need(&forge.forge_token_env, there);
                }
            }
        }
        // Keys that were minted for this bottle.
        let folder = plan.state.join("git-gate");
        for path in key_files(&folder)? {
            let name = path
                .strip_prefix(&folder)
                .unwrap_or(&path)
                .display()
                .to_string();
            self.key_file(&name, ValueKind::GitKey, &path, true)?;
        }
        Ok(())
    }

    /// A private key: its bytes in any form, and each line of the file it is in.
    fn key_file(&mut self, name: &str, kind: ValueKind, path: &Path, needed: bool) -> Result<()> {
        let text = match fs::read(path) {
            Ok(bytes) => Zeroizing::new(bytes),
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => {
                // A bottle that is stopped has no CA any more.
                if needed {
                    self.missing.insert(name.to_owned());
                }
                return Ok(());
            }
            Err(error) => return Err(error).at("read", path),
        };
        for (bytes, writing) in key_material(&text) {
            self.collected.values.push(Value {
                name: name.to_owned(),
                kind,
                writing,
                bytes,
            });
        }
        Ok(())
    }

    fn finish(mut self, choice: &Choice) -> Result<Collected> {
        if !self.missing.is_empty() && !choice.allow_missing {
            let names: Vec<&str> = self.missing.iter().map(String::as_str).collect();
            let names = names.join(", ");
            return Err(Failure::invalid(format!(
                "the value of {names} is not to be had any more, so it cannot be proved that it is not inside"
            ))
            .hint("export it as it was at `up`; or say --allow-missing, which the proof will tell"));
        }
        for name in std::mem::take(&mut self.missing) {
            self.leave_out(&name, Reason::Missing);
        }
        Ok(self.collected)
    }
}

fn find<'a, B: AsRef<[u8]>>(entries: &'a [B], name: &str) -> Option<&'a [u8]> {
    entries.iter().find_map(|entry| {
        let rest = entry.as_ref().strip_prefix(name.as_bytes())?;
        rest.strip_prefix(b"=")
    })
}

/// Files below `folder` that hold a private key.
fn key_files(folder: &Path) -> Result<Vec<std::path::PathBuf>> {
    let mut found = Vec::new();
    let entries = match fs::read_dir(folder) {
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(found),
        entries => entries.at("read", folder)?,
    };
    for entry in entries {
        let entry = entry.at("read", folder)?;
        let kind = entry.file_type().at("look at", &entry.path())?;
        let size = entry.metadata().at("look at", &entry.path())?.len();
        // A mirror is large and holds what the agent may see anyway.
        let is_mirror = entry.path().join("objects").is_dir();
        if kind.is_dir() && !is_mirror {
            found.extend(key_files(&entry.path())?);
        } else if kind.is_file() && size <= MAX_KEY_FILE {
            let text = Zeroizing::new(fs::read(entry.path()).at("read", &entry.path())?);
            if !key_material(&text).is_empty() {
                found.push(entry.path());
            }
        }
    }
    Ok(found)
}

/// What of a PEM file is secret: the bytes of each private key, and the lines they are written in.
fn key_material(file: &[u8]) -> Vec<(Zeroizing<Vec<u8>>, Writing)> {
    let text = String::from_utf8_lossy(file);
    let mut found = Vec::new();
    let mut lines: Option<Vec<&str>> = None;
    for line in text.lines().map(str::trim) {
        if line.starts_with("-----BEGIN ") && line.ends_with("PRIVATE KEY-----") {
            lines = Some(Vec::new());
        } else if line.starts_with("-----END ") {
            found.extend(lines.take().into_iter().flat_map(|lines| of_lines(&lines)));
        } else if let Some(lines) = &mut lines {
            lines.push(line);
        }
    }
    found
}

fn of_lines(lines: &[&str]) -> Vec<(Zeroizing<Vec<u8>>, Writing)> {
    let whole = Zeroizing::new(lines.concat());
    let Ok(key) = STANDARD.decode(whole.as_bytes()).map(Zeroizing::new) else {
        return Vec::new();
    };
    // No key is so short, and what is would be found everywhere: an agent that gets a file with such a block into the
    // gate's folder could keep its bottle from ever being frozen.
    if key.len() < LOOKED_FOR {
        return Vec::new();
    }
    let secret = secret_part(&key);
    let end = secret.start.max(secret.end.saturating_sub(LOOKED_FOR))..secret.end;
    let mut found = vec![
        (Zeroizing::new(key[end].to_vec()), Writing::AnyForm),
        (key.clone(), Writing::Exact),
    ];
    // A line that is all public stands in the certificate too, when both happen to break at the same place.
    let mut characters = 0;
    for line in lines {
        let bytes = characters / 4 * 3..(characters + line.len()) / 4 * 3;
        characters += line.len();
        let overlap = bytes
            .end
            .min(secret.end)
            .saturating_sub(bytes.start.max(secret.start));
        if overlap >= MIN_LENGTH && line.len() >= LOOKED_FOR {
            found.push((Zeroizing::new(line.as_bytes().to_vec()), Writing::Exact));
        }
    }
    found
}

/// So many bytes of a key are enough to know it by.
const LOOKED_FOR: usize = 32;

/// Where the bytes of a key are that nobody else has: without what all keys of its kind begin with, and without its public
/// half, which is in certificates and host keys for everybody to see.
fn secret_part(key: &[u8]) -> Range<usize> {
    let after = |mark: &[u8], reach: usize| {
        let reach = &key[..key.len().min(reach)];
        let at = reach
            .windows(mark.len())
            .rposition(|window| window == mark)?
            + mark.len();
        (at + LOOKED_FOR <= key.len()).then_some(at..at + LOOKED_FOR)
    };
    let second_half = key.len() / 2..key.len();
    if key.starts_with(b"openssh-key-v1\0") {
        // The 64 bytes of an Ed25519 key: the first half is secret.
        return after(&[0, 0, 0, 64], key.len()).unwrap_or(second_half);
    }
    // An octet string of 32 bytes near the beginning is an EC or Ed25519 key; else RSA, whose public half comes first.
    after(&[0x04, 0x20], 48).unwrap_or(second_half)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_key_is_known_by_its_bytes_and_its_lines() {
        let mut der: Vec<u8> = (100..238).collect();
        der[34..36].copy_from_slice(&[0x04, 0x20]);
        let encoded = STANDARD.encode(&der);
        let lines: Vec<&str> = encoded
            .as_bytes()
            .chunks(64)
            .map(|line| std::str::from_utf8(line).expect("ASCII"))
            .collect();
        let pem = format!(
            "-----BEGIN PRIVATE KEY-----\n{}\n-----END PRIVATE KEY-----\n-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n",
            lines.join("\n")
        );
        let found = key_material(pem.as_bytes());
        let any: Vec<_> = found
            .iter()
            .filter(|(_, w)| *w == Writing::AnyForm)
            .collect();
        assert_eq!(any.len(), 1);
        assert_eq!(any[0].0.as_slice(), &der[36..68]);
        // The key, all of the file, and the two lines that hold a part of the key; the third is public.
        assert_eq!(found.len(), 4);
        assert!(
            !found
                .iter()
                .any(|(bytes, _)| bytes.as_slice() == lines[2].as_bytes())
        );
        assert!(
            key_material(b"-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n")
                .is_empty()
        );
    }

    #[test]
    fn a_block_that_can_be_no_key_is_none() {
        for body in ["", "QQ==", "QUFBQUFBQUE=", "AAAAAAAAAAAAAAAAAAAAAAAAAAAA"] {
            let pem = format!("-----BEGIN PRIVATE KEY-----\n{body}\n-----END PRIVATE KEY-----\n");
            assert!(key_material(pem.as_bytes()).is_empty(), "{body:?}");
        }
    }
}
