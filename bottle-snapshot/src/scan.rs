//! Searching an image: its texts, its layers, and the compressed files in them.

pub mod archive;
pub mod changes;
pub mod folder;
pub mod layer;
mod unpack;

use bottle_plan::failure::printable;
use bottle_plan::forms::Kind;

use crate::needles::{Found, Needles};

/// How much is read at once.
pub(crate) const BUFFER: usize = 1 << 20;

/// More are not shown.
const MAX_HITS: usize = 32;

/// A value in a place. What it is is never told, only what it is called.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Hit {
    /// The value's number among the needles'.
    pub value: usize,
    /// How it is written.
    pub form: Kind,
    /// The layer, or the part of the image.
    pub place: String,
    /// The file in it, or what else it is in.
    pub file: String,
    /// Bytes from the file's beginning.
    pub offset: u64,
}

/// What a search saw.
#[derive(Debug, Default)]
pub struct Report {
    /// What was found.
    pub hits: Vec<Hit>,
    /// Bytes that were searched.
    pub bytes: u64,
    /// Compressed files that were looked into.
    pub unpacked: u64,
}

impl Report {
    /// Notes what was found in one file. More than a few in one place say no more.
    pub(crate) fn note(&mut self, found: &[Found], place: &str, file: &str, before: u64) {
        for one in found {
            let hit = Hit {
                value: one.value,
                form: one.form,
                place: place.to_owned(),
                file: file.to_owned(),
                offset: one.offset.saturating_sub(before),
            };
            let same = |known: &Hit| {
                known.value == hit.value && known.place == hit.place && known.file == hit.file
            };
            if self.hits.len() < MAX_HITS && !self.hits.iter().any(same) {
                self.hits.push(hit);
            }
        }
    }

    /// Adds another one.
    pub(crate) fn merge(&mut self, other: Self) {
        self.bytes += other.bytes;
        self.unpacked += other.unpacked;
        self.hits.extend(other.hits);
        self.hits.truncate(MAX_HITS);
    }
}

impl Hit {
    /// In one line, for a person.
    #[must_use]
    pub fn line(&self, needles: &Needles) -> String {
        let name = needles
            .values()
            .get(self.value)
            .map_or("?", |value| value.name.as_str());
        printable(&format!(
            "{name} ({}) in {} at byte {} of {}",
            self.form.name(),
            self.place,
            self.offset,
            self.file
        ))
        .replace('\n', "\\n")
    }
}

/// Searches a text that is in memory, as it is and with what JSON escapes in it undone.
pub fn text(needles: &Needles, bytes: &[u8], place: &str, file: &str, report: &mut Report) {
    report.bytes += bytes.len() as u64;
    report.note(&needles.find(bytes), place, file, 0);
    for line in serde_json::Deserializer::from_slice(bytes)
        .into_iter::<serde_json::Value>()
        .map_while(Result::ok)
    {
        strings(&line, &mut |text| {
            report.note(&needles.find(text.as_bytes()), place, file, 0);
        });
    }
}

fn strings(value: &serde_json::Value, each: &mut dyn FnMut(&str)) {
    match value {
        serde_json::Value::String(text) => each(text),
        serde_json::Value::Array(list) => list.iter().for_each(|one| strings(one, each)),
        serde_json::Value::Object(map) => map.iter().for_each(|(key, one)| {
            each(key);
            strings(one, each);
        }),
        _ => {}
    }
}
