//! The policy in the form it is enforced in: parsed once, looked up by host, decided by a pure function.

mod budget;
mod decide;
mod grant;
mod load;
mod suspension;

use std::collections::HashMap;
use std::net::IpAddr;
use std::sync::Arc;

use bottle_plan::policy as doc;
use hyper::Method;
use hyper::header::{HeaderName, HeaderValue};

use crate::address::Cidr;
use crate::credential::{Credential, reason_for};
use crate::dlp::{Rules, holds_token};
use crate::gaps::Closed;
use crate::needles::Needles;
use crate::path::decode_lossy;
use crate::reason::Reason;

pub(crate) use bottle_plan::policy::{Scheme, Tls};
pub(crate) use budget::Budget;
pub(crate) use decide::{Decision, Question, usual_headers};
pub(crate) use grant::{Grant, Uses};
pub use load::LoadError;
pub(crate) use load::{load, read};
pub(crate) use suspension::Suspension;

/// How large a request may be unless its route says otherwise.
const REQUEST_CAP: u64 = 32 * 1024 * 1024;

/// A compiled policy.
pub(crate) struct Policy {
    /// The bottle's slug.
    pub(crate) bottle: Arc<str>,
    /// Where the listeners bind.
    pub(crate) listen: IpAddr,
    /// What goes to the sidecar's own log.
    pub(crate) log: u8,
    /// How much is kept on record; read at the start alone.
    pub(crate) audit: doc::AuditRules,
    /// Networks of the bottle itself; never dialled.
    pub(crate) own_networks: Vec<Cidr>,
    /// The routes, in the order of the document; behind them the open one, where there is one.
    pub(crate) routes: Vec<Route>,
    /// The index of the route for every destination that no other serves; only where the way out is observed.
    open: Option<[usize; 1]>,
    /// Route indexes by exact host.
    exact: HashMap<Box<str>, Vec<usize>>,
    /// Route indexes by what follows `*.`.
    wildcard: HashMap<Box<str>, Vec<usize>>,
    /// Indexes of granted routes by host.
    granted: HashMap<Box<str>, Vec<usize>>,
    /// Every secret and placeholder of the bottle, looked for in everything that leaves.
    pub(crate) needles: Arc<Needles>,
}

/// One destination and what may be done there.
pub(crate) struct Route {
    /// As it was written; what a reload compares.
    document: doc::Route,
    /// Where it was written, or its number: what records and `why` name.
    pub(crate) rule: Arc<str>,
    matches: Vec<Match>,
    pub(crate) credential: Option<Credential>,
    pub(crate) private: Vec<Cidr>,
    pub(crate) budget: Option<Arc<Budget>>,
    pub(crate) suspension: Suspension,
    /// What is looked for in what goes by.
    pub(crate) dlp: Arc<Rules>,
    /// What it is part of the policy by, if not by the plan.
    pub(crate) grant: Option<Grant>,
    /// Whether it serves every scheme and port: the route of what is only observed.
    is_open: bool,
}

impl Route {
    /// What happens to the TLS of this route.
    pub(crate) fn tls(&self) -> Tls {
        self.document.tls
    }

    /// How large one request may be. An operator who grants more bytes for the route has said how much.
    pub(crate) fn request_cap(&self) -> u64 {
        let granted = self
            .document
            .limits
            .as_ref()
            .and_then(|limits| limits.bytes_out);
        granted.unwrap_or(0).max(REQUEST_CAP)
    }

    /// Whether a connection for the other route would be one for this.
    fn is_at(&self, other: &doc::Route) -> bool {
        let shares_port = |port| other.ports.contains(port);
        self.document.scheme == other.scheme && self.document.ports.iter().any(shares_port)
    }

    /// Whether the other is the same route: written in the same words.
    pub(crate) fn is_same(&self, other: &Self) -> bool {
        self.document == other.document
    }
}

/// Compiled [`doc::Match`].
struct Match {
    paths: Vec<PathRule>,
    methods: Vec<Method>,
    headers: Vec<(HeaderName, HeaderValue)>,
}

/// Compiled [`doc::PathMatch`]; compared with the decoded path.
enum PathRule {
    Exact(Vec<u8>),
    /// Without a trailing slash.
    Prefix(Vec<u8>),
    Regex(regex::bytes::Regex),
}

/// Names that are never public (RFC 6761, 6762, 7686, 9476 and ICANN's `internal`). What the canary asks for is one.
const SPECIAL: [&str; 8] = [
    "alt",
    "example",
    "internal",
    "invalid",
    "local",
    "localhost",
    "onion",
    "test",
];

/// Whether a name could be that of a public host: of two labels or more, and below no special-use domain.
fn is_public_name(host: &str) -> bool {
    host.rsplit_once('.')
        .is_some_and(|(_, last)| !SPECIAL.contains(&last) && host != "home.arpa")
        && !host.ends_with(".home.arpa")
}

impl Policy {
    /// The routes of the most specific host pattern that matches; no route of a less specific one applies.
    fn routes_of(&self, host: &str) -> &[usize] {
        if let Some(routes) = self.exact.get(host) {
            return routes;
        }
        let mut rest = host;
        while let Some((_, parent)) = rest.split_once('.') {
            if let Some(routes) = self.wildcard.get(parent) {
                return routes;
            }
            rest = parent;
        }
        &[]
    }

    /// The routes that are asked about a destination. The open one only where no other serves it: where a route says
    /// what may be done, that holds, so the open one is never a way around its rules, budgets and private ranges.
    fn planned(&self, scheme: Scheme, host: &str, port: u16) -> &[usize] {
        let routes = self.routes_of(host);
        let serves = |&index: &usize| self.routes[index].serves(scheme, port).is_ok();
        match &self.open {
            Some(open) if is_public_name(host) && !routes.iter().any(serves) => open,
            _ => routes,
        }
    }

    /// Whether every public destination is let through, to be observed.
    pub(crate) fn is_observing(&self) -> bool {
        self.open.is_some()
    }

    /// Whether the name is on the list at all: what the DNS responder asks.
    pub(crate) fn knows(&self, host: &str) -> bool {
        (self.is_observing() && is_public_name(host))
            || !self.routes_of(host).is_empty()
            || self.granted_to(host).next().is_some()
    }

    /// A text of the agent's as it may be recorded: without secrets, however they are written.
    pub(crate) fn clean<'a>(&self, text: &'a str) -> &'a str {
        let broken = |bytes: &[u8]| {
            Closed::of(bytes).is_some_and(|closed| self.needles.are_in(&closed.text))
        };
        let dirty =
            |bytes: &[u8]| self.needles.are_in(bytes) || broken(bytes) || holds_token(bytes);
        if dirty(text.as_bytes()) || (text.contains('%') && dirty(&decode_lossy(text.as_bytes()))) {
            return "[redacted]";
        }
        text
    }

    /// The same for a method: one that nobody has heard of is a word of the agent's like any other.
    pub(crate) fn clean_method(&self, method: &Method) -> Method {
        if self.clean(method.as_str()) == method.as_str() {
            return method.clone();
        }
        Method::from_bytes(b"REDACTED").unwrap_or_default()
    }

    /// Refuses a host in which a secret is: what is below a wildcard is asked of name servers, and named to the
    /// destination before any request is. Hosts that the policy names in full say nothing.
    pub(crate) fn check_host(&self, route: usize, host: &str) -> Result<(), Reason> {
        if !self.routes[route].document.host.starts_with('*') {
            return Ok(());
        }
        let joined = host.replace('.', "");
        let mut found = self
            .needles
            .find(host.as_bytes())
            .chain(self.needles.find(joined.as_bytes()));
        found
            .next()
            .map_or(Ok(()), |(_, found)| Err(reason_for(found)))
    }
}
