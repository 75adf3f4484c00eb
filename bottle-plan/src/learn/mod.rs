//! The smallest rules under which a recorded run would have worked.
//!
//! A record was written by a sidecar that faces the agent, and the agent chose what it asked for. So nothing is taken
//! over that a manifest could not say, no host is ever widened, and what comes out is a proposal for a person to read.

mod paths;

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write as _;

use serde_json::{Value, json};

use crate::audit::{Decision, Record};
use crate::explain::counted;
use crate::host::HostPattern;
use crate::manifest::MANIFEST_SCHEMA;
use crate::policy::{METHODS, OBSERVED_RULE, PathKind, PathMatch};

/// Refusals that a rule would have avoided.
const FOR_WANT_OF_A_RULE: [&str; 6] = [
    "host_not_allowed",
    "scheme_not_allowed",
    "port_not_allowed",
    "path_not_allowed",
    "method_not_allowed",
    "git_fetch_not_allowed",
];

/// What was seen of a run.
#[derive(Debug, Default)]
pub struct Learned {
    /// Whether refused requests are learnt from too.
    with_denied: bool,
    places: BTreeMap<(String, u16), Place>,
    /// Destinations of which only the name is known, and why.
    unseen: BTreeMap<String, BTreeSet<String>>,
    /// Requests no rule can be written for.
    odd: u64,
}

#[derive(Debug, Default)]
struct Place {
    asked: BTreeMap<String, BTreeSet<String>>,
    requests: u64,
    bytes_out: u64,
    git: bool,
}

/// One proposed alternative of a route.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Proposed {
    methods: Vec<String>,
    paths: Vec<PathMatch>,
}

impl Learned {
    /// Nothing seen yet; `with_denied` learns from what was refused for want of a rule as well.
    #[must_use]
    pub fn new(with_denied: bool) -> Self {
        Self {
            with_denied,
            ..Self::default()
        }
    }

    /// Takes one record into account.
    pub fn see(&mut self, record: &Record<'_>) {
        let observed = record.rule.as_deref() == Some(OBSERVED_RULE);
        let wanted = match record.decision {
            Decision::Allow => observed,
            Decision::Deny => {
                (self.with_denied && FOR_WANT_OF_A_RULE.contains(&&*record.reason))
                    || (observed && record.reason == "tls_handshake_failed")
            }
            Decision::Error | Decision::Note => false,
        };
        if !wanted {
            return;
        }
        let host = record.host.as_deref().filter(|host| is_host(host));
        let Some(host) = host else {
            self.odd = self.odd.saturating_add(record.count);
            return;
        };
        let method = record
            .method
            .as_deref()
            .filter(|method| METHODS.contains(method));
        let (Some(method), Some(path), Some(port)) = (method, &record.path, record.port) else {
            let why = self.unseen.entry(host.to_owned()).or_default();
            why.insert(record.reason.to_string());
            return;
        };
        let Some(path) = paths::as_rule(path) else {
            self.odd = self.odd.saturating_add(record.count);
            return;
        };
        let place = self.places.entry((host.to_owned(), port)).or_default();
        place.requests = place.requests.saturating_add(record.count);
        place.bytes_out = place.bytes_out.saturating_add(record.bytes_out);
        place.git |= is_git(&path);
        place
            .asked
            .entry(method.to_owned())
            .or_default()
            .insert(path);
    }

    /// Whether there is no rule to propose.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.places.is_empty()
    }

    /// The proposal as a piece of a bottle's manifest, with how much each route was used.
    #[must_use]
    pub fn fragment(&self) -> String {
        let mut text = String::from("egress:\n  routes:\n");
        for ((host, port), place) in &self.places {
            // Writing to a string does not fail.
            let _ = writeln!(
                text,
                "    - host: {host}  # {}, {} bytes out",
                counted(place.requests, "request"),
                place.bytes_out
            );
            for (key, value) in extras(*port, place) {
                let _ = writeln!(text, "      {key}: {value}");
            }
            text.push_str("      matches:\n");
            for entry in place.proposals() {
                let paths: Vec<String> = entry
                    .paths
                    .iter()
                    .map(|p| path_value(p).to_string())
                    .collect();
                let methods = entry.methods.join(", ");
                if let [path] = paths.as_slice() {
                    let _ = writeln!(text, "        - {{methods: [{methods}], paths: [{path}]}}");
                    continue;
                }
                let _ = writeln!(text, "        - methods: [{methods}]\n          paths:");
                for path in paths {
                    let _ = writeln!(text, "            - {path}");
                }
            }
        }
        text
    }

    /// The same as a JSON document, which a manifest file may be as well.
    #[must_use]
    pub fn document(&self) -> Value {
        let routes = self.places.iter().map(|((host, port), place)| {
            let matches: Vec<Value> = place
                .proposals()
                .iter()
                .map(|entry| {
                    let paths: Vec<Value> = entry.paths.iter().map(path_value).collect();
                    json!({"methods": entry.methods, "paths": paths})
                })
                .collect();
            let mut route = json!({"host": host, "matches": matches});
            for (key, value) in extras(*port, place) {
                route[key] = value;
            }
            route
        });
        json!({"schema": MANIFEST_SCHEMA, "egress": {"routes": routes.collect::<Vec<_>>()}})
    }

    /// What a person should know before they take it over.
    #[must_use]
    pub fn notes(&self) -> Vec<String> {
        let mut notes = Vec::new();
        for (host, why) in &self.unseen {
            // A tunnel that was opened says no more than the requests that went through it.
            let is_known = self.places.keys().any(|(known, _)| known == host);
            if is_known && why.iter().all(|why| why == "allowed") {
                continue;
            }
            let why: Vec<&str> = why.iter().map(String::as_str).collect();
            notes.push(format!(
                "{host}: no request was seen, so none is proposed ({}); {}",
                why.join(", "),
                if why.contains(&"tls_handshake_failed") {
                    "a client that pins its certificates needs `tls: passthrough`"
                } else {
                    "run it with egress.mode: observe to see one"
                }
            ));
        }
        if self.odd > 0 {
            notes.push(format!(
                "left out: {}, whose host or path no rule can name",
                counted(self.odd, "request")
            ));
        }
        for ((host, port), place) in &self.places {
            if place
                .asked
                .keys()
                .any(|method| method != "GET" && method != "HEAD")
            {
                notes.push(format!(
                    "{host}:{port}: something was sent there; read these rules twice"
                ));
            }
        }
        notes
    }
}

impl Place {
    /// Methods with the same paths share an entry.
    fn proposals(&self) -> Vec<Proposed> {
        let mut list: Vec<Proposed> = Vec::new();
        for (method, asked) in &self.asked {
            let paths = paths::generalise(asked);
            match list.iter_mut().find(|entry| entry.paths == paths) {
                Some(entry) => entry.methods.push(method.clone()),
                None => list.push(Proposed {
                    methods: vec![method.clone()],
                    paths,
                }),
            }
        }
        list
    }
}

/// The keys of a route that are not always written. The scheme is not recorded; port 80 is plain http.
fn extras(port: u16, place: &Place) -> Vec<(&'static str, Value)> {
    let mut extras = Vec::new();
    match port {
        443 => {}
        80 => extras.push(("scheme", json!("http"))),
        other => extras.push(("ports", json!([other]))),
    }
    if place.git {
        extras.push(("git", json!({"fetch": true})));
    }
    extras
}

fn path_value(path: &PathMatch) -> Value {
    match path.kind {
        PathKind::Prefix => json!(path.value),
        _ => json!({"type": "exact", "value": path.value}),
    }
}

/// A name as rules are written, and no pattern: what the agent asked for is never a wildcard.
fn is_host(host: &str) -> bool {
    !host.starts_with('*') && HostPattern::parse(host).is_ok_and(|name| name.to_string() == host)
}

fn is_git(path: &str) -> bool {
    path.ends_with("/info/refs") || path.ends_with("/git-upload-pack")
}

#[cfg(test)]
mod tests;
