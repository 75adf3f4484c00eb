//! Which requests there are: the handful that smart HTTP needs, under exact names. Everything else is none.

use hyper::body::Incoming;
use hyper::header::{CONTENT_TYPE, HeaderMap};
use hyper::{Method, Request};

use crate::reason::Reason;

/// What is asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Wish {
    /// What there is, for a fetch or for a push.
    Refs { push: bool },
    /// The objects of a fetch.
    Fetch,
    /// A push.
    Push,
}

/// Exactly these, under exactly these names: `/NAME.git/…` or `/NAME/…`.
pub(super) fn wish(request: &Request<Incoming>) -> Result<(String, Wish), Reason> {
    wish_of(
        request.method(),
        request.uri().path(),
        request.uri().query(),
        request.headers(),
    )
}

fn wish_of(
    method: &Method,
    path: &str,
    query: Option<&str>,
    headers: &HeaderMap,
) -> Result<(String, Wish), Reason> {
    let (name, place) = path
        .strip_prefix('/')
        .and_then(|path| path.split_once('/'))
        .ok_or(Reason::GitUnknownRepo)?;
    let plain = |b: u8| b.is_ascii_alphanumeric() || b"-_.".contains(&b);
    let name = name.strip_suffix(".git").unwrap_or(name);
    if name.is_empty()
        || name.len() > 100
        || name.starts_with(['.', '-'])
        || !name.bytes().all(plain)
    {
        return Err(Reason::GitUnknownRepo);
    }
    let sends = |kind: &str| headers.get(CONTENT_TYPE).is_some_and(|value| value == kind);
    let wish = match (method, place, query) {
        (&Method::GET, "info/refs", Some("service=git-upload-pack")) => Wish::Refs { push: false },
        (&Method::GET, "info/refs", Some("service=git-receive-pack")) => Wish::Refs { push: true },
        (&Method::POST, "git-upload-pack", None)
            if sends("application/x-git-upload-pack-request") =>
        {
            Wish::Fetch
        }
        (&Method::POST, "git-receive-pack", None)
            if sends("application/x-git-receive-pack-request") =>
        {
            Wish::Push
        }
        _ if place.starts_with("info/lfs") => return Err(Reason::GitLfsRefused),
        _ => return Err(Reason::GitUnknownRepo),
    };
    Ok((name.to_owned(), wish))
}

/// `version=2` and the like; git reads nothing else from it.
pub(super) fn protocol(headers: &HeaderMap) -> Option<String> {
    let value = headers.get("git-protocol")?.to_str().ok()?;
    let plain = |b: u8| b.is_ascii_alphanumeric() || b"=:-._".contains(&b);
    (value.len() <= 100 && value.bytes().all(plain)).then(|| value.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;
    use hyper::header::HeaderValue;

    fn asked(
        method: &Method,
        path: &str,
        query: Option<&str>,
        kind: &'static str,
    ) -> Option<(String, Wish)> {
        let mut headers = HeaderMap::new();
        headers.insert(CONTENT_TYPE, HeaderValue::from_static(kind));
        wish_of(method, path, query, &headers).ok()
    }

    #[test]
    fn only_smart_git_is_answered() {
        let push = "application/x-git-receive-pack-request";
        let fetch = "application/x-git-upload-pack-request";
        for (method, path, query, kind, expected) in [
            (
                Method::GET,
                "/demo.git/info/refs",
                Some("service=git-upload-pack"),
                "",
                Some(Wish::Refs { push: false }),
            ),
            (
                Method::GET,
                "/demo/info/refs",
                Some("service=git-receive-pack"),
                "",
                Some(Wish::Refs { push: true }),
            ),
            (
                Method::POST,
                "/demo.git/git-upload-pack",
                None,
                fetch,
                Some(Wish::Fetch),
            ),
            (
                Method::POST,
                "/demo.git/git-receive-pack",
                None,
                push,
                Some(Wish::Push),
            ),
            (
                Method::POST,
                "/demo.git/git-receive-pack",
                None,
                fetch,
                None,
            ),
            (Method::GET, "/demo.git/info/refs", None, "", None),
            (
                Method::GET,
                "/demo.git/info/refs",
                Some("service=git-upload-archive"),
                "",
                None,
            ),
            (Method::GET, "/demo.git/HEAD", None, "", None),
            (
                Method::GET,
                "/demo.git/objects/info/alternates",
                None,
                "",
                None,
            ),
            (
                Method::PUT,
                "/demo.git/objects/info/alternates",
                None,
                "",
                None,
            ),
            (
                Method::GET,
                "/demo.git/objects/pack/pack-1.pack",
                None,
                "",
                None,
            ),
            (
                Method::GET,
                "/../etc/info/refs",
                Some("service=git-upload-pack"),
                "",
                None,
            ),
            (
                Method::GET,
                "/%2e%2e/info/refs",
                Some("service=git-upload-pack"),
                "",
                None,
            ),
            (
                Method::GET,
                "//info/refs",
                Some("service=git-upload-pack"),
                "",
                None,
            ),
            (
                Method::GET,
                "/a/b/info/refs",
                Some("service=git-upload-pack"),
                "",
                None,
            ),
            (
                Method::POST,
                "/demo.git/info/lfs/objects/batch",
                None,
                "",
                None,
            ),
        ] {
            let found = asked(&method, path, query, kind);
            assert_eq!(found.map(|(_, wish)| wish), expected, "{method} {path}");
        }
    }
}
