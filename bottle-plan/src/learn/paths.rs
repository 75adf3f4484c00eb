//! Paths that were asked for, as few rules.

use std::collections::{BTreeMap, BTreeSet};

use crate::policy::{PathKind, PathMatch};

/// So many different names in one folder are taken for more to come.
const MANY: usize = 4;

/// The path as a rule can name it: decoded, and the same to every reader. `None` when no rule can.
pub(super) fn as_rule(path: &str) -> Option<String> {
    let decoded = decode(path)?;
    let plain = |c: char| c.is_ascii_graphic() || c == ' ';
    let clean = decoded.starts_with('/')
        // It was too long and was cut when it was recorded.
        && !decoded.ends_with("...")
        && decoded.chars().all(plain)
        && !decoded.contains(['%', '\\', '?'])
        && !decoded.split('/').any(|part| part == "." || part == "..");
    clean.then_some(decoded)
}

/// Decodes escapes of printable ASCII but the slash, which would be another path.
fn decode(path: &str) -> Option<String> {
    let mut parts = path.split('%');
    let mut decoded = parts.next()?.to_owned();
    for part in parts {
        let (digits, rest) = part.split_at_checked(2)?;
        let byte = u8::from_str_radix(digits, 16).ok()?;
        if byte == b'/' || !digits.bytes().all(|digit| digit.is_ascii_hexdigit()) {
            return None;
        }
        decoded.push(char::from(byte));
        decoded.push_str(rest);
    }
    Some(decoded)
}

/// The paths as they are, but for folders with many different names, which become a prefix; never the root.
pub(super) fn generalise(asked: &BTreeSet<String>) -> Vec<PathMatch> {
    let mut root = Folder::default();
    for path in asked {
        root.add(path);
    }
    let mut rules = Vec::new();
    root.rules("", &mut rules);
    rules
}

/// A folder of the paths.
#[derive(Default)]
struct Folder {
    /// Whether it was asked for itself.
    is_asked: bool,
    below: BTreeMap<String, Folder>,
}

impl Folder {
    fn add(&mut self, path: &str) {
        let mut folder = self;
        for part in path.trim_start_matches('/').split('/') {
            folder = folder.below.entry(part.to_owned()).or_default();
        }
        folder.is_asked = true;
    }

    fn rules(&self, path: &str, rules: &mut Vec<PathMatch>) {
        // The root is never taken whole: it would be every path of the host.
        if !path.is_empty() && self.below.len() >= MANY {
            rules.push(rule(PathKind::Prefix, path));
            return;
        }
        if self.is_asked {
            rules.push(rule(PathKind::Exact, path));
        }
        for (name, folder) in &self.below {
            folder.rules(&format!("{path}/{name}"), rules);
        }
    }
}

fn rule(kind: PathKind, path: &str) -> PathMatch {
    PathMatch {
        kind,
        value: path.to_owned(),
    }
}
