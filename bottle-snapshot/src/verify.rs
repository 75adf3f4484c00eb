//! Verify: the proof once more, over the layers as the engine gives them out.

use std::sync::Arc;

use bottle_plan::failure::{Failure, Result};
use bottle_plan::resume;
use bottle_plan::snapshot::{Proof, Snapshot};
use bottle_run::bottle::Home;
use bottle_run::engine::{Engine, at_once};

use crate::engine;
use crate::needles::Needles;
use crate::proof::{self, Effort, Parts};
use crate::values::{self, Choice};

/// Searches every layer above the base of `snapshot`, and checks that they are the layers it was recorded with.
///
/// # Errors
/// Refused, when a value is inside, or the image is another one; not found, when it is gone.
pub fn verify(
    engine: &Engine,
    home: &Home,
    snapshot: &Snapshot,
    choice: &Choice,
    say: &dyn Fn(&str),
) -> Result<Proof> {
    let plan = resume::frozen_plan(&home.state, snapshot)?.ok_or_else(|| {
        Failure::failed(format!(
            "the plan of {} is gone, which says what to look for",
            snapshot.tag
        ))
    })?;
    let (found, history) = at_once(
        || engine::image(engine, &snapshot.image),
        || engine::history(engine, &snapshot.image),
    )?;
    let (image, text) = found?.ok_or_else(|| gone(snapshot))?;
    if image.root_fs.layers != snapshot.layers {
        return Err(Failure::refused(format!(
            "the layers of {} are not those it was recorded with",
            snapshot.tag
        )));
    }
    let collected = values::collect(engine, &plan, choice)?;
    let needles = Arc::new(Needles::new(&collected.values)?);
    let parts = Parts {
        image: &image,
        text: &text,
        base_layers: snapshot.base_layers,
        proven_layers: 0,
    };
    let proof = proof::prove(engine, &needles, &collected, &parts, Effort::All, || {
        history
    })?;
    let lost: Vec<&str> = snapshot
        .proof
        .values
        .iter()
        .filter(|value| !proof.values.contains(value))
        .map(|value| value.name.as_str())
        .collect();
    if !lost.is_empty() {
        say(&format!(
            "not repeated, because the value is gone with the bottle: {}",
            lost.join(", ")
        ));
    }
    Ok(proof)
}

/// The error for an image that is not in the engine any more.
#[must_use]
pub fn gone(snapshot: &Snapshot) -> Failure {
    Failure::not_found(format!(
        "the engine does not have {} any more",
        snapshot.tag
    ))
    .hint(format!(
        "forget it with: bottle-snapshot rm {}@{} --force",
        snapshot.slug, snapshot.number
    ))
}
