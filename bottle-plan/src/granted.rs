//! What was granted to a bottle, read from its state folder, and in plain words.

use std::fs::File;
use std::io::Read as _;
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::Path;

use serde::de::DeserializeOwned;
use time::OffsetDateTime;

use crate::explain::seconds_in_words;
use crate::policy::{PathKind, PathMatch, Route, Scheme};
use crate::request::{self, Ask, Grant, MAX_FILE, Scope};

/// A grant and how far it is used.
#[derive(Clone, Debug, PartialEq)]
pub struct Granted {
    /// The grant.
    pub grant: Grant,
    /// How often it was used; known for those that end by use.
    pub used: Option<u64>,
}

impl Granted {
    /// Whether it still allows anything.
    #[must_use]
    pub fn is_live(&self, now: OffsetDateTime) -> bool {
        let used_up = self
            .grant
            .uses
            .zip(self.used)
            .is_some_and(|(uses, used)| used >= uses);
        !used_up && !self.grant.is_over(now)
    }

    /// How it ends, or that it has: `9 minutes left`, `1 use left`, `used up`.
    #[must_use]
    pub fn end_in_words(&self, now: OffsetDateTime) -> String {
        if let Some(ended) = &self.grant.ended {
            return format!("ended by {}", ended.by);
        }
        if self.grant.is_over(now) {
            return "over".to_owned();
        }
        let mut parts = Vec::new();
        if let Some(uses) = self.grant.uses {
            match uses.saturating_sub(self.used.unwrap_or(0)) {
                0 => return "used up".to_owned(),
                1 => parts.push("1 use left".to_owned()),
                left => parts.push(format!("{left} uses left")),
            }
        }
        if let Some(end) = self.grant.ends_at.as_deref().and_then(request::time_of) {
            let left = u64::try_from((end - now).whole_seconds()).unwrap_or(0);
            parts.push(format!("{} left", clock(left)));
        }
        if parts.is_empty() {
            parts.push("until down".to_owned());
        }
        parts.join(", ")
    }
}

/// Seconds as `9:58` or `1:02:03`.
#[must_use]
pub fn clock(seconds: u64) -> String {
    let (hours, minutes, seconds) = (seconds / 3600, seconds / 60 % 60, seconds % 60);
    if hours > 0 {
        return format!("{hours}:{minutes:02}:{seconds:02}");
    }
    format!("{minutes}:{seconds:02}")
}

/// Every grant of the bottle whose state folder this is, oldest first. Files that are none are left out.
#[must_use]
pub fn grants(state: &Path) -> Vec<Granted> {
    let mut found: Vec<Granted> = ids(&state.join("grants"), 'g')
        .into_iter()
        .filter_map(|id| {
            let (grant, _): (Grant, _) = read(&state.join("grants"), &id)?;
            (grant.id == id && grant.check().is_ok()).then(|| Granted {
                used: used(state, &grant),
                grant,
            })
        })
        .collect();
    found.sort_by(|a, b| a.grant.created_at.cmp(&b.grant.created_at));
    found
}

/// The live grants as they follow the explanation of a plan; nothing when there are none.
#[must_use]
pub fn explain(state: &Path) -> String {
    let now = OffsetDateTime::now_utc();
    let live: Vec<Granted> = grants(state)
        .into_iter()
        .filter(|granted| granted.is_live(now))
        .collect();
    let mut text = String::new();
    if !live.is_empty() {
        text.push_str("  was granted, beyond the plan:\n");
    }
    for granted in live {
        let words = crate::failure::printable(&scope_in_words(&granted.grant.scope));
        let (id, end) = (&granted.grant.id, granted.end_in_words(now));
        text.push_str(&format!(
            "    - {id}: {} ({end})\n",
            words.replace('\n', "\\n")
        ));
    }
    text
}

/// One byte a use, written by egress or git-gate before it lets the request or push go.
fn used(state: &Path, grant: &Grant) -> Option<u64> {
    grant.uses?;
    let audit = match grant.scope {
        Scope::Egress { .. } => state.join("audit"),
        Scope::Push { .. } => state.join("git-gate/audit"),
    };
    let file = audit.join(format!("{}.uses", grant.id));
    Some(std::fs::symlink_metadata(file).map_or(0, |found| found.len()))
}

/// The ids of files in a folder a sidecar may write to; no more than anybody could have meant.
#[must_use]
pub fn ids(folder: &Path, kind: char) -> Vec<String> {
    const MOST: usize = 4096;
    let entries = std::fs::read_dir(folder).into_iter().flatten().flatten();
    entries
        .take(MOST)
        .filter_map(|entry| entry.file_name().into_string().ok())
        .filter_map(|name| name.strip_suffix(".json").map(str::to_owned))
        .filter(|id| request::is_id(id, kind))
        .collect()
}

/// A document and its bytes, from a folder a sidecar may write to: a plain file of ordinary size, or nothing.
#[must_use]
pub fn read<T: DeserializeOwned>(folder: &Path, id: &str) -> Option<(T, Vec<u8>)> {
    let flags = nix::libc::O_NOFOLLOW | nix::libc::O_NONBLOCK;
    let file = File::options()
        .read(true)
        .custom_flags(flags)
        .open(folder.join(format!("{id}.json")))
        .ok()?;
    if !file.metadata().ok()?.is_file() {
        return None;
    }
    let mut bytes = Vec::new();
    file.take(MAX_FILE + 1).read_to_end(&mut bytes).ok()?;
    if bytes.len() as u64 > MAX_FILE {
        return None;
    }
    Some((serde_json::from_slice(&bytes).ok()?, bytes))
}

/// What a request asks, or a grant allows, as the end of a sentence that begins with `may`. It holds texts of the agent:
/// print it through [`crate::failure::printable`].
#[must_use]
pub fn ask_in_words(ask: &Ask) -> String {
    match ask {
        Ask::Egress { .. } => ask
            .route()
            .map_or_else(String::new, |route| route_in_words(&route)),
        Ask::Push {
            repo,
            reference,
            object,
        } => push_in_words(repo, reference, object.as_deref()),
        Ask::Question { text, .. } => format!("ask: {text}"),
    }
}

/// As [`ask_in_words`].
#[must_use]
pub fn scope_in_words(scope: &Scope) -> String {
    match scope {
        Scope::Egress { route } => route_in_words(route),
        Scope::Push {
            repo,
            reference,
            object,
        } => push_in_words(repo, reference, object.as_deref()),
    }
}

/// How long, as it follows the words: ` for 10 minutes, once`.
#[must_use]
pub fn limits_in_words(grant: &Grant) -> String {
    let times = [
        &grant.created_at,
        grant.ends_at.as_ref().unwrap_or(&grant.created_at),
    ];
    let [begin, end] = times.map(|at| request::time_of(at));
    let seconds = begin
        .zip(end)
        .map_or(0, |(begin, end)| (end - begin).whole_seconds());
    let long = match grant.ends_at {
        Some(_) => format!(
            " for {}",
            seconds_in_words(u64::try_from(seconds).unwrap_or(0))
        ),
        None => " until the bottle goes down".to_owned(),
    };
    match grant.uses {
        None => long,
        Some(1) => format!("{long}, once"),
        Some(uses) => format!("{long}, {uses} times"),
    }
}

fn push_in_words(repo: &str, reference: &str, object: Option<&str>) -> String {
    match object {
        Some(object) => format!("push {object} to {reference} of {repo}"),
        None => format!("push anything to {reference} of {repo}"),
    }
}

fn route_in_words(route: &Route) -> String {
    let rules: Vec<String> = match route.matches.as_slice() {
        [] => vec![rule_in_words(&[], &[])],
        rules => rules
            .iter()
            .map(|rule| rule_in_words(&rule.methods, &rule.paths))
            .collect(),
    };
    let usual = match route.scheme {
        Scheme::Https => 443,
        Scheme::Http => 80,
    };
    let port = match route.ports.as_slice() {
        [port] if *port == usual => String::new(),
        ports => ports
            .iter()
            .fold(String::new(), |text, port| format!("{text}:{port}")),
    };
    let plain = match route.scheme {
        Scheme::Https => "",
        Scheme::Http => ", unencrypted",
    };
    let git = if route.git.fetch {
        "clone and fetch with git, and "
    } else {
        ""
    };
    let private = match route.private.as_slice() {
        [] => String::new(),
        ranges => format!(", also at the private addresses {}", ranges.join(", ")),
    };
    format!(
        "{git}{} of {}{port}{plain}{private}",
        rules.join(" or "),
        route.host
    )
}

fn rule_in_words(methods: &[String], paths: &[PathMatch]) -> String {
    let methods = match methods {
        [] => "send anything".to_owned(),
        methods => methods.join("/"),
    };
    let path = |path: &PathMatch| match path.kind {
        PathKind::Exact => path.value.clone(),
        PathKind::Prefix => format!("{} and all below it", path.value),
        PathKind::Regex => format!("paths like {}", path.value),
    };
    let paths: Vec<String> = paths.iter().map(path).collect();
    match paths.as_slice() {
        [] => format!("{methods} to any path"),
        paths => format!("{methods} to {}", paths.join(" or ")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn requests_read_as_sentences() {
        let mut ask = Ask::Egress {
            scheme: Scheme::Https,
            host: "api.example.com".into(),
            port: 443,
            methods: vec!["POST".into()],
            paths: Vec::new(),
            git_fetch: false,
            denial: None,
        };
        assert_eq!(ask_in_words(&ask), "POST to any path of api.example.com");
        if let Ask::Egress {
            methods,
            paths,
            port,
            ..
        } = &mut ask
        {
            methods.clear();
            *port = 8443;
            paths.push(PathMatch {
                kind: PathKind::Prefix,
                value: "/v1".into(),
            });
        }
        assert_eq!(
            ask_in_words(&ask),
            "send anything to /v1 and all below it of api.example.com:8443"
        );
    }

    #[test]
    fn files_that_are_none_are_left_out() {
        let dir = tempfile::tempdir().expect("temp dir");
        let grants_dir = dir.path().join("grants");
        std::fs::create_dir(&grants_dir).expect("mkdir");
        std::fs::write(grants_dir.join("g-aaaaaaa2.json"), "{").expect("write");
        std::fs::write(grants_dir.join("../x.json"), "{}").expect("write");
        std::os::unix::fs::symlink("/etc/passwd", grants_dir.join("g-aaaaaaa3.json"))
            .expect("link");
        std::fs::write(grants_dir.join("g-aaaaaaa4.json"), vec![b' '; 40_000]).expect("write");
        assert_eq!(grants(dir.path()), []);
        assert_eq!(clock(3723), "1:02:03");
    }
}
