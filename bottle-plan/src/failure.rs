//! One error type for all tools: what went wrong, what kind of failure it is, and what to type next.

use std::error::Error;
use std::fmt::Write as _;

use serde_json::json;

/// The exit codes every tool uses. `bottle-run exec` returns the child's own code otherwise.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// 1: it was tried and did not work.
    Failed,
    /// 2: wrong usage or invalid input.
    Invalid,
    /// 3: refused by policy.
    Refused,
    /// 4: there is no such thing.
    NotFound,
    /// 5: already running, locked, or taken.
    Conflict,
    /// 125: our own failure around a command that was to run in the bottle.
    AroundExec,
}

impl Kind {
    /// The process exit code.
    #[must_use]
    pub const fn code(self) -> u8 {
        match self {
            Self::Failed => 1,
            Self::Invalid => 2,
            Self::Refused => 3,
            Self::NotFound => 4,
            Self::Conflict => 5,
            Self::AroundExec => 125,
        }
    }

    const fn name(self) -> &'static str {
        match self {
            Self::Failed => "failed",
            Self::Invalid => "invalid",
            Self::Refused => "refused",
            Self::NotFound => "not_found",
            Self::Conflict => "conflict",
            Self::AroundExec => "around_exec",
        }
    }
}

/// A failure as the user will read it.
#[derive(Debug, thiserror::Error)]
#[error("{message}")]
pub struct Failure {
    kind: Kind,
    message: String,
    hint: Option<String>,
    source: Option<Box<dyn Error + Send + Sync>>,
}

/// The result type of the libraries.
pub type Result<T, E = Failure> = std::result::Result<T, E>;

impl Failure {
    /// A failure of the given kind; `message` is lower case, without a final period.
    pub fn new(kind: Kind, message: impl Into<String>) -> Self {
        Self {
            kind,
            message: message.into(),
            hint: None,
            source: None,
        }
    }

    /// Exit code 1.
    pub fn failed(message: impl Into<String>) -> Self {
        Self::new(Kind::Failed, message)
    }

    /// Exit code 2.
    pub fn invalid(message: impl Into<String>) -> Self {
        Self::new(Kind::Invalid, message)
    }

    /// Exit code 3.
    pub fn refused(message: impl Into<String>) -> Self {
        Self::new(Kind::Refused, message)
    }

    /// Exit code 4.
    pub fn not_found(message: impl Into<String>) -> Self {
        Self::new(Kind::NotFound, message)
    }

    /// Exit code 5.
    pub fn conflict(message: impl Into<String>) -> Self {
        Self::new(Kind::Conflict, message)
    }

    /// A document with the schema `found` where `wanted` is read: another version of it, or something else altogether,
    /// for which `hint` says where the right one comes from.
    #[must_use]
    pub fn other_document(found: &str, wanted: &str, hint: Option<&str>) -> Self {
        let kind = |schema: &str| {
            let (kind, _) = schema.strip_prefix("bottle.")?.split_once('/')?;
            Some(kind.to_owned())
        };
        if kind(found).is_some() && kind(found) != kind(wanted) {
            return Self {
                hint: hint.map(str::to_owned),
                ..Self::invalid(format!(
                    "this document is `{found}`, and `{wanted}` is expected"
                ))
            };
        }
        Self::invalid(format!(
            "the schema is `{found}`, and this version reads `{wanted}`"
        ))
        .hint("use bottle tools of one version")
    }

    /// What to type next.
    #[must_use]
    pub fn hint(mut self, hint: impl Into<String>) -> Self {
        self.hint = Some(hint.into());
        self
    }

    /// The error underneath.
    #[must_use]
    pub fn because(mut self, source: impl Into<Box<dyn Error + Send + Sync>>) -> Self {
        self.source = Some(source.into());
        self
    }

    /// The same failure with another exit code.
    #[must_use]
    pub const fn with_kind(mut self, kind: Kind) -> Self {
        self.kind = kind;
        self
    }

    /// Says what was being done when `self` happened; kind and hint stay.
    #[must_use]
    pub fn while_doing(self, what: impl Into<String>) -> Self {
        Self {
            kind: self.kind,
            hint: self.hint.clone(),
            message: what.into(),
            source: Some(Box::new(self)),
        }
    }

    /// The same failure with `place` in front of its message: `file:line: `.
    #[must_use]
    pub fn in_front(mut self, place: &str) -> Self {
        self.message.insert_str(0, place);
        self
    }

    /// What kind of failure this is.
    #[must_use]
    pub const fn kind(&self) -> Kind {
        self.kind
    }

    /// The hint, if there is one.
    #[must_use]
    pub fn hint_text(&self) -> Option<&str> {
        self.hint.as_deref()
    }

    /// Message and causes joined by `: `.
    #[must_use]
    pub fn chain(&self) -> String {
        let mut text = self.message.clone();
        let mut next = self.source.as_deref().map(|e| e as &dyn Error);
        while let Some(cause) = next {
            let _ = write!(text, ": {cause}");
            next = cause.source();
        }
        text
    }

    /// What goes to stderr: `tool: chain` and a `hint:` line, or one JSON object.
    #[must_use]
    pub fn render(&self, tool: &str, as_json: bool) -> String {
        let hint = self.hint_or_usual(tool);
        if as_json {
            let object = json!({
                "error": self.chain(),
                "kind": self.kind.name(),
                "code": self.kind.code(),
                "hint": hint,
                "tool": tool,
            });
            return format!("{object}\n");
        }
        let mut text = format!("{tool}: {}\n", printable(&self.chain()));
        if let Some(hint) = hint {
            let _ = writeln!(text, "hint: {}", printable(&hint));
        }
        text
    }

    /// Input that is wrong always has a next step, if only to read how it should be.
    fn hint_or_usual(&self, tool: &str) -> Option<String> {
        let usual = || match self.kind {
            Kind::Invalid => Some(format!("{tool} --help shows how it is used")),
            Kind::NotFound => Some("check the name and the folder".to_owned()),
            _ => None,
        };
        self.hint.clone().or_else(usual)
    }
}

/// Attaches the path to an I/O error, so that none reaches the user bare.
pub trait PathContext<T> {
    /// `what` is a verb phrase such as `read` or `create`.
    fn at(self, what: &str, path: &std::path::Path) -> Result<T>;
}

impl<T> PathContext<T> for std::io::Result<T> {
    fn at(self, what: &str, path: &std::path::Path) -> Result<T> {
        self.map_err(|error| {
            use std::io::ErrorKind;
            let (kind, hint) = match error.kind() {
                ErrorKind::NotFound => (Kind::NotFound, Some("check the path")),
                ErrorKind::PermissionDenied => (
                    Kind::Failed,
                    Some("check its owner and mode: ls -ld shows them"),
                ),
                ErrorKind::NotADirectory => {
                    (Kind::Invalid, Some("a part of the path is not a folder"))
                }
                ErrorKind::IsADirectory => (Kind::Invalid, Some("name a file in that folder")),
                ErrorKind::StorageFull | ErrorKind::QuotaExceeded => {
                    (Kind::Failed, Some("the disk is full: df -h"))
                }
                ErrorKind::ReadOnlyFilesystem => {
                    (Kind::Failed, Some("the file system is mounted read-only"))
                }
                _ => (Kind::Failed, None),
            };
            let failure =
                Failure::new(kind, format!("cannot {what} {}", path.display())).because(error);
            match hint {
                Some(hint) => failure.hint(hint),
                None => failure,
            }
        })
    }
}

/// `text` with everything a terminal could act on (escape sequences, other control and bidirectional
/// characters) made visible. Newlines and tabs stay: whoever prints one line at a time removes them first.
#[must_use]
pub fn printable(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for c in text.chars() {
        let hostile = (c.is_control() && c != '\n' && c != '\t')
            || matches!(c, '\u{200b}'..='\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2060}'..='\u{2069}' | '\u{feff}');
        if hostile {
            let _ = write!(out, "\\u{{{:x}}}", c as u32);
        } else {
            out.push(c);
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A script's author goes by the tables.
    #[test]
    fn the_pages_have_every_code() {
        let kinds = [
            Kind::Failed,
            Kind::Invalid,
            Kind::Refused,
            Kind::NotFound,
            Kind::Conflict,
            Kind::AroundExec,
        ];
        let (readme, pipeline) = (
            include_str!("../../README.md"),
            include_str!("../../docs/pipeline.md"),
        );
        for kind in kinds {
            let (code, name) = (kind.code(), kind.name());
            assert!(readme.contains(&format!("\n| {code} | ")), "{name}");
            let row = format!("\n| {code} | `{name}` | ");
            assert!(pipeline.contains(&row), "{row}");
        }
    }

    #[test]
    fn causes_are_joined_and_the_hint_stands_on_its_own_line() {
        let failure = Failure::invalid("bad slug")
            .hint("use letters")
            .while_doing("planning demo");
        assert_eq!(
            failure.render("bottle-plan", false),
            "bottle-plan: planning demo: bad slug\nhint: use letters\n"
        );
        assert_eq!(failure.kind().code(), 2);
    }

    #[test]
    fn another_kind_of_document_is_no_question_of_versions() {
        let other = |found| Failure::other_document(found, "bottle.plan/v1", Some("make a plan"));
        assert_eq!(other("bottle.handle/v1").hint_text(), Some("make a plan"));
        assert!(
            other("bottle.plan/v9")
                .hint_text()
                .is_some_and(|hint| hint.contains("one version"))
        );
        assert!(
            other("compose")
                .hint_text()
                .is_some_and(|hint| hint.contains("one version"))
        );
    }

    #[test]
    fn json_is_one_object_on_one_line() {
        let text = Failure::refused("no\nway").render("bottle-run", true);
        assert_eq!(text.lines().count(), 1);
        let value: serde_json::Value = serde_json::from_str(&text).expect("valid JSON");
        assert_eq!(value["code"], 3);
        assert_eq!(value["kind"], "refused");
    }

    #[test]
    fn escape_sequences_never_reach_the_terminal() {
        let text = Failure::failed("x\u{1b}]0;owned\u{7}\u{202e}y").render("t", false);
        assert!(!text.contains('\u{1b}') && !text.contains('\u{202e}'));
        assert!(text.contains("\\u{1b}"));
    }
}
