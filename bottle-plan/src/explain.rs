//! A plan in plain words: what the agent will be able to do, and what it will not.

use std::fmt::Write as _;

use crate::plan::{EnvSource, Plan, Repo, Sign, Supervise, WorkspaceMode};
use crate::policy::{Limits, Match, Mode, OnFull, PathKind, Route, Scheme, Tls};
use crate::request::OnTimeout;

/// Everything a person should know before they say yes.
#[must_use]
pub fn explain(plan: &Plan) -> String {
    let mut text = String::new();
    let mut line = |s: String| {
        let _ = writeln!(text, "{s}");
    };
    line(format!("{} ({})", plan.slug, plan.agent.name));
    line(format!("  image      {}", plan.agent.image.reference));
    line(format!("  runs       {}", plan.agent.command.join(" ")));
    line(format!("  workspace  {}", workspace(plan)));
    line(format!("  limits     {}", limits(plan)));
    let observes = plan.egress.mode == Mode::Observe;
    line(match plan.egress.routes.as_slice() {
        _ if observes => {
            "  reaches    EVERY public host, without a credential (egress.mode: observe); and by its routes:"
                .to_owned()
        }
        [] => "  reaches    nothing".to_owned(),
        routes => format!(
            "  reaches    {} and nothing else:",
            counted(routes.len() as u64, "destination")
        ),
    });
    for route in &plan.egress.routes {
        line(format!("    - {}", in_words(route)));
        if let Some(auth) = &route.auth {
            let host = plan.egress.slots.iter().find(|slot| slot.slot == auth.slot);
            let name = host.map_or("?", |slot| slot.host.as_str());
            line(format!(
                "      with the value of ${name} in `{}`, which the agent never sees",
                auth.header
            ));
        }
    }
    if let Some(name) = &plan.egress.upstream_proxy {
        line(format!(
            "  by way of  the proxy in ${name}, which resolves the names; routes with `private` go directly"
        ));
    }
    if plan.egress.audit.on_full == OnFull::Allow {
        line(
            "  record     requests pass ALSO WHILE NOTHING CAN BE RECORDED (egress.audit.on_full: allow)"
                .to_owned(),
        );
    }
    if let Some(gate) = &plan.git_gate {
        line(format!(
            "  git        {} through git-gate, each push checked first:",
            counted(gate.repos.len() as u64, "repository")
        ));
        for repo in &gate.repos {
            line(format!("    - {}: {}", repo.url, pushes(repo)));
        }
    }
    let named = |wanted: fn(&EnvSource) -> bool| {
        let names: Vec<&str> = plan
            .agent
            .env
            .iter()
            .filter(|v| wanted(&v.from))
            .map(|v| v.name.as_str())
            .collect();
        names.join(", ")
    };
    let from_host = named(|s| matches!(s, EnvSource::Host(_)));
    if !from_host.is_empty() {
        line(format!(
            "  is given   {from_host} (read from your environment: the agent can see these)"
        ));
    }
    let asked = named(|s| matches!(s, EnvSource::Prompt(_)));
    if !asked.is_empty() {
        line(format!(
            "  is given   {asked} (asked for at start: the agent can see these)"
        ));
    }
    if let Some(supervise) = &plan.supervise {
        line(format!("  may ask    {}", may_ask(supervise)));
    }
    if !plan.agent.hardening.cap_add.is_empty() {
        line(format!(
            "  keeps      capabilities {}",
            plan.agent.hardening.cap_add.join(", ")
        ));
    }
    line(format!("  digest     {}", plan.digest));
    text
}

fn may_ask(supervise: &Supervise) -> String {
    let hosts = match supervise.hosts.as_slice() {
        [] => "any public host".to_owned(),
        hosts => hosts.join(", "),
    };
    let otherwise = match supervise.on_timeout {
        OnTimeout::Deny => "the answer is no",
        OnTimeout::AllowReadonly => "reading (GET, HEAD) is allowed for ten minutes",
    };
    format!(
        "you for access to {hosts}; after {} without an answer {otherwise}",
        seconds_in_words(supervise.timeout)
    )
}

/// A length of time as people write it: `90 s`, `10 minutes`.
#[must_use]
pub fn seconds_in_words(seconds: u64) -> String {
    for (unit, noun) in [(86_400, "day"), (3600, "hour"), (60, "minute")] {
        if seconds >= unit && seconds.is_multiple_of(unit) {
            return counted(seconds / unit, noun);
        }
    }
    format!("{seconds} s")
}

/// One route as a sentence.
#[must_use]
pub fn in_words(route: &Route) -> String {
    let ports: Vec<String> = route.ports.iter().map(u16::to_string).collect();
    let usual = route.ports
        == [match route.scheme {
            Scheme::Https => 443,
            Scheme::Http => 80,
        }];
    let mut place = route.host.clone();
    if !usual {
        let _ = write!(place, ":{}", ports.join(","));
    }
    if route.scheme == Scheme::Http {
        place.push_str(" (plain http)");
    }
    if route.tls == Tls::Passthrough {
        return format!("anything to {place}, unseen (TLS is passed through)");
    }
    let what = match route.matches.as_slice() {
        [] => "anything".to_owned(),
        alternatives => alternatives
            .iter()
            .map(alternative)
            .collect::<Vec<_>>()
            .join(", or "),
    };
    let git = if route.git.fetch {
        ", git clone and fetch"
    } else {
        ""
    };
    let private = match route.private.as_slice() {
        [] => String::new(),
        ranges => format!(", also at {}", ranges.join(", ")),
    };
    let budget = route.limits.as_ref().map(budget).unwrap_or_default();
    format!("{what} to {place}{git}{private}{budget}")
}

fn alternative(rule: &Match) -> String {
    let methods = match rule.methods.as_slice() {
        [] => "any method".to_owned(),
        methods => methods.join("/"),
    };
    let paths: Vec<String> = rule
        .paths
        .iter()
        .map(|path| match path.kind {
            PathKind::Exact => path.value.clone(),
            PathKind::Prefix => format!("{}/*", path.value.trim_end_matches('/')),
            PathKind::Regex => format!("~{}", path.value),
        })
        .collect();
    let headers: Vec<String> = rule
        .headers
        .iter()
        .map(|header| format!("{}: {}", header.name, header.value))
        .collect();
    let with = match headers.as_slice() {
        [] => String::new(),
        headers => format!(" with `{}`", headers.join("` and `")),
    };
    match paths.as_slice() {
        [] => format!("{methods}{with}"),
        paths => format!("{methods} {}{with}", paths.join(" or ")),
    }
}

/// The budget of a route, as the end of its sentence.
pub(crate) fn budget(limits: &Limits) -> String {
    let parts = [
        limits.requests.map(|count| counted(count, "request")),
        limits
            .bytes_out
            .map(|bytes| format!("{} out", bytes_in_words(bytes))),
    ];
    let parts: Vec<String> = parts.into_iter().flatten().collect();
    let window = limits.per.map_or_else(
        || " in all".to_owned(),
        |seconds| format!(" in {}", seconds_in_words(seconds)),
    );
    match parts.as_slice() {
        [] => String::new(),
        parts => format!(", at most {}{window}", parts.join(" and ")),
    }
}

fn bytes_in_words(bytes: u64) -> String {
    for (unit, name) in [(1 << 30, "GiB"), (1 << 20, "MiB"), (1 << 10, "KiB")] {
        if bytes >= unit && bytes.is_multiple_of(unit) {
            return format!("{} {name}", bytes / unit);
        }
    }
    counted(bytes, "byte")
}

/// What may be pushed to a repository.
fn pushes(repo: &Repo) -> String {
    if repo.is_read_only() {
        return "fetch only".to_owned();
    }
    let mut text = format!(
        "fetch, and push {} (at most {} and {} MiB, no force, no delete)",
        repo.refs.join(", "),
        counted(repo.push.max_commits, "commit"),
        repo.push.max_bytes >> 20
    );
    if repo.push.review {
        text.push_str(", after you have looked at it");
    }
    match repo.sign {
        None => {}
        Some(Sign::Ssh) => text.push_str(", signed by the gate"),
        Some(Sign::SshIfAsked) => text.push_str(", signed by the gate if the upstream asks"),
    }
    text
}

/// What the agent is given to work on, and whether it changes what is on the host.
pub(crate) fn workspace(plan: &Plan) -> String {
    let place = &plan.workspace.workdir;
    match (&plan.workspace.from, plan.workspace.mode) {
        (None, _) => format!("an empty folder at {place}"),
        (Some(from), WorkspaceMode::Copy) if plan.workspace.ignore => {
            format!(
                "a copy of {} at {place}, without what git ignores",
                from.display()
            )
        }
        (Some(from), WorkspaceMode::Copy) => format!("a copy of {} at {place}", from.display()),
        (Some(from), WorkspaceMode::Mount) if plan.workspace.read_only => {
            format!("{} itself at {place}, to be read only", from.display())
        }
        (Some(from), WorkspaceMode::Mount) => {
            format!(
                "{} itself at {place}: the agent changes your files",
                from.display()
            )
        }
    }
}

fn limits(plan: &Plan) -> String {
    let r = &plan.agent.resources;
    format!(
        "{} MiB, {} cpus, {} processes",
        r.memory >> 20,
        f64::from(r.millicpus) / 1000.0,
        r.pids
    )
}

/// So many of them: `1 repository`, `2 repositories`.
#[must_use]
pub fn counted(count: u64, noun: &str) -> String {
    match (count, noun.strip_suffix('y').filter(|_| noun != "day")) {
        (1, _) => format!("1 {noun}"),
        (n, Some(stem)) => format!("{n} {stem}ies"),
        (n, None) => format!("{n} {noun}s"),
    }
}
