//! What can be found, and a set of it.

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
    Package, "token_patterns/package_upload";
    HuggingFace, "token_patterns/hugging_face";
    DigitalOcean, "token_patterns/digital_ocean";
    SendGrid, "token_patterns/send_grid";
    Jwt, "token_patterns/jwt";
    PrivateKey, "token_patterns/private_key";
    Entropy, "entropy";
    Injection, "injection";
    NotScanned, "not_scanned";
}

/// A set of [`Kind`]s; as small as a number, because every request has one.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Detected(u32);

impl Detected {
    /// Adds one.
    pub(crate) fn add(&mut self, kind: Kind) {
        self.0 |= 1 << kind as u32;
    }

    /// Adds all of another set.
    pub(crate) fn merge(&mut self, other: Self) {
        self.0 |= other.0;
    }

    /// As a number, to be kept in an atomic.
    pub(crate) fn bits(self) -> u32 {
        self.0
    }

    /// From such a number.
    pub(crate) fn from_bits(bits: u32) -> Self {
        Self(bits)
    }

    /// Their names, in a fixed order.
    pub(crate) fn names(self) -> impl Iterator<Item = &'static str> {
        let found = move |kind: &&Kind| self.0 & 1 << **kind as u32 != 0;
        Kind::ALL.iter().filter(found).map(|kind| kind.name())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_set_names_what_is_in_it_once() {
        let mut detected = Detected::default();
        assert_eq!(detected.names().count(), 0);
        for kind in [Kind::NotScanned, Kind::Jwt, Kind::Jwt] {
            detected.add(kind);
        }
        let names: Vec<_> = detected.names().collect();
        assert_eq!(names, ["token_patterns/jwt", "not_scanned"]);
        assert!(Kind::ALL.len() <= 32);
    }
}
