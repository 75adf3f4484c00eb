//! Snapshots: what is recorded about an agent's container that was frozen into an image, and the proof that no secret
//! is in it.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

/// The schema tag of [`Snapshot`].
pub const SNAPSHOT_SCHEMA: &str = "bottle.snapshot/v1";

/// The schema tag of [`Snapshots`].
pub const SNAPSHOTS_SCHEMA: &str = "bottle.snapshots/v1";

/// The file of a bottle's state folder that holds its [`Snapshots`].
pub const SNAPSHOTS_FILE: &str = "snapshots.json";

/// The file beside it in which `bottle-snapshot` writes down what it has begun; gone when that is done or undone.
pub const SNAPSHOT_JOURNAL_FILE: &str = "snapshot-journal.json";

/// One frozen agent.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "manifest", derive(schemars::JsonSchema))]
#[serde(deny_unknown_fields)]
pub struct Snapshot {
    /// Always `bottle.snapshot/v1`.
    #[cfg_attr(feature = "manifest", schemars(extend("const" = SNAPSHOT_SCHEMA)))]
    pub schema: String,
    /// Sixteen random hexadecimal digits: the same on every host the snapshot is moved to.
    pub id: String,
    /// The bottle.
    pub slug: String,
    /// Its number among the bottle's snapshots, from 1; never used twice.
    pub number: u32,
    /// The engine's id of the image, `sha256:…`: the SHA-256 of its configuration, which names its layers.
    pub image: String,
    /// The name it has in the engine, `bottle-snapshot-SLUG:N`.
    pub tag: String,
    /// When it was made, RFC 3339.
    pub created_at: String,
    /// What the user said about it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub message: Option<String>,
    /// The agent's name.
    pub agent: String,
    /// Digest of the plan the bottle ran.
    pub plan_digest: String,
    /// The snapshot the container was started from.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub parent: Option<Parent>,
    /// SHA-256 of each layer, lowest first.
    pub layers: Vec<String>,
    /// How many of them, from below, were there before any agent ran on them.
    pub base_layers: usize,
    /// Bytes of the whole image.
    pub size: u64,
    /// Bytes it has more than what the container was started from.
    pub added: u64,
    /// Files, compared to what the container was started from.
    pub changes: Changes,
    /// Whether all layers were made one.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub squashed: bool,
    /// That no secret is in it.
    pub proof: Proof,
}

/// The snapshot another one grew from.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "manifest", derive(schemars::JsonSchema))]
#[serde(deny_unknown_fields)]
pub struct Parent {
    /// Its id.
    pub id: String,
    /// Its bottle.
    pub slug: String,
    /// Its number there.
    pub number: u32,
}

/// Files by what became of them.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "manifest", derive(schemars::JsonSchema))]
#[serde(deny_unknown_fields)]
pub struct Changes {
    /// New ones.
    pub added: u64,
    /// Those with other content or attributes; folders count.
    pub changed: u64,
    /// Those that are gone.
    pub deleted: u64,
}

/// What was searched for, where, and that it was not there. A proof without a finding is the only kind there is: a
/// finding fails the commit.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "manifest", derive(schemars::JsonSchema))]
#[serde(deny_unknown_fields)]
pub struct Proof {
    /// When, RFC 3339.
    pub searched_at: String,
    /// The values that were looked for, by name.
    pub values: Vec<ProvenValue>,
    /// The ways of writing a value that were looked for.
    pub forms: Vec<String>,
    /// How many byte strings that makes.
    pub patterns: u64,
    /// Digests of what was searched, and their bytes: the image's configuration with labels, environment and history,
    /// and every layer that is not of the base.
    pub searched: BTreeMap<String, u64>,
    /// Layers that an earlier proof covers, for the same values.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub inherited: Vec<String>,
    /// Compressed files that were looked into.
    #[serde(default)]
    pub unpacked: u64,
    /// Values that were not looked for.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub left_out: Vec<LeftOut>,
}

/// A value that was looked for.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[cfg_attr(feature = "manifest", derive(schemars::JsonSchema))]
#[serde(deny_unknown_fields)]
pub struct ProvenValue {
    /// A variable of the host or of the agent, or what the key is for.
    pub name: String,
    /// What it is.
    pub kind: ValueKind,
}

/// What a value is to the bottle.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[cfg_attr(feature = "manifest", derive(schemars::JsonSchema))]
#[serde(rename_all = "snake_case")]
pub enum ValueKind {
    /// A credential that only the egress sidecar has.
    Token,
    /// A variable of the agent, from the host or typed in.
    Environment,
    /// The private key of the bottle's CA.
    CaKey,
    /// A private key of git-gate.
    GitKey,
}

/// A value that was not looked for.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "manifest", derive(schemars::JsonSchema))]
#[serde(deny_unknown_fields)]
pub struct LeftOut {
    /// Its name.
    pub name: String,
    /// Why.
    pub why: Reason,
}

/// Why a value was not looked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "manifest", derive(schemars::JsonSchema))]
#[serde(rename_all = "snake_case")]
pub enum Reason {
    /// It is shorter than eight bytes and would be found everywhere.
    TooShort,
    /// The user said that it is no secret.
    NotSecret,
    /// It is not to be had any more, and the user said to go on without.
    Missing,
}

/// All snapshots of a bottle.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Snapshots {
    /// Always [`SNAPSHOTS_SCHEMA`].
    pub schema: String,
    /// The number the next one gets.
    pub next: u32,
    /// Oldest first.
    pub snapshots: Vec<Snapshot>,
}

impl Default for Snapshots {
    fn default() -> Self {
        Self {
            schema: SNAPSHOTS_SCHEMA.to_owned(),
            next: 1,
            snapshots: Vec::new(),
        }
    }
}

impl Snapshots {
    /// The snapshot with this number, or the newest.
    #[must_use]
    pub fn find(&self, number: Option<u32>) -> Option<&Snapshot> {
        match number {
            Some(number) => self.snapshots.iter().find(|one| one.number == number),
            None => self.snapshots.last(),
        }
    }
}

/// `SLUG`, or `SLUG@N`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Wanted {
    /// The bottle.
    pub slug: String,
    /// Which of its snapshots; none: the newest.
    pub number: Option<u32>,
}

#[cfg(feature = "manifest")]
mod read {
    use std::fmt;
    use std::str::FromStr;

    use super::{SNAPSHOTS_FILE, SNAPSHOTS_SCHEMA, Snapshots, Wanted};
    use crate::failure::{Failure, PathContext as _, Result};
    use crate::slug;
    use crate::state::{self, StateHome};

    impl FromStr for Wanted {
        type Err = Failure;

        fn from_str(text: &str) -> Result<Self> {
            let (slug, number) = match text.split_once('@') {
                None => (text, None),
                Some((slug, number)) => {
                    let parsed = number.parse().ok().filter(|number| *number > 0);
                    let number = parsed.ok_or_else(|| {
                        Failure::invalid(format!("`{number}` is not the number of a snapshot"))
                            .hint("SLUG, or SLUG@N with N from 1")
                    })?;
                    (slug, Some(number))
                }
            };
            slug::check(slug)?;
            Ok(Self {
                slug: slug.to_owned(),
                number,
            })
        }
    }

    impl fmt::Display for Wanted {
        fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
            match self.number {
                Some(number) => write!(f, "{}@{number}", self.slug),
                None => f.write_str(&self.slug),
            }
        }
    }

    impl Snapshots {
        /// Those of `slug`; none when nothing was recorded yet.
        ///
        /// # Errors
        /// When the file is there and cannot be read.
        pub fn read(home: &StateHome, slug: &str) -> Result<Self> {
            let path = home.folder(slug)?.join(SNAPSHOTS_FILE);
            match std::fs::read(&path) {
                Ok(bytes) => state::parse_document(&bytes, SNAPSHOTS_SCHEMA)
                    .map_err(|failure| failure.while_doing(format!("reading {}", path.display()))),
                Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(Self::default()),
                Err(error) => Err(error).at("read", &path),
            }
        }

        /// Writes them whole.
        ///
        /// # Errors
        /// When that fails; what was there is then still there.
        pub fn write(&self, home: &StateHome, slug: &str) -> Result<()> {
            let path = home.folder(slug)?.join(SNAPSHOTS_FILE);
            state::write_atomic(&path, state::to_json(self)?.as_bytes(), 0o600)
        }
    }

    #[cfg(test)]
    mod tests {
        use super::*;

        #[test]
        fn a_number_is_one_from_one() {
            let wanted: Wanted = "demo-1@3".parse().expect("valid");
            assert_eq!((wanted.slug.as_str(), wanted.number), ("demo-1", Some(3)));
            assert_eq!(wanted.to_string(), "demo-1@3");
            assert_eq!("demo".parse::<Wanted>().expect("valid").number, None);
            for bad in ["demo@", "demo@0", "demo@-1", "demo@x", "@1", "../x@1", ""] {
                assert!(bad.parse::<Wanted>().is_err(), "{bad:?}");
            }
        }
    }
}
