//! What an agent asks its operator, and what becomes of it: a request, its answer, and the grant.
//!
//! Each is one file that is written whole and never changed, but for a grant that is ended early. The supervise
//! sidecar writes requests and can write nothing else; answers and grants are written on the host alone. A request
//! is approved by the file of its grant and closed by the file of its answer; there is never more than one of them.

mod check;

use std::ops::Range;

use serde::{Deserialize, Serialize};
use time::format_description::well_known::Rfc3339;
use time::{Duration, OffsetDateTime};

use crate::policy::{Match, PathMatch, Route, Scheme};

/// The schema tag of [`Request`].
pub const REQUEST_SCHEMA: &str = "bottle.request/v1";
/// The schema tag of [`Answer`].
pub const ANSWER_SCHEMA: &str = "bottle.answer/v1";
/// The schema tag of [`Grant`].
pub const GRANT_SCHEMA: &str = "bottle.grant/v1";

/// No file of a request, answer or grant is longer.
pub const MAX_FILE: u64 = 32 * 1024;
/// Characters of the agent's reason.
pub const MAX_REASON: usize = 500;
/// Characters of a question.
pub const MAX_QUESTION: usize = 2000;
/// Answers it may offer, and characters of each.
pub const MAX_OPTIONS: (usize, usize) = (8, 120);
/// Paths of one request, and bytes of each.
pub const MAX_PATHS: (usize, usize) = (16, 512);
/// Bytes of a repository's name, a ref, an object id or a denial's id.
pub const MAX_NAME: usize = 200;
/// How long reading is allowed when nobody answered and the manifest says `allow_readonly`.
pub const READONLY_SECONDS: i64 = 600;

/// How far a clock may be set back under a grant that was just made, as a clock does that follows another one.
const CLOCK_STEP: Duration = Duration::minutes(1);

/// Methods that can be asked for: those egress lets through at all.
pub const METHODS: [&str; 7] = ["GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"];

/// What one agent asks.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "manifest", derive(schemars::JsonSchema))]
#[serde(deny_unknown_fields)]
pub struct Request {
    /// Always `bottle.request/v1`.
    #[cfg_attr(feature = "manifest", schemars(extend("const" = REQUEST_SCHEMA)))]
    pub schema: String,
    /// `r-` and eight letters and digits that no one else chose; also the name of the file.
    pub id: String,
    /// The bottle.
    pub bottle: String,
    /// Digest of the plan it runs.
    pub plan_digest: String,
    /// When it was asked, RFC 3339.
    pub created_at: String,
    /// When it is too late to answer, RFC 3339.
    pub deadline: String,
    /// What it is.
    pub ask: Ask,
    /// Why, in the agent's own words, which may be lies.
    pub reason: String,
}

/// What is asked.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "manifest", derive(schemars::JsonSchema))]
#[serde(tag = "kind", rename_all = "lowercase", deny_unknown_fields)]
pub enum Ask {
    /// To send requests to a host.
    Egress {
        /// `https`, or plain `http`.
        #[serde(default)]
        scheme: Scheme,
        /// One exact host name.
        host: String,
        /// The port.
        port: u16,
        /// Methods, upper case; empty: any.
        #[serde(default, skip_serializing_if = "Vec::is_empty")]
        methods: Vec<String>,
        /// Paths; empty: any.
        #[serde(default, skip_serializing_if = "Vec::is_empty")]
        paths: Vec<PathMatch>,
        /// To clone and fetch with git over HTTPS.
        #[serde(default, skip_serializing_if = "std::ops::Not::not")]
        git_fetch: bool,
        /// The denial it comes from.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        denial: Option<String>,
    },
    /// To push something that git-gate holds back.
    Push {
        /// The repository's name at the gate.
        repo: String,
        /// The full ref.
        #[serde(rename = "ref")]
        reference: String,
        /// The object it is to point at, hexadecimal.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        object: Option<String>,
    },
    /// To be told something.
    Question {
        /// The question.
        text: String,
        /// Answers to choose from; empty: any text.
        #[serde(default, skip_serializing_if = "Vec::is_empty")]
        options: Vec<String>,
    },
}

/// What happens to a request nobody answers.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "manifest", derive(schemars::JsonSchema))]
#[serde(rename_all = "snake_case")]
pub enum OnTimeout {
    /// It is refused.
    #[default]
    Deny,
    /// What it asks for is allowed for ten minutes as far as it only reads: GET and HEAD. All else is refused.
    AllowReadonly,
}

/// An answer that is not a grant.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "manifest", derive(schemars::JsonSchema))]
#[serde(deny_unknown_fields)]
pub struct Answer {
    /// Always `bottle.answer/v1`.
    #[cfg_attr(feature = "manifest", schemars(extend("const" = ANSWER_SCHEMA)))]
    pub schema: String,
    /// The request; also the name of the file.
    pub request: String,
    /// SHA-256 of the request's file, hexadecimal: what was answered is what was read.
    pub request_sha256: String,
    /// What it is.
    pub verdict: Verdict,
    /// For the agent: why, or the answer to its question.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub text: Option<String>,
    /// Who answered.
    pub by: String,
    /// When, RFC 3339.
    pub at: String,
}

/// What an answer says.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "manifest", derive(schemars::JsonSchema))]
#[serde(rename_all = "lowercase")]
pub enum Verdict {
    /// No.
    Denied,
    /// A question was answered.
    Answered,
    /// The bottle went down before somebody did.
    Closed,
}

/// Something a bottle may do for a while beyond its plan.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "manifest", derive(schemars::JsonSchema))]
#[serde(deny_unknown_fields)]
pub struct Grant {
    /// Always `bottle.grant/v1`.
    #[cfg_attr(feature = "manifest", schemars(extend("const" = GRANT_SCHEMA)))]
    pub schema: String,
    /// `g-` and what follows `r-` in its request's id; also the name of the file.
    pub id: String,
    /// The bottle.
    pub bottle: String,
    /// Digest of the plan it adds to.
    pub plan_digest: String,
    /// The request it answers.
    pub request: String,
    /// SHA-256 of the request's file, hexadecimal.
    pub request_sha256: String,
    /// What may be done.
    pub scope: Scope,
    /// When it ends, RFC 3339; without it, when the bottle goes down.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ends_at: Option<String>,
    /// How many requests or pushes it is good for; without it, any number.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub uses: Option<u64>,
    /// Who granted it; `timeout` when nobody answered and the manifest said so.
    pub by: String,
    /// When, RFC 3339.
    pub created_at: String,
    /// A note of the operator's.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub note: Option<String>,
    /// That it was ended early.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ended: Option<Ended>,
}

/// What a grant allows.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "manifest", derive(schemars::JsonSchema))]
#[serde(tag = "kind", rename_all = "lowercase", deny_unknown_fields)]
#[allow(clippy::large_enum_variant, reason = "there are never many of them")]
pub enum Scope {
    /// Requests by one more route.
    Egress {
        /// The route.
        route: Route,
    },
    /// One push.
    Push {
        /// The repository's name at the gate.
        repo: String,
        /// The full ref.
        #[serde(rename = "ref")]
        reference: String,
        /// The object it may be set to and no other, hexadecimal.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        object: Option<String>,
    },
}

/// The early end of a grant.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "manifest", derive(schemars::JsonSchema))]
#[serde(deny_unknown_fields)]
pub struct Ended {
    /// Who ended it.
    pub by: String,
    /// When, RFC 3339.
    pub at: String,
}

/// Now, as it is written in these documents.
#[must_use]
pub fn now() -> String {
    text_of(OffsetDateTime::now_utc())
}

/// A time as it is written in these documents.
#[must_use]
pub fn text_of(time: OffsetDateTime) -> String {
    // A time between the years 0 and 9999 always has this form.
    time.format(&Rfc3339).unwrap_or_default()
}

/// A time as it was written in these documents.
#[must_use]
pub fn time_of(text: &str) -> Option<OffsetDateTime> {
    OffsetDateTime::parse(text, &Rfc3339).ok()
}

/// The id of the grant that answers `request`.
#[must_use]
pub fn grant_id(request: &str) -> String {
    format!("g-{}", request.strip_prefix("r-").unwrap_or(request))
}

/// Whether `id` is the id of a request (`r`) or grant (`g`): safe as a file's name and on a terminal.
#[must_use]
pub fn is_id(id: &str, kind: char) -> bool {
    let rest = id
        .strip_prefix(kind)
        .and_then(|rest| rest.strip_prefix('-'));
    rest.is_some_and(|rest| {
        rest.len() == 8
            && rest
                .bytes()
                .all(|b| b.is_ascii_lowercase() || b.is_ascii_digit())
    })
}

impl Request {
    /// Whether it is too late to answer.
    #[must_use]
    pub fn is_late(&self, now: OffsetDateTime) -> bool {
        time_of(&self.deadline).is_none_or(|deadline| now >= deadline)
    }

    /// What it becomes when nobody answered it and the manifest says `allow_readonly`: the same grant, whoever works
    /// it out. None when it asks for more than reading.
    #[must_use]
    pub fn readonly_grant(&self, file: &[u8]) -> Option<Grant> {
        let mut route = self.ask.route()?;
        let reads = ["GET", "HEAD"];
        for rule in &mut route.matches {
            if rule.methods.is_empty() {
                rule.methods = reads.map(str::to_owned).to_vec();
            }
            rule.methods
                .retain(|method| reads.contains(&method.as_str()));
        }
        route.matches.retain(|rule| !rule.methods.is_empty());
        if route.matches.is_empty() {
            return None;
        }
        // The sidecar that wrote it may have been taken over: what ends after the last year there is grants nothing.
        let end = time_of(&self.deadline)?.checked_add(Duration::seconds(READONLY_SECONDS))?;
        route.source = Some(grant_id(&self.id));
        Some(Grant {
            schema: GRANT_SCHEMA.to_owned(),
            id: grant_id(&self.id),
            bottle: self.bottle.clone(),
            plan_digest: self.plan_digest.clone(),
            request: self.id.clone(),
            request_sha256: crate::audit::hash(file),
            scope: Scope::Egress { route },
            ends_at: Some(text_of(end)),
            uses: None,
            by: "timeout".to_owned(),
            created_at: self.deadline.clone(),
            note: None,
            ended: None,
        })
    }
}

impl Ask {
    /// What it is, in one word.
    #[must_use]
    pub const fn kind(&self) -> &'static str {
        match self {
            Self::Egress { .. } => "egress",
            Self::Push { .. } => "push",
            Self::Question { .. } => "question",
        }
    }

    /// The route an `egress` asks for: the smallest that lets through what it names. No wildcard, no address, no
    /// credential, no private range can be asked for; those are the operator's to add.
    #[must_use]
    pub fn route(&self) -> Option<Route> {
        let Self::Egress {
            scheme,
            host,
            port,
            methods,
            paths,
            git_fetch,
            ..
        } = self
        else {
            return None;
        };
        let rule = Match {
            paths: paths.clone(),
            methods: methods.clone(),
            headers: Vec::new(),
        };
        Some(Route {
            source: None,
            host: host.clone(),
            scheme: *scheme,
            ports: vec![*port],
            // A rule without a condition lets everything through, as none does; written out, a reader sees that it is meant.
            matches: vec![rule],
            auth: None,
            tls: crate::policy::Tls::Inspect,
            private: Vec::new(),
            git: crate::policy::GitAccess { fetch: *git_fetch },
            dlp: None,
            limits: None,
        })
    }
}

impl Grant {
    /// Whether its time is over, or has not come. How often it was used is egress's to know.
    #[must_use]
    pub fn is_over(&self, now: OffsetDateTime) -> bool {
        self.ended.is_some() || self.span().is_some_and(|span| !span.contains(&now))
    }

    /// When it holds; a grant until `down` has no such time. It has a beginning too: a clock that is set back must not
    /// give it its time again. An empty one, if its times cannot be read.
    #[must_use]
    pub fn span(&self) -> Option<Range<OffsetDateTime>> {
        let end = self.ends_at.as_deref()?;
        let span = time_of(&self.created_at)
            .zip(time_of(end))
            .map(|(begin, end)| begin - CLOCK_STEP..end);
        Some(span.unwrap_or(OffsetDateTime::UNIX_EPOCH..OffsetDateTime::UNIX_EPOCH))
    }
}

#[cfg(test)]
mod tests;
