//! What the engine says of images and containers, as far as snapshots need it.

use std::collections::BTreeMap;

use bottle_plan::failure::{Failure, Result};
use bottle_run::engine::{Engine, Output, failure_of};
use serde::Deserialize;
use zeroize::Zeroizing;

/// An image.
#[derive(Clone, Debug, Deserialize)]
#[serde(rename_all = "PascalCase")]
pub struct Image {
    /// `sha256:…`.
    #[serde(deserialize_with = "digest")]
    pub id: String,
    /// Bytes, all layers together.
    #[serde(default)]
    pub size: u64,
    /// Its names.
    #[serde(default)]
    pub repo_tags: Option<Vec<String>>,
    /// Its layers.
    #[serde(rename = "RootFS")]
    pub root_fs: RootFs,
    /// What containers start with.
    #[serde(default)]
    pub config: Option<Config>,
    /// Where the engine keeps the uppermost layer.
    #[serde(default)]
    pub graph_driver: Option<GraphDriver>,
}

/// The layers of an image.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(rename_all = "PascalCase")]
pub struct RootFs {
    /// SHA-256 of each layer's tar, lowest first.
    #[serde(default)]
    pub layers: Vec<String>,
}

/// What containers of an image start with.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(rename_all = "PascalCase")]
pub struct Config {
    /// Labels.
    #[serde(default)]
    pub labels: Option<BTreeMap<String, String>>,
    /// Variables.
    #[serde(default)]
    pub env: Option<Vec<String>>,
}

/// A storage driver and what it says of one layer.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(rename_all = "PascalCase")]
pub struct GraphDriver {
    /// `overlay2`, ….
    #[serde(default)]
    pub name: String,
    /// Its folders.
    #[serde(default)]
    pub data: Option<BTreeMap<String, String>>,
}

impl Image {
    /// A label of it.
    #[must_use]
    pub fn label(&self, name: &str) -> Option<&str> {
        let labels = self.config.as_ref()?.labels.as_ref()?;
        labels.get(name).map(String::as_str)
    }
}

/// An image and the text it was read from; nothing when the engine does not have it.
///
/// # Errors
/// When the engine does not answer.
pub fn image(engine: &Engine, reference: &str) -> Result<Option<(Image, Vec<u8>)>> {
    let output = engine
        .call(["image", "inspect", "--", reference])
        .output()?;
    if !output.status.success() {
        if is_no_image(&output) {
            return Ok(None);
        }
        return Err(failure_of("docker image inspect", &output));
    }
    let images: Vec<Image> = parse(&output.stdout, "an image")?;
    let image = images.into_iter().next();
    Ok(image.map(|image| (image, output.stdout)))
}

/// An image's id as Docker writes it; Podman leaves out how it was made.
fn digest<'de, D: serde::Deserializer<'de>>(from: D) -> std::result::Result<String, D::Error> {
    let text = String::deserialize(from)?;
    if text.contains(':') {
        return Ok(text);
    }
    Ok(format!("sha256:{text}"))
}

fn is_no_image(output: &Output) -> bool {
    says_no_image(&output.stderr.to_lowercase())
}

/// As Docker says it, and as Podman does.
fn says_no_image(said: &str) -> bool {
    said.contains("no such image") || said.contains("image not known")
}

/// What the engine has of two images, asked for in one call.
#[derive(Debug)]
pub struct Two {
    /// Those it has, in the order they were named.
    pub found: Vec<Image>,
    /// For each name, whether the engine says that it has none.
    pub missing: [bool; 2],
}

/// Two images at once: most of a call's time is its client starting.
///
/// # Errors
/// When the engine does not answer.
pub fn two_images(engine: &Engine, references: [&str; 2]) -> Result<Two> {
    let output = engine
        .call(["image", "inspect", "--"])
        .args(references)
        .output()?;
    // Each is missing only when that is said of itself: an engine that stops at the first says nothing of the second.
    let missing = references.map(|reference| is_missing(&output.stderr, reference));
    if !output.status.success() && !missing.contains(&true) {
        return Err(failure_of("docker image inspect", &output));
    }
    Ok(Two {
        found: parse_some(&output.stdout, "two images")?,
        missing,
    })
}

/// Whether a line of what the engine said is that it has no image of this very name.
fn is_missing(said: &str, reference: &str) -> bool {
    let reference = reference.to_lowercase();
    let said = said.to_lowercase();
    let names = |line: &str| {
        line.split_whitespace()
            .any(|word| word.trim_end_matches(':') == reference)
    };
    said.lines().any(|line| says_no_image(line) && names(line))
}

/// A container.
#[derive(Clone, Debug, Deserialize)]
#[serde(rename_all = "PascalCase")]
pub struct Container {
    /// Its id.
    pub id: String,
    /// Its name, which Docker begins with a slash.
    #[serde(default)]
    name: String,
    /// The id of its image.
    #[serde(deserialize_with = "digest")]
    pub image: String,
    /// How it is.
    pub state: State,
    /// What it was made with.
    #[serde(default)]
    pub config: Config,
}

/// How a container is.
#[derive(Clone, Debug, Deserialize)]
#[serde(rename_all = "PascalCase")]
pub struct State {
    /// `running`, `paused`, `exited`, ….
    pub status: String,
    /// Whether it is frozen.
    #[serde(default)]
    pub paused: bool,
}

impl Container {
    /// Whether it has this name.
    #[must_use]
    pub fn is(&self, name: &str) -> bool {
        self.name.trim_start_matches('/') == name
    }

    /// Takes the variables it was made with, `NAME=VALUE`, out of what is known of it. They may be secret: they are wiped
    /// when they are dropped, and nothing prints them by accident.
    pub fn take_environment(&mut self) -> Vec<Zeroizing<Vec<u8>>> {
        let entries = self.config.env.take().unwrap_or_default().into_iter();
        entries
            .map(|entry| Zeroizing::new(entry.into_bytes()))
            .collect()
    }
}

/// A container; nothing when there is none of that name or id.
///
/// # Errors
/// When the engine does not answer.
pub fn container(engine: &Engine, name: &str) -> Result<Option<Container>> {
    containers(engine, &[name]).map(|found| found.into_iter().next())
}

/// Those of some containers that there are, by name or id.
///
/// # Errors
/// When the engine does not answer.
pub fn containers(engine: &Engine, names: &[&str]) -> Result<Vec<Container>> {
    let mut output = engine
        .call(["container", "inspect", "--"])
        .args(names.iter().copied())
        .output()?;
    let text = Zeroizing::new(std::mem::take(&mut output.stdout));
    if !output.status.success() && !output.stderr.to_lowercase().contains("no such container") {
        return Err(failure_of("docker container inspect", &output));
    }
    parse_some(&text, "containers")
}

/// A list that is not there at all when nothing is in it.
fn parse_some<T: for<'a> Deserialize<'a>>(bytes: &[u8], what: &str) -> Result<Vec<T>> {
    match bytes.trim_ascii() {
        [] => Ok(Vec::new()),
        bytes => parse(bytes, what),
    }
}

fn parse<T: for<'a> Deserialize<'a>>(bytes: &[u8], what: &str) -> Result<T> {
    serde_json::from_slice(bytes).map_err(|error| {
        Failure::failed(format!("cannot read what the engine says of {what}")).because(error)
    })
}

/// Whether the engine is one that can freeze a container into an image.
///
/// # Errors
/// Failed, with the reason, when it is not; nothing has been changed then.
pub fn check_can_commit(engine: &Engine) -> Result<()> {
    // Its client says what it is without asking anybody: the full answer has the engine start three programs.
    let output = engine.call(["--version"]).run()?;
    if can_commit(&output.text()) {
        return Ok(());
    }
    Err(Failure::failed(
        "the engine cannot freeze a container: it is neither Docker nor Podman, and only these make an image of a running container",
    )
    .hint("nothing was changed; point BOTTLE_DOCKER at docker or podman"))
}

/// `Docker version 28.2.2, build e6534b4`, and `podman version 5.4.2`, also where it goes by the name of Docker.
fn can_commit(version: &str) -> bool {
    ["Docker version ", "podman version "]
        .iter()
        .any(|begin| version.starts_with(begin))
}

/// What the engine knows of how an image was made, a line of JSON each step: `docker image history`.
///
/// # Errors
/// When the engine does not answer.
pub fn history(engine: &Engine, image: &str) -> Result<Vec<u8>> {
    let call = engine.call(["image", "history", "--no-trunc", "--format={{json .}}"]);
    call.args(["--", image]).run().map(|output| output.stdout)
}

/// Gives an image a name.
///
/// # Errors
/// When the engine refuses.
pub fn tag(engine: &Engine, image: &str, name: &str) -> Result<()> {
    engine.call(["image", "tag", image, name]).run().map(drop)
}

/// Removes an image, or a name of it; that it is gone already is no failure.
///
/// # Errors
/// When the engine refuses: a container uses it, or it has other names.
pub fn remove_image(engine: &Engine, reference: &str) -> Result<()> {
    let output = engine.call(["image", "rm", "--", reference]).output()?;
    if output.status.success() || is_no_image(&output) {
        return Ok(());
    }
    Err(failure_of("docker image rm", &output))
}

/// The images that carry these labels, named or not, by id.
///
/// # Errors
/// When the engine does not answer.
pub fn images_with(engine: &Engine, labels: &[String]) -> Result<Vec<String>> {
    let filters = labels.iter().map(|label| format!("--filter=label={label}"));
    let output = engine
        .call(["image", "ls", "--all", "--no-trunc", "--format={{.ID}}"])
        .args(filters)
        .run()?;
    let mut ids: Vec<String> = output.text().lines().map(str::to_owned).collect();
    ids.sort();
    ids.dedup();
    Ok(ids)
}

#[cfg(test)]
mod tests {
    use super::{can_commit, is_missing};

    #[test]
    fn docker_and_podman_are_known_by_what_they_call_themselves() {
        assert!(can_commit("Docker version 20.10.24+dfsg1, build 297e128"));
        assert!(can_commit("podman version 5.4.2"));
        for other in [
            "nerdctl version 2.0.3",
            "true (GNU coreutils) 9.7",
            "",
            "{\"version\":\"1.0\"}",
        ] {
            assert!(!can_commit(other), "{other}");
        }
    }

    #[test]
    fn an_image_is_missing_when_that_is_said_of_it_and_not_of_another() {
        for said in [
            "Error: No such image: demo:1",
            "Error response from daemon: No such image: demo:1",
            "Error: demo:1: image not known",
            "Error: No such image: debian:trixie\nError: No such image: demo:1",
        ] {
            assert!(is_missing(said, "demo:1"), "{said}");
        }
        for said in [
            "",
            "Error: No such image: demo:12",
            "demo:1",
            "Error: No such image: x/demo:1",
        ] {
            assert!(!is_missing(said, "demo:1"), "{said}");
        }
    }
}
