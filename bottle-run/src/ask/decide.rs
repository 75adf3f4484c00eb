//! The operator's decisions. Each is one file that appears whole: whatever is killed when, a request is either decided
//! or still waits.

use std::fs;
use std::path::Path;
use std::thread;
use std::time::{Duration, Instant};

use bottle_plan::failure::{Failure, Result};
use bottle_plan::granted;
use bottle_plan::plan::{PLAN_SCHEMA, Plan};
use bottle_plan::policy::{Route, Tls};
use bottle_plan::request::{
    self, ANSWER_SCHEMA, Answer, Ask, Ended, GRANT_SCHEMA, Grant, Scope, Verdict,
};
use bottle_plan::state::{self, StateHome, to_json, write_atomic};
use bottle_plan::supervise::{APPLIED_FILE, PUSHES_APPLIED_FILE};
use time::OffsetDateTime;

use super::files::{READABLE, lock};
use super::{Asked, Folder, Status, escaped, find, find_grant};

/// How long egress may take to apply a grant before it is said that it has not. It looks five times a second.
const APPLY: Duration = Duration::from_secs(3);

/// When a grant ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    /// Seconds; none: when the bottle goes down.
    pub seconds: Option<u64>,
    /// Requests or pushes; none: any number.
    pub uses: Option<u64>,
}

/// How a request is approved.
pub struct Approval<'a> {
    /// When it ends.
    pub limits: Limits,
    /// Gives it the credential the plan has for that host.
    pub credential: bool,
    /// For the agent.
    pub note: Option<&'a str>,
    /// Who approves.
    pub by: &'a str,
    /// Changes the scope before it is granted.
    pub edit: &'a dyn Fn(Scope) -> Result<Scope>,
}

/// What was decided.
#[derive(Debug)]
pub struct Decision {
    /// The request as it is now.
    pub asked: Asked,
    /// In plain words.
    pub words: String,
    /// Whether egress says that it applies the grant; unknown for what is not egress's.
    pub applied: Option<bool>,
}

/// Approves a request. `expect` is the hash of what was read, when that was earlier.
///
/// # Errors
/// A conflict, when somebody was first, or it is too late, or it is another request by now; invalid, when it cannot be
/// granted.
pub fn approve(
    home: &StateHome,
    given: &str,
    expect: Option<&str>,
    approval: &Approval<'_>,
) -> Result<Decision> {
    let asked = find(home, given)?;
    let folder = Folder::of(home, &asked.slug)?;
    // Outside the lock: a person may take her time.
    let scope = (approval.edit)(scope(&folder, &asked, approval.credential)?)?;
    check_scope(&scope)?;
    let _lock = lock(&folder.state)?;
    let asked = still_waiting(&folder, &asked, expect)?;
    let now = OffsetDateTime::now_utc();
    let end = |seconds: u64| {
        let seconds = i64::try_from(seconds).unwrap_or(i64::MAX);
        now.checked_add(time::Duration::seconds(seconds))
            .map(request::text_of)
            .ok_or_else(|| Failure::invalid("that is longer than time goes"))
    };
    let grant = Grant {
        schema: GRANT_SCHEMA.to_owned(),
        id: request::grant_id(&asked.request.id),
        bottle: folder.slug.clone(),
        plan_digest: asked.request.plan_digest.clone(),
        request: asked.request.id.clone(),
        request_sha256: asked.sha256.clone(),
        scope,
        ends_at: approval.limits.seconds.map(end).transpose()?,
        uses: approval.limits.uses,
        by: approval.by.to_owned(),
        created_at: request::text_of(now),
        note: approval.note.map(str::to_owned),
        ended: None,
    };
    // This file is the approval: before it nothing is granted, after it everything.
    write_atomic(
        &folder.grants().join(format!("{}.json", grant.id)),
        to_json(&grant)?.as_bytes(),
        READABLE,
    )?;
    let words = format!(
        "{} may {}{}",
        folder.slug,
        escaped(&granted::scope_in_words(&grant.scope)),
        granted::limits_in_words(&grant)
    );
    let applied = Some(wait_until_applied(&folder.state, &grant, true));
    Ok(Decision {
        asked: folder.asked(&asked.request.id, now).unwrap_or(asked),
        words,
        applied,
    })
}

/// Refuses a request; `why` is told to the agent.
///
/// # Errors
/// As [`approve`].
pub fn deny(
    home: &StateHome,
    given: &str,
    expect: Option<&str>,
    why: Option<&str>,
    by: &str,
) -> Result<Decision> {
    reply(home, given, expect, Verdict::Denied, why, by)
}

/// Answers a question.
///
/// # Errors
/// As [`approve`].
pub fn answer(
    home: &StateHome,
    given: &str,
    expect: Option<&str>,
    text: &str,
    by: &str,
) -> Result<Decision> {
    let asked = find(home, given)?;
    if !matches!(asked.request.ask, Ask::Question { .. }) {
        return Err(
            Failure::invalid(format!("{} is no question", asked.request.id)).hint(format!(
                "bottle-run approve {0}, or bottle-run deny {0}",
                asked.request.id
            )),
        );
    }
    reply(home, given, expect, Verdict::Answered, Some(text), by)
}

fn reply(
    home: &StateHome,
    given: &str,
    expect: Option<&str>,
    verdict: Verdict,
    text: Option<&str>,
    by: &str,
) -> Result<Decision> {
    let asked = find(home, given)?;
    let folder = Folder::of(home, &asked.slug)?;
    let _lock = lock(&folder.state)?;
    let asked = still_waiting(&folder, &asked, expect)?;
    let answer = Answer {
        schema: ANSWER_SCHEMA.to_owned(),
        request: asked.request.id.clone(),
        request_sha256: asked.sha256.clone(),
        verdict,
        text: text.map(str::to_owned),
        by: by.to_owned(),
        at: request::now(),
    };
    write_atomic(
        &folder.answers().join(format!("{}.json", answer.request)),
        to_json(&answer)?.as_bytes(),
        READABLE,
    )?;
    let words = match verdict {
        Verdict::Answered => format!("{} was answered", folder.slug),
        _ => format!("{} may not {}", folder.slug, asked.words),
    };
    Ok(Decision {
        asked: folder
            .asked(&asked.request.id, OffsetDateTime::now_utc())
            .unwrap_or(asked),
        words,
        applied: None,
    })
}

/// Ends a grant now; the grant as it is then, and what that means in plain words.
///
/// # Errors
/// Not found; a conflict, when it is over already.
pub fn revoke(home: &StateHome, given: &str, by: &str) -> Result<(Grant, String)> {
    let (folder, id) = find_grant(home, given)?;
    let _lock = lock(&folder.state)?;
    let Some((mut grant, _)) = granted::read::<Grant>(&folder.grants(), &id) else {
        return Err(Failure::failed(format!(
            "the file of grant {id} cannot be read"
        )));
    };
    let now = OffsetDateTime::now_utc();
    if grant.is_over(now) {
        let who = grant.ended.map_or_else(String::new, |ended| {
            format!(": {} ended it at {}", ended.by, ended.at)
        });
        return Err(Failure::conflict(format!(
            "grant {id} is over already{who}"
        )));
    }
    grant.ended = Some(Ended {
        by: by.to_owned(),
        at: request::text_of(now),
    });
    write_atomic(
        &folder.grants().join(format!("{id}.json")),
        to_json(&grant)?.as_bytes(),
        READABLE,
    )?;
    wait_until_applied(&folder.state, &grant, false);
    let words = format!(
        "{} may no longer {}",
        folder.slug,
        escaped(&granted::scope_in_words(&grant.scope))
    );
    Ok((grant, words))
}

/// What the request would become.
pub(super) fn scope(folder: &Folder, asked: &Asked, credential: bool) -> Result<Scope> {
    match &asked.request.ask {
        Ask::Question { .. } => Err(Failure::invalid(format!(
            "{} is a question and grants nothing",
            asked.request.id
        ))
        .hint(format!("bottle-run answer {} TEXT", asked.request.id))),
        Ask::Push {
            repo,
            reference,
            object,
        } => Ok(Scope::Push {
            repo: repo.clone(),
            reference: reference.clone(),
            object: object.clone(),
        }),
        Ask::Egress { .. } => {
            let mut route = asked
                .request
                .ask
                .route()
                .ok_or_else(|| Failure::failed("the request names no route"))?;
            route.source = Some(request::grant_id(&asked.request.id));
            like_the_plan(&mut route, &plan(&folder.state)?, credential)?;
            Ok(Scope::Egress { route })
        }
    }
}

/// Where a host leads and what is put in there is the plan's to say, also for a route that is added.
fn like_the_plan(route: &mut Route, plan: &Plan, credential: bool) -> Result<()> {
    let mut same = plan.egress.routes.iter().filter(|known| {
        known.host == route.host
            && known.scheme == route.scheme
            && known.ports.iter().any(|port| route.ports.contains(port))
    });
    let Some(known) = same.clone().next() else {
        return if credential {
            Err(
                Failure::invalid(format!("the plan has no credential for {}", route.host))
                    .hint("approve it without --with-credential"),
            )
        } else {
            Ok(())
        };
    };
    if known.tls == Tls::Passthrough {
        return Err(Failure::invalid(format!(
            "the plan lets everything through to {} already",
            route.host
        )));
    }
    route.private = known.private.clone();
    if credential {
        route.auth = same.find_map(|known| known.auth.clone());
        if route.auth.is_none() {
            return Err(Failure::invalid(format!(
                "the plan has no credential for {}",
                route.host
            )));
        }
    }
    Ok(())
}

fn check_scope(scope: &Scope) -> Result<()> {
    let Scope::Egress { route } = scope else {
        return Ok(());
    };
    let bad = |problem: &str| {
        Err(Failure::invalid(format!(
            "this cannot be granted: {problem}"
        )))
    };
    if route.host.contains('*') || bottle_plan::host::Host::parse(&route.host).is_err() {
        return bad("a grant is for one exact host name");
    }
    if route.ports.is_empty() || route.ports.contains(&0) {
        return bad("`ports` names none");
    }
    if route.tls == Tls::Passthrough {
        return bad("TLS is not passed through unseen");
    }
    Ok(())
}

pub(super) fn plan(state: &Path) -> Result<Plan> {
    let path = state.join("plan.json");
    let bytes = fs::read(&path).map_err(|error| {
        Failure::failed(format!("cannot read {}", path.display())).because(error)
    })?;
    state::parse_document(&bytes, PLAN_SCHEMA)
}

/// The same request, still without an answer. Called under the lock.
fn still_waiting(folder: &Folder, seen: &Asked, expect: Option<&str>) -> Result<Asked> {
    let id = &seen.request.id;
    let asked = folder
        .asked(id, OffsetDateTime::now_utc())
        .ok_or_else(|| Failure::not_found(format!("request {id} is gone")))?;
    if asked.sha256 != expect.unwrap_or(&seen.sha256) {
        return Err(
            Failure::conflict(format!("request {id} is not the one that was read"))
                .hint(format!("bottle-run requests show {id}")),
        );
    }
    let (by, at) = match (&asked.grant, &asked.answer) {
        (Some(grant), _) => (&grant.by, &grant.created_at),
        (None, Some(answer)) => (&answer.by, &answer.at),
        (None, None) => {
            return if asked.status == Status::Waiting {
                Ok(asked)
            } else {
                Err(Failure::conflict(format!(
                    "it is too late: request {id} expired at {}",
                    asked.request.deadline
                ))
                .hint("the agent can ask again"))
            };
        }
    };
    let status = format!("{:?}", asked.status).to_lowercase();
    Err(Failure::conflict(format!(
        "request {id} was {status} by {} at {at}",
        escaped(by)
    ))
    .hint(format!("bottle-run requests show {id}")))
}

/// Whether egress, or git-gate for a push, says that it has (or has no longer) the grant.
fn wait_until_applied(state: &Path, grant: &Grant, wanted: bool) -> bool {
    let name = match grant.scope {
        Scope::Egress { .. } => APPLIED_FILE,
        Scope::Push { .. } => PUSHES_APPLIED_FILE,
    };
    let name = name.trim_end_matches(".json");
    let until = Instant::now() + APPLY;
    let folder = state.join("supervise/denials");
    loop {
        let applied = granted::read::<Vec<String>>(&folder, name);
        if applied.is_some_and(|(ids, _)| ids.contains(&grant.id) == wanted) {
            return true;
        }
        if Instant::now() >= until {
            return false;
        }
        thread::sleep(Duration::from_millis(20));
    }
}
