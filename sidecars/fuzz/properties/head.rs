use std::convert::Infallible;
use std::sync::{Arc, LazyLock};

use hyper::body::Incoming;
use hyper::header::{AUTHORIZATION, COOKIE, HOST, HeaderValue, TRANSFER_ENCODING};
use hyper::http::request::Parts;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper::{Request, Response};
use hyper_util::rt::TokioIo;

use super::fixture::{Dripping, at_once};
use crate::authority::Authority;
use crate::credential::check_head;
use crate::dlp;
use crate::headers;
use crate::path::decode_lossy;
use crate::policy::{self, Policy, Question, Scheme};
use crate::reason::Reason;

const SECRET: &str = "sk-fuzz-0123456789abcdef";
const PLACEHOLDER: &str = "bottle-placeholder";

static POLICY: LazyLock<Policy> = LazyLock::new(|| {
    let json = format!(
        r#"{{"schema": "bottle.policy/v1", "bottle": "demo", "plan_digest": "d", "listen": "10.9.0.2", "routes": [
            {{"host": "api.example.com", "ports": [80, 443], "auth": {{"scheme": "bearer",
                "header": "authorization", "slot": "EGRESS_TOKEN_0", "placeholder": "{PLACEHOLDER}"}}}}]}}"#
    );
    let slots = |_: &str| Some(SECRET.as_bytes().to_vec().into());
    let document = policy::read(json.as_bytes()).expect("a policy");
    policy::load(document, &slots, None).expect("a policy that loads")
});

/// Requests on a connection: through the HTTP library as the proxy sets it up, then the checks of a session.
pub fn head(data: &[u8]) {
    let Some((&size, rest)) = data.split_first() else {
        return;
    };
    let size = usize::from(size).max(1);
    let stream = tokio::io::join(Dripping { rest, size }, tokio::io::sink());
    let service = service_fn(async |request: Request<Incoming>| {
        // Refusals are answers as well; what matters is what goes on.
        let _ = check(request.into_parts().0);
        Ok::<_, Infallible>(Response::new(String::new()))
    });
    let connection = http1::Builder::new()
        .max_buf_size(16 * 1024)
        .max_headers(headers::MAX_FIELDS)
        .serve_connection(TokioIo::new(stream), service);
    // How it ends is the client's affair.
    let _ = at_once(connection);
}

fn check(mut parts: Parts) -> Result<(), Reason> {
    headers::check_request(&parts.headers)?;
    assert!(parts.headers.len() <= headers::MAX_FIELDS);
    let to = authority(&parts)?;
    let decision = POLICY.decide(&Question {
        scheme: Scheme::Https,
        host: to.host.as_str(),
        port: to.port,
        method: &parts.method,
        path: parts.uri.path(),
        query: parts.uri.query(),
        headers: &parts.headers,
    });
    if !decision.is_allowed() {
        return Err(decision.reason);
    }
    assert_eq!(to.host.as_str(), "api.example.com");
    let route = &POLICY.routes[decision.route.expect("a route allowed it")];
    let credential = route.credential.as_ref().expect("it has one");

    headers::clean_request(&mut parts.headers);
    headers::join_cookies(&mut parts.headers);
    let cleaned = parts.headers.clone();
    headers::clean_request(&mut parts.headers);
    assert_eq!(cleaned, parts.headers, "once is enough");
    assert!(parts.headers.get_all(COOKIE).iter().count() <= 1);
    check_head(&parts, &POLICY.needles, Some(credential))?;
    dlp::check_head(&route.dlp, &Arc::default(), to.host.as_str(), &mut parts)?;
    credential.inject(&mut parts)?;
    goes_on(&parts);
    Ok(())
}

/// Everything that names the destination names the same; the short cut agrees with the long way.
fn authority(parts: &Parts) -> Result<Authority, Reason> {
    let host = parts.headers.get(HOST).map(HeaderValue::as_bytes);
    let to = Authority::parse(host.ok_or(Reason::RequestMalformed)?, Some(80))?;
    if let Some(named) = parts.uri.authority() {
        let named = named.as_str().as_bytes();
        let same = Authority::parse(named, Some(80)).as_ref() == Ok(&to);
        assert_eq!(to.agrees_with(named, 80), same);
        if !same {
            return Err(Reason::AuthorityMismatch);
        }
    }
    Ok(to)
}

/// A head that goes on has the secret once, in its place, and nothing that is not the destination's business.
fn goes_on(parts: &Parts) {
    let is_clean = |text: &[u8]| POLICY.needles.find(text).next().is_none();
    let target = parts.uri.to_string();
    assert!(is_clean(target.as_bytes()) && is_clean(&decode_lossy(target.as_bytes())));
    let injected = format!("Bearer {SECRET}");
    let mut credentials = 0;
    for (name, value) in &parts.headers {
        assert!(!headers::is_hop_by_hop(name.as_str()) || name == TRANSFER_ENCODING);
        if headers::is_credential(name) {
            assert!(name == AUTHORIZATION && value == injected.as_str());
            credentials += 1;
        } else {
            assert!(is_clean(value.as_bytes()), "{name} carries it out");
        }
    }
    assert_eq!(credentials, 1);
}
