//! One route more in a manifest, and nothing else.
//!
//! A manifest is a person's file, with comments and an order of its own. So it is edited as text, in the place where a
//! person would: a host that has a route gets a rule more there, another one an entry at the end of the list. The result
//! is read again: unless it says exactly what the old one said and that, it is not used.

use bottle_plan::manifest::Bottle;
use bottle_plan::policy::{Route, Scheme};
use serde_yaml::Value;

/// What is added, in the forms it may take.
pub(super) struct Added<'a> {
    /// Whose it is, as a line of its own.
    pub(super) comment: String,
    /// The route as an entry, beginning with `- `.
    pub(super) entry: String,
    /// Its rules, each on one line.
    pub(super) rules: Vec<String>,
    /// The same as it is granted.
    pub(super) route: &'a Route,
}

impl Added<'_> {
    /// The manifest with it. `planned` is what the bottle's routes are, wherever they were written.
    pub(super) fn to(&self, old: &str, planned: &[Route]) -> Result<String, String> {
        let read = |text: &str| serde_yaml::from_str::<Value>(text).map_err(|e| e.to_string());
        let mut wanted = read(old)?;
        let new = match self.twin(&wanted)? {
            Some(index) => {
                self.may_join(&wanted["egress"]["routes"][index], planned)?;
                let new = self.in_route(old, index)?;
                let rules = wanted["egress"]["routes"][index]
                    .get_mut("matches")
                    .and_then(Value::as_sequence_mut)
                    .ok_or("its `matches` is not a list")?;
                for rule in &self.rules {
                    rules.push(read(rule)?);
                }
                new
            }
            None => {
                if let Some(other) = planned.iter().find(|known| self.is_for(known)) {
                    let place = other.source.as_deref().unwrap_or("another place");
                    return Err(format!(
                        "its route for {} is written at {place}",
                        other.host
                    ));
                }
                let new = self.as_entry(old)?;
                let entry = read(&self.entry)?[0].clone();
                add_route(&mut wanted, entry)?;
                new
            }
        };
        // A text that was moved by a quote or an anchor would show here.
        let says = read(&new)?;
        if says != wanted || serde_yaml::from_str::<Bottle>(&new).is_err() {
            return Err("it would not say what it said before and the new route".to_owned());
        }
        Ok(new)
    }

    /// What a person would put there.
    pub(super) fn by_hand(&self) -> String {
        indented(&format!("{}\n{}", self.comment, self.entry), 4)
    }

    fn is_for(&self, known: &Route) -> bool {
        known.host == self.route.host
            && known
                .ports
                .iter()
                .any(|port| self.route.ports.contains(port))
    }

    /// The manifest's own route for the same host and port: there cannot be two.
    fn twin(&self, manifest: &Value) -> Result<Option<usize>, String> {
        let routes = match manifest
            .get("egress")
            .and_then(|egress| egress.get("routes"))
        {
            None => return Ok(None),
            Some(routes) => routes
                .as_sequence()
                .ok_or("`egress.routes` is not a list")?,
        };
        let mut twin = None;
        for (index, route) in routes.iter().enumerate() {
            let same_host = route
                .get("host")
                .and_then(Value::as_str)
                .is_some_and(|host| {
                    bottle_plan::host::Host::parse(host)
                        .is_ok_and(|host| host.as_str() == self.route.host)
                });
            let ports = ports_of(route);
            if !same_host || !ports.iter().any(|port| self.route.ports.contains(port)) {
                continue;
            }
            if ports != self.route.ports {
                return Err(format!(
                    "its route for {} has other ports as well",
                    self.route.host
                ));
            }
            twin = Some(index);
        }
        Ok(twin)
    }

    /// A rule in a route has all that the route has: nothing may come with it that was not granted.
    fn may_join(&self, written: &Value, planned: &[Route]) -> Result<(), String> {
        let host = &self.route.host;
        if written.get("matches").is_none() {
            return Err(format!("it allows everything of {host} already"));
        }
        if written.get("auth").is_some() {
            return Err(format!(
                "its route for {host} puts a credential in, which was not granted"
            ));
        }
        if self.rules.is_empty() || self.rules.iter().any(|rule| rule == "{}") {
            return Err(format!(
                "everything of {host} was granted: take its `matches` out"
            ));
        }
        let known = planned.iter().find(|known| self.is_for(known));
        let same = known.is_some_and(|known| {
            known.scheme == self.route.scheme
                && known.private == self.route.private
                && known.auth.is_none()
                && known.git.fetch == self.route.git.fetch
        });
        if same {
            Ok(())
        } else {
            Err(format!(
                "its route for {host} differs in more than its rules"
            ))
        }
    }

    /// As the last entry of the list of routes.
    fn as_entry(&self, old: &str) -> Result<String, String> {
        let whole = format!("{}\n{}", self.comment, self.entry);
        match Routes::find(old) {
            Some(routes) => Ok(insert(old, routes.end(), &indented(&whole, routes.indent))),
            // The first route of all: the list begins at the end of the file.
            None if !mentions(old, "egress") => {
                let list = format!("egress:\n  routes:\n{}", indented(&whole, 4));
                Ok(insert(old, old.lines().count(), &list))
            }
            None => Err("it has no plain list `egress: routes:`".to_owned()),
        }
    }

    /// As rules at the end of the `matches` of the route with this number.
    fn in_route(&self, old: &str, index: usize) -> Result<String, String> {
        let plain = || "its `matches` is not a plain list".to_owned();
        let routes = Routes::find(old).ok_or("it has no plain list `egress: routes:`")?;
        let (start, end) = *routes.entries.get(index).ok_or_else(plain)?;
        let lines: Vec<&str> = old.lines().collect();
        let is_key = |line: &str| {
            let key = line.trim_start().trim_start_matches("- ").trim_start();
            key.starts_with("matches:")
        };
        let at = (start..end)
            .find(|&at| is_key(lines[at]))
            .ok_or_else(plain)?;
        let (_, value) = lines[at].split_once("matches:").ok_or_else(plain)?;
        let indent = depth(lines[at]);
        if value.trim_start().starts_with('[') {
            let offset: usize = old.split_inclusive('\n').take(at).map(str::len).sum();
            let open = offset + lines[at].len() - value.trim_start().len();
            let close = open + closing(&old[open..]).ok_or_else(plain)?;
            let is_empty = old[open + 1..close].trim().is_empty();
            let comma = if is_empty { "" } else { ", " };
            let (before, after) = (old[..close].trim_end(), &old[close..]);
            let new = format!("{before}{comma}{}{after}", self.rules.join(", "));
            return Ok(insert(&new, at, &indented(&self.comment, indent)));
        }
        // A block: below the key, each rule with a dash.
        let inside = (at + 1..end).filter(|&at| is_text(lines[at]));
        let first = inside.clone().next().ok_or_else(plain)?;
        let deep = depth(lines[first]);
        let is_rule = |at: &usize| {
            depth(lines[*at]) > deep || (depth(lines[*at]) == deep && is_item(lines[*at]))
        };
        if !is_item(lines[first]) || !value.trim().is_empty() {
            return Err(plain());
        }
        let last = inside.take_while(is_rule).last().ok_or_else(plain)?;
        let rules: String = self
            .rules
            .iter()
            .map(|rule| format!("- {rule}\n"))
            .collect();
        let whole = format!("{}\n{rules}", self.comment);
        Ok(insert(old, last + 1, &indented(&whole, deep)))
    }
}

/// Where the entries of the list of routes are. Only for the plain form: `egress:` at the margin, below it `routes:`,
/// below that the entries.
struct Routes {
    indent: usize,
    /// The first line of each, and the one after its last.
    entries: Vec<(usize, usize)>,
}

impl Routes {
    fn find(text: &str) -> Option<Self> {
        let lines: Vec<&str> = text.lines().collect();
        let egress = lines.iter().position(|line| line.trim_end() == "egress:")?;
        let below = |at: &usize| depth(lines[*at]) > 0 || !is_text(lines[*at]);
        let mut inside = (egress + 1..lines.len()).take_while(below);
        let routes = inside.find(|&at| lines[at].trim() == "routes:")?;
        let texts: Vec<usize> = (routes + 1..lines.len())
            .filter(|&at| is_text(lines[at]))
            .collect();
        let indent = depth(lines[*texts.first()?]);
        if indent < depth(lines[routes]) {
            return None;
        }
        let mut entries: Vec<(usize, usize)> = Vec::new();
        for at in texts {
            match (depth(lines[at]), entries.last_mut()) {
                (found, _) if found == indent && is_item(lines[at]) => entries.push((at, at + 1)),
                (found, Some(last)) if found > indent => last.1 = at + 1,
                _ => break,
            }
        }
        (!entries.is_empty()).then_some(Self { indent, entries })
    }

    /// The line before which another entry is added.
    fn end(&self) -> usize {
        self.entries.last().map_or(0, |(_, end)| *end)
    }
}

fn depth(line: &str) -> usize {
    line.len() - line.trim_start_matches(' ').len()
}

fn is_text(line: &str) -> bool {
    !line.trim().is_empty() && !line.trim_start().starts_with('#')
}

fn is_item(line: &str) -> bool {
    line.trim_start().starts_with("- ")
}

/// Where the bracket that `text` begins with is closed.
fn closing(text: &str) -> Option<usize> {
    let mut open = 0;
    let mut quote = None;
    for (at, letter) in text.char_indices() {
        match (quote, letter) {
            (Some(end), letter) if letter == end => quote = None,
            (Some(_), _) => {}
            (None, '"' | '\'') => quote = Some(letter),
            (None, '[' | '{') => open += 1,
            (None, ']' | '}') => {
                open -= 1;
                if open == 0 {
                    return Some(at);
                }
            }
            (None, _) => {}
        }
    }
    None
}

fn indented(text: &str, by: usize) -> String {
    text.lines()
        .map(|line| format!("{:by$}{line}\n", ""))
        .collect()
}

/// `text` with `added` before the line with this number.
fn insert(text: &str, line: usize, added: &str) -> String {
    let lines: Vec<&str> = text.split_inclusive('\n').collect();
    let (before, after) = lines.split_at(line.min(lines.len()));
    let before = before.concat();
    let end = if before.is_empty() || before.ends_with('\n') {
        ""
    } else {
        "\n"
    };
    format!("{before}{end}{added}{}", after.concat())
}

/// The ports of a route as it is written; empty when they are not plain numbers.
fn ports_of(route: &Value) -> Vec<u16> {
    let scheme = route.get("scheme").and_then(Value::as_str);
    let usual = if scheme == Some("http") {
        Scheme::Http
    } else {
        Scheme::Https
    };
    match route.get("ports").and_then(Value::as_sequence) {
        Some(ports) => {
            let port = |port: &Value| port.as_u64().and_then(|port| u16::try_from(port).ok());
            ports.iter().filter_map(port).collect()
        }
        None => vec![if usual == Scheme::Http { 80 } else { 443 }],
    }
}

/// Whether the manifest has this key, however it is written.
fn mentions(text: &str, key: &str) -> bool {
    serde_yaml::from_str::<Value>(text).map_or(true, |value| value.get(key).is_some())
}

/// Adds a route to what is read; makes the list when there is none.
fn add_route(manifest: &mut Value, entry: Value) -> Result<(), String> {
    if manifest.get("egress").is_none() {
        let top = manifest.as_mapping_mut().ok_or("it has no keys")?;
        let egress = serde_yaml::from_str::<Value>("routes: []").map_err(|e| e.to_string())?;
        top.insert("egress".into(), egress);
    }
    let routes = manifest["egress"].get_mut("routes");
    let routes = routes.and_then(Value::as_sequence_mut);
    routes.ok_or("`egress.routes` is not a list")?.push(entry);
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn route(host: &str) -> Route {
        let text = format!(
            r#"{{"host": "{host}", "ports": [443], "matches": [{{"methods": ["PUT"], "paths": [{{"type": "exact", "value": "/x"}}]}}]}}"#
        );
        serde_json::from_str(&text).expect("a route")
    }

    const RULE: &str = r#"{methods: [PUT], paths: [{type: exact, value: "/x"}]}"#;

    fn edit(old: &str, host: &str, planned: &[Route]) -> Result<String, String> {
        let added = Added {
            comment: "# g-1, granted by ann".to_owned(),
            entry: format!("- host: {host}\n  matches:\n    - {RULE}\n"),
            rules: vec![RULE.to_owned()],
            route: &route(host),
        };
        added.to(old, planned)
    }

    /// The lines that are new; everything else has to be there as it was.
    fn new_lines(old: &str, new: &str) -> Vec<String> {
        let mut rest = old.lines().peekable();
        let mut added = Vec::new();
        for line in new.lines() {
            if rest.peek() == Some(&line) {
                rest.next();
            } else {
                added.push(line.to_owned());
            }
        }
        assert_eq!(rest.next(), None, "lost: {new}");
        added
    }

    #[test]
    fn another_host_is_an_entry_at_the_end_of_the_list_and_nothing_else_changes() {
        let old = "image: x\negress:\n  log: 1\n  routes:\n    # the API\n    - host: a.example.com\n      ports: [8443]\n    - {host: b.example.com}\n\n# the end\nenv: {A: b}\n";
        let new = edit(old, "c.example.com", &[]).expect("edited");
        assert_eq!(
            new_lines(old, &new),
            [
                "    # g-1, granted by ann",
                "    - host: c.example.com",
                "      matches:",
                &format!("        - {RULE}"),
            ]
        );
        assert!(new.contains("b.example.com}\n    # g-1"), "{new}");
    }

    #[test]
    fn the_first_route_of_all_makes_its_list() {
        let new = edit("image: x", "c.example.com", &[]).expect("edited");
        assert!(
            new.starts_with("image: x\negress:\n  routes:\n    # g-1"),
            "{new}"
        );
    }

    #[test]
    fn a_host_that_is_there_gets_a_rule_more() {
        let planned = [route("a.example.com")];
        let block = "egress:\n  routes:\n    - host: a.example.com\n      matches:\n        # reading\n        - methods: [GET]\n          paths: [/]\n      limits: {requests: 5}\n    - {host: b.example.com}\n";
        let new = edit(block, "a.example.com", &planned).expect("edited");
        assert_eq!(
            new_lines(block, &new),
            [
                "        # g-1, granted by ann",
                &format!("        - {RULE}")
            ]
        );
        let flow = "egress:\n  routes:\n    - host: a.example.com # it\n      matches: [{paths: [\"/]\"], methods: [GET]}] # only\n";
        let new = edit(flow, "a.example.com", &planned).expect("edited");
        assert!(
            new.contains(&format!("      # g-1, granted by ann\n      matches: [{{paths: [\"/]\"], methods: [GET]}}, {RULE}] # only\n")),
            "{new}"
        );
    }

    #[test]
    fn nothing_comes_along_that_was_not_granted() {
        let planned = [route("a.example.com")];
        let route = |rest: &str| format!("egress:\n  routes:\n    - host: a.example.com\n{rest}");
        for (rest, why) in [
            ("", "allows everything"),
            (
                "      auth: {scheme: Bearer, token_ref: T}\n      matches: [{methods: [GET]}]\n",
                "credential",
            ),
            (
                "      ports: [443, 8443]\n      matches: [{methods: [GET]}]\n",
                "other ports",
            ),
            (
                "      private: [10.0.0.0/8]\n      matches: *x\n",
                "unknown anchor",
            ),
        ] {
            let refused = edit(&route(rest), "a.example.com", &planned).expect_err(rest);
            assert!(refused.contains(why), "{rest}: {refused}");
        }
        let mut wider = planned.clone();
        wider[0].private = vec!["10.0.0.0/8".into()];
        let text = route("      matches: [{methods: [GET]}]\n");
        assert!(edit(&text, "a.example.com", &wider).is_err());
        // Written by a parent or a provider, where this file has no say.
        let elsewhere = edit("image: x\n", "a.example.com", &planned).expect_err("elsewhere");
        assert!(elsewhere.contains("is written at"), "{elsewhere}");
    }

    #[test]
    fn other_forms_are_left_to_the_person() {
        for text in [
            "egress: {routes: [{host: a.example.com}]}\n",
            "egress:\n  routes: []\n",
            "egress:\n  routes: &all\n    - {host: a.example.com}\nx: *all\n",
            "egress:\n  log: 1\nother:\n  routes:\n    - a\n",
        ] {
            assert!(edit(text, "c.example.com", &[]).is_err(), "{text}");
        }
    }
}
