//! From a grant to a line in the manifest: for what turned out to be needed every time. And what a request would add to
//! the policy, written the same way. `manifest_edit` knows where in the file
//! it goes.

use std::fs;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};

use bottle_plan::failure::{Failure, PathContext as _, Result};
use bottle_plan::granted;
use bottle_plan::plan::{PLAN_SCHEMA, Plan};
use bottle_plan::policy::{Match, PathKind, PathMatch, Route, Scheme};
use bottle_plan::request::{Ask, Grant, Scope};
use bottle_plan::state::{StateHome, parse_document, write_atomic};

use serde::Serialize;

use super::decide::scope;
use super::manifest_edit::Added;
use super::{Asked, Folder, escaped, find_grant};

/// The schema tag of [`Promotion`].
pub const PROMOTION_SCHEMA: &str = "bottle.promotion/v1";

/// A change that was worked out, and is made by [`Promotion::write`].
#[derive(Debug, Serialize)]
pub struct Promotion {
    /// Always [`PROMOTION_SCHEMA`].
    pub schema: &'static str,
    /// The grant it makes permanent.
    pub grant: String,
    /// The manifest.
    pub path: PathBuf,
    /// What is added, as the lines of a diff.
    pub diff: String,
    #[serde(skip)]
    old: String,
    #[serde(skip)]
    new: String,
    #[serde(skip)]
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
    let added = Added {
        comment: format!(
            "# {id}, granted by {} at {}",
            escaped(&grant.by),
            grant.created_at
        ),
        entry: written(route),
        rules: route.matches.iter().map(rule).collect(),
        route,
    };
    let plan = super::decide::plan(&folder.state)?;
    let new = added.to(&old, &plan.egress.routes).map_err(|why| {
        Failure::invalid(format!("{} cannot be edited safely: {why}", path.display())).hint(
            format!(
                "what it would have to say, under egress.routes:\n{}",
                added.by_hand()
            ),
        )
    })?;
    Ok(Promotion {
        schema: PROMOTION_SCHEMA,
        grant: id,
        diff: format!(
            "--- {0}\n+++ {0}\n{1}",
            path.display(),
            difference(&old, &new)
        ),
        mode: fs::metadata(&path).at("read", &path)?.mode() & 0o777,
        path,
        old,
        new,
    })
}

/// The lines that are not the same, and two before and after them.
fn difference(old: &str, new: &str) -> String {
    const AROUND: usize = 2;
    let (old, new): (Vec<&str>, Vec<&str>) = (old.lines().collect(), new.lines().collect());
    let same = |pairs: &mut dyn Iterator<Item = (&&str, &&str)>| {
        pairs.take_while(|(one, other)| one == other).count()
    };
    let before = same(&mut old.iter().zip(&new));
    let most = old.len().min(new.len()) - before;
    let after = same(&mut old.iter().rev().zip(new.iter().rev())).min(most);
    let mut text = String::new();
    let mut say = |sign: char, lines: &[&str]| {
        for line in lines {
            text.push_str(&format!("{sign}{}\n", escaped(line)));
        }
    };
    say(' ', &old[before.saturating_sub(AROUND)..before]);
    say('-', &old[before..old.len() - after]);
    say('+', &new[before..new.len() - after]);
    say(' ', &old[old.len() - after..][..after.min(AROUND)]);
    text
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

/// What a request would change, as a diff of what is said of its host: harmless for a terminal.
///
/// # Errors
/// When it cannot become a grant; the message says why.
pub fn policy_diff(home: &StateHome, asked: &Asked) -> Result<String> {
    let folder = Folder::of(home, &asked.slug)?;
    if matches!(asked.request.ask, Ask::Question { .. }) {
        return Ok("A question changes nothing.\n".to_owned());
    }
    let title = format!("--- {0}\n+++ {0} with {1}\n", asked.slug, asked.request.id);
    let Scope::Egress { route } = scope(&folder, asked, false)? else {
        let changes = super::push_page(home, asked, false);
        return Ok(format!("{title}+{}\n{changes}", asked.words));
    };
    let lines = |sign: char, route: &Route| -> String {
        let text = written(route);
        let lines = text
            .lines()
            .map(|line| format!("{sign}{}\n", escaped(line)));
        lines.collect()
    };
    let plan = super::decide::plan(&folder.state)?;
    let known = plan.egress.routes.iter();
    let known = known.filter(|known| known.host == route.host);
    let known: String = known.map(|known| lines(' ', known)).collect();
    Ok(format!("{title}{known}{}", lines('+', &route)))
}

/// A route as a person would write it, beginning with `- `.
fn written(route: &Route) -> String {
    let list = |items: &[String]| format!("[{}]", items.join(", "));
    let mut text = format!("- host: {}\n", route.host);
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
    if !route.matches.is_empty() {
        text.push_str("  matches:\n");
    }
    for one in &route.matches {
        text.push_str(&format!("    - {}\n", rule(one)));
    }
    text
}

/// An entry of `matches`, on one line.
fn rule(rule: &Match) -> String {
    let list = |items: Vec<String>| format!("[{}]", items.join(", "));
    let quoted = |text: &str| serde_json::to_string(text).unwrap_or_default();
    let path = |path: &PathMatch| {
        let kind = match path.kind {
            PathKind::Exact => "exact",
            PathKind::Prefix => "prefix",
            PathKind::Regex => "regex",
        };
        format!("{{type: {kind}, value: {}}}", quoted(&path.value))
    };
    let mut parts = Vec::new();
    if !rule.methods.is_empty() {
        parts.push(format!("methods: {}", list(rule.methods.clone())));
    }
    if !rule.paths.is_empty() {
        parts.push(format!(
            "paths: {}",
            list(rule.paths.iter().map(path).collect())
        ));
    }
    format!("{{{}}}", parts.join(", "))
}

#[cfg(test)]
mod tests {
    use super::difference;

    #[test]
    fn a_difference_shows_what_is_around_it() {
        let old = "a\nb\nc\nd\ne\nf\n";
        assert_eq!(
            difference(old, "a\nb\nc\nX\nd\ne\nf\n"),
            " b\n c\n+X\n d\n e\n"
        );
        assert_eq!(
            difference(old, "a\nb\nC\nd\ne\nf\n"),
            " a\n b\n-c\n+C\n d\n e\n"
        );
        assert_eq!(difference("a\n", "a\na\n"), " a\n+a\n");
        assert_eq!(difference("", "a\n"), "+a\n");
    }
}
