//! The proof: which values, written how, are in none of which parts of an image.

use std::sync::Arc;

use bottle_plan::failure::{Failure, Kind, Result};
use bottle_plan::forms;
use bottle_plan::snapshot::Proof;
use bottle_run::engine::Engine;
use time::OffsetDateTime;
use time::format_description::well_known::Rfc3339;

use crate::engine::Image;
use crate::needles::Needles;
use crate::scan::archive::{self, Searched, Wanted, short};
use crate::scan::{self, Report, folder};
use crate::values::Collected;

/// What an image is made of, as far as a proof is concerned.
#[derive(Clone, Copy, Debug)]
pub struct Parts<'a> {
    /// The image.
    pub image: &'a Image,
    /// What the engine printed about it.
    pub text: &'a [u8],
    /// How many layers are of the base.
    pub base_layers: usize,
    /// How many layers above the base an earlier proof covers.
    pub proven_layers: usize,
}

impl<'a> Parts<'a> {
    fn split(&self) -> (&'a [String], &'a [String], &'a [String]) {
        let layers = self.image.root_fs.layers.as_slice();
        let (base, above) = layers.split_at(self.base_layers.min(layers.len()));
        let (proven, unproven) = above.split_at(self.proven_layers.min(above.len()));
        (base, proven, unproven)
    }
}

/// How thorough a search is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Effort {
    /// What no earlier proof covers, the fastest way there is.
    New,
    /// Every layer above the base, as the engine gives it out, its digest checked.
    All,
}

/// Searches an image: its layers, and then what the engine says of it. Its `history` is the last to be needed: it can be
/// asked for meanwhile.
///
/// # Errors
/// Refused, with every place, when a value is inside; failed, when something cannot be read.
pub fn prove(
    engine: &Engine,
    needles: &Arc<Needles>,
    collected: &Collected,
    parts: &Parts<'_>,
    effort: Effort,
    history: impl FnOnce() -> Result<Vec<u8>>,
) -> Result<Proof> {
    let mut searched = layers(engine, needles, parts, effort)?;
    let texts = texts(needles, parts, &history()?);
    searched.parts.extend(texts.parts);
    searched.report.merge(texts.report);
    if !searched.report.hits.is_empty() {
        return Err(refusal(needles, &searched.report));
    }
    let (_, proven, _) = parts.split();
    Ok(Proof {
        searched_at: now()?,
        values: names(needles),
        forms: forms::Kind::ALL
            .iter()
            .map(|kind| kind.name().to_owned())
            .collect(),
        patterns: needles.patterns(),
        searched: searched.parts,
        inherited: match effort {
            Effort::New => proven.to_vec(),
            Effort::All => Vec::new(),
        },
        unpacked: searched.report.unpacked,
        left_out: collected.left_out.clone(),
    })
}

fn names(needles: &Needles) -> Vec<bottle_plan::snapshot::ProvenValue> {
    let mut names = needles.values().to_vec();
    names.sort();
    names.dedup();
    names
}

/// How many values are looked for.
#[must_use]
pub fn count(needles: &Needles) -> usize {
    names(needles).len()
}

fn refusal(needles: &Needles, report: &Report) -> Failure {
    let lines: Vec<String> = report
        .hits
        .iter()
        .map(|hit| format!("  {}", hit.line(needles)))
        .collect();
    Failure::new(
        Kind::Refused,
        format!("a secret of the bottle is inside:\n{}", lines.join("\n")),
    )
    .hint("have the agent remove it (a later snapshot is searched anew); --squash drops what was deleted; --not-secret NAME says that a variable is none")
}

fn layers(
    engine: &Engine,
    needles: &Arc<Needles>,
    parts: &Parts<'_>,
    effort: Effort,
) -> Result<Searched> {
    let (_, _, unproven) = parts.split();
    if effort == Effort::New {
        match unproven {
            [] => return Ok(Searched::default()),
            [top] => {
                if let Some(root) = folder::of(parts.image) {
                    let report =
                        folder::search(needles, &root, &format!("the layer {}", short(top)))?;
                    return Ok(Searched {
                        parts: [(top.clone(), report.bytes)].into(),
                        report,
                    });
                }
            }
            _ => {}
        }
    }
    saved(engine, needles, parts, effort)
}

/// By way of `docker save`, which gives out every layer of the image.
fn saved(
    engine: &Engine,
    needles: &Arc<Needles>,
    parts: &Parts<'_>,
    effort: Effort,
) -> Result<Searched> {
    let (base, proven, unproven) = parts.split();
    let (ignored, layers) = match effort {
        Effort::New => ([base, proven].concat(), unproven.to_vec()),
        Effort::All => (base.to_vec(), [proven, unproven].concat()),
    };
    let config = parts.image.id.clone();
    let needles = Arc::clone(needles);
    engine
        .call(["image", "save", "--", parts.image.id.as_str()])
        .unlimited()
        .run_read_by(move |stream| {
            let wanted = Wanted {
                config: &config,
                layers: &layers,
                ignored: &ignored,
            };
            archive::search(&needles, stream, &wanted)
        })
}

/// Configuration, labels, environment and history, as the engine tells them.
fn texts(needles: &Needles, parts: &Parts<'_>, history: &[u8]) -> Searched {
    let mut report = Report::default();
    scan::text(
        needles,
        parts.text,
        "the image's configuration",
        "what `docker image inspect` says",
        &mut report,
    );
    scan::text(
        needles,
        history,
        "the image's history",
        "what `docker image history` says",
        &mut report,
    );
    Searched {
        parts: [(parts.image.id.clone(), report.bytes)].into(),
        report,
    }
}

/// Now, RFC 3339.
///
/// # Errors
/// When the clock gives no date.
pub fn now() -> Result<String> {
    OffsetDateTime::now_utc()
        .format(&Rfc3339)
        .map_err(|error| Failure::failed("the clock gives no date").because(error))
}
