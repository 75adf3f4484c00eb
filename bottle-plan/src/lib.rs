//! The contract of the bottle tools: every document they exchange, and how a manifest becomes a plan.
//!
//! Without the feature `manifest` only the documents are here; that is what the sidecar links.

pub mod audit;
pub mod failure;
pub mod forms;
pub mod frame;
pub mod git;
pub mod handle;
pub mod host;
pub mod plan;
pub mod policy;
pub mod request;
pub mod slug;
pub mod snapshot;
pub mod strict;
pub mod supervise;
pub mod tool;

#[cfg(feature = "manifest")]
pub mod audit_files;
#[cfg(feature = "manifest")]
pub mod diff;
#[cfg(feature = "manifest")]
pub mod digest;
#[cfg(feature = "manifest")]
pub mod explain;
#[cfg(feature = "manifest")]
pub mod granted;
#[cfg(feature = "manifest")]
pub mod learn;
#[cfg(feature = "manifest")]
pub mod manifest;
#[cfg(feature = "manifest")]
pub mod planner;
#[cfg(feature = "manifest")]
pub mod recorded;
#[cfg(feature = "manifest")]
pub mod replay;
#[cfg(feature = "manifest")]
pub mod resolve;
#[cfg(feature = "manifest")]
pub mod resume;
#[cfg(feature = "manifest")]
pub mod schema;
#[cfg(feature = "shell")]
pub mod shell;
#[cfg(feature = "manifest")]
pub mod state;
#[cfg(feature = "manifest")]
pub mod subnet;
