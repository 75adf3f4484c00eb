//! Names and labels of snapshot images.

use bottle_plan::failure::{Failure, Result};
use bottle_plan::snapshot::Parent;

use crate::engine::Image;

/// The snapshot's own id.
pub const ID: &str = "bottle.snapshot.id";
/// The bottle it is of.
pub const SLUG: &str = "bottle.snapshot.slug";
/// Its number there.
pub const NUMBER: &str = "bottle.snapshot.number";
/// How many layers are of the base.
pub const BASE_LAYERS: &str = "bottle.snapshot.base-layers";
/// The digest of the plan that ran.
pub const PLAN: &str = "bottle.snapshot.plan";
/// The id of the snapshot it grew from.
pub const PARENT: &str = "bottle.snapshot.parent";
/// When it was made.
pub const CREATED: &str = "bottle.snapshot.created";

/// On an image that is only the documents of a snapshot: its id.
pub const DOCUMENTS: &str = "bottle.snapshot.documents";

/// The name of a snapshot's image.
#[must_use]
pub fn tag(slug: &str, number: u32) -> String {
    format!("bottle-snapshot-{slug}:{number}")
}

/// The name of the newest one.
#[must_use]
pub fn latest(slug: &str) -> String {
    format!("bottle-snapshot-{slug}:latest")
}

/// The snapshot an image is, from its labels.
#[must_use]
pub fn snapshot_of(image: &Image) -> Option<Parent> {
    Some(Parent {
        id: image.label(ID)?.to_owned(),
        slug: image.label(SLUG)?.to_owned(),
        number: image.label(NUMBER)?.parse().ok()?,
    })
}

/// Sixteen random hexadecimal digits.
///
/// # Errors
/// When the system gives no random bytes.
pub fn new_id() -> Result<String> {
    let mut bytes = [0u8; 8];
    getrandom::fill(&mut bytes)
        .map_err(|error| Failure::failed(format!("the system gives no random bytes: {error}")))?;
    Ok(format!("{:016x}", u64::from_le_bytes(bytes)))
}
