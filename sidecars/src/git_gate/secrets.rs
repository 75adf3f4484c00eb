//! The values that must not be pushed, in every form they are commonly written in.

use bottle_plan::git::Gate as Document;
use zeroize::Zeroizing;

use crate::gaps::Closed;
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
        let values: Vec<&[u8]> = values.collect();
        // A value with spaces of its own has none where the gaps of a text are closed.
        let closed: Vec<Closed> = values
            .iter()
            .filter_map(|value| Closed::of(value))
            .collect();
        let closed = closed.iter().map(|closed| closed.text.as_slice());
        let all = values.iter().copied().chain(closed);
        Needles::of_values(all.filter(|value| value.len() >= MIN_LENGTH))
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

    /// Whether any of them is in there, in one piece or broken up by spaces and line ends.
    pub(super) fn are_in(&self, data: &[u8]) -> bool {
        let is_broken_up = || Closed::of(data).is_some_and(|closed| self.0.are_in(&closed.text));
        !self.0.is_empty() && (self.0.are_in(data) || is_broken_up())
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

    #[test]
    fn what_is_broken_up_is_found() {
        let secrets = Secrets::of([b"long-enough-1".as_slice(), b"it has spaces"].into_iter())
            .expect("builds");
        for text in [
            "a long-e\nnough-1 text",
            "bG9uZy1l\nbm91Z2gtMQ==",
            " 6c 6f 6e 67 2d 65 6e 6f 75 67 68 2d 31\n",
            "it has spaces",
            "it has\nspa ces",
        ] {
            assert!(secrets.are_in(text.as_bytes()), "{text}");
        }
        assert!(!secrets.are_in(b"a long text\nis enough"));
    }
}
