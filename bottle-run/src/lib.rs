//! Starts, enters and removes bottles, through the engine's command line alone.

pub mod audit;
pub mod bottle;
pub mod canary;
pub mod containers;
pub mod down;
pub mod engine;
pub mod exec;
pub mod files;
pub mod git_gate;
pub mod images;
pub mod inspect;
pub mod interrupt;
pub mod keys;
pub mod list;
pub mod lock;
pub mod logs;
pub mod networks;
pub mod provision;
pub mod resume;
pub mod secrets;
pub mod up;
