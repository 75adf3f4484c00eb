//! Recorded requests, asked again of another policy.
//!
//! The binary that enforces policies answers, not a second implementation of its rules: what it says of the past is
//! what it will do. It is asked as a child without an environment, a question and an answer a line.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::fs::File;
use std::io::{Seek as _, Write as _};
use std::process::{Command, Stdio};

use serde::{Deserialize, Serialize};

use crate::audit::{Decision, Record, Way};
use crate::explain::counted;
use crate::failure::{Failure, PathContext as _, Result, printable};
use crate::policy::{Policy, Scheme};
use crate::{state, tool};

/// The schema tag of [`Replay`].
pub const REPLAY_SCHEMA: &str = "bottle.replay/v1";

/// Refusals by the rules of a policy; every other came after the rules had said yes.
const BY_RULE: [&str; 12] = [
    "host_invalid",
    "ip_literal",
    "host_not_allowed",
    "scheme_not_allowed",
    "port_not_allowed",
    "method_refused",
    "method_not_allowed",
    "path_not_allowed",
    "path_ambiguous",
    "git_fetch_not_allowed",
    "git_lfs_refused",
    "dns_refused",
];

/// The rules look at the query or a header, which no record holds.
const NOT_RECORDED: &str = "header_not_matched";
const PUSH: &str = "git_push_refused";

/// What was recorded, each question once.
#[derive(Debug, Default)]
pub struct Asked {
    questions: BTreeMap<Question, u64>,
    /// Requests whose record does not say what was asked for.
    unsayable: u64,
}

#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Question {
    host: String,
    port: Option<u16>,
    method: Option<String>,
    path: Option<String>,
    was: Decision,
    reason: String,
}

/// What would be decided differently.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, schemars::JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Replay {
    /// Always `bottle.replay/v1`.
    #[schemars(extend("const" = REPLAY_SCHEMA))]
    pub schema: &'static str,
    /// The bottle whose audit was read.
    pub slug: String,
    /// Requests and name lookups that were asked again.
    pub requests: u64,
    /// Those whose record does not say enough to ask again.
    pub unsayable: u64,
    /// What would be decided differently, or cannot be told.
    pub flips: Vec<Flip>,
}

/// One request, however often it was made.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, schemars::JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Flip {
    /// What the policy says.
    pub now: Now,
    /// The method; none where only a destination or a name was asked for.
    pub method: Option<String>,
    /// The host.
    pub host: String,
    /// The port; none where only a name was asked for.
    pub port: Option<u16>,
    /// The path.
    pub path: Option<String>,
    /// The reason in the records.
    pub was: String,
    /// The reason now.
    pub reason: String,
    /// Where the route is written that decides now.
    pub rule: Option<String>,
    /// How many requests.
    pub requests: u64,
}

/// What a policy says of a recorded request.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, schemars::JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum Now {
    /// It was refused and would be allowed, as far as the rules go.
    Allow,
    /// It was allowed and would be refused.
    Deny,
    /// The rules look at header fields, which are not recorded.
    Unknown,
}

impl Asked {
    /// Takes one record into account.
    pub fn see(&mut self, record: &Record<'_>) {
        let was = match record.decision {
            Decision::Note => return,
            Decision::Allow => Decision::Allow,
            _ if is_by_rule(&record.reason) => Decision::Deny,
            // The rules had said yes.
            _ => Decision::Error,
        };
        let Some(host) = &record.host else {
            self.unsayable = self.unsayable.saturating_add(record.count);
            return;
        };
        let question = Question {
            host: host.to_string(),
            port: record.port.filter(|_| record.way != Way::Dns),
            method: record.method.as_ref().map(ToString::to_string),
            path: record.path.as_ref().map(ToString::to_string),
            was,
            reason: record.reason.to_string(),
        };
        let hidden = |text: &str| text == "[redacted]" || text.ends_with("...");
        let is_hidden = hidden(&question.host) || question.path.as_deref().is_some_and(hidden);
        if is_hidden || (question.port.is_none() && record.way != Way::Dns) {
            self.unsayable = self.unsayable.saturating_add(record.count);
            return;
        }
        let count = self.questions.entry(question).or_default();
        *count = count.saturating_add(record.count);
    }
}

fn is_by_rule(reason: &str) -> bool {
    BY_RULE.contains(&reason) || reason == NOT_RECORDED || reason == PUSH
}

/// One line to the sidecar.
#[derive(Serialize)]
struct Line<'a> {
    scheme: Scheme,
    host: &'a str,
    port: Option<u16>,
    method: Option<&'a str>,
    path: Option<&'a str>,
    query: Option<&'a str>,
}

/// One line of the sidecar.
#[derive(Deserialize)]
struct Answer {
    decision: Decision,
    reason: String,
    source: Option<String>,
}

/// Asks the policy again about everything that was asked.
///
/// # Errors
/// When there is no sidecar to ask, or it does not take the policy.
pub fn replay(slug: &str, asked: &Asked, policy: &Policy) -> Result<Replay> {
    let mut replay = Replay {
        schema: REPLAY_SCHEMA,
        slug: slug.to_owned(),
        requests: asked
            .questions
            .values()
            .fold(0, |sum, count| sum.saturating_add(*count)),
        unsayable: asked.unsayable,
        flips: Vec::new(),
    };
    if asked.questions.is_empty() {
        return Ok(replay);
    }
    let answers = ask(policy, asked.questions.keys())?;
    for ((question, count), answer) in asked.questions.iter().zip(answers) {
        if let Some(now) = flip(question, &answer) {
            replay.flips.push(Flip {
                now,
                method: question.method.clone(),
                host: question.host.clone(),
                port: question.port,
                path: question.path.clone(),
                was: question.reason.clone(),
                reason: answer.reason,
                rule: answer.source,
                requests: *count,
            });
        }
    }
    Ok(replay)
}

/// Whether, and how, the answer is another than the one that was recorded.
fn flip(question: &Question, answer: &Answer) -> Option<Now> {
    if answer.reason == NOT_RECORDED || question.reason == NOT_RECORDED {
        return Some(Now::Unknown);
    }
    match (question.was, answer.decision) {
        (Decision::Allow, Decision::Deny) => Some(Now::Deny),
        (Decision::Deny, Decision::Allow) => Some(Now::Allow),
        _ => None,
    }
}

fn ask<'a>(policy: &Policy, questions: impl Iterator<Item = &'a Question>) -> Result<Vec<Answer>> {
    let failed = |what: &str| Failure::failed(format!("cannot {what} a temporary file"));
    let mut document =
        tempfile::NamedTempFile::new().map_err(|error| failed("make").because(error))?;
    document
        .write_all(state::to_json(policy)?.as_bytes())
        .map_err(|error| failed("write").because(error))?;
    let mut count = 0;
    let mut input = tempfile::tempfile().map_err(|error| failed("make").because(error))?;
    let mut lines = String::new();
    for question in questions {
        let line = serde_json::to_string(&line(question))
            .map_err(|error| Failure::failed("cannot write a question").because(error))?;
        lines.push_str(&line);
        lines.push('\n');
        count += 1;
    }
    input
        .write_all(lines.as_bytes())
        .and_then(|()| input.rewind())
        .map_err(|error| failed("write").because(error))?;
    let answers = answers(document.path(), input)?;
    if answers.len() == count {
        return Ok(answers);
    }
    Err(Failure::failed(format!(
        "bottle-sidecar answered {} of {count} questions",
        answers.len()
    ))
    .hint("use the same version of all bottle tools"))
}

fn answers(policy: &std::path::Path, input: File) -> Result<Vec<Answer>> {
    let sidecar = tool::sidecar()?;
    let output = Command::new(&sidecar)
        .arg("decide")
        .arg(policy)
        .env_clear()
        .stdin(input)
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .output()
        .at("run", &sidecar)
        .map_err(|failure| failure.hint(tool::SIDECAR_HINT))?;
    if !output.status.success() {
        let said = String::from_utf8_lossy(&output.stderr);
        return Err(Failure::invalid("the sidecar does not take this policy")
            .because(said.trim().to_owned()));
    }
    let text = String::from_utf8_lossy(&output.stdout);
    text.lines()
        .map(|line| {
            serde_json::from_str(line).map_err(|error| {
                Failure::failed("bottle-sidecar gave an answer that cannot be read").because(error)
            })
        })
        .collect()
}

/// The scheme is not recorded: port 80 is plain http. Nor is the query: a refused push is told by its reason.
fn line(question: &Question) -> Line<'_> {
    let connect = question.method.as_deref() == Some("CONNECT");
    Line {
        scheme: match question.port {
            Some(80) => Scheme::Http,
            _ => Scheme::Https,
        },
        host: &question.host,
        port: question.port,
        method: question.method.as_deref().filter(|_| !connect),
        path: question.path.as_deref().filter(|_| !connect),
        query: (question.reason == PUSH).then_some("service=git-receive-pack"),
    }
}

impl Replay {
    /// One line a flip, `now denied: …`; empty when there is none.
    #[must_use]
    pub fn lines(&self) -> String {
        self.flips.iter().map(Flip::line).collect()
    }

    /// How much of it there was.
    #[must_use]
    pub fn summary(&self) -> String {
        let flips = self.flips.iter().map(|flip| flip.requests);
        let mut text = format!(
            "{} asked again, {} would be decided differently or cannot be told",
            counted(self.requests, "request"),
            // The records may say anything; a sum must not end the program.
            flips.fold(0, u64::saturating_add)
        );
        if self.unsayable > 0 {
            // Writing to a string does not fail.
            let unsayable = counted(self.unsayable, "request");
            let _ = write!(text, "; {unsayable} not recorded well enough to ask");
        }
        text
    }
}

impl Flip {
    fn line(&self) -> String {
        let now = match self.now {
            Now::Allow => "now allowed",
            Now::Deny => "now denied",
            Now::Unknown => "cannot tell",
        };
        let port = match self.port {
            None | Some(443) => String::new(),
            Some(port) => format!(":{port}"),
        };
        let method = match (&self.method, self.port) {
            (Some(method), _) => method.as_str(),
            (None, Some(_)) => "connecting to",
            (None, None) => "the name",
        };
        let path = self.path.as_deref().unwrap_or_default();
        let rule = self
            .rule
            .as_ref()
            .map(|rule| format!(", {rule}"))
            .unwrap_or_default();
        let text = format!(
            "{now}: {method} {}{port}{path} (was {}, is {}{rule}; {})",
            self.host,
            self.was,
            self.reason,
            counted(self.requests, "time")
        );
        printable(&text).replace(['\n', '\t'], " ") + "\n"
    }
}
