use bottle_plan::host::{Host, HostPattern};
use bottle_plan::policy as doc;
use hyper::header::{HeaderName, HeaderValue};
use hyper::{HeaderMap, Method, Uri};

use crate::path::Path;
use crate::policy::{self, Question, Scheme};
use crate::reason::Reason;

/// A policy file, and after a line of `---` what is asked of it: `METHOD URL`, then header fields.
pub fn policy(data: &[u8]) {
    let separator = b"\n---\n";
    let at = data
        .windows(separator.len())
        .position(|window| window == separator);
    let (json, request) = match at {
        Some(at) => (&data[..at], &data[at + separator.len()..]),
        None => (data, b"GET https://api.example.com/v1".as_slice()),
    };
    let Ok(document) = policy::read(json) else {
        return;
    };
    let written = serde_json::to_vec(&document).expect("what was read can be written");
    assert_eq!(policy::read(&written).ok().as_ref(), Some(&document));
    let slots = |_: &str| Some(b"0123456789abcdef".to_vec().into());
    let Ok(policy) = policy::load(document.clone(), &slots, None) else {
        return;
    };
    let again = policy::load(document.clone(), &slots, Some(&policy));
    assert!(again.is_ok(), "a policy that loads is one that reloads");
    let Some((method, uri, headers)) = std::str::from_utf8(request).ok().and_then(parse) else {
        return;
    };
    let Some(host) = uri.host().and_then(|host| Host::parse(host).ok()) else {
        return;
    };
    let scheme = match uri.scheme_str() {
        Some("http") => Scheme::Http,
        _ => Scheme::Https,
    };
    let port = uri.port_u16().unwrap_or(443);
    let question = Question {
        scheme,
        host: host.as_str(),
        port,
        method: &method,
        path: uri.path(),
        query: uri.query(),
        headers: &headers,
    };
    let decision = policy.decide(&question);
    if let Ok(again) = again {
        assert_eq!(again.decide(&question), decision);
    }

    // The routes that count, looked for without the tables.
    let pattern = |route: &doc::Route| HostPattern::parse(&route.host).ok();
    let meant: Vec<_> = document
        .routes
        .iter()
        .filter_map(pattern)
        .filter(|pattern| pattern.matches(&host))
        .collect();
    assert_eq!(policy.knows(host.as_str()), !meant.is_empty());
    let best = meant.iter().map(HostPattern::specificity).max();
    if best.is_none() {
        assert_eq!(decision.reason, Reason::HostNotAllowed);
    }
    let Some(index) = decision.route else {
        assert!(!decision.is_allowed());
        return;
    };
    let route = &document.routes[index];
    assert_eq!(
        pattern(route).as_ref().map(HostPattern::specificity),
        best,
        "a less specific route decided"
    );
    if decision.is_allowed() {
        assert!(route.scheme == scheme && route.ports.contains(&port));
        assert!(
            policy
                .decide_destination(scheme, host.as_str(), port)
                .is_allowed()
        );
        let methods = ["GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"];
        assert!(methods.contains(&method.as_str()));
        let path = Path::parse(uri.path().as_bytes());
        assert!(path.is_some_and(|path| is_meant(route, &path, &question)));
    }
}

/// Whether some entry of the route speaks of this request, as far as that can be said in few words.
fn is_meant(route: &doc::Route, path: &Path<'_>, question: &Question<'_>) -> bool {
    let lower = path.bytes().to_ascii_lowercase();
    if lower.ends_with(b"/git-receive-pack") {
        return false;
    }
    let fits = |rule: &doc::PathMatch| {
        let below = rule.value.strip_suffix('/').unwrap_or(&rule.value);
        match rule.kind {
            doc::PathKind::Regex => true,
            // A rule may spell its path with escapes.
            _ if rule.value.contains('%') => true,
            doc::PathKind::Exact => path.bytes() == rule.value.as_bytes(),
            doc::PathKind::Prefix => path
                .bytes()
                .strip_prefix(below.as_bytes())
                .is_some_and(|rest| rest.first().is_none_or(|&b| b == b'/')),
        }
    };
    let entry = |entry: &doc::Match| {
        let paths = entry.paths.is_empty() || (!path.is_doubtful() && entry.paths.iter().any(fits));
        let methods = entry.methods.is_empty()
            || (route.git.fetch && ["GET", "HEAD", "POST"].contains(&question.method.as_str()))
            || entry
                .methods
                .iter()
                .any(|method| method.eq_ignore_ascii_case(question.method.as_str()));
        let headers = entry.headers.iter().all(|header| {
            let mut sent = question.headers.get_all(&header.name).iter().peekable();
            sent.peek().is_some() && sent.all(|value| value.as_bytes() == header.value.as_bytes())
        });
        paths && methods && headers
    };
    route.matches.is_empty() || route.matches.iter().any(entry)
}

fn parse(request: &str) -> Option<(Method, Uri, HeaderMap)> {
    let mut lines = request.lines();
    let (method, url) = lines.next()?.split_once(' ')?;
    let mut headers = HeaderMap::new();
    for (name, value) in lines.filter_map(|line| line.split_once(": ")) {
        // As many as the proxy takes.
        if headers.len() < crate::headers::MAX_FIELDS
            && let (Ok(name), Ok(value)) =
                (name.parse::<HeaderName>(), HeaderValue::from_str(value))
        {
            headers.append(name, value);
        }
    }
    Some((method.parse().ok()?, url.parse().ok()?, headers))
}
