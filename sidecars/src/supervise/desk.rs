//! Requests on file, how many there may be, and waiting for the answer.
//!
//! What a request's state is can be read from the files alone, so nothing is lost when this process is.

use std::collections::VecDeque;
use std::fs::{self, OpenOptions};
use std::io::{self, Write as _};
use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use bottle_plan::request::{
    self, Answer, Ask, Grant, MAX_FILE, OnTimeout, REQUEST_SCHEMA, Request, Scope, Verdict,
};
use bottle_plan::supervise::{
    APPLIED_FILE, DENIALS_FILE, Denial, OLD_DENIALS_FILE, PUSH_DENIALS_FILE, PUSHES_APPLIED_FILE,
    PushDenial, Settings,
};
use ring::rand::{SecureRandom as _, SystemRandom};
use serde::de::DeserializeOwned;
use serde_json::{Value, json};
use time::OffsetDateTime;
use tokio::time::{Instant, sleep};

use super::told;

/// Requests without an answer at once: more than a person reads with care.
const MAX_OPEN: usize = 8;
/// Requests in the last ten minutes.
const MAX_RECENT: usize = 30;
const RECENT: Duration = Duration::from_secs(600);
/// Requests that are kept on file once they are over.
const MAX_KEPT: usize = 500;
/// Writing a request takes milliseconds.
const HALF_WRITTEN: Duration = Duration::from_secs(10);
/// How often the files are looked at while somebody waits.
const LOOK: Duration = Duration::from_millis(150);
/// How long egress may take to apply a grant before the agent is told of it all the same.
const APPLY: Duration = Duration::from_secs(2);
/// Writing a denial down takes milliseconds, and the agent may ask sooner.
const DENIAL_GRACE: Duration = Duration::from_millis(500);

/// Why nothing was asked.
pub(crate) enum Refusal {
    /// What was written is no request.
    Wrong(String),
    /// There are too many.
    TooMany(String),
    /// There is no such request.
    Unknown(String),
    /// It cannot be written down.
    Broken(String),
}

/// Where requests are handed in.
pub(crate) struct Desk {
    pub(super) settings: Settings,
    requests: PathBuf,
    answers: PathBuf,
    grants: PathBuf,
    denials: PathBuf,
    recent: Mutex<VecDeque<Instant>>,
    random: SystemRandom,
}

impl Desk {
    pub(crate) fn open(settings: Settings, folder: &Path) -> Result<Self, String> {
        let desk = Self {
            settings,
            requests: folder.join("requests"),
            answers: folder.join("answers"),
            grants: folder.join("grants"),
            denials: folder.join("denials"),
            recent: Mutex::default(),
            random: SystemRandom::new(),
        };
        // What a killed run was writing; what is younger, git-gate or supervise beside us may be writing now.
        for entry in fs::read_dir(&desk.requests)
            .map_err(told(desk.requests.display()))?
            .flatten()
        {
            let is_old = entry
                .metadata()
                .and_then(|found| found.modified())
                .is_ok_and(|at| at.elapsed().is_ok_and(|age| age > HALF_WRITTEN));
            if is_old && entry.file_name().to_string_lossy().starts_with(".new-") {
                let _ = fs::remove_file(entry.path());
            }
        }
        Ok(desk)
    }

    /// Puts a request on file; the same one that still waits is not put there twice.
    pub(crate) fn hand_in(&self, ask: Ask, reason: &str) -> Result<String, Refusal> {
        let now = OffsetDateTime::now_utc();
        let wait = time::Duration::seconds(i64::try_from(self.settings.timeout).unwrap_or(600));
        let request = Request {
            schema: REQUEST_SCHEMA.to_owned(),
            id: self.new_id().map_err(Refusal::Broken)?,
            bottle: self.settings.bottle.clone(),
            plan_digest: self.settings.plan_digest.clone(),
            created_at: request::text_of(now),
            deadline: request::text_of(now + wait),
            ask,
            reason: reason.to_owned(),
        };
        request.check().map_err(Refusal::Wrong)?;
        self.check_host(&request.ask)?;
        self.check_repo(&request.ask)?;
        let mut recent = self.recent.lock().unwrap_or_else(PoisonError::into_inner);
        let known = self.known(now);
        let open = known.iter().filter(|(_, is_open)| *is_open);
        if let Some((same, _)) = open.clone().find(|(known, _)| known.ask == request.ask) {
            return Ok(same.id.clone());
        }
        if open.count() >= MAX_OPEN {
            return Err(Refusal::TooMany(format!(
                "{MAX_OPEN} requests wait for an answer already; wait for them"
            )));
        }
        while recent.front().is_some_and(|at| at.elapsed() > RECENT) {
            recent.pop_front();
        }
        if recent.len() >= MAX_RECENT {
            return Err(Refusal::TooMany(format!(
                "{MAX_RECENT} requests in ten minutes are enough; go on without"
            )));
        }
        self.drop_oldest(known);
        self.write(&request)
            .map_err(|error| Refusal::Broken(format!("the request cannot be written: {error}")))?;
        recent.push_back(Instant::now());
        Ok(request.id)
    }

    fn check_host(&self, ask: &Ask) -> Result<(), Refusal> {
        let Ask::Egress { host, .. } = ask else {
            return Ok(());
        };
        let fits = |pattern: &String| {
            let pattern = bottle_plan::host::HostPattern::parse(pattern);
            let host = bottle_plan::host::Host::parse(host);
            matches!((pattern, host), (Ok(pattern), Ok(host)) if pattern.matches(&host))
        };
        let hosts = &self.settings.hosts;
        if hosts.is_empty() || hosts.iter().any(fits) {
            return Ok(());
        }
        Err(Refusal::Wrong(format!(
            "only these hosts can be asked for: {}",
            hosts.join(", ")
        )))
    }

    fn check_repo(&self, ask: &Ask) -> Result<(), Refusal> {
        let Ask::Push { repo, .. } = ask else {
            return Ok(());
        };
        let names: Vec<&str> = self
            .settings
            .repos
            .iter()
            .map(|repo| repo.name.as_str())
            .collect();
        if names.contains(&repo.as_str()) {
            return Ok(());
        }
        let known = match names.as_slice() {
            [] => "none".to_owned(),
            names => names.join(", "),
        };
        Err(Refusal::Wrong(format!(
            "git-gate has no such repository; there are: {known}"
        )))
    }

    /// Waits until the request is answered, or its time or `wait` is over.
    pub(super) async fn wait(&self, id: &str, wait: Duration) -> Result<Value, Refusal> {
        let until = Instant::now() + wait;
        loop {
            let state = self.state(id)?;
            let waits = state["status"] == "waiting";
            if state["grant"]["live"] == true
                && let Some(grant) = state["grant"]["id"].as_str()
            {
                self.wait_until_applied(grant).await;
            }
            if !waits || Instant::now() >= until {
                return Ok(state);
            }
            sleep(LOOK.min(until.duration_since(Instant::now()))).await;
        }
    }

    /// So that what was just granted works when the agent hears of it.
    async fn wait_until_applied(&self, grant: &str) {
        let until = Instant::now() + APPLY;
        let is_in = |name: &&str| {
            let ids: Option<Vec<String>> = fs::read(self.denials.join(name))
                .ok()
                .and_then(|bytes| serde_json::from_slice(&bytes).ok());
            ids.is_some_and(|ids| ids.iter().any(|id| id == grant))
        };
        let is_applied = || [APPLIED_FILE, PUSHES_APPLIED_FILE].iter().any(is_in);
        while !is_applied() && Instant::now() < until {
            sleep(Duration::from_millis(20)).await;
        }
    }

    /// What became of a request, for the agent.
    pub(crate) fn state(&self, id: &str) -> Result<Value, Refusal> {
        let unknown = || Refusal::Unknown("there is no request with this id".to_owned());
        if !request::is_id(id, 'r') {
            return Err(unknown());
        }
        let request: Request = read(&self.requests, id).ok_or_else(unknown)?.0;
        let now = OffsetDateTime::now_utc();
        if let Some((grant, _)) = read::<Grant>(&self.grants, &request::grant_id(id)) {
            return Ok(granted(&request, &grant, now));
        }
        if let Some((answer, _)) = read::<Answer>(&self.answers, id) {
            return Ok(answered(&request, &answer));
        }
        let left = request::time_of(&request.deadline).map(|end| (end - now).whole_seconds());
        if !request.is_late(now) {
            return Ok(json!({
                "id": id, "status": "waiting", "seconds_left": left,
                "message": "nobody has answered yet; ask again with `request_status` or go on with something else",
            }));
        }
        Ok(self.unanswered(&request, now))
    }

    fn unanswered(&self, request: &Request, now: OffsetDateTime) -> Value {
        let fallback = match self.settings.on_timeout {
            OnTimeout::Deny => None,
            OnTimeout::AllowReadonly => read::<Request>(&self.requests, &request.id)
                .and_then(|(_, bytes)| request.readonly_grant(&bytes)),
        };
        match fallback {
            Some(grant) => granted(request, &grant, now),
            None => json!({
                "id": request.id, "status": "expired",
                "message": "nobody answered in time, which means no; nobody may be there: go on without it, or leave a note for the operator",
            }),
        }
    }

    /// The denial with this id; soon after it happened it may not be written down yet.
    pub(super) async fn denial(&self, id: &str) -> Option<Denial> {
        let names = [DENIALS_FILE, OLD_DENIALS_FILE];
        self.line_of(&names, |denial: &Denial| denial.id == id)
            .await
    }

    /// The same for a push that git-gate refused.
    pub(super) async fn push_denial(&self, id: &str) -> Option<PushDenial> {
        self.line_of(&[PUSH_DENIALS_FILE], |denial: &PushDenial| denial.id == id)
            .await
    }

    async fn line_of<T: DeserializeOwned>(
        &self,
        names: &[&str],
        is_it: impl Fn(&T) -> bool,
    ) -> Option<T> {
        let until = Instant::now() + DENIAL_GRACE;
        loop {
            let found = names.iter().find_map(|name| {
                let bytes = fs::read(self.denials.join(name)).ok()?;
                let denials = bytes.split(|&b| b == b'\n').rev();
                denials
                    .filter_map(|line| serde_json::from_slice::<T>(line).ok())
                    .find(|denial| is_it(denial))
            });
            if found.is_some() || Instant::now() >= until {
                return found;
            }
            sleep(Duration::from_millis(20)).await;
        }
    }

    /// What is allowed at the moment.
    pub(super) fn policy(&self) -> Value {
        let now = OffsetDateTime::now_utc();
        let mut grants: Vec<Grant> = ids(&self.grants, 'g')
            .filter_map(|id| Some(read::<Grant>(&self.grants, &id)?.0))
            .filter(|grant| !grant.is_over(now))
            .collect();
        grants.sort_by(|a, b| a.created_at.cmp(&b.created_at));
        let settings = &self.settings;
        json!({
            "routes": settings.routes,
            "grants": grants.iter().map(|grant| scope_of(grant, now)).collect::<Vec<_>>(),
            "repositories": settings.repos,
            "can_be_asked_for": if settings.hosts.is_empty() { json!("any public host") } else { json!(settings.hosts) },
            "answer_within_seconds": settings.timeout,
            "without_an_answer": settings.on_timeout,
            "note": "everything else is refused; credentials are put in by the proxy, never by you",
        })
    }

    /// Every request on file, and whether it still waits.
    fn known(&self, now: OffsetDateTime) -> Vec<(Request, bool)> {
        let mut known: Vec<(Request, bool)> = ids(&self.requests, 'r')
            .filter_map(|id| Some(read::<Request>(&self.requests, &id)?.0))
            .map(|request| {
                let is_answered = self.answers.join(file(&request.id)).exists()
                    || self
                        .grants
                        .join(file(&request::grant_id(&request.id)))
                        .exists();
                let is_open = !is_answered && !request.is_late(now);
                (request, is_open)
            })
            .collect();
        known.sort_by(|(a, _), (b, _)| a.created_at.cmp(&b.created_at));
        known
    }

    fn drop_oldest(&self, known: Vec<(Request, bool)>) {
        let too_many = known.len().saturating_sub(MAX_KEPT - 1);
        let over = known.into_iter().filter(|(_, is_open)| !is_open);
        for (request, _) in over.take(too_many) {
            // It stays a little longer.
            let _ = fs::remove_file(self.requests.join(file(&request.id)));
        }
    }

    fn write(&self, request: &Request) -> io::Result<()> {
        let path = self.requests.join(file(&request.id));
        let new = self.requests.join(format!(".new-{}", request.id));
        let mut text = serde_json::to_vec_pretty(request)?;
        text.push(b'\n');
        let mut out = OpenOptions::new().create_new(true).write(true).open(&new)?;
        let written = out
            .write_all(&text)
            .and_then(|()| out.sync_all())
            .and_then(|()| fs::rename(&new, &path));
        if written.is_err() {
            let _ = fs::remove_file(&new);
        }
        written?;
        fs::File::open(&self.requests)?.sync_all()
    }

    /// Eight letters and digits nobody can guess or has chosen: 40 bits.
    fn new_id(&self) -> Result<String, String> {
        const LETTERS: &[u8; 32] = b"abcdefghijkmnpqrstuvwxyz23456789";
        let mut bytes = [0; 8];
        self.random
            .fill(&mut bytes)
            .map_err(|_| "there is no randomness".to_owned())?;
        let letters = bytes.map(|byte| char::from(LETTERS[usize::from(byte % 32)]));
        Ok(format!("r-{}", letters.iter().collect::<String>()))
    }
}

fn granted(request: &Request, grant: &Grant, now: OffsetDateTime) -> Value {
    let message = if grant.is_over(now) {
        "it was allowed, and that is over"
    } else if grant.by == "timeout" {
        "nobody answered, so reading alone is allowed for a while"
    } else {
        "it is allowed, as `grant` says; do it now"
    };
    json!({"id": request.id, "status": "approved", "message": message, "grant": scope_of(grant, now), "note": grant.note})
}

/// What of a grant is the agent's business.
fn scope_of(grant: &Grant, now: OffsetDateTime) -> Value {
    let mut scope = grant.scope.clone();
    if let Scope::Egress { route } = &mut scope {
        route.auth = None;
        route.private.clear();
    }
    json!({"id": grant.id, "scope": scope, "ends_at": grant.ends_at, "uses": grant.uses, "live": !grant.is_over(now)})
}

fn answered(request: &Request, answer: &Answer) -> Value {
    let (status, message) = match answer.verdict {
        Verdict::Denied => (
            "denied",
            "the operator said no; asking again for the same does not help",
        ),
        Verdict::Answered => ("answered", "the operator's answer is in `text`"),
        Verdict::Closed => ("closed", "the bottle went down before anybody answered"),
    };
    json!({"id": request.id, "status": status, "message": message, "text": answer.text})
}

fn file(id: &str) -> String {
    format!("{id}.json")
}

fn ids(folder: &Path, kind: char) -> impl Iterator<Item = String> {
    let entries = fs::read_dir(folder).into_iter().flatten().flatten();
    entries.filter_map(move |entry| {
        let name = entry.file_name().into_string().ok()?;
        let id = name.strip_suffix(".json")?;
        request::is_id(id, kind).then(|| id.to_owned())
    })
}

/// A document and its bytes.
fn read<T: DeserializeOwned>(folder: &Path, id: &str) -> Option<(T, Vec<u8>)> {
    let path = folder.join(file(id));
    let found = fs::symlink_metadata(&path).ok()?;
    if !found.is_file() || found.len() > MAX_FILE {
        return None;
    }
    let bytes = fs::read(&path).ok()?;
    Some((serde_json::from_slice(&bytes).ok()?, bytes))
}
