//! From a grant to a line in the manifest: for what turned out to be needed every time.
//!
//! A manifest is a person's file, with comments and an order of its own, so one entry is put at the end of its list of
//! routes and nothing else is touched. The result is read again: unless it says exactly what the old one said and the new
//! route, nothing is written.

use std::fs;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};

use bottle_plan::failure::{Failure, PathContext as _, Result};
use bottle_plan::granted;
use bottle_plan::manifest::Bottle;
use bottle_plan::plan::{PLAN_SCHEMA, Plan};
use bottle_plan::policy::{PathKind, Route, Scheme};
use bottle_plan::request::{Grant, Scope};
use bottle_plan::state::{StateHome, parse_document, write_atomic};
use serde_yaml::Value;

use super::find_grant;

/// A change that was worked out and not yet made.
#[derive(Debug)]
pub struct Promotion {
    /// The manifest.
    pub path: PathBuf,
    /// What is added, as the lines of a diff.
    pub diff: String,
    old: String,
    new: String,
    mode: u32,
}

/// Works out how the manifest of a grant's bottle would allow the same for good.
///
/// # Errors
/// Not found, when there is no such grant; invalid, when the manifest cannot be edited safely: the hint then has the
/// route to put in by hand.
pub fn promote(home: &StateHome, given: &str) -> Result<Promotion> {
    let (folder, id) = find_grant(home, given)?;
    let read: Option<(Grant, _)> = granted::read(&folder.grants(), &id);
    let (grant, _) = read.ok_or_else(|| Failure::failed(format!("grant {id} cannot be read")))?;
    let Scope::Egress { route } = &grant.scope else {
        return Err(Failure::invalid(
            "a push is granted once; `refs` of the repository allow it for good",
        ));
    };
    if route.auth.is_some() {
        return Err(Failure::invalid(
            "the grant uses a credential, and which one a route has is yours to write",
        )
        .hint("add its method and path to the route that has the credential"));
    }
    let path = manifest(&folder.state)?;
    let old = fs::read_to_string(&path).at("read", &path)?;
    let entry = entry(route, &grant);
    let by_hand = |why: &str| {
        Failure::invalid(format!("{} cannot be edited safely: {why}", path.display())).hint(
            format!("put this under egress.routes:\n{}", indented(&entry, 4)),
        )
    };
    let (at, indent) =
        place(&old).ok_or_else(|| by_hand("it has no plain list `egress: routes:`"))?;
    let added = indented(&entry, indent);
    let lines: Vec<&str> = old.split_inclusive('\n').collect();
    let (before, after) = lines.split_at(at);
    let mut before = before.concat();
    if !before.ends_with('\n') {
        before.push('\n');
    }
    let new = format!("{before}{added}{}", after.concat());
    if !says_just_one_more(&old, &new) {
        return Err(by_hand(
            "it would not say what it said before and the new route",
        ));
    }
    let context = lines[at.saturating_sub(2)..at]
        .iter()
        .map(|line| format!(" {}\n", line.trim_end()));
    let plus = added.lines().map(|line| format!("+{line}\n"));
    Ok(Promotion {
        diff: format!(
            "--- {0}\n+++ {0}\n{1}",
            path.display(),
            context.chain(plus).collect::<String>()
        ),
        mode: fs::metadata(&path).at("read", &path)?.mode() & 0o777,
        path,
        old,
        new,
    })
}

impl Promotion {
    /// Makes the change.
    ///
    /// # Errors
    /// A conflict, when the manifest is another one by now.
    pub fn write(&self) -> Result<()> {
        if fs::read_to_string(&self.path).at("read", &self.path)? != self.old {
            return Err(Failure::conflict(format!(
                "{} was changed meanwhile",
                self.path.display()
            ))
            .hint("look at it, then try again"));
        }
        write_atomic(&self.path, self.new.as_bytes(), self.mode)
    }
}

/// The file whose bottle it is: the last that was read, which has the last word.
fn manifest(state: &Path) -> Result<PathBuf> {
    let path = state.join("plan.json");
    let plan: Plan = parse_document(&fs::read(&path).at("read", &path)?, PLAN_SCHEMA)?;
    let mut bottles = plan
        .sources
        .into_iter()
        .filter(|source| source.role == "bottle");
    let path = bottles
        .next_back()
        .map(|source| source.path)
        .ok_or_else(|| {
            Failure::invalid("the bottle comes from no manifest of its own")
                .hint("write one in bottles/")
        })?;
    let is_yaml = path
        .extension()
        .is_some_and(|end| end == "yaml" || end == "yml");
    let is_link = fs::symlink_metadata(&path)
        .at("read", &path)?
        .file_type()
        .is_symlink();
    if is_yaml && !is_link {
        return Ok(path);
    }
    Err(
        Failure::invalid(format!("{} is not a plain YAML file", path.display()))
            .hint("add the route by hand; bottle-run grants shows it"),
    )
}

/// The route as a person would write it, beginning with `- `.
fn entry(route: &Route, grant: &Grant) -> String {
    let quoted = |text: &str| Value::from(text);
    let one = |value: Value| serde_json::to_string(&value).unwrap_or_default();
    let list = |items: &[String]| format!("[{}]", items.join(", "));
    let mut text = format!(
        "# {}, granted by {} at {}\n",
        grant.id,
        super::escaped(&grant.by),
        grant.created_at
    );
    text.push_str(&format!("- host: {}\n", route.host));
    if route.scheme == Scheme::Http {
        text.push_str("  scheme: http\n");
    }
    let ports: Vec<String> = route.ports.iter().map(u16::to_string).collect();
    let usual = match route.scheme {
        Scheme::Https => 443,
        Scheme::Http => 80,
    };
    if route.ports != [usual] {
        text.push_str(&format!("  ports: {}\n", list(&ports)));
    }
    if !route.private.is_empty() {
        text.push_str(&format!("  private: {}\n", list(&route.private)));
    }
    if route.git.fetch {
        text.push_str("  git: {fetch: true}\n");
    }
    let rules: Vec<_> = route
        .matches
        .iter()
        .filter(|rule| !rule.methods.is_empty() || !rule.paths.is_empty())
        .collect();
    if !rules.is_empty() {
        text.push_str("  matches:\n");
    }
    for rule in rules {
        let paths = rule.paths.iter().map(|path| {
            let kind = match path.kind {
                PathKind::Exact => "exact",
                PathKind::Prefix => "prefix",
                PathKind::Regex => "regex",
            };
            format!("{{type: {kind}, value: {}}}", one(quoted(&path.value)))
        });
        let paths: Vec<String> = paths.collect();
        let mut parts = Vec::new();
        if !rule.methods.is_empty() {
            parts.push(format!("methods: {}", list(&rule.methods)));
        }
        if !paths.is_empty() {
            parts.push(format!("paths: {}", list(&paths)));
        }
        text.push_str(&format!("    - {}\n", parts.join("\n      ")));
    }
    text
}

fn indented(text: &str, by: usize) -> String {
    text.lines()
        .map(|line| format!("{:by$}{line}\n", ""))
        .collect()
}

/// The line before which an entry is added, and how far its `- ` stands in. Only for the plain form: `egress:` at the
/// margin, below it `routes:`, below that the entries.
fn place(text: &str) -> Option<(usize, usize)> {
    let lines: Vec<&str> = text.lines().collect();
    let depth = |line: &str| line.len() - line.trim_start_matches(' ').len();
    let is_text = |line: &str| !line.trim().is_empty() && !line.trim_start().starts_with('#');
    let egress = lines.iter().position(|line| line.trim_end() == "egress:")?;
    let below = |at: &usize| depth(lines[*at]) > 0 || !is_text(lines[*at]);
    let mut inside = (egress + 1..lines.len()).take_while(below);
    let routes = inside.find(|&at| lines[at].trim() == "routes:")?;
    let first = (routes + 1..lines.len()).find(|&at| is_text(lines[at]))?;
    let indent = depth(lines[first]);
    if !lines[first].trim_start().starts_with("- ") || indent < depth(lines[routes]) {
        return None;
    }
    let is_entry = |at: usize| {
        depth(lines[at]) > indent
            || (depth(lines[at]) == indent && lines[at].trim_start().starts_with("- "))
    };
    let texts = (first..lines.len()).filter(|&at| is_text(lines[at]));
    let last = texts.take_while(|&at| is_entry(at)).last()?;
    Some((last + 1, indent))
}

/// Whether `new` is a bottle, and the same as `old` but for one more route.
fn says_just_one_more(old: &str, new: &str) -> bool {
    let values = (
        serde_yaml::from_str::<Value>(old),
        serde_yaml::from_str::<Value>(new),
    );
    let (Ok(old), Ok(mut new_value)) = values else {
        return false;
    };
    let routes = new_value
        .get_mut("egress")
        .and_then(|egress| egress.get_mut("routes"))
        .and_then(Value::as_sequence_mut);
    let removed = routes.and_then(|routes| routes.pop());
    removed.is_some() && old == new_value && serde_yaml::from_str::<Bottle>(new).is_ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_entry_is_put_at_the_end_of_the_list_and_nowhere_else() {
        let text = "image: x\negress:\n  log: 1\n  routes:\n    # the API\n    - host: a.example.com\n      ports: [8443]\n    - {host: b.example.com}\n\n# the end\nenv: {A: b}\n";
        let (at, indent) = place(text).expect("a place");
        assert_eq!((at, indent), (8, 4));
        let mut lines: Vec<&str> = text.split_inclusive('\n').collect();
        lines.insert(at, "    - host: c.example.com\n");
        assert!(says_just_one_more(text, &lines.concat()));
        lines.insert(0, "env: {C: d}\n");
        assert!(!says_just_one_more(text, &lines.concat()));
    }

    #[test]
    fn other_forms_are_left_to_the_person() {
        for text in [
            "egress: {routes: [{host: a.example.com}]}\n",
            "image: x\n",
            "egress:\n  routes: []\n",
            "egress:\n  routes: *all\n",
            "egress:\n  log: 1\nother:\n  routes:\n    - a\n",
        ] {
            assert_eq!(place(text), None, "{text}");
        }
    }
}
