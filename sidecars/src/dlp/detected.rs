//! What can be found, and a set of it.

use std::sync::atomic::{AtomicU32, Ordering};

macro_rules! kinds {
    ($($variant:ident, $name:literal;)*) => {
        /// What was found. The names are part of the audit format: they never change their meaning.
        #[derive(Clone, Copy, Debug, PartialEq, Eq)]
        pub(crate) enum Kind {
            $(#[doc = $name] $variant,)*
        }

        impl Kind {
            const ALL: &[Self] = &[$(Self::$variant,)*];

            const fn name(self) -> &'static str {
                match self { $(Self::$variant => $name,)* }
            }
        }
    };
}

kinds! {
    KnownSecret, "known_secrets";
    Aws, "token_patterns/aws";
    Github, "token_patterns/github";
    Gitlab, "token_patterns/gitlab";
    Anthropic, "token_patterns/anthropic";
    OpenAi, "token_patterns/openai";
    Stripe, "token_patterns/stripe";
    Slack, "token_patterns/slack";
    Google, "token_patterns/google";
    Package, "token_patterns/package";
    HuggingFace, "token_patterns/hugging_face";
    DigitalOcean, "token_patterns/digital_ocean";
    SendGrid, "token_patterns/send_grid";
    Jwt, "token_patterns/jwt";
    PrivateKey, "token_patterns/private_key";
    OAuth, "token_patterns/oauth";
    Entropy, "entropy";
    Injection, "injection";
    NotScanned, "not_scanned";
}

/// What was found in one exchange. Everybody who looks has a handle to it, and so has the record.
#[derive(Debug, Default)]
pub(crate) struct Found(AtomicU32);

impl Found {
    /// Adds one.
    pub(crate) fn add(&self, kind: Kind) {
        self.0.fetch_or(1 << kind as u32, Ordering::Relaxed);
    }

    /// Their names, in a fixed order, each once.
    pub(crate) fn names(&self) -> impl Iterator<Item = &'static str> {
        let bits = self.0.load(Ordering::Relaxed);
        Kind::ALL
            .iter()
            .filter(move |kind| bits & (1 << **kind as u32) != 0)
            .map(|kind| kind.name())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_set_names_what_is_in_it_once() {
        let found = Found::default();
        assert_eq!(found.names().count(), 0);
        for kind in [Kind::NotScanned, Kind::Jwt, Kind::Jwt] {
            found.add(kind);
        }
        let names: Vec<_> = found.names().collect();
        assert_eq!(names, ["token_patterns/jwt", "not_scanned"]);
        assert!(Kind::ALL.len() <= 32);
    }
}
