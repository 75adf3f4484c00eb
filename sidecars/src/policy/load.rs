//! From the policy document to [`Policy`]. Everything that can be wrong is found here, not at a request.

use std::collections::HashMap;
use std::sync::Arc;

use bottle_plan::host::HostPattern;
use bottle_plan::policy::{self as doc, Mode, OBSERVED_RULE, POLICY_SCHEMA, PathKind};
use hyper::Method;
use hyper::header::{HeaderName, HeaderValue};

use super::{Budget, Match, PathRule, Policy, Route, Suspension};
use crate::address::Cidr;
use crate::credential::{Credential, Slots};
use crate::dlp::Rules;
use crate::needles::Needles;
use crate::path::Path;

/// What is wrong with a policy, and where.
#[derive(Debug, thiserror::Error)]
#[error("{place}: {problem}")]
pub struct LoadError {
    place: String,
    problem: String,
}

/// Reads the document.
pub(crate) fn read(json: &[u8]) -> Result<doc::Policy, LoadError> {
    let policy: doc::Policy = serde_json::from_slice(json).map_err(|error| LoadError {
        place: "policy".into(),
        problem: error.to_string(),
    })?;
    if policy.schema != POLICY_SCHEMA {
        let problem = format!(
            "`{}` is not the schema this sidecar reads ({POLICY_SCHEMA})",
            policy.schema
        );
        return Err(LoadError {
            place: "schema".into(),
            problem,
        });
    }
    Ok(policy)
}

/// Compiles the document. Budgets of routes that `before` had in the same words go on where they were.
pub(crate) fn load(
    document: doc::Policy,
    slots: &Slots<'_>,
    before: Option<&Policy>,
) -> Result<Policy, LoadError> {
    let own_networks = ranges(&document.own_networks).map_err(|problem| LoadError {
        place: "own_networks".into(),
        problem,
    })?;
    let mut routes = Vec::with_capacity(document.routes.len());
    let mut exact: HashMap<Box<str>, Vec<usize>> = HashMap::new();
    let mut wildcard: HashMap<Box<str>, Vec<usize>> = HashMap::new();
    for (index, route) in document.routes.into_iter().enumerate() {
        let place = route
            .source
            .clone()
            .unwrap_or_else(|| format!("routes[{index}]"));
        let route = compile(route, &place, slots, before).map_err(|problem| LoadError {
            place: place.clone(),
            problem,
        })?;
        if let Some(other) = routes.iter().find(|other| conflict(other, &route)) {
            let problem = format!(
                "conflicts with {}: the same requests to {}, but different credentials, tls or private ranges",
                other.rule, route.document.host
            );
            return Err(LoadError { place, problem });
        }
        let (table, name) = match route.document.host.strip_prefix("*.") {
            Some(name) => (&mut wildcard, name),
            None => (&mut exact, route.document.host.as_str()),
        };
        table.entry(name.into()).or_default().push(index);
        routes.push(route);
    }
    let open = match document.mode {
        Mode::Enforce => None,
        Mode::Observe => {
            let route = open_route().map_err(|problem| LoadError {
                place: OBSERVED_RULE.into(),
                problem,
            })?;
            routes.push(route);
            Some([routes.len() - 1])
        }
    };
    let needles = Needles::of_bottle(routes.iter().filter_map(|route| route.credential.as_ref()))
        .map_err(|error| LoadError {
        place: "routes".into(),
        problem: error.to_string(),
    })?;
    Ok(Policy {
        bottle: document.bottle.into(),
        listen: document.listen,
        log: document.log,
        audit: document.audit,
        own_networks,
        routes,
        open,
        exact,
        wildcard,
        granted: HashMap::new(),
        needles: Arc::new(needles),
    })
}

pub(super) fn compile(
    route: doc::Route,
    place: &str,
    slots: &Slots<'_>,
    before: Option<&Policy>,
) -> Result<Route, String> {
    check_host(&route.host)?;
    if route.ports.is_empty() || route.ports.contains(&0) {
        return Err("`ports` must name at least one port, and not 0".into());
    }
    let matches = route
        .matches
        .iter()
        .map(compile_match)
        .collect::<Result<_, _>>()?;
    if route.tls == doc::Tls::Passthrough {
        let looks_inside = !route.matches.is_empty() || route.auth.is_some() || route.git.fetch;
        if looks_inside || route.scheme == doc::Scheme::Http {
            return Err(
                "`tls: passthrough` sees host and port only: no matches, auth, git or http with it"
                    .into(),
            );
        }
    }
    let credential = match &route.auth {
        None => None,
        Some(_) if route.scheme == doc::Scheme::Http => {
            return Err("a credential never travels over http".into());
        }
        Some(auth) => Some(Credential::new(auth, slots)?),
    };
    let kept = before.and_then(|policy| policy.routes.iter().find(|old| old.document == route));
    let budget = match (&route.limits, kept) {
        (None, _) => None,
        (
            Some(_),
            Some(Route {
                budget: Some(budget),
                ..
            }),
        ) => Some(budget.clone()),
        (Some(limits), _) => Some(Arc::new(Budget::new(limits))),
    };
    let suspension = kept.map_or_else(|| Suspension::new(place), |old| old.suspension.clone());
    Ok(Route {
        rule: place.into(),
        private: ranges(&route.private)?,
        dlp: Arc::new(Rules::compile(&route)?),
        document: route,
        matches,
        credential,
        budget,
        suspension,
        grant: None,
        is_open: false,
    })
}

/// What serves every destination where the way out is observed: no credential, no private range, and, as everywhere,
/// no push.
fn open_route() -> Result<Route, String> {
    let document = doc::Route {
        source: Some(OBSERVED_RULE.to_owned()),
        host: "*".to_owned(),
        scheme: doc::Scheme::Https,
        ports: Vec::new(),
        matches: Vec::new(),
        auth: None,
        tls: doc::Tls::Inspect,
        private: Vec::new(),
        git: doc::GitAccess { fetch: true },
        dlp: None,
        limits: None,
    };
    Ok(Route {
        rule: OBSERVED_RULE.into(),
        matches: Vec::new(),
        credential: None,
        private: Vec::new(),
        budget: None,
        suspension: Suspension::new(OBSERVED_RULE),
        dlp: Arc::new(Rules::compile(&document)?),
        document,
        is_open: true,
        grant: None,
    })
}

/// Rules use the normal form of hosts, so that what is written is what is compared.
fn check_host(host: &str) -> Result<(), String> {
    let pattern = HostPattern::parse(host).map_err(|error| format!("`{host}`: {error}"))?;
    let normal = pattern.to_string();
    if normal != host {
        return Err(format!("`{host}` must be written `{normal}`"));
    }
    Ok(())
}

fn compile_match(entry: &doc::Match) -> Result<Match, String> {
    let paths = entry
        .paths
        .iter()
        .map(compile_path)
        .collect::<Result<_, _>>()?;
    let method = |name: &String| {
        Method::from_bytes(name.to_ascii_uppercase().as_bytes())
            .map_err(|_| format!("`{name}` is not a method"))
    };
    let header = |header: &doc::HeaderMatch| {
        let name = HeaderName::from_bytes(header.name.as_bytes());
        let value = HeaderValue::from_str(&header.value);
        name.ok()
            .zip(value.ok())
            .ok_or_else(|| format!("`{}` is not a header and a value", header.name))
    };
    Ok(Match {
        paths,
        methods: entry.methods.iter().map(method).collect::<Result<_, _>>()?,
        headers: entry.headers.iter().map(header).collect::<Result<_, _>>()?,
    })
}

fn compile_path(rule: &doc::PathMatch) -> Result<PathRule, String> {
    if rule.kind == PathKind::Regex {
        return regex::bytes::Regex::new(&format!("^(?:{})$", rule.value))
            .map(PathRule::Regex)
            .map_err(|error| format!("`{}` is not a usable expression: {error}", rule.value));
    }
    let path = Path::parse(rule.value.as_bytes())
        .filter(|path| !path.is_doubtful())
        .ok_or_else(|| {
            format!(
                "`{}` is not an unambiguous path beginning with `/`",
                rule.value
            )
        })?;
    let bytes = path.bytes();
    Ok(match rule.kind {
        PathKind::Exact => PathRule::Exact(bytes.to_vec()),
        _ => PathRule::Prefix(bytes.strip_suffix(b"/").unwrap_or(bytes).to_vec()),
    })
}

fn ranges(list: &[String]) -> Result<Vec<Cidr>, String> {
    list.iter().map(|range| range.parse()).collect()
}

/// Whether two routes answer the same question differently. `private` and `tls` are needed before the request
/// is known, so they must agree for a whole destination; a credential only where both could be chosen.
fn conflict(a: &Route, b: &Route) -> bool {
    let (left, right) = (&a.document, &b.document);
    let same_place = left.host == right.host
        && left.scheme == right.scheme
        && left.ports.iter().any(|port| right.ports.contains(port));
    if !same_place {
        return false;
    }
    left.tls != right.tls
        || left.private != right.private
        || (left.auth != right.auth && overlap(a, b))
}

fn overlap(a: &Route, b: &Route) -> bool {
    a.matches.is_empty()
        || b.matches.is_empty()
        || a.matches
            .iter()
            .any(|left| b.matches.iter().any(|right| left.overlaps(right)))
}

impl Match {
    /// Whether one request could fit both. In doubt, yes.
    fn overlaps(&self, other: &Self) -> bool {
        let methods = self.methods.is_empty()
            || other.methods.is_empty()
            || self
                .methods
                .iter()
                .any(|method| other.methods.contains(method));
        let paths = self.paths.is_empty()
            || other.paths.is_empty()
            || self
                .paths
                .iter()
                .any(|left| other.paths.iter().any(|right| left.overlaps(right)));
        methods && paths
    }
}

impl PathRule {
    fn overlaps(&self, other: &Self) -> bool {
        match (self, other) {
            (Self::Exact(a), Self::Exact(b)) => a == b,
            (rule @ Self::Prefix(_), Self::Exact(path))
            | (Self::Exact(path), rule @ Self::Prefix(_)) => rule.admits(path),
            (Self::Prefix(a), Self::Prefix(b)) => self.admits(b) || other.admits(a),
            (Self::Regex(_), _) | (_, Self::Regex(_)) => true,
        }
    }
}
