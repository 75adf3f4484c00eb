//! Shared fixtures of the suites: the built tools, a home of their own, a small Internet, an engine that follows a script.
//!
//! Whatever the fixtures make they remove, also when a test fails, and nothing they do leaves the machine.

// A fixture that cannot be made ends the test, and its message says why.
#![allow(clippy::panic, clippy::expect_used)]

pub mod client;
pub mod engine;
pub mod fake;
pub mod forge;
pub mod growth;
pub mod home;
pub mod host;
pub mod image;
pub mod internet;
pub mod load;
pub mod model;
pub mod page;
pub mod probe;
pub mod raw;
pub mod registry;
pub mod run;
pub mod second;
pub mod server;
pub mod snapshot;
pub mod suite;
pub mod terminal;
pub mod tools;
pub mod typed;
pub mod upstream;

pub use engine::need_engine;
pub use fake::FakeDocker;
pub use forge::Forge;
pub use home::{Bottle, Home};
pub use internet::Internet;
pub use run::{Call, Done};
pub use upstream::Upstream;
