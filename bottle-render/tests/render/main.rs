//! The rendered file as others see it: the golden pairs, the command line, the real Compose and a real engine.
#![allow(
    clippy::expect_used,
    clippy::panic,
    reason = "clippy.toml allows both in tests, and does not see that helpers are in one"
)]

mod cli;
mod engine;
mod golden;
mod hostile;
mod support;
