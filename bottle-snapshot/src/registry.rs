//! Push and pull: a snapshot by way of a registry, which the engine talks to.
//!
//! The image goes as it is, so that its id stays what the record says. What no image can hold about itself, its proof and
//! its plan, lies beside it under the tag with [`SUFFIX`]: an image of two files that nobody runs. It is pushed last and
//! pulled first, and from there on a pull is an import.

use std::fmt;
use std::io::{self, BufRead as _, BufReader, Read};
use std::net::{IpAddr, ToSocketAddrs as _};
use std::str::FromStr;

use bottle_plan::failure::{Failure, Result};
use bottle_plan::plan::Plan;
use bottle_plan::snapshot::{Snapshot, Wanted};
use bottle_plan::state;
use bottle_run::bottle::Home;
use bottle_run::engine::{Engine, Output, failure_of};
use bottle_run::interrupt;
use flate2::bufread::MultiGzDecoder;
use ipnet::IpNet;
use serde_json::Value;

use crate::engine;
use crate::export::{self, PLAN_ENTRY, SNAPSHOT_ENTRY, append};
use crate::image;
use crate::import::{self, Documents, Request};
use crate::journal::Journal;
use crate::pulling::Pulling;
use crate::recover;
use crate::scan::BUFFER;
use crate::show;

/// What the tag of the documents has more than that of the image.
pub const SUFFIX: &str = ".bottle";

/// What a registry takes for a tag.
const MAX_TAG: usize = 128;

/// An image of documents is far smaller.
const MAX_DOCUMENTS: u64 = 64 << 20;

/// `REGISTRY/REPO:TAG`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Place(String);

impl Place {
    /// Where the documents are.
    #[must_use]
    pub fn documents(&self) -> String {
        format!("{}{SUFFIX}", self.0)
    }

    fn registry(&self) -> &str {
        self.0.split('/').next().unwrap_or_default()
    }
}

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl FromStr for Place {
    type Err = Failure;

    fn from_str(text: &str) -> Result<Self> {
        let wrong = |why: &str| {
            Failure::invalid(format!("`{text}` names no place in a registry: {why}"))
                .hint("REGISTRY/REPO:TAG, such as registry.example.com/team/demo:1")
        };
        let (registry, rest) = text.split_once('/').ok_or_else(|| wrong("no registry"))?;
        // As the engine reads it: anything else would be a repository of the registry it has for a default.
        let is_host = registry.contains(['.', ':']) || registry == "localhost";
        let host = |c: char| c.is_ascii_alphanumeric() || ".:-[]".contains(c);
        if !is_host || !registry.starts_with(|c: char| c.is_ascii_alphanumeric() || c == '[') {
            return Err(wrong("no registry"));
        }
        let (repo, tag) = rest.rsplit_once(':').ok_or_else(|| wrong("no tag"))?;
        let name = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || "._-/".contains(c);
        if !registry.chars().all(host) || !repo.chars().all(name) || repo.is_empty() {
            return Err(wrong("a character that no name has"));
        }
        let tagged = |c: char| c.is_ascii_alphanumeric() || "._-".contains(c);
        if !tag.chars().all(tagged) || tag.starts_with(['.', '-']) || tag.is_empty() {
            return Err(wrong("a character that no tag has"));
        }
        if tag.len() + SUFFIX.len() > MAX_TAG {
            return Err(wrong("the tag is too long"));
        }
        Ok(Self(text.to_owned()))
    }
}

/// Pushes a snapshot and its documents.
///
/// # Errors
/// Not found, when there is no such snapshot; conflict, when the place is taken and it is not forced; failed otherwise.
pub fn push(
    engine: &Engine,
    home: &Home,
    wanted: &Wanted,
    place: &Place,
    force: bool,
    say: &dyn Fn(&str),
) -> Result<Snapshot> {
    engine::check_can_commit(engine)?;
    let slug = wanted.slug.as_str();
    let (folder, _lock) = recover::ready(engine, home, wanted, say)?;
    let snapshot = show::find(home, wanted)?;
    let plan = export::plan_of(engine, home, &snapshot)?;
    if !force {
        check_free(engine, place, &snapshot)?;
    }
    let mut names = Vec::new();
    for name in [place.to_string(), place.documents()] {
        if is_unused(engine, &name, &snapshot.image)? {
            names.push(name);
        }
    }
    let journal = Journal::of(&snapshot, names);
    interrupt::check()?;
    journal.write(&folder)?;
    say(&format!("pushing {slug}@{} to {place}", snapshot.number));
    let sent = send(engine, place, &snapshot, &plan);
    interrupt::clear();
    // Whether it worked or not, here it is known by its own name alone.
    let cleared = journal
        .remove_names(engine)
        .and_then(|()| Journal::close(&folder));
    sent.and(cleared).map(|()| snapshot)
}

fn send(engine: &Engine, place: &Place, snapshot: &Snapshot, plan: &Plan) -> Result<()> {
    let push = |name: &str| {
        let pushed = engine.call(["image", "push", "--quiet", "--", name]);
        worked("docker image push", &pushed.unlimited().output()?)
    };
    engine::tag(engine, &snapshot.image, &place.to_string())?;
    push(&place.to_string())?;
    interrupt::check()?;
    let documents = place.documents();
    let packed = packed(snapshot, plan)?;
    let label = format!("--change=LABEL {}=\"{}\"", image::DOCUMENTS, snapshot.id);
    engine
        .call(["image", "import", label.as_str(), "-", documents.as_str()])
        .input(packed)
        .run()?;
    push(&documents)
}

fn packed(snapshot: &Snapshot, plan: &Plan) -> Result<Vec<u8>> {
    let mut archive = tar::Builder::new(Vec::new());
    append(
        &mut archive,
        SNAPSHOT_ENTRY,
        state::to_json(snapshot)?.as_bytes(),
    )?;
    append(&mut archive, PLAN_ENTRY, state::to_json(plan)?.as_bytes())?;
    archive
        .into_inner()
        .map_err(|error| Failure::failed("cannot pack the documents").because(error))
}

/// What is there already is somebody's, but for this snapshot itself, of which a push may have been cut off.
fn check_free(engine: &Engine, place: &Place, snapshot: &Snapshot) -> Result<()> {
    let insecure = is_insecure(engine, place.registry())?;
    let there = |name: String| there(engine, &name, insecure);
    let taken = match there(place.to_string())? {
        Some(id) if id == snapshot.image => None,
        Some(_) => Some(place.to_string()),
        None => there(place.documents())?.map(|_| place.documents()),
    };
    match taken {
        None => Ok(()),
        Some(name) => Err(
            Failure::conflict(format!("the registry has something else at {name}"))
                .hint("name another tag; --force replaces what is there"),
        ),
    }
}

/// The id of the image that a registry has under a name; empty when it has something else there.
fn there(engine: &Engine, name: &str, insecure: bool) -> Result<Option<String>> {
    let mut call = engine.call(["manifest", "inspect"]);
    if insecure {
        call = call.arg("--insecure");
    }
    let output = call.args(["--", name]).output()?;
    if is_absent(&output) {
        return Ok(None);
    }
    worked("docker manifest inspect", &output).map_err(|failure| {
        failure
            .while_doing(format!("looking whether {name} is free"))
            .hint("--force pushes without looking")
    })?;
    let manifest: Value = serde_json::from_slice(&output.stdout).unwrap_or_default();
    let id = manifest["config"]["digest"].as_str();
    Ok(Some(id.unwrap_or_default().to_owned()))
}

/// Whether the engine speaks to a registry without TLS. This one question is the client's, which does not know that: it
/// would say of such a registry that nothing is there.
fn is_insecure(engine: &Engine, registry: &str) -> Result<bool> {
    let known = engine.call(["info", "--format={{json .RegistryConfig}}"]);
    let known: Value = serde_json::from_slice(&known.output()?.stdout).unwrap_or_default();
    Ok(is_insecure_by(&known, registry, addresses))
}

/// As the engine decides it: what its configuration says of that name, and otherwise whether one of its addresses is in
/// a range that it speaks to without TLS. Every engine has the loopback's among them.
fn is_insecure_by(
    known: &Value,
    registry: &str,
    addresses: impl FnOnce(&str) -> Vec<IpAddr>,
) -> bool {
    if let Some(secure) = known["IndexConfigs"][registry]["Secure"].as_bool() {
        return !secure;
    }
    let ranges = known["InsecureRegistryCIDRs"].as_array();
    let ranges: Vec<IpNet> = ranges
        .into_iter()
        .flatten()
        .filter_map(|range| range.as_str()?.parse().ok())
        .collect();
    let is_listed = |address: &IpAddr| ranges.iter().any(|range| range.contains(address));
    addresses(registry).iter().any(is_listed)
}

/// The addresses of a registry, with or without a port; none when its name is not known.
fn addresses(registry: &str) -> Vec<IpAddr> {
    let port = registry.rsplit_once(':').map(|(_, port)| port);
    let found = match port.and_then(|port| port.parse::<u16>().ok()) {
        Some(_) => registry.to_socket_addrs(),
        None => format!("{registry}:443").to_socket_addrs(),
    };
    let found = found.into_iter().flatten();
    found.map(|address| address.ip()).collect()
}

fn is_absent(output: &Output) -> bool {
    if output.status.success() {
        return false;
    }
    says_absent(&output.stderr)
}

fn says_absent(said: &str) -> bool {
    let said = said.to_lowercase();
    let signs = [
        "no such manifest",
        "manifest unknown",
        "name unknown",
        "not found",
    ];
    // A credential helper that is not installed says nothing of what the registry has.
    !said.contains("executable file not found") && signs.iter().any(|sign| said.contains(sign))
}

/// What came of a call that a registry had a part in; a failure says what to look at.
fn worked(call: &str, output: &Output) -> Result<()> {
    if output.status.success() {
        return Ok(());
    }
    let said = output.stderr.to_lowercase();
    let signs = ["unauthorized", "denied", "authentication required"];
    let hint = if signs.iter().any(|sign| said.contains(sign)) {
        "docker login REGISTRY"
    } else {
        "see whether the registry answers the engine, and nothing else has its address"
    };
    Err(failure_of(call, output).hint(hint))
}

/// Whether this engine has nothing of that name yet; it is then ours to give and to take away.
fn is_unused(engine: &Engine, name: &str, image: &str) -> Result<bool> {
    match engine::image(engine, name)? {
        None => Ok(true),
        Some((found, _)) if found.id == image => Ok(false),
        Some(_) => Err(
            Failure::conflict(format!("the engine has another image named {name}"))
                .hint(format!("if nobody needs it: docker image rm {name}")),
        ),
    }
}

/// Pulls a snapshot and takes it in.
///
/// # Errors
/// Not found, when nothing is there; refused, when the image is not the one its documents describe; as an import
/// otherwise.
pub fn pull(
    engine: &Engine,
    request: &Request<'_>,
    place: &Place,
    say: &dyn Fn(&str),
) -> Result<Snapshot> {
    engine::check_can_commit(engine)?;
    let documents = place.documents();
    let pulling = Pulling::begin(engine, &request.home.state, &documents, say)?;
    let read = fetch(engine, &documents)
        .map_err(|failure| {
            failure.while_doing(format!(
                "pulling the documents of {place}, which `bottle-snapshot push` puts beside it"
            ))
        })
        .and_then(|()| read_documents(engine, &documents));
    // What it was pulled for is in memory now.
    let removed = pulling.end(engine);
    let documents = read?;
    removed?;
    let name = place.to_string();
    let names = if is_unused(engine, &name, &documents.snapshot.image)? {
        vec![name.clone()]
    } else {
        Vec::new()
    };
    import::take_in(engine, request, documents, names, say, |snapshot| {
        fetch(engine, &name)?;
        let pulled = engine::image(engine, &name)?.map(|(found, _)| found.id);
        if pulled.as_ref() == Some(&snapshot.image) {
            return Ok(());
        }
        Err(Failure::refused(format!(
            "{name} is not the image that its documents describe"
        ))
        .hint("somebody pushed something else there; push the snapshot again, to a tag of its own"))
    })
}

fn fetch(engine: &Engine, name: &str) -> Result<()> {
    let pulled = engine.call(["image", "pull", "--quiet", "--", name]);
    let output = pulled.unlimited().output()?;
    if is_absent(&output) {
        return Err(Failure::not_found(format!("the registry has no {name}"))
            .hint("bottle-snapshot push SLUG REGISTRY/REPO:TAG puts a snapshot there"));
    }
    worked("docker image pull", &output)
}

/// The two files of an image of documents. Nothing of it is unpacked onto a disk.
fn read_documents(engine: &Engine, name: &str) -> Result<Documents> {
    let (snapshot, plan) = engine
        .call(["image", "save", "--", name])
        .unlimited()
        .run_read_by(|stream| files(stream.take(MAX_DOCUMENTS)))?;
    import::parse(snapshot, plan)
}

type File = Option<Vec<u8>>;

fn files(stream: impl Read) -> Result<(File, File)> {
    let broken = |error: io::Error| Failure::invalid("the documents cannot be read").because(error);
    let (mut snapshot, mut plan) = (None, None);
    let mut archive = tar::Archive::new(BufReader::with_capacity(BUFFER, stream));
    for entry in archive.entries().map_err(broken)? {
        let mut content = BufReader::with_capacity(BUFFER, entry.map_err(broken)?);
        let layer: Box<dyn Read + '_> = match content.fill_buf().map_err(broken)? {
            [] | [b'{' | b'[', ..] => continue,
            [0x1f, 0x8b, ..] => Box::new(MultiGzDecoder::new(content).take(MAX_DOCUMENTS)),
            _ => Box::new(content),
        };
        let mut layer = tar::Archive::new(layer);
        // A file that is no tar, such as the version of the form, has no entries.
        for file in layer
            .entries()
            .into_iter()
            .flatten()
            .map_while(io::Result::ok)
        {
            let slot = match file.path_bytes().as_ref() {
                name if name == SNAPSHOT_ENTRY.as_bytes() => &mut snapshot,
                name if name == PLAN_ENTRY.as_bytes() => &mut plan,
                _ => continue,
            };
            let mut bytes = Vec::new();
            file.take(import::MAX_DOCUMENT)
                .read_to_end(&mut bytes)
                .map_err(broken)?;
            *slot = Some(bytes);
        }
    }
    Ok((snapshot, plan))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_place_names_its_registry_and_its_tag() {
        for good in [
            "registry.example.com/team/demo:1",
            "127.0.0.1:5000/demo:half-done_2.0",
            "localhost/demo:1",
            "[::1]:5000/demo:1",
        ] {
            let place: Place = good.parse().expect(good);
            assert_eq!(place.documents(), format!("{good}.bottle"));
        }
        let long = format!("r.example/demo:{}", "x".repeat(122));
        for bad in [
            "demo:1",
            "team/demo:1",
            "r.example/demo",
            "r.example/demo:",
            "r.example/:1",
            "r.example/Demo:1",
            "r.example/demo:-1",
            "r.example/demo@sha256:00",
            "--x.example/demo:1",
            "r.example/de mo:1",
            long.as_str(),
        ] {
            assert!(bad.parse::<Place>().is_err(), "{bad}");
        }
    }

    #[test]
    fn a_registry_is_insecure_by_name_or_by_range() {
        let known = serde_json::json!({
            "InsecureRegistryCIDRs": ["10.20.0.0/16", "127.0.0.0/8", "::1/128"],
            "IndexConfigs": {
                "docker.io": {"Secure": true},
                "plain.example.com:5000": {"Secure": false},
                "tls.example.com:5000": {"Secure": true},
            },
        });
        let insecure = |registry: &str| {
            is_insecure_by(&known, registry, |registry| match registry {
                "inside.example.com" | "tls.example.com:5000" => vec![[10, 20, 1, 2].into()],
                "outside.example.com" => vec![[10, 21, 1, 2].into()],
                "nowhere.example.com" => vec![],
                literal => addresses(literal),
            })
        };
        for yes in [
            "plain.example.com:5000",
            "10.20.30.40",
            "10.20.30.40:5000",
            "127.0.0.1:5000",
            "[::1]:5000",
            "inside.example.com",
        ] {
            assert!(insecure(yes), "{yes}");
        }
        for no in [
            "10.21.0.1:5000",
            "[2001:db8::1]:5000",
            "outside.example.com",
            "nowhere.example.com",
            // What is said of the name itself counts, wherever it is.
            "tls.example.com:5000",
        ] {
            assert!(!insecure(no), "{no}");
        }
        // An engine that says nothing of it has no such registry.
        assert!(!is_insecure_by(&Value::Null, "10.20.30.40", addresses));
    }

    #[test]
    fn a_failure_on_the_way_does_not_make_a_place_free() {
        for absent in [
            "no such manifest: r.example/demo:1",
            "Error response from daemon: manifest for r.example/demo:1 not found: manifest unknown",
        ] {
            assert!(says_absent(absent), "{absent}");
        }
        for other in [
            "error getting credentials - err: exec: \"docker-credential-x\": executable file not found in $PATH, out: ``",
            "dial tcp: i/o timeout",
            "unauthorized: authentication required",
        ] {
            assert!(!says_absent(other), "{other}");
        }
    }

    #[test]
    fn documents_are_found_in_what_the_engine_saves() {
        let layer = |files: &[(&str, &str)]| {
            let mut archive = tar::Builder::new(Vec::new());
            for (name, text) in files {
                append(&mut archive, name, text.as_bytes()).expect("in memory");
            }
            archive.into_inner().expect("in memory")
        };
        let inner = layer(&[(SNAPSHOT_ENTRY, "one"), (PLAN_ENTRY, "two"), ("more", "x")]);
        let mut saved = tar::Builder::new(Vec::new());
        append(&mut saved, "abc/VERSION", b"1.0").expect("in memory");
        append(&mut saved, "abc/json", b"{}").expect("in memory");
        append(&mut saved, "abc/layer.tar", &inner).expect("in memory");
        let saved = saved.into_inner().expect("in memory");
        let found = files(saved.as_slice()).expect("readable");
        assert_eq!(found, (Some(b"one".to_vec()), Some(b"two".to_vec())));
        assert_eq!(files(&layer(&[])[..]).expect("readable"), (None, None));
    }
}
