//! The policy in the form it is enforced in: parsed once, looked up by host, decided by a pure function.

mod budget;
mod decide;
mod load;

use std::collections::HashMap;
use std::net::IpAddr;
use std::sync::Arc;

use bottle_plan::policy as doc;
use hyper::Method;
use hyper::header::{HeaderName, HeaderValue};

use crate::address::Cidr;
use crate::credential::Credential;
use crate::needles::Needles;
use crate::path::decode_lossy;

pub(crate) use bottle_plan::policy::{Scheme, Tls};
pub(crate) use budget::Budget;
pub(crate) use decide::{Decision, Question};
pub use load::LoadError;
pub(crate) use load::{load, read};

/// A compiled policy.
pub(crate) struct Policy {
    /// The bottle's slug.
    pub(crate) bottle: Arc<str>,
    /// Where the listeners bind.
    pub(crate) listen: IpAddr,
    /// What goes to the sidecar's own log.
    pub(crate) log: u8,
    /// Networks of the bottle itself; never dialled.
    pub(crate) own_networks: Vec<Cidr>,
    /// The routes, in the order of the document.
    pub(crate) routes: Vec<Route>,
    /// Route indexes by exact host.
    exact: HashMap<Box<str>, Vec<usize>>,
    /// Route indexes by what follows `*.`.
    wildcard: HashMap<Box<str>, Vec<usize>>,
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
}

impl Route {
    /// What happens to the TLS of this route.
    pub(crate) fn tls(&self) -> Tls {
        self.document.tls
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

    /// Whether the name is on the list at all: what the DNS responder asks.
    pub(crate) fn knows(&self, host: &str) -> bool {
        !self.routes_of(host).is_empty()
    }

    /// A text of the agent's as it may be recorded: without secrets, however they are written.
    pub(crate) fn clean<'a>(&self, text: &'a str) -> &'a str {
        let dirty = |bytes: &[u8]| self.needles.find(bytes).next().is_some();
        if dirty(text.as_bytes()) || (text.contains('%') && dirty(&decode_lossy(text.as_bytes()))) {
            return "[redacted]";
        }
        text
    }
}
