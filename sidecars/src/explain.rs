//! `check`, `why` and `decide`: a policy explained without running it.
//!
//! `bottle-plan replay` asks `decide`, so that what decides about the past is what will decide about the future.

use std::fmt::Write;
use std::io::BufRead;
use std::path::Path;

use bottle_plan::policy::Mode;
use hyper::{Method, Uri};
use serde_json::{Value, json};
use zeroize::Zeroizing;

use crate::authority::Authority;
use crate::policy::{self, Decision, Policy, Question, Scheme, Tls, usual_headers};
use crate::reason::Reason;

/// Offline there are no tokens; any value shows that a route would inject one.
fn stand_in(_slot: &str) -> Option<Zeroizing<Vec<u8>>> {
    Some(Zeroizing::new(b"stand-in-for-a-token".to_vec()))
}

/// Reads and compiles a policy.
fn load(path: &Path) -> Result<(bottle_plan::policy::Policy, Policy), String> {
    let json = std::fs::read(path).map_err(|error| format!("{}: {error}", path.display()))?;
    let document = policy::read(&json).map_err(|error| format!("{}: {error}", path.display()))?;
    let policy = policy::load(document.clone(), &stand_in, None);
    let policy = policy.map_err(|error| format!("{}: {error}", path.display()))?;
    Ok((document, policy))
}

/// What a policy says, for a person.
pub(crate) fn check(path: &Path) -> Result<String, String> {
    let (document, _) = load(path)?;
    let rest = match document.mode {
        Mode::Enforce => "everything else is refused",
        Mode::Observe => "EVERY other public destination is let through (egress.mode: observe)",
    };
    let mut out = format!(
        "policy of {}: {} route(s), {rest}\n",
        document.bottle,
        document.routes.len()
    );
    for (index, route) in document.routes.iter().enumerate() {
        let scheme = match route.scheme {
            Scheme::Https => "https",
            Scheme::Http => "http",
        };
        let ports: Vec<String> = route.ports.iter().map(ToString::to_string).collect();
        let mut notes = Vec::new();
        notes.push(match route.matches.len() {
            0 => "every path and method".to_owned(),
            count => format!("{count} match(es)"),
        });
        if route.tls == Tls::Passthrough {
            notes.push("tls passed through".to_owned());
        }
        if let Some(auth) = &route.auth {
            notes.push(format!("credential from {} in {}", auth.slot, auth.header));
        }
        if route.git.fetch {
            notes.push("git fetch".to_owned());
        }
        if !route.private.is_empty() {
            notes.push(format!("private {}", route.private.join(" ")));
        }
        let source = route
            .source
            .clone()
            .unwrap_or_else(|| format!("routes[{index}]"));
        // Writing to a string does not fail.
        let _ = writeln!(
            out,
            "  {scheme}://{}:{}  {}  ({source})",
            route.host,
            ports.join(","),
            notes.join(", ")
        );
    }
    Ok(out)
}

/// The decision on one request, as JSON.
pub(crate) fn why(path: &Path, method: &str, url: &str) -> Result<Value, String> {
    let (document, policy) = load(path)?;
    let method =
        Method::from_bytes(method.as_bytes()).map_err(|_| format!("`{method}` is not a method"))?;
    let decision = decide(&policy, &method, url)?;
    // The open route is not in the document.
    let written = decision.route.and_then(|route| document.routes.get(route));
    let source = written.and_then(|route| route.source.clone());
    Ok(json!({
        "decision": if decision.is_allowed() { "allow" } else { "deny" },
        "reason": decision.reason.code(),
        "message": decision.reason.text(),
        "rule": decision.route,
        "source": source,
    }))
}

/// One question a line, one answer a line.
///
/// `{"scheme", "host", "port", "method", "path", "query"}`: without a path the destination is asked about, without a
/// port the name. Header fields are not asked: a route that requires one answers `header_not_matched`.
pub(crate) fn decide_all(path: &Path, questions: impl BufRead) -> Result<String, String> {
    let (document, policy) = load(path)?;
    let mut answers = String::new();
    for (index, line) in questions.lines().enumerate() {
        let wrong = |problem: String| format!("stdin, line {}: {problem}", index + 1);
        let line = line.map_err(|error| wrong(error.to_string()))?;
        let asked: Asked = serde_json::from_str(&line).map_err(|error| wrong(error.to_string()))?;
        let (reason, route) = asked.decide(&policy).map_err(wrong)?;
        let written = route.and_then(|route| document.routes.get(route));
        let answer = json!({
            "decision": if reason == Reason::Allowed { "allow" } else { "deny" },
            "reason": reason.code(),
            "source": written.and_then(|route| route.source.clone()),
        });
        // Writing to a string does not fail.
        let _ = writeln!(answers, "{answer}");
    }
    Ok(answers)
}

/// A question on stdin.
#[derive(serde::Deserialize)]
#[serde(deny_unknown_fields)]
struct Asked {
    scheme: Scheme,
    host: String,
    port: Option<u16>,
    method: Option<String>,
    path: Option<String>,
    query: Option<String>,
}

impl Asked {
    fn decide(&self, policy: &Policy) -> Result<(Reason, Option<usize>), String> {
        let host = match Authority::parse(self.host.as_bytes(), Some(443)) {
            Ok(to) => to.host,
            Err(reason) => return Ok((reason, None)),
        };
        let Some(port) = self.port else {
            let reason = if policy.knows(host.as_str()) {
                Reason::Allowed
            } else {
                Reason::DnsRefused
            };
            return Ok((reason, None));
        };
        let (Some(method), Some(path)) = (&self.method, &self.path) else {
            let decision = policy.decide_destination(self.scheme, host.as_str(), port);
            return Ok((decision.reason, decision.route));
        };
        let method = Method::from_bytes(method.as_bytes())
            .map_err(|_| format!("`{method}` is not a method"))?;
        let decision = policy.decide(&Question {
            scheme: self.scheme,
            host: host.as_str(),
            port,
            method: &method,
            path,
            query: self.query.as_deref(),
            headers: &usual_headers(path),
        });
        Ok((decision.reason, decision.route))
    }
}

fn decide(policy: &Policy, method: &Method, url: &str) -> Result<Decision, String> {
    let uri: Uri = url.parse().map_err(|error| {
        format!("`{url}`: {error}\nhint: write the whole of it, such as https://api.example.com/v1")
    })?;
    let (scheme, default_port) = match uri.scheme_str() {
        Some("https") => (Scheme::Https, 443),
        Some("http") => (Scheme::Http, 80),
        _ => return Err(format!("`{url}` is not an http or https URL")),
    };
    let name = uri
        .authority()
        .map(|name| name.as_str())
        .unwrap_or_default();
    let to = match Authority::parse(name.as_bytes(), Some(default_port)) {
        Ok(to) => to,
        Err(reason) => {
            return Ok(Decision {
                reason,
                route: None,
            });
        }
    };
    Ok(policy.decide(&Question {
        scheme,
        host: to.host.as_str(),
        port: to.port,
        method,
        path: uri.path(),
        query: uri.query(),
        headers: &usual_headers(uri.path()),
    }))
}
