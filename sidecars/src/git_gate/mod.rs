//! git-gate: the agent's only way to an upstream repository.
//!
//! Smart HTTP on the internal network, the real `git http-backend` behind it, one bare mirror for each repository of the
//! plan. A fetch goes to the upstream first. What is pushed lands in git's quarantine, is checked there, is forwarded
//! as exactly the objects that were checked, and becomes part of the mirror only when the upstream has taken it.

mod answer;
mod asking;
mod backend;
mod checks;
mod credential;
mod decode;
mod fetch;
mod forward;
mod git;
mod glob;
mod hook;
mod index;
mod leaks;
mod mirror;
mod objects;
mod push;
mod repo;
mod review;
mod rules;
mod run;
mod secrets;
mod server;
mod tree;
mod wish;

use std::io;
use std::path::PathBuf;

use crate::audit::AuditLimits;

pub(crate) use credential::run as run_credential;
pub(crate) use hook::run as run_hook;
pub(crate) use run::run;

/// Where everything is.
pub(crate) struct Settings {
    /// Holds `gate.json`, `keys/`, and perhaps `upstream-ca.pem`.
    pub(crate) config_dir: PathBuf,
    /// Holds the mirrors.
    pub(crate) mirrors: PathBuf,
    /// Holds the audit.
    pub(crate) audit_dir: PathBuf,
    /// Holds `grants/`, `requests/`, `answers/`, `denials/` and `reviews/` in a bottle that can ask.
    pub(crate) asking_dir: PathBuf,
    /// How much the audit may take.
    pub(crate) audit_limits: AuditLimits,
    /// The socket that `health` asks.
    pub(crate) status_socket: PathBuf,
    /// What is being scanned lies here for a moment.
    pub(crate) scratch: PathBuf,
    /// The port on the internal network.
    pub(crate) port: u16,
    /// The folder of the socket that takes its place for an agent without a network.
    pub(crate) sockets: Option<PathBuf>,
}

/// Why the gate does not start.
#[derive(Debug, thiserror::Error)]
pub(crate) enum StartError {
    /// A file cannot be read or written.
    #[error("{}: {error}", path.display())]
    File {
        /// Which file.
        path: PathBuf,
        /// Why.
        error: io::Error,
    },
    /// The document is not usable.
    #[error("{}: {problem}", path.display())]
    Config {
        /// Which file.
        path: PathBuf,
        /// What is wrong with it.
        problem: String,
    },
    /// A listener or thread cannot be made.
    #[error("{what}: {error}")]
    System {
        /// What was to be made.
        what: String,
        /// Why.
        error: io::Error,
    },
}
