//! What `docker save` writes: the image's configuration and all its layers in one tar, in the old form (folders with a
//! `layer.tar`) or in the OCI one (blobs by digest, perhaps compressed). Which file is which layer only its digest says.

use std::collections::{BTreeMap, BTreeSet};
use std::io::{self, BufRead, BufReader, Read};

use bottle_plan::failure::{Failure, Result};
use flate2::bufread::MultiGzDecoder;
use sha2::{Digest as _, Sha256};

use super::{BUFFER, Report, layer, text};
use crate::needles::Needles;

/// Configurations and lists; a larger one is no JSON of an image.
const MAX_TEXT: u64 = 16 << 20;

/// What is looked for in an archive.
#[derive(Debug)]
pub struct Wanted<'a> {
    /// The image's id: the digest of its configuration.
    pub config: &'a str,
    /// The layers that must be searched.
    pub layers: &'a [String],
    /// Layers in which a finding counts for nothing: nobody's secret of this bottle was there when they were made.
    pub ignored: &'a [String],
}

/// What was searched: the digest of each part and its bytes.
#[derive(Debug, Default)]
pub struct Searched {
    /// Parts by digest.
    pub parts: BTreeMap<String, u64>,
    /// What was seen.
    pub report: Report,
}

/// Searches an archive to its end, at constant memory.
///
/// # Errors
/// When it cannot be read, or a wanted part is not in it: then nothing is proved.
pub fn search(needles: &Needles, stream: impl Read, wanted: &Wanted<'_>) -> Result<Searched> {
    let mut archive = tar::Archive::new(BufReader::with_capacity(BUFFER, stream));
    let mut searched = Searched::default();
    let mut seen = BTreeSet::new();
    let broken =
        |error: io::Error| Failure::failed("the engine's archive cannot be read").because(error);
    for entry in archive.entries().map_err(broken)? {
        let entry = entry.map_err(broken)?;
        if !entry.header().entry_type().is_file() {
            continue;
        }
        let name = String::from_utf8_lossy(&entry.path_bytes()).into_owned();
        let mut content = BufReader::with_capacity(BUFFER, entry);
        let beginning = content.fill_buf().map_err(broken)?;
        let digests = if is_text(&name, beginning) {
            texts(needles, &mut content, &name, &mut searched)?
        } else {
            layers(needles, content, wanted, &mut searched)?
        };
        seen.extend(digests);
    }
    let missing = wanted
        .layers
        .iter()
        .map(String::as_str)
        .chain([wanted.config])
        .find(|digest| !seen.contains(*digest));
    match missing {
        None => Ok(searched),
        Some(digest) => Err(Failure::failed(format!(
            "the engine's archive of the image lacks {digest}, so nothing is proved"
        ))),
    }
}

fn is_text(name: &str, beginning: &[u8]) -> bool {
    let first = beginning.iter().find(|byte| !byte.is_ascii_whitespace());
    name.ends_with("VERSION") || matches!(first, Some(b'{' | b'['))
}

fn texts(
    needles: &Needles,
    content: &mut impl Read,
    name: &str,
    searched: &mut Searched,
) -> Result<Option<String>> {
    let mut bytes = Vec::new();
    let read = content.take(MAX_TEXT + 1).read_to_end(&mut bytes);
    read.map_err(|error| Failure::failed(format!("{name} cannot be read")).because(error))?;
    if bytes.len() as u64 > MAX_TEXT {
        return Err(Failure::failed(format!(
            "{name} in the engine's archive is no document of an image"
        )));
    }
    text(
        needles,
        &bytes,
        "the image's documents",
        name,
        &mut searched.report,
    );
    let digest = format!("sha256:{:x}", Sha256::digest(&bytes));
    searched.parts.insert(digest.clone(), bytes.len() as u64);
    Ok(Some(digest))
}

fn layers(
    needles: &Needles,
    mut content: impl BufRead,
    wanted: &Wanted<'_>,
    searched: &mut Searched,
) -> Result<Option<String>> {
    let beginning = content
        .fill_buf()
        .map_err(|error| Failure::failed("a layer cannot be read").because(error))?;
    // An empty file is a layer no engine makes.
    if beginning.is_empty() {
        return Ok(None);
    }
    let found = if beginning.starts_with(&[0x1f, 0x8b]) {
        let unpacked = BufReader::with_capacity(BUFFER, MultiGzDecoder::new(content));
        layer::search(needles, unpacked, "a layer")?
    } else {
        layer::search(needles, content, "a layer")?
    };
    if wanted.ignored.contains(&found.digest) {
        return Ok(Some(found.digest));
    }
    searched
        .parts
        .insert(found.digest.clone(), found.report.bytes);
    let mut report = found.report;
    for hit in &mut report.hits {
        hit.place = format!("the layer {}", short(&found.digest));
    }
    searched.report.merge(report);
    Ok(Some(found.digest))
}

/// A digest as people tell them apart.
#[must_use]
pub fn short(digest: &str) -> &str {
    let hex = digest.strip_prefix("sha256:").unwrap_or(digest);
    hex.get(..12).unwrap_or(hex)
}
