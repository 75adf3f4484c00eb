//! What should not leave, or come in, although the policy allows the destination.

mod detected;

pub(crate) use detected::{Detected, Kind};
