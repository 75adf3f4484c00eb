//! Plan to Compose file: a pure function.
//!
//! Same plan, same bytes. Nothing is read but the plan, and nothing is written but the document.
//! What decides the shape of everything here:
//!
//! * **Only what is listed can be emitted.** The document is made of our own structs (`compose/model.rs`), which have no
//!   field for `privileged`, `devices`, `env_file`, `include` and the like.
//! * **No text reaches Compose as anything but that text.** Compose replaces `$X` in every value, also below `x-`, and
//!   reads YAML in Go's dialect. [`Text`] doubles each `$`, and the emitter quotes every scalar.
//! * **A plan is not believed** ([`check()`]): it may come from another program, and what it says ends up in names, paths
//!   and mounts.
//! * **No value of a secret passes through.** What the host or a person provides is a bare name, or is not there at all.
//!
//! The plan rides along in `x-bottle`, so that the file is one complete artefact; [`plan_from_compose`] takes it out.

mod carried;
mod check;
mod compose;
mod emit;
mod input;

pub use carried::{Carried, plan_from_compose};
pub use check::check;
pub use compose::model::{
    Bind, Compose, Condition, Endpoint, External, Healthcheck, Inline, Ipam, IpamRange, Logging,
    Mount, Network, Service, Text,
};
pub use compose::{Options, compose, egress_outside_address};
pub use emit::{to_json, to_yaml};
pub use input::plan_from_json;
