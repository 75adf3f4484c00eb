//! Credentials and the CA's key: looked for wherever the agent, an image or a file could have them.

use std::fs;
use std::path::{Path, PathBuf};

use bottle_plan::failure::Result;
use bottle_plan::handle::Containers;
use bottle_plan::plan::Plan;
use zeroize::Zeroizing;

use super::Depth;
use super::card::{Line, json};
use crate::engine::Engine;
use crate::networks;
use crate::provision::HELPER;

/// Shorter ones are found by chance.
const SHORTEST: usize = 8;

/// A secret and what to call it.
struct Needle {
    name: String,
    bytes: Zeroizing<Vec<u8>>,
}

/// The lines of the category `secrets`.
pub(super) fn all(
    engine: &Engine,
    plan: &Plan,
    names: &Containers,
    depth: Depth,
) -> Result<Vec<Line>> {
    let needles = needles(engine, plan, names)?;
    if needles.is_empty() {
        let why = "this bottle has neither credentials nor a CA's key";
        return Ok(vec![Line::not_applicable(
            "secrets",
            "search",
            "its secrets",
            why,
        )]);
    }
    let there: Vec<&str> = needles.iter().map(|needle| needle.name.as_str()).collect();
    let mut lines = vec![Line::new(
        "control",
        "secrets",
        "the secrets, where they belong",
        "there",
        true,
        there.join(", "),
    )];
    let user = format!("--user={}", plan.agent.user);
    let inside = said(engine, &["exec", &user, &names.agent, HELPER, "reveal"])?;
    let agent = said(engine, &["container", "inspect", "--", &names.agent])?;
    let mut inspect = vec!["network", "inspect", "--"];
    inspect.extend(networks::names(plan));
    let networks = said(engine, &inspect)?;
    let places = [
        (
            "inside",
            "environment, arguments and files of the agent's container",
            vec![inside],
        ),
        (
            "agent-config",
            "the configuration of its container",
            vec![agent],
        ),
        (
            "images",
            "configuration and history of its images",
            images(engine, names)?,
        ),
        (
            "networks",
            "its networks' options and labels",
            vec![networks],
        ),
        ("logs", "what its containers printed", logs(engine, names)?),
    ];
    lines.extend(places.map(|(name, tried, haystacks)| line(&needles, name, tried, haystacks)));
    // One after the other: the mirrors of git-gate are among them.
    let state = files(&plan.state).into_iter();
    let state = state.filter_map(|path| fs::read(path).ok());
    let tried = "its folder in the state home";
    lines.push(line(&needles, "state", tried, state));
    lines.push(of_the_host(&needles, depth));
    Ok(lines)
}

fn line(
    needles: &[Needle],
    name: &str,
    tried: &str,
    haystacks: impl IntoIterator<Item = Vec<u8>>,
) -> Line {
    let (found, bytes) = found_in(needles, haystacks);
    let seen = if found.is_empty() {
        format!("none in {bytes} bytes")
    } else {
        found.join(", ")
    };
    Line::new(
        "secrets",
        name,
        tried,
        "none of them",
        found.is_empty(),
        seen,
    )
}

/// How many bytes the arguments of all processes are says nothing of the bottle, and is another number each time.
fn of_the_host(needles: &[Needle], depth: Depth) -> Line {
    let tried = "arguments of all processes of the host";
    if depth == Depth::Beside {
        // Programs of the host that were started with a secret of theirs are not the bottle's doing.
        let why = "only told of a bottle that was made for the check: another's secrets are other programs' too";
        return Line::not_applicable("secrets", "arguments", tried, why);
    }
    let (found, _) = found_in(needles, arguments());
    let seen = if found.is_empty() {
        "none".to_owned()
    } else {
        found.join(", ")
    };
    Line::new(
        "secrets",
        "arguments",
        tried,
        "none of them",
        found.is_empty(),
        seen,
    )
}

fn containers(names: &Containers) -> impl Iterator<Item = &str> {
    let sidecars = names.sidecars().map(|(_, name)| name);
    std::iter::once(names.agent.as_str()).chain(sidecars)
}

fn images(engine: &Engine, names: &Containers) -> Result<Vec<Vec<u8>>> {
    let mut images = Vec::new();
    for container in containers(names) {
        let args = [
            "container",
            "inspect",
            "--format={{.Image}}",
            "--",
            container,
        ];
        let image = said(engine, &args)?;
        let image = String::from_utf8_lossy(&image).trim().to_owned();
        images.push(said(engine, &["image", "inspect", "--", &image])?);
        images.push(said(engine, &["image", "history", "--no-trunc", &image])?);
    }
    Ok(images)
}

fn logs(engine: &Engine, names: &Containers) -> Result<Vec<Vec<u8>>> {
    let mut logs = Vec::new();
    for container in containers(names) {
        let output = engine
            .call(["logs", "--tail=2000", "--", container])
            .output()?;
        logs.extend([output.stdout, output.stderr.into_bytes()]);
    }
    Ok(logs)
}

/// The values as the sidecar has them, and the CA's key.
fn needles(engine: &Engine, plan: &Plan, names: &Containers) -> Result<Vec<Needle>> {
    let env = json(
        engine,
        &[
            "container",
            "inspect",
            "--format={{json .Config.Env}}",
            "--",
            &names.egress,
        ],
    )?;
    let mut needles: Vec<Needle> = env
        .as_array()
        .into_iter()
        .flatten()
        .filter_map(|entry| entry.as_str()?.split_once('='))
        .filter(|(name, value)| {
            value.len() >= SHORTEST && plan.egress.slots.iter().any(|slot| slot.slot == *name)
        })
        .map(|(name, value)| Needle {
            name: name.to_owned(),
            bytes: Zeroizing::new(value.as_bytes().to_vec()),
        })
        .collect();
    let key = fs::read(plan.egress.ca.dir.join("mitmproxy-ca.pem")).map(Zeroizing::new);
    // A line from the middle of the key's own block: what no certificate has.
    let line = key.ok().and_then(|pem| {
        let text = std::str::from_utf8(&pem).ok()?.to_owned();
        let block = text.split("PRIVATE KEY-----").nth(1)?;
        Some(
            block
                .lines()
                .map(str::trim)
                .find(|line| line.len() >= 32)?
                .to_owned(),
        )
    });
    needles.extend(line.map(|line| Needle {
        name: "the CA's key".to_owned(),
        bytes: Zeroizing::new(line.into_bytes()),
    }));
    Ok(needles)
}

/// The names of those that are in one of the haystacks, and how many bytes were looked through.
fn found_in(
    needles: &[Needle],
    haystacks: impl IntoIterator<Item = Vec<u8>>,
) -> (Vec<String>, u64) {
    let mut is_there = vec![false; needles.len()];
    let mut bytes = 0;
    for haystack in haystacks {
        bytes += haystack.len() as u64;
        for (needle, is_there) in needles.iter().zip(&mut is_there) {
            *is_there |= contains(&haystack, &needle.bytes);
        }
    }
    let found = needles.iter().zip(is_there).filter(|(_, there)| *there);
    (
        found.map(|(needle, _)| needle.name.clone()).collect(),
        bytes,
    )
}

fn contains(haystack: &[u8], needle: &[u8]) -> bool {
    let Some(first) = needle.first() else {
        return false;
    };
    let mut rest = haystack;
    while let Some(at) = rest.iter().position(|byte| byte == first) {
        if rest[at..].starts_with(needle) {
            return true;
        }
        rest = &rest[at + 1..];
    }
    false
}

fn said(engine: &Engine, args: &[&str]) -> Result<Vec<u8>> {
    engine
        .call(args.iter().copied())
        .run()
        .map(|output| output.stdout)
}

/// Every file of the bottle but the one in which the CA's key belongs.
fn files(folder: &Path) -> Vec<PathBuf> {
    let mut found = Vec::new();
    for entry in fs::read_dir(folder).into_iter().flatten().flatten() {
        let path = entry.path();
        match entry.file_type() {
            Ok(kind) if kind.is_dir() => found.extend(files(&path)),
            Ok(kind) if kind.is_file() && entry.file_name() != "mitmproxy-ca.pem" => {
                found.push(path);
            }
            _ => {}
        }
    }
    found
}

fn arguments() -> Vec<Vec<u8>> {
    let processes = fs::read_dir("/proc").into_iter().flatten().flatten();
    processes
        .filter_map(|entry| fs::read(entry.path().join("cmdline")).ok())
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_needle_is_found_wherever_it_is() {
        assert!(contains(b"xxsecret", b"secret"));
        assert!(contains(b"sesecret-", b"secret"));
        assert!(!contains(b"secre", b"secret"));
        assert!(!contains(b"anything", b""));
    }
}
