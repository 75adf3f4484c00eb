//! Routes, credentials by slot, and placeholders.

use std::collections::BTreeMap;
use std::path::Path;

use ipnet::IpNet;
use regex::Regex;
use sha2::{Digest as _, Sha256};

use super::provider::Provider;
use super::{Inputs, check_variable, on_host};
use crate::digest;
use crate::failure::{Failure, PathContext as _, Result};
use crate::host::HostPattern;
use crate::manifest::load::{Manifest, hex};
use crate::manifest::{self};
use crate::plan::{Ca, Egress, Slot, Source};
use crate::policy::{
    AuditRules, Auth, AuthScheme, Detectors, Limits, METHODS, Match, Mode, PathKind, PathMatch,
    Route, Scheme, Tls,
};

/// Said whenever such a plan is made or started.
pub const OBSERVE_WARNING: &str = "egress.mode: observe lets the agent send anything to every public host; \
    use it to learn rules, with nothing in the bottle that must not get out";

/// How long a bottle's CA is valid. Long enough for a bottle left over a holiday, short enough to be worthless after.
const CA_DAYS: u32 = 30;

/// Headers that belong to the connection or the message, not to a credential.
const NO_CREDENTIAL: [&str; 9] = [
    "host",
    "connection",
    "content-length",
    "content-type",
    "expect",
    "te",
    "trailer",
    "transfer-encoding",
    "upgrade",
];
const OUTBOUND: [&str; 3] = ["known_secrets", "token_patterns", "entropy"];
const INBOUND: [&str; 2] = ["injection", "token_patterns"];

/// A file that is smaller holds too little to see anything in; with more files each request would search for its place.
const LEAST_FILE: u64 = 1 << 20;
const MOST_FILES: u32 = 100;

/// Variable of the agent → the slot whose placeholder it holds.
pub(super) type Placeholders = BTreeMap<String, String>;

pub(super) fn resolve(
    manifest: &Manifest,
    inputs: &Inputs<'_>,
    provider: Option<&Provider>,
    warnings: &mut Vec<String>,
) -> Result<(Egress, Placeholders, Option<Source>)> {
    let written = manifest.bottle.egress.clone().unwrap_or_default();
    let log = written.log.unwrap_or(0);
    if log > 2 {
        return Err(Failure::invalid(format!(
            "egress.log: {log} is not 0, 1 or 2"
        )));
    }
    let mut slots = Slots::new(inputs);
    let mut routes = Vec::new();
    for route in with_providers(provider, &written.routes, warnings)? {
        let place = route
            .written_at
            .clone()
            .unwrap_or_else(|| "egress.routes".to_owned());
        let resolved = self::route(&route, &mut slots)
            .map_err(|failure| failure.while_doing(format!("{place}: route `{}`", route.host)))?;
        routes.push(resolved);
    }
    no_two_alike(&routes)?;
    if let Some(chosen) = provider.and_then(|provider| provider.credential.as_ref()) {
        slots.rename(&chosen.auth.token_ref, &chosen.env);
    }
    let upstream_ca = written
        .upstream_ca
        .map(|path| on_host(&path, &inputs.places.home, inputs))
        .transpose()?;
    let source = upstream_ca.as_deref().map(upstream_ca_source).transpose()?;
    let mode = written.mode.unwrap_or_default();
    if mode == Mode::Observe {
        warnings.push(OBSERVE_WARNING.to_owned());
    }
    if let Some(name) = &written.upstream_proxy {
        check_variable(name, "egress.upstream_proxy")?;
        if mode == Mode::Observe {
            return Err(Failure::invalid(
                "egress.mode: observe does not go through egress.upstream_proxy: that proxy resolves the names, and nobody could say what is reached",
            )
            .hint("take one of them out"));
        }
    }
    let egress = Egress {
        upstream_proxy: written.upstream_proxy,
        audit: audit(written.audit.as_ref())?,
        ca: Ca {
            dir: inputs.state.join("egress"),
            days: CA_DAYS,
            fingerprint: None,
            not_after: None,
        },
        upstream_ca,
        log,
        mode,
        slots: slots.list,
        routes,
    };
    Ok((egress, slots.placeholders, source))
}

fn audit(written: Option<&manifest::Audit>) -> Result<AuditRules> {
    let usual = AuditRules::default();
    let Some(written) = written else {
        return Ok(usual);
    };
    let rules = AuditRules {
        max_bytes: written.max_bytes.map_or(usual.max_bytes, |size| size.0),
        files: written.files.unwrap_or(usual.files),
        on_full: written.on_full,
    };
    if !(1..=MOST_FILES).contains(&rules.files)
        || rules.max_bytes / u64::from(rules.files) < LEAST_FILE
    {
        return Err(Failure::invalid(format!(
            "egress.audit: {} bytes in {} files is not usable",
            rules.max_bytes, rules.files
        ))
        .hint(format!(
            "1 to {MOST_FILES} files, and at least 1m of `max_bytes` for each"
        )));
    }
    Ok(rules)
}

/// Whom the sidecar believes is part of what is granted: the file's content goes into the digest.
fn upstream_ca_source(path: &Path) -> Result<Source> {
    let bytes = std::fs::read(path)
        .at("read egress.upstream_ca", path)
        .map_err(|failure| failure.hint("give a PEM file, relative to the manifest or absolute"))?;
    Ok(Source {
        role: "upstream_ca".to_owned(),
        name: "upstream_ca".to_owned(),
        path: path.to_owned(),
        sha256: hex(&Sha256::digest(bytes)),
    })
}

/// What to write instead of a host that is none: it is often a URL.
fn host_hint(host: &str) -> String {
    let rest = host.split_once("://").map_or(host, |(_, rest)| rest);
    let (name, path) = rest.split_once('/').unwrap_or((rest, ""));
    let (name, port) = name.split_once(':').unwrap_or((name, ""));
    if name == host || name.contains(char::is_whitespace) || HostPattern::parse(name).is_err() {
        return "write a name such as api.example.com, or *.example.com for all names below it"
            .to_owned();
    }
    let mut hint = format!("write `host: {name}`");
    if port.parse::<u16>().is_ok() {
        hint.push_str(&format!(", `ports: [{port}]`"));
    }
    if !path.is_empty() {
        hint.push_str(&format!(", `matches: [{{paths: [/{path}]}}]`"));
    }
    hint
}

fn route(written: &manifest::Route, slots: &mut Slots) -> Result<Route> {
    let host = HostPattern::parse(&written.host)
        .map_err(|error| Failure::invalid(error.to_string()).hint(host_hint(&written.host)))?;
    let ports = ports_of(written);
    if ports.contains(&0) {
        return Err(Failure::invalid("0 is not a port"));
    }
    check_private(written)?;
    let matches = written
        .matches
        .iter()
        .map(alternative)
        .collect::<Result<Vec<_>>>()?;
    if written.tls == Tls::Passthrough {
        let looks_inside = written.auth.is_some() || written.dlp.is_some() || written.git.fetch;
        if looks_inside || !matches.is_empty() {
            return Err(Failure::invalid("`tls: passthrough` keeps the request closed, so nothing in it can be checked or put in")
                .hint("take `auth`, `matches`, `dlp` and `git` out, or inspect the route"));
        }
        if written.scheme == Scheme::Http {
            return Err(Failure::invalid(
                "`tls: passthrough` on a route without TLS",
            ));
        }
    }
    if written.auth.is_some() && written.scheme == Scheme::Http {
        return Err(Failure::invalid("a credential never goes over plain http")
            .hint("use https, or take `auth` out"));
    }
    let auth = written
        .auth
        .as_ref()
        .map(|auth| slots.auth(auth))
        .transpose()?;
    if let Some(dlp) = &written.dlp {
        detectors(dlp.outbound_detectors.as_ref(), &OUTBOUND)?;
        detectors(dlp.inbound_detectors.as_ref(), &INBOUND)?;
    }
    Ok(Route {
        source: written.written_at.clone(),
        host: host.to_string(),
        scheme: written.scheme,
        ports,
        matches,
        auth,
        tls: written.tls,
        private: written.private.clone(),
        git: written.git,
        dlp: written.dlp.clone(),
        limits: written.limits.as_ref().map(|limits| Limits {
            bytes_out: limits.bytes_out.map(|size| size.0),
            requests: limits.requests,
            per: limits.per.map(|seconds| seconds.0),
        }),
    })
}

fn check_private(written: &manifest::Route) -> Result<()> {
    written.private.iter().try_for_each(|range| {
        range.parse::<IpNet>().map(drop).map_err(|error| {
            Failure::invalid(format!("private: `{range}` is not a range"))
                .because(error)
                .hint("write CIDR, such as 10.1.2.0/24 or 10.1.2.3/32")
        })
    })
}

/// The provider's routes, then the bottle's. Where both have one, the provider's holds: it says what the credential may be
/// used for. The bottle can add where the destination really is (a gateway of one's own), and what narrows the route.
fn with_providers(
    provider: Option<&Provider>,
    written: &[manifest::Route],
    warnings: &mut Vec<String>,
) -> Result<Vec<manifest::Route>> {
    let Some(provider) = provider else {
        return Ok(written.to_vec());
    };
    let mut owned: Vec<manifest::Route> = provider.routes().collect();
    let mut others = Vec::new();
    for route in written {
        let Some(own) = owned.iter_mut().find(|own| same_place(own, route)) else {
            others.push(route.clone());
            continue;
        };
        let place = route.written_at.as_deref().unwrap_or("egress.routes");
        check_private(route)
            .map_err(|failure| failure.while_doing(format!("{place}: route `{}`", route.host)))?;
        own.private.extend(route.private.iter().cloned());
        own.limits = own.limits.take().or_else(|| route.limits.clone());
        own.dlp = own.dlp.take().or_else(|| route.dlp.clone());
        let says_more = !route.matches.is_empty()
            || route.auth.is_some()
            || route.tls != Tls::default()
            || route.scheme != Scheme::default()
            || route.git.fetch;
        if says_more {
            warnings.push(format!(
                "{place}: `{}` is a route of the provider `{}`: only `private`, `limits` and `dlp` are taken from here",
                route.host, provider.name
            ));
        }
    }
    owned.append(&mut others);
    Ok(owned)
}

/// Whether two routes are for the same host and share a port.
fn same_place(one: &manifest::Route, other: &manifest::Route) -> bool {
    let host = |route: &manifest::Route| {
        HostPattern::parse(&route.host).map_or_else(|_| route.host.clone(), |host| host.to_string())
    };
    let ports = ports_of(one);
    host(one) == host(other) && ports_of(other).iter().any(|port| ports.contains(port))
}

fn ports_of(written: &manifest::Route) -> Vec<u16> {
    match (written.ports.as_slice(), written.scheme) {
        ([], Scheme::Https) => vec![443],
        ([], Scheme::Http) => vec![80],
        (given, _) => given.to_vec(),
    }
}

fn alternative(written: &manifest::Match) -> Result<Match> {
    let mut methods = Vec::new();
    for method in &written.methods {
        let upper = method.to_ascii_uppercase();
        if !METHODS.contains(&upper.as_str()) {
            return Err(Failure::invalid(format!(
                "`{method}` is not a method that can be allowed"
            ))
            .hint(format!("one of {}", METHODS.join(", "))));
        }
        methods.push(upper);
    }
    let mut paths = Vec::new();
    for rule in &written.paths {
        let rule = rule.0.clone();
        if rule.kind != PathKind::Regex && !rule.value.starts_with('/') {
            return Err(Failure::invalid(format!(
                "the path `{}` does not begin with `/`",
                rule.value
            )));
        }
        check_path_rule(&rule)?;
        if rule
            .value
            .chars()
            .any(|c| c.is_control() || c == '?' && rule.kind != PathKind::Regex)
        {
            return Err(
                Failure::invalid(format!("the path `{}` can never match", rule.value))
                    .hint("paths are compared without the query"),
            );
        }
        paths.push(rule);
    }
    for header in &written.headers {
        let token = |b: u8| b.is_ascii_alphanumeric() || b"-_".contains(&b);
        if header.name.is_empty() || !header.name.bytes().all(token) {
            return Err(Failure::invalid(format!(
                "`{}` is not a header name",
                header.name
            )));
        }
    }
    Ok(Match {
        paths,
        methods,
        headers: written.headers.clone(),
    })
}

/// What the sidecar would refuse to load, or could never match, is said where it was written.
fn check_path_rule(rule: &PathMatch) -> Result<()> {
    let value = &rule.value;
    if rule.kind == PathKind::Regex {
        return match Regex::new(value) {
            Ok(_) => Ok(()),
            Err(error) => {
                let error = error.to_string();
                let why = error
                    .lines()
                    .last()
                    .unwrap_or_default()
                    .trim_start_matches("error: ");
                Err(
                    Failure::invalid(format!("`{value}` is not a regular expression: {why}")).hint(
                        "the syntax is that of Rust's regex: no look-around, no back references",
                    ),
                )
            }
        };
    }
    if value.split('/').any(|part| part == "." || part == "..") || value.contains(['\\', '%']) {
        return Err(Failure::invalid(format!("the path `{value}` can never match"))
            .hint("rules are compared with decoded paths, and a path with dot segments is refused before"));
    }
    Ok(())
}

fn detectors(given: Option<&Detectors>, known: &[&str]) -> Result<()> {
    let Some(Detectors::Named(names)) = given else {
        return Ok(());
    };
    match names.iter().find(|name| !known.contains(&name.as_str())) {
        Some(name) => Err(
            Failure::invalid(format!("dlp: there is no detector `{name}` here"))
                .hint(format!("one of {}, or false for none", known.join(", "))),
        ),
        None => Ok(()),
    }
}

/// Two routes for one host and port would leave it to their order which one decides.
fn no_two_alike(routes: &[Route]) -> Result<()> {
    for (index, route) in routes.iter().enumerate() {
        let twin = routes[..index].iter().find(|other| {
            other.host == route.host && other.ports.iter().any(|port| route.ports.contains(port))
        });
        if let Some(twin) = twin {
            let place = |r: &Route| {
                r.source
                    .clone()
                    .unwrap_or_else(|| "egress.routes".to_owned())
            };
            return Err(Failure::invalid(format!(
                "{}: `{}` already has a route for that port at {}",
                place(route),
                route.host,
                place(twin)
            ))
            .hint("put both into one route with several `matches`"));
        }
    }
    Ok(())
}

struct Slots {
    seed: String,
    list: Vec<Slot>,
    placeholders: Placeholders,
}

impl Slots {
    fn new(inputs: &Inputs<'_>) -> Self {
        Self {
            seed: match &inputs.session {
                Some(session) => format!("{}/{session}", inputs.slug),
                None => inputs.slug.to_owned(),
            },
            list: Vec::new(),
            placeholders: BTreeMap::new(),
        }
    }

    fn auth(&mut self, written: &manifest::Auth) -> Result<Auth> {
        check_variable(&written.token_ref, "auth.token_ref")?;
        let scheme = match written.scheme.to_ascii_lowercase().as_str() {
            "bearer" => AuthScheme::Bearer,
            "token" => AuthScheme::Token,
            "basic" => AuthScheme::Basic,
            "header" => AuthScheme::Header,
            "query" => AuthScheme::Query,
            _ => {
                return Err(Failure::invalid(format!(
                    "auth.scheme: `{}` is not known",
                    written.scheme
                ))
                .hint("one of Bearer, token, Basic, header, query"));
            }
        };
        let header = match (&written.header, scheme) {
            (Some(name), _) => name.to_ascii_lowercase(),
            (None, AuthScheme::Header | AuthScheme::Query) => {
                return Err(Failure::invalid(format!(
                    "auth.scheme `{}` needs `header`",
                    written.scheme
                ))
                .hint("the name of the header or query key the value goes into"));
            }
            (None, _) => "authorization".to_owned(),
        };
        let token = |b: u8| b.is_ascii_alphanumeric() || b"-_.".contains(&b);
        if header.is_empty()
            || !header.bytes().all(token)
            || NO_CREDENTIAL.contains(&header.as_str())
        {
            return Err(Failure::invalid(format!(
                "auth.header: `{header}` is not a header for a credential"
            )));
        }
        let (slot, placeholder) = self.slot(&written.token_ref);
        Ok(Auth {
            scheme,
            header,
            slot,
            user: written.user.clone(),
            placeholder: Some(placeholder),
        })
    }

    /// The agent's program looks for the placeholder under a name of its own.
    fn rename(&mut self, host: &str, agent: &str) {
        if let Some(slot) = self.placeholders.remove(host) {
            self.placeholders.insert(agent.to_owned(), slot);
        }
    }

    /// One slot and one placeholder a host variable, however many routes use it.
    fn slot(&mut self, host: &str) -> (String, String) {
        let next = format!("EGRESS_TOKEN_{}", self.list.len());
        let slot = self.placeholders.entry(host.to_owned()).or_insert_with(|| {
            self.list.push(Slot {
                slot: next.clone(),
                host: host.to_owned(),
            });
            next
        });
        let placeholder = digest::short(&format!("{}/{host}", self.seed));
        (slot.clone(), format!("bottle-placeholder-{placeholder}"))
    }
}
