//! Deploy keys that live as long as their bottle: minted at `up`, revoked at `down`.
//!
//! Each is written down before the forge is asked, with its public half. So whatever a crash left between the asking and
//! the answer is found again by that half, and goes with the next `down` or `gc`.

mod forge;
mod record;

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use bottle_plan::failure::{Failure, PathContext as _, Result};
use bottle_plan::plan::{Plan, Repo};
use bottle_plan::state::{StateHome, write_atomic};
use time::format_description::well_known::Rfc3339;
use time::{Duration, OffsetDateTime};

use crate::git_gate;
use crate::secrets::{self, Secret};

pub use forge::{Client, default_api};
pub use record::{KEY_SCHEMA, Record, all};

/// What the title promises, and where the forge can keep the promise (GitLab) it does: longer than any sane session.
const DAYS: i64 = 7;

/// Mints a key for every repository of the plan that wants one; the private halves go into `folder`.
///
/// # Errors
/// When ssh-keygen or a forge does not do its part. What was made until then is written down, and revoked with the bottle.
pub fn mint(home: &StateHome, plan: &Plan, folder: &Path) -> Result<()> {
    for repo in git_gate::repos(plan) {
        if let Some((kind, forge)) = repo.key.forge() {
            let token = secrets::from_host(&forge.forge_token_env)?;
            // One that an earlier start left, and nobody can use any more.
            revoke_those(
                home,
                all(home, Some(&plan.slug))?
                    .into_iter()
                    .filter(|r| r.repo == repo.name),
            )?;
            mint_one(home, plan, repo, kind, &token, folder)
                .map_err(|failure| failure.while_doing(format!("git-gate.repos.{}", repo.name)))?;
        }
    }
    Ok(())
}

fn mint_one(
    home: &StateHome,
    plan: &Plan,
    repo: &Repo,
    kind: &str,
    token: &Secret,
    folder: &Path,
) -> Result<()> {
    let Some((_, forge)) = repo.key.forge() else {
        return Ok(());
    };
    let (_, host, _, path) = git_gate::parts(&repo.url).ok_or_else(|| {
        Failure::invalid(format!("`{}` names no repository of a forge", repo.url))
    })?;
    let public = generate(&folder.join(&repo.name), &format!("bottle {}", plan.slug))?;
    let now = OffsetDateTime::now_utc();
    let expires = (now + Duration::days(DAYS)).date().to_string();
    let mut record = Record {
        schema: KEY_SCHEMA.to_owned(),
        slug: plan.slug.clone(),
        repo: repo.name.clone(),
        forge: kind.to_owned(),
        api: forge
            .api_url
            .clone()
            .unwrap_or_else(|| default_api(kind, &host.to_ascii_lowercase())),
        path: path.trim_matches('/').trim_end_matches(".git").to_owned(),
        token_env: forge.forge_token_env.clone(),
        title: format!("bottle {} until {expires}", plan.slug),
        public,
        id: None,
        created_at: now.format(&Rfc3339).unwrap_or_default(),
    };
    record.write(home)?;
    record.id = Some(Client::new(&record, token.clone())?.create(repo.is_read_only(), &expires)?);
    record.write(home)
}

/// The key the gate of a bottle signs pushes with, and beside it, as `NAME.pub`, the line for the upstream's list of
/// allowed signers. It opens nothing, and stays until the bottle is purged: an upstream has to learn it once.
///
/// # Errors
/// When ssh-keygen does not make it.
pub fn signing(file: &Path, slug: &str) -> Result<()> {
    let line = public_half(file);
    if file.is_file() && line.is_file() {
        return Ok(());
    }
    let public = generate(file, &format!("bottle {slug}"))?;
    let text = format!("git-gate@{slug} namespaces=\"git\" {public}\n");
    write_atomic(&line, text.as_bytes(), 0o644)
}

fn public_half(file: &Path) -> PathBuf {
    file.with_file_name(format!(
        "{}.pub",
        file.file_name().unwrap_or_default().to_string_lossy()
    ))
}

/// A new key, by the real ssh-keygen. Returns the public half.
fn generate(file: &Path, comment: &str) -> Result<String> {
    let public = public_half(file);
    for old in [file, &public] {
        let _ = fs::remove_file(old);
    }
    let output = Command::new("ssh-keygen")
        .args(["-q", "-t", "ed25519", "-N", "", "-C", comment, "-f"])
        .arg(file)
        .stdin(Stdio::null())
        .output()
        .map_err(|error| {
            Failure::failed("cannot run ssh-keygen")
                .because(error)
                .hint("install OpenSSH's client, or use a key of your own: `key: {provider: static, path: FILE}`")
        })?;
    if !output.status.success() {
        let said = String::from_utf8_lossy(&output.stderr).trim().to_owned();
        return Err(Failure::failed(format!("ssh-keygen: {said}")));
    }
    let text = fs::read_to_string(&public).at("read", &public)?;
    fs::remove_file(&public).at("remove", &public)?;
    Ok(text
        .split_whitespace()
        .take(2)
        .collect::<Vec<_>>()
        .join(" "))
}

/// Revokes every key of a bottle. What cannot be revoked stays written down.
///
/// # Errors
/// All failures as one, each with the forge's words.
pub fn revoke(home: &StateHome, slug: &str) -> Result<()> {
    revoke_those(home, all(home, Some(slug))?.into_iter())
}

fn revoke_those(home: &StateHome, records: impl Iterator<Item = Record>) -> Result<()> {
    let failures: Vec<String> = records
        .filter_map(|record| {
            revoke_one(home, &record)
                .err()
                .map(|failure| (record, failure))
        })
        .map(|(record, failure)| {
            format!("`{}` at {}: {}", record.title, record.api, failure.chain())
        })
        .collect();
    if failures.is_empty() {
        return Ok(());
    }
    Err(Failure::failed(format!(
        "a deploy key is still valid: {}",
        failures.join("; and ")
    ))
    .hint("put it right and call `bottle-run down` again; until then the key stays written down"))
}

/// Revokes one key, and forgets it when the forge no longer knows it.
///
/// # Errors
/// What the forge says, or that its token is not set.
pub fn revoke_one(home: &StateHome, record: &Record) -> Result<()> {
    let token = secrets::from_host(&record.token_env)?;
    let client = Client::new(record, token)?;
    let numbers = match record.id {
        Some(id) => vec![id],
        None => client.find()?,
    };
    numbers.into_iter().try_for_each(|id| client.remove(id))?;
    record.remove(home)
}
