//! What of a message's head may go on to the other side.

use hyper::HeaderMap;
use hyper::header::{self, HeaderName, HeaderValue};

use crate::needles::Needles;
use crate::reason::Reason;

/// Says why in an answer of our own.
pub(crate) static REASON: HeaderName = HeaderName::from_static("x-bottle-reason");

/// More fields than this are no honest request's.
pub(crate) const MAX_FIELDS: usize = 100;

/// Fields that concern one connection, or that tell an upstream to act on something other than what was
/// checked: another client, another method, another URL.
pub(crate) fn is_hop_by_hop(name: &str) -> bool {
    matches!(
        name,
        "connection"
            | "keep-alive"
            | "te"
            | "trailer"
            | "transfer-encoding"
            | "upgrade"
            | "http2-settings"
            | "expect"
            | "forwarded"
            | "via"
            | "x-real-ip"
            | "x-http-method"
            | "x-http-method-override"
            | "x-method-override"
            | "x-original-url"
            | "x-rewrite-url"
    ) || name.starts_with("proxy-")
        || name.starts_with("x-forwarded-")
}

/// Fields an agent would put a credential of its own into.
pub(crate) fn is_credential(name: &HeaderName) -> bool {
    matches!(
        name.as_str(),
        "authorization" | "cookie" | "x-api-key" | "api-key" | "x-goog-api-key" | "private-token"
    )
}

/// Takes out every credential the agent sent.
pub(crate) fn remove_credentials(headers: &mut HeaderMap) {
    remove(headers, is_credential);
}

/// Puts the one credential in, and takes out what a destination may read in its place.
pub(crate) fn insert_credential(headers: &mut HeaderMap, name: &HeaderName, value: HeaderValue) {
    remove(headers, |sent| {
        is_credential(sent) || with_dashes(sent).is_some_and(|twin| twin == name.as_str())
    });
    headers.insert(name.clone(), value);
}

/// The name as destinations read it that hand fields on as variables (CGI, WSGI, PHP): to them `_` and `-` are one.
/// Nothing where there is no difference.
fn with_dashes(name: &HeaderName) -> Option<String> {
    let name = name.as_str();
    name.contains('_').then(|| name.replace('_', "-"))
}

/// Whether a field stands in for one that is taken out, checked, or there as well.
fn is_twin(headers: &HeaderMap, name: &HeaderName) -> bool {
    let Some(twin) = with_dashes(name) else {
        return false;
    };
    let is_special = || {
        let twin = HeaderName::from_bytes(twin.as_bytes());
        twin.is_ok_and(|twin| is_credential(&twin) || twin == header::CONTENT_LENGTH)
    };
    is_hop_by_hop(&twin) || headers.contains_key(&twin) || is_special()
}

/// Refuses heads that two parsers could read differently. The HTTP library has refused the rest: folded lines,
/// control characters, spaces before a colon, contradicting lengths; and what it hides from us, `egress::heads` has
/// seen.
pub(crate) fn check_request(headers: &HeaderMap) -> Result<(), Reason> {
    if headers.get_all(header::HOST).iter().nth(1).is_some() || headers.len() > MAX_FIELDS {
        return Err(Reason::RequestMalformed);
    }
    if let Some(coding) = headers.get(header::TRANSFER_ENCODING) {
        let chunked = coding.as_bytes().eq_ignore_ascii_case(b"chunked");
        let twice = headers
            .get_all(header::TRANSFER_ENCODING)
            .iter()
            .nth(1)
            .is_some();
        if !chunked || twice || headers.contains_key(header::CONTENT_LENGTH) {
            return Err(Reason::RequestMalformed);
        }
    }
    Ok(())
}

/// Puts a cookie back together that HTTP/2 carries in crumbs: HTTP/1 allows one field.
pub(crate) fn join_cookies(headers: &mut HeaderMap) {
    let crumbs: Vec<&[u8]> = headers
        .get_all(header::COOKIE)
        .iter()
        .map(HeaderValue::as_bytes)
        .collect();
    if crumbs.len() > 1 {
        // Crumbs were valid one by one, so they are together.
        let whole = HeaderValue::from_bytes(&crumbs.join(b"; ".as_slice()));
        headers.insert(
            header::COOKIE,
            whole.unwrap_or(HeaderValue::from_static("")),
        );
    }
}

/// Makes a checked request head fit to send on. `Transfer-Encoding` stays: it is known to be `chunked`, and
/// without it the body of a GET would be dropped.
pub(crate) fn clean_request(headers: &mut HeaderMap) {
    let nominated = nominated(headers);
    let is_doomed = |name: &HeaderName| {
        *name != header::TRANSFER_ENCODING
            && (is_hop_by_hop(name.as_str())
                || is_named(&nominated, name)
                || is_twin(headers, name))
    };
    let doomed = headers.keys().filter(|name| is_doomed(name));
    let doomed = doomed.cloned().collect();
    remove_all(headers, doomed);
}

/// Makes a response head fit to hand on. `Alt-Svc` would invite the client to a protocol that is not looked at;
/// `Trailer` announces what is handed on as well. And nobody else gives our reasons.
pub(crate) fn clean_response(headers: &mut HeaderMap) {
    let nominated = nominated(headers);
    remove(headers, |name| {
        *name == header::ALT_SVC
            || *name == REASON
            || (is_hop_by_hop(name.as_str()) && *name != header::TRAILER)
            || is_named(&nominated, name)
    });
}

/// Takes everything out of a response head that is, or could stand in for, the credential that was put in.
pub(crate) fn clean_credentialed_response(headers: &mut HeaderMap, needles: &Needles) -> u32 {
    remove(headers, |name| {
        *name == header::SET_COOKIE
            || matches!(
                name.as_str(),
                "authentication-info" | "proxy-authentication-info"
            )
    });
    let mut hits = 0;
    for value in headers.values_mut() {
        if needles.are_in(value.as_bytes()) {
            let mut clean = value.as_bytes().to_vec();
            hits += u32::from(needles.redact(&mut clean));
            *value = HeaderValue::from_bytes(&clean).unwrap_or(HeaderValue::from_static(""));
        }
    }
    hits
}

/// The fields a `Connection` header names. Those that frame the message are ours to write, not to be named away.
fn nominated(headers: &HeaderMap) -> Vec<HeaderName> {
    headers
        .get_all(header::CONNECTION)
        .iter()
        .flat_map(|value| value.as_bytes().split(|&b| b == b','))
        .filter_map(|token| HeaderName::from_bytes(token.trim_ascii()).ok())
        .filter(|name| {
            !matches!(
                name.as_str(),
                "host" | "content-length" | "transfer-encoding" | "close"
            )
        })
        .collect()
}

/// Whether a `Connection` header names this field, so that it does not go on.
pub(crate) fn is_nominated(headers: &HeaderMap, name: &HeaderName) -> bool {
    is_named(&nominated(headers), name)
}

fn is_named(nominated: &[HeaderName], name: &HeaderName) -> bool {
    nominated.contains(name)
}

fn remove(headers: &mut HeaderMap, is_doomed: impl Fn(&HeaderName) -> bool) {
    // Nearly every message has few of them or none, and an empty vector costs nothing.
    let doomed = headers.keys().filter(|name| is_doomed(name));
    let doomed = doomed.cloned().collect();
    remove_all(headers, doomed);
}

fn remove_all(headers: &mut HeaderMap, doomed: Vec<HeaderName>) {
    for name in doomed {
        headers.remove(name);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn map(fields: &[(&'static str, &'static str)]) -> HeaderMap {
        let mut map = HeaderMap::new();
        for (name, value) in fields {
            map.append(*name, HeaderValue::from_static(value));
        }
        map
    }

    #[test]
    fn what_is_named_in_connection_goes_but_framing_stays() {
        let mut headers = map(&[
            ("connection", "close, X-Secret, content-length, host"),
            ("connection", "x-other"),
            ("x-secret", "1"),
            ("x-other", "1"),
            ("content-length", "3"),
            ("host", "api.example.com"),
            ("x-kept", "1"),
            ("x-forwarded-for", "1.2.3.4"),
            ("proxy-authorization", "Basic eDp5"),
            ("x-http-method-override", "DELETE"),
        ]);
        clean_request(&mut headers);
        let mut left: Vec<_> = headers.keys().map(HeaderName::as_str).collect();
        left.sort_unstable();
        assert_eq!(left, ["content-length", "host", "x-kept"]);
    }

    #[test]
    fn nobody_else_gives_our_reasons() {
        let mut headers = map(&[("x-bottle-reason", "allowed"), ("x-kept", "1")]);
        clean_response(&mut headers);
        assert_eq!(headers.len(), 1);
    }

    #[test]
    fn a_field_that_some_destinations_take_for_another_goes() {
        let mut headers = map(&[
            ("x_http_method_override", "DELETE"),
            ("x_forwarded_host", "evil.test"),
            ("content_length", "3"),
            ("transfer_encoding", "chunked"),
            ("x_api_key", "mine"),
            ("x-team", "web"),
            ("x_team", "admin"),
            ("client_id", "kept"),
        ]);
        clean_request(&mut headers);
        let mut left: Vec<_> = headers.keys().map(HeaderName::as_str).collect();
        left.sort_unstable();
        assert_eq!(left, ["client_id", "x-team"]);
        let mut headers = map(&[
            ("x_own_key", "mine"),
            ("cookie", "a=b"),
            ("x-own_other", "1"),
        ]);
        let own = HeaderName::from_static("x-own-key");
        insert_credential(&mut headers, &own, HeaderValue::from_static("ours"));
        assert_eq!(
            (headers.len(), &headers["x-own-key"]),
            (2, &HeaderValue::from_static("ours"))
        );
    }

    #[test]
    fn ambiguous_heads_are_refused() {
        let bad = [
            map(&[("host", "a"), ("host", "a")]),
            map(&[("transfer-encoding", "gzip, chunked")]),
            map(&[
                ("transfer-encoding", "chunked"),
                ("transfer-encoding", "chunked"),
            ]),
            map(&[("transfer-encoding", "chunked"), ("content-length", "3")]),
        ];
        for headers in bad {
            assert_eq!(
                check_request(&headers),
                Err(Reason::RequestMalformed),
                "{headers:?}"
            );
        }
        assert_eq!(
            check_request(&map(&[("host", "a"), ("transfer-encoding", "chunked")])),
            Ok(())
        );
    }
}
