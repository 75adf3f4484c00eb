//! An answer on its way in: phrases that speak to the agent are noted, and tokens that were made for the bottle's own
//! credential are blacked out. A new token is as good as the credential, and nobody knows its value beforehand.

use std::sync::Arc;

use hyper::HeaderMap;
use hyper::body::Bytes;
use hyper::header::{CONTENT_TYPE, HeaderValue};

use super::injection::Phrases;
use super::scanner::Scanner;
use super::{Found, Rules};

/// An answer, or the messages of a destination, being looked through.
pub(crate) struct Inbound {
    phrases: Option<Phrases>,
    tokens: Option<Scanner>,
    /// Whether what comes is no text: an archive or an image hands out no token, and would be broken by a star.
    is_binary: bool,
}

/// Whether a body of this kind is for programs that read text. One that does not say what it is may be.
pub(crate) fn is_text(fields: &HeaderMap) -> bool {
    let Some(kind) = fields.get(CONTENT_TYPE) else {
        return true;
    };
    let kind = String::from_utf8_lossy(kind.as_bytes()).to_ascii_lowercase();
    let words = [
        "text/",
        "json",
        "xml",
        "javascript",
        "urlencoded",
        "graphql",
    ];
    words.iter().any(|word| kind.contains(word))
}

impl Inbound {
    pub(super) fn new(rules: &Rules, found: &Arc<Found>) -> Option<Self> {
        let phrases = rules.inbound.then(|| Phrases::new(found.clone())).flatten();
        let tokens = rules.minted.as_ref();
        let tokens = tokens.map(|rules| Scanner::new(rules.clone(), found.clone(), false));
        (phrases.is_some() || tokens.is_some()).then_some(Self {
            phrases,
            tokens,
            is_binary: false,
        })
    }

    /// Takes the next piece, `is_last` of its body or message; returns what may go on.
    pub(crate) fn pass(&mut self, chunk: Bytes, is_last: bool) -> Bytes {
        if let Some(phrases) = &mut self.phrases {
            phrases.look(&chunk);
        }
        let Some(tokens) = self.tokens.as_mut().filter(|_| !self.is_binary) else {
            return chunk;
        };
        // These rules refuse nothing; if they did, nothing would be handed on.
        let ready = tokens.pass(chunk, is_last).unwrap_or_default();
        if is_last {
            tokens.begin_again();
        }
        ready
    }

    /// Looks through the head of an answer, and sees what its body is.
    pub(crate) fn head(&mut self, fields: &mut HeaderMap) {
        self.is_binary = !is_text(fields);
        self.fields(fields);
    }

    /// Looks through fields, such as those of a trailer.
    pub(crate) fn fields(&mut self, fields: &mut HeaderMap) {
        let Some(tokens) = &mut self.tokens else {
            return;
        };
        for value in fields.values_mut() {
            if !tokens.is_curious(value.as_bytes()) {
                continue;
            }
            let mut text = value.as_bytes().to_vec();
            if tokens.whole(&mut text).unwrap_or(true) {
                *value =
                    HeaderValue::from_bytes(&text).unwrap_or_else(|_| HeaderValue::from_static(""));
            }
        }
    }

    /// Whether a token was blacked out.
    pub(crate) fn has_hits(&self) -> bool {
        self.tokens.as_ref().is_some_and(|tokens| tokens.hits() > 0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::dlp::patterns::tests::github;
    use bottle_plan::policy::{Detectors, Dlp};

    fn rules(dlp: Option<Dlp>, credentialed: bool) -> Arc<Rules> {
        let mut route: bottle_plan::policy::Route =
            serde_json::from_str(r#"{"host": "api.example.com", "ports": [443]}"#).unwrap();
        route.dlp = dlp;
        if credentialed {
            route.auth = serde_json::from_str(
                r#"{"scheme": "bearer", "header": "authorization", "slot": "EGRESS_TOKEN_0"}"#,
            )
            .unwrap();
        }
        Arc::new(Rules::compile(&route).unwrap())
    }

    fn through(rules: &Arc<Rules>, text: &str, size: usize) -> (String, Vec<&'static str>) {
        let found = Arc::new(Found::default());
        let Some(mut inbound) = rules.inbound(&found) else {
            return (text.to_owned(), Vec::new());
        };
        let mut out = Vec::new();
        for piece in text.as_bytes().chunks(size) {
            out.extend_from_slice(&inbound.pass(Bytes::copy_from_slice(piece), false));
        }
        out.extend_from_slice(&inbound.pass(Bytes::new(), true));
        let names: Vec<_> = found.names().collect();
        (String::from_utf8(out).unwrap(), names)
    }

    #[test]
    fn minted_tokens_are_blacked_out_however_they_are_cut() {
        let token = github("ghs_");
        let opaque = "opaque.0123456789/abcdef+=";
        let text = format!(
            r#"{{"token":"{token}","access_token": "{opaque}","refresh_token":"{opaque}","expires_in":3600}}"#
        );
        let stars = |text: &str| "*".repeat(text.len());
        let clean = text
            .replace(&token, &stars(&token))
            .replace(opaque, &stars(opaque));
        for size in 1..=text.len() {
            let (out, found) = through(&rules(None, true), &text, size);
            assert_eq!(out, clean, "{size}");
            assert_eq!(found, ["token_patterns/github", "token_patterns/oauth"]);
        }
    }

    #[test]
    fn an_archive_stays_as_it_is() {
        let token = github("ghs_");
        for (kind, redacts) in [
            (Some("application/octet-stream"), false),
            (Some("application/zip"), false),
            (Some("image/png"), false),
            (Some("application/json; charset=utf-8"), true),
            (Some("application/vnd.github+json"), true),
            (Some("text/event-stream"), true),
            (None, true),
        ] {
            let mut fields = HeaderMap::new();
            if let Some(kind) = kind {
                fields.insert(CONTENT_TYPE, HeaderValue::from_static(kind));
            }
            fields.insert("x-token", HeaderValue::from_str(&token).unwrap());
            let mut inbound = rules(None, true)
                .inbound(&Arc::new(Found::default()))
                .unwrap();
            inbound.head(&mut fields);
            assert_ne!(fields["x-token"], token.as_str(), "a head is always text");
            let out = inbound.pass(Bytes::from(token.clone()), true);
            assert_eq!(out != token, redacts, "{kind:?}");
        }
    }

    #[test]
    fn only_where_there_is_a_credential_or_somebody_asked() {
        let text = format!("{}\n", github("ghs_"));
        let inbound = |detectors| {
            Some(Dlp {
                inbound_detectors: Some(detectors),
                ..Dlp::default()
            })
        };
        let named = |name: &str| inbound(Detectors::Named(vec![name.to_owned()]));
        for (dlp, credentialed, redacts) in [
            (None, true, true),
            (None, false, false),
            (named("token_patterns"), false, true),
            (named("injection"), true, false),
            (inbound(Detectors::Switch(false)), true, false),
        ] {
            let (out, _) = through(&rules(dlp.clone(), credentialed), &text, 7);
            assert_eq!(out != text, redacts, "{dlp:?} {credentialed}");
        }
    }

    #[test]
    fn a_field_of_that_name_may_leave() {
        let text = r#"{"access_token":"opaque.0123456789/abcdef+="}"#;
        assert!(!crate::dlp::holds_token(text.as_bytes()));
    }
}
