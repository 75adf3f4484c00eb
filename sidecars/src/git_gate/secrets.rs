//! The values that must not be pushed, in every form they are commonly written in.

use bottle_plan::git::Gate as Document;
use zeroize::Zeroizing;

use crate::needles::{MIN_LENGTH, Needles};

/// What is looked for.
pub(super) struct Secrets(Needles);

impl Secrets {
    /// Reads the values the document names from this process's environment. Short ones would be found everywhere.
    pub(super) fn from_env(document: &Document) -> Result<Self, String> {
        let tokens = document.repos.iter().filter_map(|repo| repo.token.as_ref());
        let names = document
            .secrets
            .iter()
            .chain(tokens.map(|token| &token.slot));
        let values: Vec<Zeroizing<String>> = names
            .filter_map(|name| std::env::var(name).ok())
            .map(Zeroizing::new)
            .collect();
        Self::of(values.iter().map(|value| value.as_bytes()))
    }

    fn of<'a>(values: impl Iterator<Item = &'a [u8]>) -> Result<Self, String> {
        let long = values.filter(|value| value.len() >= MIN_LENGTH);
        Needles::of_values(long)
            .map(Self)
            .map_err(|error| error.to_string())
    }

    /// The text, unless one of them is in it: names come from the agent, and go into answers and records.
    pub(super) fn shown<'a>(&self, text: &'a str) -> &'a str {
        if self.are_in(text.as_bytes()) {
            "(a name that is a secret)"
        } else {
            text
        }
    }

    /// Whether any of them is in there.
    pub(super) fn are_in(&self, data: &[u8]) -> bool {
        self.0.find(data).next().is_some()
    }
}

#[cfg(test)]
mod tests {
    use super::Secrets;

    #[test]
    fn short_values_are_not_looked_for() {
        let secrets =
            Secrets::of([b"short".as_slice(), b"long-enough-1"].into_iter()).expect("builds");
        assert!(!secrets.are_in(b"a short text"));
        assert!(secrets.are_in(b"a long-enough-1 text"));
        // Base64 and hex of it.
        assert!(secrets.are_in(b"bG9uZy1lbm91Z2gtMQ=="));
        assert!(secrets.are_in(b"6c6f6e672d656e6f7567682d31"));
    }
}
