//! Values of the host that the plan names: read once, held in memory, handed on through environments and pipes.

use std::fmt;

use bottle_plan::failure::{Failure, Result};
use bottle_plan::git::{secret_slot, token_slot};
use bottle_plan::plan::{EnvSource, Plan, RepoKey, UPSTREAM_PROXY};
use zeroize::Zeroizing;

use crate::interrupt;

/// As the egress sidecar has it.
const SHORTEST_CREDENTIAL: usize = 8;

/// A value that is wiped when it is dropped and never printed.
#[derive(Clone)]
pub struct Secret(Zeroizing<String>);

impl Secret {
    /// The value, for the one place that needs it.
    #[must_use]
    pub fn expose(&self) -> &str {
        &self.0
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Secret(…)")
    }
}

/// The values of one bottle.
#[derive(Debug, Default)]
pub struct Secrets {
    /// Slot → value, for the egress sidecar alone.
    pub slots: Vec<(String, Secret)>,
    /// Variable → value, for the agent: it may see these.
    pub agent: Vec<(String, Secret)>,
    /// Slot → value, for git-gate alone: the tokens of its upstreams, and what the agent sees and must not push.
    pub git: Vec<(String, Secret)>,
}

/// Reads everything the plan names. Asked on the terminal is only what can be had no other way. What is in `planted`
/// takes the place of a variable of the host.
///
/// # Errors
/// When a variable is not set, is not usable in a header, or nobody can be asked, be it that nobody is to be.
pub fn collect(plan: &Plan, planted: &[(String, String)], may_ask: bool) -> Result<Secrets> {
    let mut secrets = Secrets::default();
    for slot in &plan.egress.slots {
        let planted = planted.iter().find(|(name, _)| *name == slot.host);
        let value = match planted {
            Some((_, value)) => Secret(Zeroizing::new(value.clone())),
            None => from_host(&slot.host)?,
        };
        check_header_value(&slot.host, value.expose())?;
        secrets.slots.push((slot.slot.clone(), value));
    }
    if let Some(name) = &plan.egress.upstream_proxy {
        let value = from_host(name)?;
        check_proxy(name, value.expose())?;
        secrets.slots.push((UPSTREAM_PROXY.to_owned(), value));
    }
    for variable in &plan.agent.env {
        let value = match &variable.from {
            EnvSource::Host(name) => from_host(name)?,
            EnvSource::Prompt(message) if may_ask => ask(&variable.name, message)?,
            EnvSource::Prompt(_) => return Err(not_asked(&variable.name, "nobody is to be asked")),
            EnvSource::Literal(_) | EnvSource::Placeholder(_) => continue,
        };
        secrets.agent.push((variable.name.clone(), value));
    }
    if let Some(gate) = &plan.git_gate {
        for (index, repo) in gate.repos.iter().enumerate() {
            if let RepoKey::Token { env, .. } = &repo.key {
                let value = from_host(env)?;
                check_header_value(env, value.expose())?;
                secrets.git.push((token_slot(index), value));
            }
        }
        let given = secrets.agent.iter().enumerate();
        let given = given.map(|(index, (_, value))| (secret_slot(index), value.clone()));
        secrets.git.extend(given.collect::<Vec<_>>());
    }
    Ok(secrets)
}

pub(crate) fn from_host(name: &str) -> Result<Secret> {
    match std::env::var(name) {
        Ok(value) if !value.is_empty() => {
            let value = Zeroizing::new(value);
            // One final newline is what `$(cat file)` forgets and an editor adds.
            let trimmed = value.strip_suffix('\n').unwrap_or(&value);
            Ok(Secret(Zeroizing::new(trimmed.to_owned())))
        }
        Ok(_) => Err(unset(name, "is empty")),
        Err(std::env::VarError::NotPresent) => Err(unset(name, "is not set")),
        Err(std::env::VarError::NotUnicode(_)) => Err(unset(name, "is not UTF-8 text")),
    }
}

fn unset(name: &str, how: &str) -> Failure {
    Failure::invalid(format!("the plan needs the variable {name}, which {how}"))
        .hint(format!("export {name}=… and start again"))
}

/// Anything else in a header would end it, or be refused by the other side without a word.
fn check_header_value(name: &str, value: &str) -> Result<()> {
    // Egress looks for the value in all that passes: a short one would be found everywhere.
    if value.len() < SHORTEST_CREDENTIAL {
        return Err(Failure::invalid(format!(
            "the value of {name} has fewer than {SHORTEST_CREDENTIAL} characters"
        ))
        .hint("a credential is longer than that: look whether it was cut off"));
    }
    if value.bytes().all(|byte| (0x20..0x7f).contains(&byte)) {
        return Ok(());
    }
    Err(Failure::invalid(format!(
        "the value of {name} has characters that no header can carry"
    ))
    .hint("a credential is visible ASCII: look for a line break or a quote that was copied along"))
}

/// What the sidecar can use. The value is not shown: it may hold a password.
fn check_proxy(name: &str, value: &str) -> Result<()> {
    let rest = value.strip_prefix("http://");
    let place = rest.map(|rest| rest.rsplit_once('@').map_or(rest, |(_, place)| place));
    let port = place.and_then(|place| place.trim_end_matches('/').rsplit_once(':'));
    match port {
        Some((host, port)) if !host.is_empty() && port.parse::<u16>().is_ok_and(|port| port > 0) => {
            check_header_value(name, value)
        }
        _ => Err(Failure::invalid(format!(
            "the value of {name} is not a proxy that egress.upstream_proxy can use"
        ))
        .hint("http://host:port or http://user:password@host:port; a proxy that is itself spoken to by TLS is not supported")),
    }
}

fn ask(name: &str, message: &str) -> Result<Secret> {
    let question = format!("{}: ", bottle_plan::failure::printable(message));
    let value = rpassword::prompt_password(question)
        .map_err(|error| not_asked(name, "there is no terminal to ask on").because(error))?;
    // The signal may have come while the answer was awaited.
    interrupt::check()?;
    if value.contains('\0') {
        return Err(Failure::invalid(format!(
            "the value for {name} has a NUL byte"
        )));
    }
    Ok(Secret(Zeroizing::new(value)))
}

fn not_asked(name: &str, why: &str) -> Failure {
    Failure::invalid(format!("the plan asks for {name}, and {why}")).hint(format!(
        "write `{name}: ${{{name}}}` in the manifest and export {name}"
    ))
}
