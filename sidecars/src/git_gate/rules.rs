//! What of a push can be told from its commands alone.

use std::collections::HashSet;

use bottle_plan::git::GateRepo;

use super::glob::fits_ref;
use super::repo::Repo;
use super::secrets::Secrets;
use crate::reason::Reason;

/// More refs in one push are no work of one agent.
const MAX_REFS: usize = 20;

/// A longer name is no name.
const MAX_NAME: usize = 200;

/// One ref that is to be changed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Command {
    /// What it was.
    pub(super) old: String,
    /// What it is to be.
    pub(super) new: String,
    /// Its name.
    pub(super) name: String,
}

impl Command {
    /// Reads `OLD NEW REF`, as git gives it to its hook.
    pub(super) fn parse(line: &str) -> Option<Self> {
        let mut words = line.splitn(3, ' ');
        let (old, new, name) = (words.next()?, words.next()?, words.next()?);
        (is_oid(old) && is_oid(new) && old.len() == new.len()).then(|| Self {
            old: old.to_owned(),
            new: new.to_owned(),
            name: name.to_owned(),
        })
    }

    /// As the audit has it; names come from the agent.
    pub(super) fn place(&self, repo: &Repo, secrets: &Secrets) -> String {
        let name = secrets.shown(&self.name);
        format!("/{}/{name}@{}", repo.rules.name, self.new)
    }

    /// Whether there was no such ref.
    pub(super) fn creates(&self) -> bool {
        is_zero(&self.old)
    }
}

/// A refusal: why, and where.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Refusal {
    /// The code.
    pub(super) reason: Reason,
    /// What exactly, for the agent. Never a secret.
    pub(super) detail: String,
    /// What was found, for the record.
    pub(super) found: Vec<String>,
    /// The numbers of the updates that the operator could let through all the same.
    pub(super) asks: Vec<usize>,
}

impl Refusal {
    pub(super) fn new(reason: Reason, detail: impl Into<String>) -> Self {
        Self {
            reason,
            detail: detail.into(),
            found: Vec::new(),
            asks: Vec::new(),
        }
    }
}

/// Judges the names, and what is to be done with them. For each command what the operator could lift; what nobody can is
/// the error.
pub(super) fn judge(
    repo: &GateRepo,
    commands: &[Command],
) -> Result<Vec<Option<Refusal>>, Refusal> {
    if commands.len() > MAX_REFS {
        return Err(Refusal::new(
            Reason::GitTooManyRefs,
            format!("{} refs in one push; at most {MAX_REFS}", commands.len()),
        ));
    }
    let mut names = HashSet::new();
    if let Some(twice) = commands.iter().find(|command| !names.insert(&command.name)) {
        let detail = format!("{} is in the push twice", printable(&twice.name));
        return Err(Refusal::new(Reason::GitRefInvalid, detail));
    }
    commands
        .iter()
        .map(|command| judge_one(repo, command))
        .collect()
}

fn judge_one(repo: &GateRepo, command: &Command) -> Result<Option<Refusal>, Refusal> {
    let name = command.name.as_str();
    let shown = printable(name);
    if !is_plain(name) {
        return Err(Refusal::new(Reason::GitRefInvalid, shown));
    }
    if is_zero(&command.new) {
        return Err(Refusal::new(Reason::GitDelete, shown));
    }
    if repo.refs.is_empty() {
        let detail = format!("{shown}: this repository can only be read");
        return Err(Refusal::new(Reason::GitRefNotAllowed, detail));
    }
    if name.starts_with("refs/tags/") && !command.creates() {
        return Err(Refusal::new(
            Reason::GitForce,
            format!("{shown} is there already, and a tag does not move"),
        ));
    }
    if repo.refs.iter().any(|pattern| fits_ref(pattern, name)) {
        return Ok(None);
    }
    let detail = format!("{shown}; allowed: {}", repo.refs.join(", "));
    Ok(Some(Refusal::new(Reason::GitRefNotAllowed, detail)))
}

/// Letters, digits, `.`, `_`, `-` and `/`: what needs no quoting anywhere. No part begins like an option or hides, and the
/// whole is nothing that git takes for something else: the id of an object, HEAD, or another ref written out in full.
fn is_plain(name: &str) -> bool {
    let plain = |b: u8| b.is_ascii_alphanumeric() || b"._-/".contains(&b);
    let below = name
        .strip_prefix("refs/heads/")
        .or_else(|| name.strip_prefix("refs/tags/"));
    name.len() <= MAX_NAME
        && name.bytes().all(plain)
        && !name.contains("..")
        && below.is_some_and(|below| {
            let is_other = below == "HEAD"
                || below.starts_with("refs/")
                || is_oid(&below.to_ascii_lowercase());
            !is_other
                && below.split('/').all(|part| {
                    !part.is_empty()
                        && !part.starts_with(['-', '.'])
                        && !part.ends_with('.')
                        && !part.ends_with(".lock")
                })
        })
}

/// A ref or a path as it can be shown on any terminal.
pub(super) fn printable(text: &str) -> String {
    text.chars()
        .take(MAX_NAME)
        .flat_map(|c| {
            let shown = (' '..='~').contains(&c);
            let escaped = (!shown).then(|| c.escape_unicode());
            shown
                .then_some(c)
                .into_iter()
                .chain(escaped.into_iter().flatten())
        })
        .collect()
}

fn is_zero(oid: &str) -> bool {
    oid.bytes().all(|b| b == b'0')
}

/// Whether it is an object's name, SHA-1 or SHA-256.
pub(super) fn is_oid(text: &str) -> bool {
    matches!(text.len(), 40 | 64)
        && text
            .bytes()
            .all(|b| b.is_ascii_digit() || (b'a'..=b'f').contains(&b))
}

#[cfg(test)]
mod tests {
    use super::*;
    use bottle_plan::git::PushRules;

    const A: &str = "aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa";
    const B: &str = "bbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbb";
    const ZERO: &str = "0000000000000000000000000000000000000000";

    fn repo(refs: &[&str]) -> GateRepo {
        GateRepo {
            name: "demo".into(),
            url: "git@git.example.com:o/r.git".into(),
            token: None,
            refs: refs.iter().map(|&text| text.into()).collect(),
            push: PushRules {
                max_commits: 5,
                max_bytes: 1000,
                protected_paths: Vec::new(),
                review: false,
                hold: None,
            },
            sign: None,
        }
    }

    fn verdict(refs: &[&str], old: &str, new: &str, name: &str) -> Option<Reason> {
        let command = Command::parse(&format!("{old} {new} {name}")).expect("a command");
        let refusal = match judge(&repo(refs), &[command]) {
            Ok(mut lifts) => lifts.pop().flatten(),
            Err(refusal) => Some(refusal),
        };
        refusal.map(|refusal| refusal.reason)
    }

    #[test]
    fn only_what_is_listed_is_pushed() {
        let own = ["refs/heads/agent/*"];
        for (old, new, name, expected) in [
            (ZERO, A, "refs/heads/agent/x", None),
            (A, B, "refs/heads/agent/x", None),
            (A, ZERO, "refs/heads/agent/x", Some(Reason::GitDelete)),
            (ZERO, A, "refs/heads/main", Some(Reason::GitRefNotAllowed)),
            (ZERO, A, "refs/tags/v1", Some(Reason::GitRefNotAllowed)),
            (ZERO, A, "refs/replace/aa", Some(Reason::GitRefInvalid)),
            (ZERO, A, "refs/notes/commits", Some(Reason::GitRefInvalid)),
            (ZERO, A, "HEAD", Some(Reason::GitRefInvalid)),
        ] {
            assert_eq!(verdict(&own, old, new, name), expected, "{name}");
        }
        assert_eq!(
            verdict(&[], ZERO, A, "refs/heads/agent/x"),
            Some(Reason::GitRefNotAllowed)
        );
        let tags = ["refs/tags/agent-*"];
        assert_eq!(verdict(&tags, ZERO, A, "refs/tags/agent-1"), None);
        assert_eq!(
            verdict(&tags, A, B, "refs/tags/agent-1"),
            Some(Reason::GitForce)
        );
    }

    #[test]
    fn hostile_names_are_no_names() {
        for name in [
            "refs/heads/agent/$(id)",
            "refs/heads/agent/a;b",
            "refs/heads/agent/a b",
            "refs/heads/agent/-x",
            "refs/heads/agent/.x",
            "refs/heads/agent/../main",
            "refs/heads/agent//x",
            "refs/heads/agent/x.lock",
            "refs/heads/agent/\u{202e}x",
            "refs/heads/agent/`x`",
            "refs/heads/agent/x\u{1b}[2J",
            "refs/heads/agent/x\r",
            "refs/heads/HEAD",
            "refs/heads/refs/heads/main",
            "refs/tags/refs/heads/main",
            "refs/heads/aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa",
            "refs/heads/AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA",
        ] {
            assert_eq!(
                verdict(&["refs/heads/*"], ZERO, A, name),
                Some(Reason::GitRefInvalid),
                "{name:?}"
            );
        }
    }

    #[test]
    fn a_ref_is_pushed_once() {
        let to = |new: &str| {
            Command::parse(&format!("{ZERO} {new} refs/heads/agent/x")).expect("a command")
        };
        let refused = judge(&repo(&["refs/heads/*"]), &[to(A), to(B)]);
        assert_eq!(
            refused.err().map(|refusal| refusal.reason),
            Some(Reason::GitRefInvalid)
        );
    }

    #[test]
    fn many_refs_are_too_many() {
        let command = Command::parse(&format!("{ZERO} {A} refs/heads/agent/x")).expect("a command");
        let refused = judge(&repo(&["refs/heads/*"]), &vec![command; MAX_REFS + 1]);
        assert_eq!(
            refused.err().map(|refusal| refusal.reason),
            Some(Reason::GitTooManyRefs)
        );
    }

    #[test]
    fn what_is_no_command_is_none() {
        for line in [
            "",
            "a b c",
            &format!("{A} {B}"),
            &format!("{A} {} x", &B[1..]),
        ] {
            assert_eq!(Command::parse(line), None, "{line}");
        }
    }
}
