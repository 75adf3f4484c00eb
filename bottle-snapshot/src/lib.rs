//! Freezes bottles into images, proves that no secret is in them, and moves them.
//!
//! The order is the safety: an image has no name before it was searched, and is in no record before it has its name.
//! What a kill leaves in between is nobody's, and the next command removes it ([`recover`]).

pub mod commit;
pub mod engine;
pub mod export;
pub mod fingerprint;
pub mod image;
pub mod import;
pub mod journal;
pub mod needles;
pub mod pick;
pub mod proof;
pub mod pulling;
pub mod recover;
pub mod registry;
pub mod remove;
pub mod scan;
pub mod show;
pub mod squash;
pub mod values;
pub mod verify;
