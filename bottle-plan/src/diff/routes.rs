//! The way out, compared by what each destination may be asked.
//!
//! The sidecar takes the routes of the most specific host pattern and no others. So each host pattern of either plan is
//! asked what applies to it in both: a new route can thus take something away, and a removed one give something.

use std::collections::{BTreeMap, BTreeSet};

use ipnet::IpNet;

use super::{Change, Changes, Effect};
use crate::explain;
use crate::plan::Egress;
use crate::policy::{
    HeaderMatch, Limits, METHODS, Match, Mode, PathKind, PathMatch, Route, Scheme, Tls,
};

pub(super) fn changes(old: &Egress, new: &Egress) -> Vec<Change> {
    let mut changes = Changes::of("egress");
    let hosts: BTreeSet<&str> = old
        .routes
        .iter()
        .chain(&new.routes)
        .map(|route| route.host.as_str())
        .collect();
    for host in hosts {
        let (before, after) = (At::of(old, host), At::of(new, host));
        rights(&mut changes, host, &before, &after);
        changes.sets(&before.credentials(), &after.credentials());
        private(&mut changes, host, &before, &after);
        narrowing(&mut changes, host, &before, &after);
    }
    let observed = "any request to every public host, without a credential (egress.mode: observe)";
    match (old.mode, new.mode) {
        (Mode::Enforce, Mode::Observe) => changes.add(Effect::Gains, observed),
        (Mode::Observe, Mode::Enforce) => changes.add(Effect::Loses, observed),
        _ => {}
    }
    if old.log != new.log {
        let text = format!("egress.log: {} -> {}", old.log, new.log);
        changes.add(Effect::Changes, text);
    }
    changes.list
}

/// What applies to one host pattern.
struct At<'a> {
    host: &'a str,
    egress: &'a Egress,
    routes: Vec<&'a Route>,
}

impl<'a> At<'a> {
    fn of(egress: &'a Egress, host: &'a str) -> Self {
        let with = |pattern: &str| -> Vec<&'a Route> {
            let fits = |route: &&Route| route.host == pattern;
            egress.routes.iter().filter(fits).collect()
        };
        let mut routes = with(host);
        let mut rest = host;
        while let (true, Some((_, parent))) = (routes.is_empty(), rest.split_once('.')) {
            routes = with(&format!("*.{parent}"));
            rest = parent;
        }
        Self {
            host,
            egress,
            routes,
        }
    }

    fn rights(&self) -> BTreeMap<Place, BTreeSet<&'static str>> {
        let mut rights: BTreeMap<Place, BTreeSet<&'static str>> = BTreeMap::new();
        for route in &self.routes {
            for (place, methods) in rights_of(route) {
                rights.entry(place).or_default().extend(methods);
            }
        }
        rights
    }

    fn credentials(&self) -> Vec<String> {
        let text = |route: &&Route| {
            let auth = route.auth.as_ref()?;
            let slot = self.egress.slots.iter().find(|slot| slot.slot == auth.slot);
            let name = slot.map_or("?", |slot| slot.host.as_str());
            let user = match &auth.user {
                Some(user) => format!(" for `{user}`"),
                None => String::new(),
            };
            let how = format!("{:?}", auth.scheme).to_lowercase();
            Some(format!(
                "the use of ${name} at {} (in `{}`, {how}{user})",
                self.host, auth.header
            ))
        };
        self.routes.iter().filter_map(text).collect()
    }

    fn private(&self) -> Vec<IpNet> {
        let ranges = self.routes.iter().flat_map(|route| &route.private);
        ranges.filter_map(|range| range.parse().ok()).collect()
    }

    fn budgets(&self) -> Vec<String> {
        let limits = self.routes.iter().filter_map(|route| route.limits.as_ref());
        limits
            .map(|limits| explain::budget(limits).trim_start_matches(", ").to_owned())
            .filter(|text| !text.is_empty())
            .collect()
    }
}

/// Where something may be done, apart from the method.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Place {
    scheme: Scheme,
    port: u16,
    what: What,
}

#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum What {
    /// Requests that are looked at.
    Request {
        /// None: every path, also those that can be read in two ways.
        path: Option<(PathKind, String)>,
        /// Names in lower case, sorted.
        headers: Vec<(String, String)>,
    },
    /// `git clone` and `git fetch`.
    Fetch,
    /// TLS that is not opened.
    Unseen,
}

/// The methods that count for what is not a matter of methods.
const WHOLE: [&str; 1] = [""];

fn rights_of(route: &Route) -> Vec<(Place, Vec<&'static str>)> {
    let mut all = Vec::new();
    for &port in &route.ports {
        let place = |what| Place {
            scheme: route.scheme,
            port,
            what,
        };
        if route.tls == Tls::Passthrough {
            all.push((place(What::Unseen), WHOLE.to_vec()));
            continue;
        }
        if route.git.fetch {
            all.push((place(What::Fetch), WHOLE.to_vec()));
        }
        let everything = [Match::default()];
        let matches = match route.matches.as_slice() {
            [] => everything.as_slice(),
            written => written,
        };
        for entry in matches {
            for path in paths(entry) {
                let headers = headers(&entry.headers);
                let what = What::Request { path, headers };
                all.push((place(what), methods(entry)));
            }
        }
    }
    all
}

fn paths(entry: &Match) -> Vec<Option<(PathKind, String)>> {
    let own = |rule: &PathMatch| Some((rule.kind, rule.value.clone()));
    match entry.paths.as_slice() {
        [] => vec![None],
        rules => rules.iter().map(own).collect(),
    }
}

fn headers(written: &[HeaderMatch]) -> Vec<(String, String)> {
    let own = |header: &HeaderMatch| (header.name.to_ascii_lowercase(), header.value.clone());
    let mut headers: Vec<_> = written.iter().map(own).collect();
    headers.sort();
    headers
}

fn methods(entry: &Match) -> Vec<&'static str> {
    let wanted = |method: &&str| {
        entry.methods.is_empty() || entry.methods.iter().any(|m| m.eq_ignore_ascii_case(method))
    };
    METHODS
        .into_iter()
        .filter(|method| wanted(method))
        .collect()
}

impl Place {
    /// Whether everything at the other place is allowed at this one too.
    fn covers(&self, other: &Self) -> bool {
        let at = |place: &Self| (place.scheme, place.port);
        at(self) == at(other)
            && match (&self.what, &other.what) {
                (
                    What::Request { path, headers },
                    What::Request {
                        path: inner,
                        headers: more,
                    },
                ) => {
                    path_covers(path.as_ref(), inner.as_ref())
                        && headers.iter().all(|h| more.contains(h))
                }
                (one, two) => one == two,
            }
    }

    fn in_words(&self, host: &str, methods: &BTreeSet<&'static str>) -> String {
        let usual = match self.scheme {
            Scheme::Https => 443,
            Scheme::Http => 80,
        };
        let port = if self.port == usual {
            String::new()
        } else {
            format!(":{}", self.port)
        };
        let plain = match self.scheme {
            Scheme::Https => "",
            Scheme::Http => " (plain http)",
        };
        match &self.what {
            What::Unseen => format!("anything to {host}{port}, unseen (TLS is passed through)"),
            What::Fetch => format!("git clone and fetch from {host}{port}{plain}"),
            What::Request { path, headers } => {
                let (path, with) = (path_text(path.as_ref()), header_text(headers));
                let methods = methods_text(methods);
                format!("{methods} to {host}{port}{path}{with}{plain}")
            }
        }
    }
}

fn path_covers(outer: Option<&(PathKind, String)>, inner: Option<&(PathKind, String)>) -> bool {
    let (Some((kind, outer)), Some((inner_kind, inner))) = (outer, inner) else {
        return outer.is_none();
    };
    match (kind, inner_kind) {
        (PathKind::Prefix, PathKind::Prefix | PathKind::Exact) => {
            let outer = outer.trim_end_matches('/');
            inner
                .strip_prefix(outer)
                .is_some_and(|rest| rest.is_empty() || rest.starts_with('/'))
        }
        (one, two) => one == two && outer == inner,
    }
}

fn path_text(path: Option<&(PathKind, String)>) -> String {
    match path {
        None => String::new(),
        Some((PathKind::Exact, value)) => value.clone(),
        Some((PathKind::Prefix, value)) => format!("{}/*", value.trim_end_matches('/')),
        Some((PathKind::Regex, value)) => format!(" where the path is ~{value}"),
    }
}

fn header_text(headers: &[(String, String)]) -> String {
    let texts: Vec<String> = headers
        .iter()
        .map(|(name, value)| format!("`{name}: {value}`"))
        .collect();
    match texts.as_slice() {
        [] => String::new(),
        texts => format!(" with {}", texts.join(" and ")),
    }
}

fn methods_text(methods: &BTreeSet<&'static str>) -> String {
    if methods.len() == METHODS.len() {
        return "any request".to_owned();
    }
    let known = METHODS
        .into_iter()
        .filter(|method| methods.contains(method));
    known.collect::<Vec<_>>().join("/")
}

type Rights = BTreeMap<Place, BTreeSet<&'static str>>;

fn rights(changes: &mut Changes, host: &str, before: &At<'_>, after: &At<'_>) {
    let (old, new) = (before.rights(), after.rights());
    one_way(changes, Effect::Gains, host, &new, &old);
    one_way(changes, Effect::Loses, host, &old, &new);
}

/// What `these` allow and `those` do not; with it, what of it `those` do allow.
fn one_way(changes: &mut Changes, effect: Effect, host: &str, these: &Rights, those: &Rights) {
    for (place, methods) in these {
        let is_covered = |method: &&str| {
            those
                .iter()
                .any(|(other, known)| known.contains(method) && other.covers(place))
        };
        let only: BTreeSet<&'static str> =
            methods.iter().filter(|m| !is_covered(m)).copied().collect();
        if only.is_empty() {
            continue;
        }
        let inside: Vec<String> = those
            .iter()
            .filter(|(other, _)| place.covers(other))
            .map(|(other, known)| (other, known.intersection(&only).copied().collect()))
            .filter(|(_, known): &(_, BTreeSet<&'static str>)| !known.is_empty())
            .map(|(other, known)| other.in_words(host, &known))
            .collect();
        let of_it = match (inside.as_slice(), effect) {
            ([], _) => String::new(),
            (inside, Effect::Gains) => format!(" (had only {})", inside.join(", ")),
            (inside, _) => format!(" (keeps {})", inside.join(", ")),
        };
        changes.add(effect, place.in_words(host, &only) + &of_it);
    }
}

fn private(changes: &mut Changes, host: &str, before: &At<'_>, after: &At<'_>) {
    let (old, new) = (before.private(), after.private());
    for (effect, these, those) in [(Effect::Gains, &new, &old), (Effect::Loses, &old, &new)] {
        let known = |range: &IpNet| those.iter().any(|other| other.contains(range));
        for range in these.iter().filter(|range| !known(range)) {
            changes.add(effect, format!("{host} at private addresses in {range}"));
        }
    }
}

/// More of everything in the same time is a gain, less of everything a loss; of all else nobody can tell.
fn wider_budget(before: &At<'_>, after: &At<'_>) -> Effect {
    let ([before], [after]) = (before.routes.as_slice(), after.routes.as_slice()) else {
        return Effect::Changes;
    };
    let (Some(before), Some(after)) = (&before.limits, &after.limits) else {
        return Effect::Changes;
    };
    let all = |limits: &Limits| {
        [limits.requests, limits.bytes_out].map(|limit| limit.unwrap_or(u64::MAX))
    };
    let (old, new) = (all(before), all(after));
    let each = |holds: fn(u64, u64) -> bool| old.iter().zip(new).all(|(old, new)| holds(*old, new));
    if before.per != after.per {
        Effect::Changes
    } else if each(|old, new| new >= old) {
        Effect::Gains
    } else if each(|old, new| new <= old) {
        Effect::Loses
    } else {
        Effect::Changes
    }
}

/// Budgets and content checks matter where the host can be reached before and after.
fn narrowing(changes: &mut Changes, host: &str, before: &At<'_>, after: &At<'_>) {
    if before.routes.is_empty() || after.routes.is_empty() {
        return;
    }
    let (old, new) = (before.budgets(), after.budgets());
    if old != new {
        let (effect, text) = match (old.as_slice(), new.as_slice()) {
            ([], new) => (
                Effect::Loses,
                format!("requests to {host} beyond {}", new.join("; ")),
            ),
            (old, []) => (
                Effect::Gains,
                format!("requests to {host} beyond {}", old.join("; ")),
            ),
            (old, new) => (
                wider_budget(before, after),
                format!(
                    "the budget of {host}: {} -> {}",
                    old.join("; "),
                    new.join("; ")
                ),
            ),
        };
        changes.add(effect, text);
    }
    let checks = |at: &At<'_>| {
        at.routes
            .iter()
            .map(|route| route.dlp.clone())
            .collect::<Vec<_>>()
    };
    if checks(before) != checks(after) {
        let text = format!("what is looked for in requests and answers of {host} (dlp)");
        changes.add(Effect::Changes, text);
    }
}
