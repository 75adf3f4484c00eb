//! Which of the two programs this is, and how it speaks to the people who read its log.

/// The one that has the services is called by another name, whatever its file is called, so that nobody takes the one for
/// the other.
pub(crate) const NAME: &str = if cfg!(feature = "services") {
    "bottle-services"
} else {
    "bottle-sidecar"
};

/// A line on stderr, with the name of the program in front.
macro_rules! say {
    ($($said:tt)+) => {
        eprintln!("{}: {}", $crate::program::NAME, format_args!($($said)+))
    };
}

pub(crate) use say;
