//! The decision: a pure function of the policy and the question. Every way in asks here and nowhere else.

use hyper::header::{CONTENT_TYPE, HeaderValue};
use hyper::{HeaderMap, Method};

use super::{Match, PathRule, Policy, Route, Scheme};
use crate::headers;
use crate::path::{Path, decode_lossy, query_pairs};
use crate::reason::Reason;

/// Methods that can be let through at all. TRACE would echo an injected credential; CONNECT inside a tunnel
/// and methods nobody has heard of are ways around the rules.
const METHODS: &[Method] = &[
    Method::GET,
    Method::HEAD,
    Method::POST,
    Method::PUT,
    Method::PATCH,
    Method::DELETE,
    Method::OPTIONS,
];

/// One request, as far as the policy is concerned. The host is in normal form.
pub(crate) struct Question<'a> {
    /// The scheme it came with.
    pub(crate) scheme: Scheme,
    /// The host.
    pub(crate) host: &'a str,
    /// The port.
    pub(crate) port: u16,
    /// The method.
    pub(crate) method: &'a Method,
    /// The path of the target, as sent.
    pub(crate) path: &'a str,
    /// The query of the target, as sent.
    pub(crate) query: Option<&'a str>,
    /// The header fields.
    pub(crate) headers: &'a HeaderMap,
}

/// The answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Decision {
    /// Why.
    pub(crate) reason: Reason,
    /// The route that decided; none when no route came into question.
    pub(crate) route: Option<usize>,
}

impl Decision {
    /// Whether it is a yes.
    pub(crate) fn is_allowed(&self) -> bool {
        self.reason == Reason::Allowed
    }

    fn no(reason: Reason) -> Self {
        Self {
            reason,
            route: None,
        }
    }
}

impl Policy {
    /// Whether anything at all may be sent to this destination: what is asked before a tunnel is opened.
    pub(crate) fn decide_destination(&self, scheme: Scheme, host: &str, port: u16) -> Decision {
        let mut no = Decision::no(Reason::HostNotAllowed);
        for index in self.candidates(scheme, host, port) {
            match self.routes[index].serves(scheme, port) {
                Ok(()) => {
                    return Decision {
                        reason: Reason::Allowed,
                        route: Some(index),
                    };
                }
                Err(reason) => prefer(&mut no, reason, index),
            }
        }
        no
    }

    /// The plan's routes for a host, and after them what was granted.
    fn candidates(&self, scheme: Scheme, host: &str, port: u16) -> impl Iterator<Item = usize> {
        let planned = self.planned(scheme, host, port).iter().copied();
        planned.chain(self.granted_to(host))
    }

    /// Whether this request may be sent.
    pub(crate) fn decide(&self, question: &Question<'_>) -> Decision {
        let mut no = Decision::no(Reason::HostNotAllowed);
        let (scheme, host, port) = (question.scheme, question.host, question.port);
        if self.candidates(scheme, host, port).next().is_none() {
            return no;
        }
        if !METHODS.contains(question.method) {
            return Decision::no(Reason::MethodRefused);
        }
        let Some(path) = Path::parse(question.path.as_bytes()) else {
            return Decision::no(Reason::PathAmbiguous);
        };
        let git = Git::of(&path, question.query);
        for index in self.candidates(scheme, host, port) {
            let route = &self.routes[index];
            let fits = route
                .serves(question.scheme, question.port)
                .and_then(|()| route.admits(question, &path, git));
            match fits {
                Ok(()) => {
                    return Decision {
                        reason: Reason::Allowed,
                        route: Some(index),
                    };
                }
                Err(reason) => prefer(&mut no, reason, index),
            }
        }
        no
    }
}

/// Keeps the answer of the route that came closest to fitting: it says best what to ask for.
fn prefer(kept: &mut Decision, reason: Reason, index: usize) {
    if closeness(reason) > closeness(kept.reason) {
        *kept = Decision {
            reason,
            route: Some(index),
        };
    }
}

fn closeness(reason: Reason) -> u8 {
    match reason {
        Reason::SchemeNotAllowed => 1,
        Reason::PortNotAllowed => 2,
        Reason::PathNotAllowed => 3,
        Reason::PathAmbiguous => 4,
        Reason::MethodNotAllowed => 5,
        Reason::HeaderNotMatched => 6,
        Reason::GitFetchNotAllowed => 7,
        Reason::GitPushRefused | Reason::GitLfsRefused => 8,
        _ => 0,
    }
}

impl Route {
    pub(super) fn serves(&self, scheme: Scheme, port: u16) -> Result<(), Reason> {
        if self.is_open {
            return Ok(());
        }
        if self.document.scheme != scheme {
            return Err(Reason::SchemeNotAllowed);
        }
        if !self.document.ports.contains(&port) {
            return Err(Reason::PortNotAllowed);
        }
        Ok(())
    }

    fn admits(
        &self,
        question: &Question<'_>,
        path: &Path<'_>,
        git: Option<Git>,
    ) -> Result<(), Reason> {
        match git {
            Some(Git::Push) => return Err(Reason::GitPushRefused),
            Some(Git::Lfs) => return Err(Reason::GitLfsRefused),
            Some(Git::Refs | Git::Pack) if !self.document.git.fetch => {
                return Err(Reason::GitFetchNotAllowed);
            }
            Some(Git::Refs | Git::Pack) | None => {}
        }
        if self.matches.is_empty() {
            return Ok(());
        }
        let mut closest = Reason::PathNotAllowed;
        for entry in &self.matches {
            match entry.admits(question, path, git) {
                Ok(()) => return Ok(()),
                Err(reason) if closeness(reason) > closeness(closest) => closest = reason,
                Err(_) => {}
            }
        }
        Err(closest)
    }
}

impl Match {
    fn admits(
        &self,
        question: &Question<'_>,
        path: &Path<'_>,
        git: Option<Git>,
    ) -> Result<(), Reason> {
        if !self.paths.is_empty() {
            if path.is_doubtful() {
                return Err(Reason::PathAmbiguous);
            }
            if !self.paths.iter().any(|rule| rule.admits(path.bytes())) {
                return Err(Reason::PathNotAllowed);
            }
        }
        // `git.fetch` has already said yes to the one GET and the one POST that a fetch is.
        let fetching = git.is_some_and(|git| git.is_fetch(question));
        if !fetching && !self.methods.is_empty() && !self.methods.contains(question.method) {
            return Err(Reason::MethodNotAllowed);
        }
        // Of two that differ the destination may read the other one, and one that `Connection` names does not arrive.
        let has = |(name, value)| {
            let mut sent = question.headers.get_all(name).iter().peekable();
            sent.peek().is_some()
                && sent.all(|sent| sent == value)
                && !headers::is_nominated(question.headers, name)
        };
        if !self
            .headers
            .iter()
            .map(|(name, value)| (name, value))
            .all(has)
        {
            return Err(Reason::HeaderNotMatched);
        }
        Ok(())
    }
}

impl PathRule {
    pub(super) fn admits(&self, path: &[u8]) -> bool {
        match self {
            Self::Exact(exact) => path == exact,
            Self::Prefix(prefix) => match path.strip_prefix(prefix.as_slice()) {
                Some(rest) => rest.is_empty() || rest[0] == b'/',
                None => false,
            },
            Self::Regex(regex) => regex.is_match(path),
        }
    }
}

/// What a request means to a git server.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Git {
    /// The first half of a fetch: what there is.
    Refs,
    /// The second half: the objects.
    Pack,
    Push,
    Lfs,
}

impl Git {
    /// Recognises git by the shape of its URLs, whatever the host. What is still escaped some servers decode again.
    fn of(path: &Path<'_>, query: Option<&str>) -> Option<Self> {
        let again = || {
            let decoded = decode_lossy(path.bytes());
            Self::of_decoded(&decoded, query)
        };
        Self::of_decoded(path.bytes(), query).or_else(|| path.is_doubtful().then(again)?)
    }

    /// Some servers ignore case, empty segments, and what follows a `;`: so does this.
    fn of_decoded(path: &[u8], query: Option<&str>) -> Option<Self> {
        let bare = |segment: &'_ [u8]| segment.iter().position(|&b| b == b';');
        let names = path
            .split(|&b| b == b'/')
            .map(|segment| &segment[..bare(segment).unwrap_or(segment.len())])
            .filter(|name| !name.is_empty());
        let (mut before, mut last): (&[u8], &[u8]) = (b"", b"");
        let mut is_lfs = false;
        for name in names {
            (before, last) = (last, name);
            is_lfs |= before.eq_ignore_ascii_case(b"info") && last.eq_ignore_ascii_case(b"lfs");
        }
        if last.eq_ignore_ascii_case(b"git-receive-pack") {
            return Some(Self::Push);
        }
        if last.eq_ignore_ascii_case(b"git-upload-pack")
            || last.eq_ignore_ascii_case(b"git-upload-archive")
        {
            return Some(Self::Pack);
        }
        if last.eq_ignore_ascii_case(b"refs") && before.eq_ignore_ascii_case(b"info") {
            // Without a service this is the old protocol of plain files: a fetch as well.
            let push = query.is_some_and(asks_for_push);
            return Some(if push { Self::Push } else { Self::Refs });
        }
        is_lfs.then_some(Self::Lfs)
    }

    /// Whether it is a fetch in its method and its kind of body too. A forge's API has files of any name in its paths,
    /// and takes no body of this kind.
    fn is_fetch(self, question: &Question<'_>) -> bool {
        match self {
            Self::Refs => matches!(*question.method, Method::GET | Method::HEAD),
            Self::Pack => {
                let mut kinds = question.headers.get_all(CONTENT_TYPE).iter().peekable();
                *question.method == Method::POST
                    && kinds.peek().is_some()
                    && kinds.all(|kind| FETCH_BODIES.iter().any(|fetch| kind == fetch))
                    && !headers::is_nominated(question.headers, &CONTENT_TYPE)
            }
            Self::Push | Self::Lfs => false,
        }
    }
}

/// What git's clients say of the body of a fetch, as every git server demands.
const FETCH_BODIES: [&str; 2] = [
    "application/x-git-upload-pack-request",
    "application/x-git-upload-archive-request",
];

/// The fields a question is asked with when nobody knows those of the request: a client that fetches says so.
pub(crate) fn usual_headers(path: &str) -> HeaderMap {
    let mut headers = HeaderMap::new();
    let git = Path::parse(path.as_bytes()).and_then(|path| Git::of(&path, None));
    if git == Some(Git::Pack) {
        headers.insert(CONTENT_TYPE, HeaderValue::from_static(FETCH_BODIES[0]));
    }
    headers
}

fn asks_for_push(query: &str) -> bool {
    query_pairs(query).any(|(key, value)| {
        decode_lossy(key.as_bytes()).eq_ignore_ascii_case(b"service")
            && decode_lossy(value.as_bytes()).eq_ignore_ascii_case(b"git-receive-pack")
    })
}

#[cfg(test)]
#[path = "decide_tests.rs"]
mod tests;
