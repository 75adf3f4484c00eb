//! The decision: a pure function of the policy and the question. Every way in asks here and nowhere else.

use hyper::{HeaderMap, Method};

use super::{Match, PathRule, Policy, Route, Scheme};
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
        for &index in self.candidates(scheme, host, port) {
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

    /// Whether this request may be sent.
    pub(crate) fn decide(&self, question: &Question<'_>) -> Decision {
        let mut no = Decision::no(Reason::HostNotAllowed);
        let routes = self.candidates(question.scheme, question.host, question.port);
        if routes.is_empty() {
            return no;
        }
        if !METHODS.contains(question.method) {
            return Decision::no(Reason::MethodRefused);
        }
        let Some(path) = Path::parse(question.path.as_bytes()) else {
            return Decision::no(Reason::PathAmbiguous);
        };
        let git = Git::of(&path, question.query);
        for &index in routes {
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
            Some(Git::Fetch) if !self.document.git.fetch => return Err(Reason::GitFetchNotAllowed),
            Some(Git::Fetch) | None => {}
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
        // A fetch is one GET and one POST by its nature; `git.fetch` has already said yes to both.
        let fetching = git == Some(Git::Fetch);
        if !fetching && !self.methods.is_empty() && !self.methods.contains(question.method) {
            return Err(Reason::MethodNotAllowed);
        }
        let has = |(name, value)| {
            question
                .headers
                .get_all(name)
                .iter()
                .any(|sent| sent == value)
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
    Fetch,
    Push,
    Lfs,
}

impl Git {
    /// Recognises git by the shape of its URLs, whatever the host. Case is ignored because some servers do.
    fn of(path: &Path<'_>, query: Option<&str>) -> Option<Self> {
        let path = path.bytes();
        let path = path.strip_suffix(b"/").unwrap_or(path);
        let mut segments = path.rsplit(|&b| b == b'/');
        let last = segments.next()?;
        if last.eq_ignore_ascii_case(b"git-receive-pack") {
            return Some(Self::Push);
        }
        if last.eq_ignore_ascii_case(b"git-upload-pack")
            || last.eq_ignore_ascii_case(b"git-upload-archive")
        {
            return Some(Self::Fetch);
        }
        if last.eq_ignore_ascii_case(b"refs") && segments.next()?.eq_ignore_ascii_case(b"info") {
            // Without a service this is the old protocol of plain files: a fetch as well.
            let push = query.is_some_and(asks_for_push);
            return Some(if push { Self::Push } else { Self::Fetch });
        }
        let lower = path.to_ascii_lowercase();
        let lfs = lower.windows(9).any(|w| w == b"/info/lfs");
        lfs.then_some(Self::Lfs)
    }
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
