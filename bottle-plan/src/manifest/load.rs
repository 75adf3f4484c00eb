//! Finds and reads manifest files.
//!
//! Where a file lies decides what it may say: bottles (destinations, credentials, repositories) are read from the
//! home alone, agents from the home or from the repository the user stands in.

use std::fs;
use std::io::Read as _;
use std::path::{Path, PathBuf};

use serde::de::DeserializeOwned;
use sha2::{Digest, Sha256};

use super::{Agent, Bottle, MANIFEST_SCHEMA, SingleFile, locate, merge};
use crate::failure::{Failure, PathContext, Result};
use crate::plan::Source;

/// No manifest a person writes comes near this; a device or an endless file does.
const MAX_MANIFEST_BYTES: u64 = 1 << 20;

/// The folder of the user's manifests, and the folder they stand in.
#[derive(Clone, Debug)]
pub struct Places {
    /// `$BOTTLE_HOME`, absolute.
    pub home: PathBuf,
    /// Where repository agents and `from: cwd` are looked up, absolute.
    pub cwd: PathBuf,
}

/// What was read for one bottle.
#[derive(Clone, Debug)]
pub struct Manifest {
    /// The agent's name, or the bottle's when there is no agent.
    pub name: String,
    /// The bottle, merged with all it extends.
    pub bottle: Bottle,
    /// The agent; empty for a bare bottle.
    pub agent: Agent,
    /// Every file that was read.
    pub sources: Vec<Source>,
    /// What the user should know about.
    pub warnings: Vec<String>,
}

/// Reads the agent `name` and its bottle, or the bare bottle of that name. `bottles` replaces the agent's own choice.
///
/// # Errors
/// When nothing of that name exists, or a file is not a valid manifest.
pub fn by_name(places: &Places, name: &str, bottles: &[String]) -> Result<Manifest> {
    check_name(name)?;
    let mut reader = Reader::new(places);
    reader.warn_about_repository_bottles();
    let (agent, is_agent) = match reader.agent(name)? {
        Some(agent) => (agent, true),
        None => (Agent::default(), false),
    };
    let named = agent
        .bottle
        .as_ref()
        .map(|b| b.0.clone())
        .unwrap_or_default();
    let wanted = match (bottles, is_agent) {
        ([], true) => named,
        ([], false) => vec![name.to_owned()],
        (given, _) => given.to_vec(),
    };
    if !is_agent && bottles.is_empty() && reader.find(&places.home.join("bottles"), name).is_none()
    {
        return Err(reader.nothing_named(name));
    }
    if wanted.is_empty() {
        return Err(Failure::invalid(format!("agent `{name}` names no bottle"))
            .hint("add `bottle: NAME` to it, or give one with --bottle NAME"));
    }
    let bottle = reader.folded(&wanted, &mut Vec::new())?;
    Ok(reader.finish(name, bottle, agent))
}

/// Reads one self-contained file; the caller vouches for it.
///
/// # Errors
/// When the file is not a valid manifest.
pub fn single_file(places: &Places, path: &Path) -> Result<Manifest> {
    let path = fs::canonicalize(path).at("read", path)?;
    let name = path
        .file_stem()
        .and_then(|stem| stem.to_str())
        .map(slug_like)
        .filter(|name| check_name(name).is_ok())
        .unwrap_or_else(|| "bottle".to_owned());
    let mut reader = Reader::new(places);
    let file = reader.read("manifest", &name, &path)?;
    let mut single: SingleFile = file.parse()?;
    if let Some(body) = file.body {
        single.agent.prompt = Some(body);
    }
    if single.agent.bottle.is_some() {
        let text = format!(
            "{}: `agent.bottle` means nothing beside `bottle`",
            path.display()
        );
        return Err(
            Failure::invalid(text).hint("build on another bottle with `bottle: {extends: NAME}`")
        );
    }
    anchor(&mut single.bottle, &path, &file.yaml);
    let parents = single
        .bottle
        .extends
        .take()
        .map(|e| e.0)
        .unwrap_or_default();
    let bottle = if parents.is_empty() {
        single.bottle
    } else {
        merge::child_over(reader.folded(&parents, &mut Vec::new())?, single.bottle)
    };
    Ok(reader.finish(&name, bottle, single.agent))
}

/// Names of all agents and bottles that could be planned, for messages and completion.
#[must_use]
pub fn known_names(places: &Places) -> Vec<String> {
    let mut names: Vec<String> = [
        places.home.join("agents"),
        places.cwd.join(".bottle/agents"),
        places.home.join("bottles"),
    ]
    .iter()
    .flat_map(|folder| names_in(folder))
    .collect();
    names.sort();
    names.dedup();
    names
}

/// Names of all bottles of the home.
#[must_use]
pub fn known_bottles(home: &Path) -> Vec<String> {
    names_in(&home.join("bottles"))
}

const EXTENSIONS: [&str; 3] = ["md", "yaml", "yml"];

/// Manifest names: a lower-case letter, then letters, digits and hyphens.
fn check_name(name: &str) -> Result<()> {
    let plain = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-';
    let valid = name.len() <= 34
        && name.bytes().next().is_some_and(|b| b.is_ascii_lowercase())
        && name.bytes().all(plain);
    if valid {
        return Ok(());
    }
    Err(
        Failure::invalid(format!("`{}` is not a manifest name", name.escape_debug()))
            .hint("names are a lower-case letter, then at most 33 letters, digits and hyphens"),
    )
}

fn slug_like(text: &str) -> String {
    let mapped = text.to_ascii_lowercase();
    mapped
        .chars()
        .map(|c| if c.is_ascii_alphanumeric() { c } else { '-' })
        .take(34)
        .collect()
}

struct Reader<'a> {
    places: &'a Places,
    sources: Vec<Source>,
    warnings: Vec<String>,
}

impl<'a> Reader<'a> {
    fn new(places: &'a Places) -> Self {
        Self {
            places,
            sources: Vec::new(),
            warnings: Vec::new(),
        }
    }

    fn finish(self, name: &str, bottle: Bottle, agent: Agent) -> Manifest {
        Manifest {
            name: name.to_owned(),
            bottle,
            agent,
            sources: self.sources,
            warnings: self.warnings,
        }
    }

    fn warn_about_repository_bottles(&mut self) {
        let folder = self.places.cwd.join(".bottle/bottles");
        if folder.is_dir() && folder != self.places.home.join("bottles") {
            self.warnings.push(format!(
                "{} is not read: only bottles in {} can grant access",
                folder.display(),
                self.places.home.join("bottles").display()
            ));
        }
    }

    /// The agent of that name: the user's own before the repository's.
    fn agent(&mut self, name: &str) -> Result<Option<Agent>> {
        let own = self.find(&self.places.home.join("agents"), name);
        let shipped = self.find(&self.places.cwd.join(".bottle/agents"), name);
        if let (Some(own), Some(shipped)) = (&own, &shipped)
            && own != shipped
        {
            self.warnings.push(format!(
                "{} is not read: {} has the same name",
                shipped.display(),
                own.display()
            ));
        }
        let Some(path) = own.or(shipped) else {
            return Ok(None);
        };
        let file = self.read("agent", name, &path)?;
        let mut agent: Agent = file.parse()?;
        if let Some(body) = file.body {
            agent.prompt = Some(body);
        }
        Ok(Some(agent))
    }

    /// Bottle `name` with everything it extends; `trail` holds the names on the way, to see a cycle.
    fn bottle(&mut self, name: &str, trail: &mut Vec<String>) -> Result<Bottle> {
        check_name(name)?;
        if trail.iter().any(|seen| seen == name) {
            trail.push(name.to_owned());
            return Err(Failure::invalid(format!(
                "bottles extend each other in a circle: {}",
                trail.join(" -> ")
            ))
            .hint("take one `extends` of the circle out"));
        }
        let folder = self.places.home.join("bottles");
        let Some(path) = self.find(&folder, name) else {
            let asked_by = trail.last().map(|by| format!(" (named by `{by}`)"));
            return Err(Failure::not_found(format!(
                "no bottle `{name}` in {}{}",
                folder.display(),
                asked_by.unwrap_or_default()
            ))
            .hint(close_name(name, &names_in(&folder))));
        };
        let file = self.read("bottle", name, &path)?;
        let mut bottle: Bottle = file.parse()?;
        anchor(&mut bottle, &path, &file.yaml);
        let parents = bottle.extends.take().map(|e| e.0).unwrap_or_default();
        if parents.is_empty() {
            return Ok(bottle);
        }
        trail.push(name.to_owned());
        let parent = self.folded(&parents, trail)?;
        trail.pop();
        Ok(merge::child_over(parent, bottle))
    }

    fn folded(&mut self, names: &[String], trail: &mut Vec<String>) -> Result<Bottle> {
        let mut folded: Option<Bottle> = None;
        for name in names {
            let next = self.bottle(name, trail)?;
            folded = Some(match folded {
                Some(before) => merge::fold_parents(before, next),
                None => next,
            });
        }
        Ok(folded.unwrap_or_default())
    }

    fn find(&self, folder: &Path, name: &str) -> Option<PathBuf> {
        EXTENSIONS
            .iter()
            .map(|extension| folder.join(format!("{name}.{extension}")))
            .find(|path| path.is_file())
    }

    fn nothing_named(&self, name: &str) -> Failure {
        let home = &self.places.home;
        if home.exists() && !home.is_dir() {
            return Failure::invalid(format!("{} is not a folder", home.display()))
                .hint("--home and BOTTLE_HOME name the folder with bottles/, agents/ and state/");
        }
        Failure::not_found(format!(
            "no agent and no bottle `{name}` in {}",
            home.display()
        ))
        .hint(close_name(name, &known_names(self.places)))
    }

    fn read(&mut self, role: &str, name: &str, path: &Path) -> Result<File> {
        let mut bytes = Vec::new();
        // Not by what the file system says of its size: a device has none and does not end.
        fs::File::open(path)
            .and_then(|file| file.take(MAX_MANIFEST_BYTES + 1).read_to_end(&mut bytes))
            .at("read", path)?;
        if bytes.len() as u64 > MAX_MANIFEST_BYTES {
            return Err(Failure::invalid(format!(
                "{} is more than {MAX_MANIFEST_BYTES} bytes long, which no manifest is",
                path.display()
            )));
        }
        let sha256 = hex(&Sha256::digest(&bytes));
        let text = String::from_utf8(bytes).map_err(|error| {
            Failure::invalid(format!("{} is not UTF-8 text", path.display())).because(error)
        })?;
        if !self.sources.iter().any(|source| source.path == path) {
            self.sources.push(Source {
                role: role.to_owned(),
                name: name.to_owned(),
                path: path.to_owned(),
                sha256,
            });
        }
        let markdown = path.extension().is_some_and(|e| e == "md");
        File::new(path, text, markdown)
    }
}

struct File {
    path: PathBuf,
    /// Begins at the file's first line, so that line numbers fit.
    yaml: String,
    body: Option<String>,
}

impl File {
    fn new(path: &Path, text: String, markdown: bool) -> Result<Self> {
        let path = path.to_owned();
        if !markdown {
            return Ok(Self {
                path,
                yaml: text,
                body: None,
            });
        }
        let text = text.replace("\r\n", "\n");
        let Some(rest) = text.strip_prefix("---\n") else {
            return Ok(Self {
                path,
                yaml: String::new(),
                body: Some(text.trim().to_owned()),
            });
        };
        let (front, body) = match rest.strip_prefix("---") {
            Some(body) => ("", body),
            None => rest.split_once("\n---").ok_or_else(|| {
                Failure::invalid(format!("{}:1: the front matter has no end", path.display()))
                    .hint("close it with a line of three hyphens")
            })?,
        };
        // The first line of the body is the rest of the closing line.
        let body = body.split_once('\n').map_or("", |(_, body)| body);
        Ok(Self {
            path,
            yaml: format!("\n{front}\n"),
            body: Some(body.trim().to_owned()),
        })
    }

    fn parse<T: DeserializeOwned + Default + HasSchema>(&self) -> Result<T> {
        if self.yaml.trim().is_empty() {
            return Ok(T::default());
        }
        let reader = serde_yaml::Deserializer::from_str(&self.yaml);
        let value: T = serde_path_to_error::deserialize(reader)
            .map_err(|error| locate::yaml_failure(&self.path, &self.yaml, &error))?;
        match value.schema() {
            Some(schema) if schema != MANIFEST_SCHEMA => Err(Failure::invalid(locate::at(
                &self.path,
                locate::line_of(&self.yaml, schema),
                &format!("schema `{schema}` is not known; this version reads `{MANIFEST_SCHEMA}`"),
            ))),
            _ => Ok(value),
        }
    }
}

trait HasSchema {
    fn schema(&self) -> Option<&str>;
}

impl HasSchema for Bottle {
    fn schema(&self) -> Option<&str> {
        self.schema.as_deref()
    }
}

impl HasSchema for Agent {
    fn schema(&self) -> Option<&str> {
        self.schema.as_deref()
    }
}

impl HasSchema for SingleFile {
    fn schema(&self) -> Option<&str> {
        self.schema.as_deref()
    }
}

/// Ties a bottle to the file it was written in: its relative paths begin there, also when another file extends it, and
/// each route knows its line, which decisions name later.
fn anchor(bottle: &mut Bottle, path: &Path, yaml: &str) {
    let folder = path.parent().unwrap_or(Path::new("/"));
    let begin_there = |text: &mut String| {
        if !text.starts_with("~/") {
            *text = folder.join(&*text).to_string_lossy().into_owned();
        }
    };
    let provider = bottle.agent_provider.as_mut();
    let dockerfiles = bottle.dockerfile.iter_mut();
    dockerfiles
        .chain(provider.and_then(|p| p.dockerfile.as_mut()))
        .for_each(begin_there);
    if let Some(egress) = &mut bottle.egress {
        egress.upstream_ca.iter_mut().for_each(begin_there);
    }
    let routes = bottle
        .egress
        .iter_mut()
        .flat_map(|egress| &mut egress.routes);
    for route in routes {
        let line = locate::line_of(yaml, &route.host);
        let file = path.file_name().map(Path::new).unwrap_or(path);
        route.written_at = Some(match line {
            Some(line) => format!("{}:{line}", file.display()),
            None => file.display().to_string(),
        });
    }
}

fn names_in(folder: &Path) -> Vec<String> {
    let Ok(entries) = fs::read_dir(folder) else {
        return Vec::new();
    };
    let mut names: Vec<String> = entries
        .flatten()
        .map(|entry| entry.path())
        .filter(|path| is_manifest(path))
        .filter_map(|path| path.file_stem()?.to_str().map(str::to_owned))
        .collect();
    names.sort();
    names
}

fn is_manifest(path: &Path) -> bool {
    EXTENSIONS
        .iter()
        .any(|known| path.extension().is_some_and(|found| found == *known))
}

fn close_name(name: &str, known: &[String]) -> String {
    let best = known
        .iter()
        .map(|candidate| (strsim::damerau_levenshtein(name, candidate), candidate))
        .min();
    match best {
        Some((distance, candidate)) if distance <= 2 => format!("did you mean `{candidate}`?"),
        Some(_) => format!("there are: {}", known.join(", ")),
        None => "`bottle init` writes a first one; docs/manifest.md has examples".to_owned(),
    }
}

pub(crate) fn hex(bytes: &[u8]) -> String {
    use std::fmt::Write as _;
    bytes.iter().fold(String::new(), |mut text, byte| {
        let _ = write!(text, "{byte:02x}");
        text
    })
}

#[cfg(test)]
mod tests;
