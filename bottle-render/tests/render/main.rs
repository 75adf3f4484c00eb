//! The rendered file as others see it: the golden pairs, the command line, the real Compose and a real engine.

mod cli;
mod engine;
mod golden;
mod hostile;
mod support;
