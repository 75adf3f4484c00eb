//! What the engine has with a bottle's labels on it.

use std::collections::BTreeMap;

use bottle_plan::failure::{Failure, Result};
use serde::Deserialize;

use crate::engine::Engine;

/// Says for the check of which bottle something was made; dead as soon as nobody holds that bottle's lock.
pub const CHECK_LABEL: &str = "bottle.check";

/// A container of some bottle.
#[derive(Clone, Debug, Deserialize)]
pub struct Container {
    /// Its id.
    #[serde(rename = "ID")]
    pub id: String,
    /// Its name.
    #[serde(rename = "Names")]
    pub name: String,
    /// `running`, `created`, `exited`, `paused`, ….
    #[serde(rename = "State")]
    pub state: String,
    /// In words, with the time and the health.
    #[serde(rename = "Status")]
    pub status: String,
    /// The names of the networks it is on, with commas between them.
    #[serde(rename = "Networks", default)]
    pub networks: String,
    /// `a=b,c=d`.
    #[serde(rename = "Labels")]
    labels: String,
}

impl Container {
    /// The value of a label of ours; none of them holds a comma.
    #[must_use]
    pub fn label(&self, name: &str) -> Option<&str> {
        self.labels
            .split(',')
            .find_map(|label| label.strip_prefix(name)?.strip_prefix('='))
    }

    /// The bottle it belongs to.
    #[must_use]
    pub fn slug(&self) -> &str {
        self.label("bottle.slug").unwrap_or_default()
    }

    /// The bottle it belongs to, or was made beside by a check.
    #[must_use]
    pub fn owner(&self) -> &str {
        self.label("bottle.slug")
            .or_else(|| self.label(CHECK_LABEL))
            .unwrap_or_default()
    }

    /// Its part: `agent`, `egress`, ….
    #[must_use]
    pub fn role(&self) -> &str {
        self.label("bottle.role").unwrap_or_default()
    }
}

/// Which resources are meant: those of one home, of one bottle in it, or of every bottle.
#[derive(Clone, Debug)]
pub struct Labels(Vec<String>);

impl Labels {
    /// All bottles of the home with this label.
    #[must_use]
    pub fn of_home(home: &str) -> Self {
        Self(vec![
            "label=bottle.slug".to_owned(),
            format!("label=bottle.home={home}"),
        ])
    }

    /// One bottle of that home.
    #[must_use]
    pub fn of_bottle(home: &str, slug: &str) -> Self {
        Self(vec![
            format!("label=bottle.slug={slug}"),
            format!("label=bottle.home={home}"),
        ])
    }

    /// What the checks of that home made.
    #[must_use]
    pub fn of_checks(home: &str) -> Self {
        Self(vec![
            format!("label={CHECK_LABEL}"),
            format!("label=bottle.home={home}"),
        ])
    }

    /// What the check of one bottle made.
    #[must_use]
    pub fn of_check(home: &str, slug: &str) -> Self {
        Self(vec![
            format!("label={CHECK_LABEL}={slug}"),
            format!("label=bottle.home={home}"),
        ])
    }

    fn filters(&self) -> impl Iterator<Item = String> {
        self.0.iter().map(|filter| format!("--filter={filter}"))
    }
}

/// The containers that are meant, running or not.
///
/// # Errors
/// When the engine does not answer.
pub fn list(engine: &Engine, labels: &Labels) -> Result<Vec<Container>> {
    let output = engine
        .call(["ps", "--all", "--no-trunc", "--format={{json .}}"])
        .args(labels.filters())
        .run()?;
    let lines = String::from_utf8_lossy(&output.stdout).into_owned();
    lines
        .lines()
        .map(|line| {
            serde_json::from_str(line).map_err(|error| {
                Failure::failed("cannot read the engine's list of containers").because(error)
            })
        })
        .collect()
}

/// The names of the networks that are meant.
///
/// # Errors
/// When the engine does not answer.
pub fn networks(engine: &Engine, labels: &Labels) -> Result<Vec<String>> {
    let output = engine
        .call(["network", "ls", "--format={{.Name}}"])
        .args(labels.filters())
        .run()?;
    Ok(output.text().lines().map(str::to_owned).collect())
}

/// The same with the bottle each belongs to, or was made beside by a check.
///
/// # Errors
/// When the engine does not answer.
pub fn networks_by_slug(engine: &Engine, labels: &Labels) -> Result<Vec<(String, String)>> {
    let format = format!(
        "--format={{{{.Name}}}}\t{{{{.Label \"bottle.slug\"}}}}\t{{{{.Label \"{CHECK_LABEL}\"}}}}"
    );
    let output = engine
        .call(["network", "ls", &format])
        .args(labels.filters())
        .run()?;
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    let owner = |line: &str| {
        let mut fields = line.split('\t');
        let name = fields.next()?.to_owned();
        let slug = fields.find(|slug| !slug.is_empty())?.to_owned();
        Some((slug, name))
    };
    Ok(text.lines().filter_map(owner).collect())
}

/// Containers by bottle.
#[must_use]
pub fn by_slug(containers: Vec<Container>) -> BTreeMap<String, Vec<Container>> {
    let mut bottles: BTreeMap<String, Vec<Container>> = BTreeMap::new();
    for container in containers {
        bottles
            .entry(container.slug().to_owned())
            .or_default()
            .push(container);
    }
    bottles
}
