//! Requests and grants for a person.

use std::fmt::Write as _;

use bottle_plan::granted::clock;
use bottle_plan::request::{self, Ask};
use time::OffsetDateTime;

use super::{Asked, GrantEntry, Status, escaped};

/// One line a request.
#[must_use]
pub fn requests_table(requests: &[Asked]) -> String {
    let slugs = width(requests.iter().map(|asked| asked.slug.as_str()));
    let mut text = format!("{:10}  {:slugs$}  {:9}  ASKS\n", "ID", "BOTTLE", "STATUS");
    for asked in requests {
        let _ = writeln!(
            text,
            "{:10}  {:slugs$}  {:9}  {}",
            asked.request.id,
            asked.slug,
            status(asked),
            sentence(asked)
        );
    }
    text
}

/// What is known of one request.
#[must_use]
pub fn request_page(asked: &Asked) -> String {
    let request = &asked.request;
    let mut text = String::new();
    let mut line = |name: &str, value: &str| {
        let _ = writeln!(text, "{name:10} {value}");
    };
    line("request", &request.id);
    line("bottle", &asked.slug);
    line("status", &status(asked));
    line("asked at", &request.created_at);
    line("until", &request.deadline);
    line("asks", &sentence(asked));
    if let Ask::Question { options, .. } = &request.ask {
        for option in options {
            line("  option", &escaped(option));
        }
    }
    if !request.reason.is_empty() {
        line("it says", &format!("\"{}\"", escaped(&request.reason)));
    }
    if let Some(grant) = &asked.grant {
        line(
            "granted",
            &format!(
                "{} by {} at {}",
                grant.id,
                escaped(&grant.by),
                grant.created_at
            ),
        );
    }
    if let Some(answer) = &asked.answer {
        line(
            "answered",
            &format!("by {} at {}", escaped(&answer.by), answer.at),
        );
        if let Some(said) = &answer.text {
            line("  with", &escaped(said));
        }
    }
    line("sha256", &asked.sha256);
    text
}

/// One line a grant.
#[must_use]
pub fn grants_table(grants: &[GrantEntry]) -> String {
    let slugs = width(grants.iter().map(|entry| entry.grant.bottle.as_str()));
    let ends = width(grants.iter().map(|entry| entry.end.as_str()));
    let mut text = format!("{:10}  {:slugs$}  {:ends$}  MAY\n", "ID", "BOTTLE", "END");
    for entry in grants {
        let _ = writeln!(
            text,
            "{:10}  {:slugs$}  {:ends$}  {}",
            entry.grant.id,
            escaped(&entry.grant.bottle),
            entry.end,
            entry.words
        );
    }
    text
}

/// What it wants, as a sentence.
fn sentence(asked: &Asked) -> String {
    match &asked.request.ask {
        Ask::Question { text, .. } => format!("\"{}\"", escaped(text)),
        _ => format!("to {}", asked.words),
    }
}

/// `waiting` says how long it still can.
fn status(asked: &Asked) -> String {
    if asked.status != Status::Waiting {
        return format!("{:?}", asked.status).to_lowercase();
    }
    let deadline = request::time_of(&asked.request.deadline);
    let left = deadline.map_or(0, |at| (at - OffsetDateTime::now_utc()).whole_seconds());
    format!("{} left", clock(u64::try_from(left).unwrap_or(0)))
}

fn width<'a>(texts: impl Iterator<Item = &'a str>) -> usize {
    texts
        .map(|text| text.chars().count())
        .max()
        .unwrap_or(0)
        .max(6)
}
