//! `check` and `why`: a policy explained without running it.

use std::fmt::Write;
use std::path::Path;

use bottle_plan::policy::Mode;
use hyper::{HeaderMap, Method, Uri};
use serde_json::{Value, json};
use zeroize::Zeroizing;

use crate::authority::Authority;
use crate::policy::{self, Decision, Policy, Question, Scheme, Tls};

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

fn decide(policy: &Policy, method: &Method, url: &str) -> Result<Decision, String> {
    let uri: Uri = url.parse().map_err(|error| format!("`{url}`: {error}"))?;
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
        headers: &HeaderMap::new(),
    }))
}
