//! The contract of the bottle tools: every document they exchange, and how a manifest becomes a plan.

pub mod failure;
pub mod host;
pub mod plan;
pub mod policy;
