//! The audit document: one record a request, one line a record, and the chain that holds the lines together.
//!
//! The egress sidecar writes it, `bottle-run audit` reads it; what a line is and how the next one names it is
//! written down here and nowhere else. A bottle's audit is a row of files, oldest first: `audit-000001.jsonl`,
//! `audit-000002.jsonl`, …, `audit.jsonl`. The chain runs through all of them.

use std::borrow::Cow;
use std::fmt;

use serde::{Deserialize, Serialize};
use sha2::{Digest as _, Sha256};

/// The schema tag of [`Record`].
pub const AUDIT_SCHEMA: &str = "bottle.audit/v1";

/// What the first record of a bottle names as the one before it.
pub const GENESIS: &str = "0000000000000000000000000000000000000000000000000000000000000000";

/// The file that is written to.
pub const CURRENT_FILE: &str = "audit.jsonl";

/// No line is longer: every text in a record is cut. A reader may give up on what is.
pub const MAX_LINE: usize = 32 * 1024;

/// What became of one request, connection or question. Every field is in every line, `null` where it is not known.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "manifest", derive(schemars::JsonSchema))]
#[serde(deny_unknown_fields)]
pub struct Record<'a> {
    /// Always `bottle.audit/v1`.
    #[cfg_attr(feature = "manifest", schemars(extend("const" = AUDIT_SCHEMA)))]
    pub schema: Cow<'a, str>,
    /// When it began, RFC 3339 in UTC with milliseconds.
    pub time: Cow<'a, str>,
    /// The number of the record: one more than that of the record before.
    pub seq: u64,
    /// Names the record in the answer the agent got.
    pub id: Cow<'a, str>,
    /// The bottle.
    pub bottle: Cow<'a, str>,
    /// How it came in.
    pub way: Way,
    /// The method.
    pub method: Option<Cow<'a, str>>,
    /// The host that was asked for.
    pub host: Option<Cow<'a, str>>,
    /// Its port.
    pub port: Option<u16>,
    /// The path, without the query.
    pub path: Option<Cow<'a, str>>,
    /// What became of it, in one word.
    pub decision: Decision,
    /// Why, as a code that never changes its meaning.
    pub reason: Cow<'a, str>,
    /// Where the route was written that decided.
    pub rule: Option<Cow<'a, str>>,
    /// The status the agent saw.
    pub status: Option<u16>,
    /// Bytes of bodies from the destination.
    pub bytes_in: u64,
    /// Bytes of bodies to the destination.
    pub bytes_out: u64,
    /// How long it took; for a summary, from the first request to the last.
    pub ms: u64,
    /// The slot of the credential that was put in.
    pub slot: Option<Cow<'a, str>>,
    /// What was found in it: `detector` or `detector/pattern`.
    pub dlp: Vec<Cow<'a, str>>,
    /// What was left of the route's budgets afterwards.
    pub left: Option<Left>,
    /// 1, or how many requests this record stands for: floods of the same refusal are counted, not listed.
    pub count: u64,
    /// Older records that were removed when this one was written, because the audit had reached its size.
    pub dropped: Option<Dropped>,
    /// SHA-256 of the line before this one, whatever that was; [`GENESIS`] for the first.
    pub prev: Cow<'a, str>,
}

/// The way a request came in.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "manifest", derive(schemars::JsonSchema))]
#[serde(rename_all = "lowercase")]
pub enum Way {
    /// The explicit proxy.
    Proxy,
    /// A connection that was led here by the name server.
    Transparent,
    /// The name server.
    Dns,
    /// Git, through git-gate: a request, or (`PUSH`) what became of one ref.
    Git,
    /// Nowhere: the audit speaks of itself.
    Audit,
}

/// What became of a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[cfg_attr(feature = "manifest", derive(schemars::JsonSchema))]
#[serde(rename_all = "lowercase")]
pub enum Decision {
    /// It was let through.
    Allow,
    /// It was refused.
    Deny,
    /// It was allowed, or would have been, and went wrong.
    Error,
    /// No request: the audit speaks of itself.
    Note,
}

impl fmt::Display for Decision {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Self::Allow => "allow",
            Self::Deny => "deny",
            Self::Error => "error",
            Self::Note => "note",
        })
    }
}

/// What is left of a route's budgets; `null` where there is no limit.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "manifest", derive(schemars::JsonSchema))]
#[serde(deny_unknown_fields)]
pub struct Left {
    /// Requests.
    pub requests: Option<u64>,
    /// Bytes of request bodies.
    pub bytes_out: Option<u64>,
}

/// The end of what was removed: with it the rest of the chain can still be checked.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "manifest", derive(schemars::JsonSchema))]
#[serde(deny_unknown_fields)]
pub struct Dropped {
    /// The number of the last record that was removed.
    pub through: u64,
    /// The hash of the last line that was removed.
    pub hash: String,
}

/// Where a chain stands: what the next record must say.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Head {
    /// Its number.
    pub seq: u64,
    /// The hash it must name.
    pub prev: String,
}

impl Default for Head {
    fn default() -> Self {
        Self {
            seq: 0,
            prev: GENESIS.to_owned(),
        }
    }
}

impl Head {
    /// Goes on past a record's line.
    pub fn pass(&mut self, line: &[u8]) {
        self.prev = hash(line);
        self.seq = self.seq.saturating_add(1);
    }

    /// Goes on past a line that is no record: one that a crash cut off has no number, but its hash is named.
    pub fn pass_torn(&mut self, line: &[u8]) {
        self.prev = hash(line);
    }
}

/// SHA-256 of a line without its line end, in hexadecimal.
#[must_use]
pub fn hash(line: &[u8]) -> String {
    const DIGITS: &[u8; 16] = b"0123456789abcdef";
    Sha256::digest(line)
        .iter()
        .flat_map(|byte| [byte >> 4, byte & 15])
        .map(|digit| char::from(DIGITS[usize::from(digit)]))
        .collect()
}

/// Reads one line; `None` when it is no record of this schema.
#[must_use]
pub fn parse(line: &[u8]) -> Option<Record<'static>> {
    let record: Record<'static> = serde_json::from_slice(line).ok()?;
    (record.schema == AUDIT_SCHEMA).then_some(record)
}

/// The name a full file gets.
#[must_use]
pub fn closed_file(number: u32) -> String {
    format!("audit-{number:06}.jsonl")
}

/// The number of a full file; `None` for every other name.
#[must_use]
pub fn closed_file_number(name: &str) -> Option<u32> {
    let number = name.strip_prefix("audit-")?.strip_suffix(".jsonl")?;
    let number: u32 = number.parse().ok()?;
    (closed_file(number) == name).then_some(number)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_of_files_are_read_as_they_are_written() {
        for number in [1, 999_999, 1_000_000] {
            assert_eq!(closed_file_number(&closed_file(number)), Some(number));
        }
        for other in [
            "audit.jsonl",
            "audit-1.jsonl",
            "audit-+00001.jsonl",
            "audit-000001.jsonl.gz",
        ] {
            assert_eq!(closed_file_number(other), None, "{other}");
        }
    }

    #[test]
    fn a_record_is_what_its_line_says() {
        let record = Record {
            schema: AUDIT_SCHEMA.into(),
            time: "2026-11-23T16:00:00.042Z".into(),
            seq: 3,
            id: "1-3".into(),
            bottle: "demo-abcde".into(),
            way: Way::Proxy,
            method: Some("GET".into()),
            host: None,
            port: Some(443),
            path: None,
            decision: Decision::Deny,
            reason: "host_not_allowed".into(),
            rule: None,
            status: Some(403),
            bytes_in: 0,
            bytes_out: 0,
            ms: 1,
            slot: None,
            dlp: vec!["token_patterns/jwt".into()],
            left: None,
            count: 1,
            dropped: None,
            prev: GENESIS.into(),
        };
        let line = serde_json::to_vec(&record).expect("serialises");
        assert_eq!(parse(&line).as_ref(), Some(&record));
        let fields: serde_json::Map<String, serde_json::Value> =
            serde_json::from_slice(&line).expect("an object");
        assert_eq!(fields.len(), 23);
        let other = String::from_utf8(line)
            .expect("text")
            .replace("audit/v1", "audit/v2");
        assert_eq!(parse(other.as_bytes()), None);
    }

    /// "abc", from FIPS 180-2.
    #[test]
    fn the_hash_is_sha_256() {
        assert_eq!(
            hash(b"abc"),
            "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"
        );
    }
}
