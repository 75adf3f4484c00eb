//! What runs inside a bottle beside the agent: the egress proxy, git-gate, their health check, and the isolation probe.
//!
//! The binary is a few lines around [`cli::run`]. This is a library so that tests can run the proxy in their own
//! process with a network of their own ([`egress::Network`]), every check in place.

mod address;
mod agent_env;
mod audit;
mod authority;
mod ca;
pub mod cli;
mod credential;
mod dlp;
mod dns_message;
pub mod egress;
mod explain;
mod forward;
#[cfg(any(fuzzing, test))]
pub mod fuzzing;
mod gaps;
#[cfg(feature = "services")]
mod git_gate;
mod grants;
mod headers;
mod health;
mod listener;
mod memory;
mod needles;
mod outside;
mod path;
mod policy;
mod probe;
mod program;
mod reason;
mod reveal;
mod session;
mod skills;
mod stream;
#[cfg(feature = "services")]
mod supervise;
mod work;

pub use audit::AuditLimits;
pub use ca::CaError;
pub use credential::Slots;
pub use policy::LoadError;
