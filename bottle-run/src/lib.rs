//! Starts, enters and removes bottles, through the engine's command line alone.

pub mod audit;
pub mod bottle;
pub mod canary;
pub mod check;
pub mod containers;
pub mod down;
pub mod engine;
pub mod exec;
pub mod files;
pub mod gc;
pub mod gvisor;
pub mod images;
pub mod inspect;
pub mod interrupt;
pub mod journal;
pub mod list;
pub mod lock;
pub mod logs;
pub mod networks;
pub mod provision;
pub mod resume;
pub mod secrets;
pub mod sessions;
pub mod terminal;
pub mod up;
pub mod work;
