//! What is looked for on a route, and what a match does there.

use std::sync::Arc;

use bottle_plan::policy::{Detectors, OnMatch, Route};

use super::{injection, scanner};
use crate::reason::Reason;

/// A route's rules, compiled. The bottle's own secrets are looked for whatever they say.
#[derive(Debug)]
pub(crate) struct Rules {
    pub(super) tokens: bool,
    pub(super) entropy: bool,
    pub(super) inbound: bool,
    /// What answers are looked through for tokens with.
    pub(super) minted: Option<Arc<Self>>,
    /// Whether these are rules for answers.
    pub(super) is_answer: bool,
    /// Whether the route asks for it in so many words: then what cannot be looked through does not pass.
    pub(super) explicit: bool,
    on_match: Option<OnMatch>,
    credentialed: bool,
}

/// What becomes of a match.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Outcome {
    Refuse(Reason),
    BlackOut,
    LetGo,
}

impl Rules {
    /// Compiles a route's `dlp`, or what holds without one.
    pub(crate) fn compile(route: &Route) -> Result<Self, String> {
        scanner::prepare()
            .and_then(|()| injection::prepare())
            .map_err(|error| error.to_string())?;
        let written = route.dlp.clone().unwrap_or_default();
        let outbound = written.outbound_detectors.as_ref();
        check(outbound, &["known_secrets", "token_patterns", "entropy"])?;
        let inbound = written.inbound_detectors.as_ref();
        check(inbound, &["injection", "token_patterns"])?;
        let names = |detectors: Option<&Detectors>, name: &str, default: bool| match detectors {
            None => default,
            Some(Detectors::Switch(all)) => *all,
            Some(Detectors::Named(names)) => names.iter().any(|given| given == name),
        };
        let tokens = names(outbound, "token_patterns", true);
        let entropy = names(outbound, "entropy", false);
        Ok(Self {
            tokens,
            entropy,
            inbound: names(inbound, "injection", false),
            minted: names(inbound, "token_patterns", route.auth.is_some())
                .then(|| Arc::new(Self::of_answers())),
            is_answer: false,
            explicit: outbound.is_some() && (tokens || entropy),
            on_match: written.outbound_on_match,
            credentialed: route.auth.is_some(),
        })
    }

    /// What is done about tokens in answers: what is one for certain is blacked out, what is only perhaps one is noted.
    fn of_answers() -> Self {
        Self {
            tokens: true,
            entropy: false,
            inbound: false,
            minted: None,
            is_answer: true,
            explicit: false,
            on_match: None,
            credentialed: true,
        }
    }

    /// Whether requests are looked through for more than the bottle's own secrets.
    pub(super) fn looks_out(&self) -> bool {
        self.tokens || self.entropy
    }

    /// What a match does. Without a word of the operator: what is only perhaps a secret is noted. Where the bottle
    /// has a credential of its own, which is where whole conversations go, a token is blacked out and the
    /// conversation goes on. Anywhere else it has no business.
    pub(super) fn outcome(&self, certain: bool) -> Outcome {
        match self.on_match {
            Some(OnMatch::Block) => Outcome::Refuse(Reason::DlpMatch),
            Some(OnMatch::Supervise) => Outcome::Refuse(Reason::DlpSupervise),
            Some(OnMatch::Redact) => Outcome::BlackOut,
            Some(OnMatch::Warn) => Outcome::LetGo,
            None if !certain => Outcome::LetGo,
            None if self.credentialed => Outcome::BlackOut,
            None => Outcome::Refuse(Reason::DlpMatch),
        }
    }
}

fn check(detectors: Option<&Detectors>, known: &[&str]) -> Result<(), String> {
    let Some(Detectors::Named(names)) = detectors else {
        return Ok(());
    };
    match names.iter().find(|name| !known.contains(&name.as_str())) {
        Some(name) => Err(format!(
            "there is no detector `{name}` here, only {}",
            known.join(", ")
        )),
        None => Ok(()),
    }
}
