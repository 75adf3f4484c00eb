//! One audit record and its line.

use std::borrow::Cow;
use std::fmt::{self, Write};
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use bottle_plan::audit::{self as doc, AUDIT_SCHEMA, Decision, Dropped, Head, Left};
use hyper::Method;
use time::OffsetDateTime;

use crate::dlp::{Found, Kind};
use crate::policy::Budget;
use crate::reason::Reason;

pub(crate) use bottle_plan::audit::Way;

/// Longer texts are cut: they come from the agent.
const MAX_TEXT: usize = 1024;

/// What is known about one request, connection or question.
pub(crate) struct Record {
    pub(crate) time: SystemTime,
    pub(crate) id: String,
    pub(crate) bottle: Arc<str>,
    pub(crate) way: Way,
    pub(crate) method: Option<Method>,
    pub(crate) host: Option<Arc<str>>,
    pub(crate) port: Option<u16>,
    /// Whether it came without TLS; not part of the line.
    pub(crate) plain_http: bool,
    /// Whether the agent can ask for what is refused; not part of the line.
    pub(crate) can_ask: bool,
    pub(crate) path: Option<String>,
    pub(crate) reason: Reason,
    pub(crate) rule: Option<Arc<str>>,
    pub(crate) status: Option<u16>,
    /// Bytes of bodies from the destination.
    pub(crate) bytes_in: u64,
    /// Bytes of bodies to the destination.
    pub(crate) bytes_out: u64,
    pub(crate) ms: u64,
    pub(crate) slot: Option<Arc<str>>,
    /// What was found in it; shared with those who are still looking.
    pub(crate) dlp: Arc<Found>,
    /// What was found by others than our own detectors.
    pub(crate) also_found: Vec<String>,
    /// The budget it was taken from.
    pub(crate) budget: Option<Arc<Budget>>,
    /// What was left of that when it was over.
    pub(super) left: Option<Left>,
    /// How many requests it stands for.
    pub(super) count: u64,
    pub(super) dropped: Option<Dropped>,
}

impl Record {
    pub(crate) fn new(bottle: Arc<str>, id: String, way: Way) -> Self {
        Self {
            time: SystemTime::now(),
            id,
            bottle,
            way,
            method: None,
            host: None,
            port: None,
            plain_http: false,
            can_ask: false,
            path: None,
            reason: Reason::Allowed,
            rule: None,
            status: None,
            bytes_in: 0,
            bytes_out: 0,
            ms: 0,
            slot: None,
            dlp: Arc::default(),
            also_found: Vec::new(),
            budget: None,
            left: None,
            count: 1,
            dropped: None,
        }
    }

    /// The audit speaks of itself.
    pub(super) fn note(bottle: Arc<str>, id: String, reason: Reason) -> Self {
        Self {
            reason,
            ..Self::new(bottle, id, Way::Audit)
        }
    }

    /// The same record as the beginning of a count: without what may differ from one to the next, and without the
    /// host if it counts for many.
    pub(super) fn into_summary(self, of_many_hosts: bool) -> Self {
        Self {
            path: None,
            host: self.host.filter(|_| !of_many_hosts),
            port: self.port.filter(|_| !of_many_hosts),
            ..self
        }
    }

    /// What became of it, in one word.
    fn decision(&self) -> Decision {
        match self.reason {
            Reason::Allowed | Reason::CredentialReflected | Reason::CredentialMinted => {
                Decision::Allow
            }
            Reason::AuditClosed
            | Reason::AuditDropped
            | Reason::AuditLost
            | Reason::GitHeld
            | Reason::GrantBegun
            | Reason::GrantEnded => Decision::Note,
            reason if reason.is_denial() => Decision::Deny,
            _ => Decision::Error,
        }
    }

    /// Fills in what is only known when it is over.
    pub(super) fn end(&mut self, took: Duration) {
        self.ms = u64::try_from(took.as_millis()).unwrap_or(u64::MAX);
        self.left = self.budget.take().map(|budget| budget.left());
        if matches!(
            self.reason,
            Reason::SecretLeak | Reason::PlaceholderMisuse | Reason::CredentialReflected
        ) {
            self.dlp.add(Kind::KnownSecret);
        }
    }

    fn found(&self) -> Vec<Cow<'_, str>> {
        let mut found: Vec<Cow<'_, str>> = self.dlp.names().map(Cow::Borrowed).collect();
        found.extend(self.also_found.iter().map(|name| plain(name)));
        found
    }

    /// Whether it was let through.
    pub(super) fn is_allowed(&self) -> bool {
        self.decision() == Decision::Allow
    }

    /// Whether it is said on stderr at this level.
    pub(super) fn is_worth(&self, level: u8) -> bool {
        match level {
            0 => false,
            1 => matches!(self.decision(), Decision::Deny | Decision::Error),
            _ => true,
        }
    }

    /// Appends the record's line, without a line end.
    pub(super) fn write(&self, out: &mut Vec<u8>, head: &Head) {
        let line = doc::Record {
            schema: AUDIT_SCHEMA.into(),
            time: rfc3339(self.time).into(),
            seq: head.seq,
            id: self.id.as_str().into(),
            bottle: (&*self.bottle).into(),
            way: self.way,
            method: self.method.as_ref().map(|method| plain(method.as_str())),
            host: self.host.as_deref().map(plain),
            port: self.port,
            path: self.path.as_deref().map(plain),
            decision: self.decision(),
            reason: self.reason.code().into(),
            rule: self.rule.as_deref().map(plain),
            status: self.status,
            bytes_in: self.bytes_in,
            bytes_out: self.bytes_out,
            ms: self.ms,
            slot: self.slot.as_deref().map(plain),
            dlp: self.found(),
            left: self.left,
            count: self.count,
            dropped: self.dropped.clone(),
            prev: head.prev.as_str().into(),
        };
        // A line of strings and numbers always serialises, and a vector takes what it is given.
        let _ = serde_json::to_writer(out, &line);
    }
}

impl fmt::Display for Record {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {}", self.decision(), self.reason.code())?;
        if let Some(method) = &self.method {
            write!(f, " {}", plain(method.as_str()))?;
        }
        if let Some(host) = &self.host {
            write!(f, " {}", plain(host))?;
        }
        if let Some(port) = self.port {
            write!(f, ":{port}")?;
        }
        if let Some(path) = &self.path {
            write!(f, "{}", plain(path))?;
        }
        if self.count > 1 {
            write!(f, " x{}", self.count)?;
        }
        write!(f, " ({})", self.id)
    }
}

/// Printable ASCII of bounded length: nothing in a record can steer a terminal or pass for another line.
fn plain(text: &str) -> Cow<'_, str> {
    let printable = |b: u8| (b' '..=b'~').contains(&b);
    if text.len() <= MAX_TEXT && text.bytes().all(printable) {
        return Cow::Borrowed(text);
    }
    let mut out = String::with_capacity(text.len().min(MAX_TEXT) + 16);
    for byte in text.bytes() {
        if out.len() >= MAX_TEXT {
            out.push_str("...");
            break;
        }
        if printable(byte) {
            out.push(char::from(byte));
        } else {
            // Writing to a string does not fail.
            let _ = write!(out, "\\x{byte:02x}");
        }
    }
    Cow::Owned(out)
}

fn rfc3339(time: SystemTime) -> String {
    let t = OffsetDateTime::from(time);
    format!(
        "{:04}-{:02}-{:02}T{:02}:{:02}:{:02}.{:03}Z",
        t.year(),
        u8::from(t.month()),
        t.day(),
        t.hour(),
        t.minute(),
        t.second(),
        t.millisecond()
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn agent_text_cannot_leave_its_field() {
        let mut record = Record::new("demo-abcde".into(), "1-0".into(), Way::Dns);
        record.host = Some("a\n{\"seq\":1}\u{1b}]52;\u{202e}\u{7f}\"\\".into());
        record.path = Some("x".repeat(5000));
        let mut out = Vec::new();
        record.write(&mut out, &Head::default());
        assert!(out.iter().all(|b| (b' '..=b'~').contains(b)));
        let value: serde_json::Value = serde_json::from_slice(&out).unwrap();
        assert_eq!(
            value["host"],
            "a\\x0a{\"seq\":1}\\x1b]52;\\xe2\\x80\\xae\\x7f\"\\"
        );
        assert_eq!(value["path"].as_str().unwrap().len(), MAX_TEXT + 3);
        assert_eq!(value.as_object().unwrap().len(), 23);
    }

    #[test]
    fn times_are_utc_with_milliseconds() {
        let time = SystemTime::UNIX_EPOCH + Duration::from_millis(1_795_449_600_042);
        assert_eq!(rfc3339(time), "2026-11-23T16:00:00.042Z");
    }
}
