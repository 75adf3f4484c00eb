//! The folders between the operator and the sidecars: made at `up`, closed at `down`.

use std::fs::{self, File, Permissions};
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;

use bottle_plan::failure::{PathContext as _, Result};
use bottle_plan::granted;
use bottle_plan::plan::Plan;
use bottle_plan::request::{self, ANSWER_SCHEMA, Answer, Ended, Request, Verdict};
use bottle_plan::state::{open_lock_file, private_dir, to_json, write_atomic};
use bottle_plan::supervise::{Repo, SUPERVISE_SCHEMA, Settings};
use nix::unistd::geteuid;
use time::OffsetDateTime;

use crate::files::{give, user};

/// What the sidecars read of ours: not theirs to change, and nothing in it is secret. The state folder around it is 0700.
pub(super) const READABLE: u32 = 0o644;

/// Makes the folders, and ends what an earlier run of the bottle left open.
///
/// # Errors
/// When something cannot be written.
pub fn write(plan: &Plan) -> Result<()> {
    let Some(supervise) = &plan.supervise else {
        return Ok(());
    };
    let state = &plan.state;
    let folder = state.join("supervise");
    private_dir(&folder)?;
    passable(&folder)?;
    for ours in [
        folder.join("config"),
        folder.join("answers"),
        state.join("grants"),
    ] {
        private_dir(&ours)?;
        fs::set_permissions(&ours, Permissions::from_mode(0o755)).at("set the mode of", &ours)?;
    }
    let (uid, gid) = user(&plan.sidecar.user)?;
    for theirs in [folder.join("requests"), folder.join("denials")] {
        if !theirs.exists() {
            private_dir(&theirs)?;
        }
        if geteuid().is_root() {
            give(&theirs, uid, gid)?;
        }
    }
    end_all(state, "up")?;
    let mut routes = plan.egress.routes.clone();
    for route in &mut routes {
        route.auth = None;
        route.private.clear();
        route.source = None;
    }
    let settings = Settings {
        schema: SUPERVISE_SCHEMA.to_owned(),
        bottle: plan.slug.clone(),
        plan_digest: plan.digest.clone(),
        listen: plan.seen_by_agent().supervise.into(),
        port: supervise.port,
        timeout: supervise.timeout,
        on_timeout: supervise.on_timeout,
        hosts: supervise.hosts.clone(),
        routes,
        repos: repos(plan),
    };
    write_atomic(
        &folder.join("config/supervise.json"),
        to_json(&settings)?.as_bytes(),
        READABLE,
    )
}

fn repos(plan: &Plan) -> Vec<Repo> {
    let repos = plan.git_gate.iter().flat_map(|gate| &gate.repos);
    repos
        .map(|repo| Repo {
            name: repo.name.clone(),
            refs: repo.refs.clone(),
        })
        .collect()
}

fn passable(folder: &Path) -> Result<()> {
    fs::set_permissions(folder, Permissions::from_mode(0o711)).at("set the mode of", folder)
}

/// Ends every grant and closes every request: they belong to one run of a bottle.
///
/// # Errors
/// When something cannot be written.
pub fn end_all(state: &Path, by: &str) -> Result<()> {
    let folder = state.join("supervise");
    if !folder.is_dir() {
        return Ok(());
    }
    let _lock = lock(state)?;
    let now = OffsetDateTime::now_utc();
    for granted in granted::grants(state) {
        let mut grant = granted.grant;
        if grant.is_over(now) {
            continue;
        }
        grant.ended = Some(Ended {
            by: by.to_owned(),
            at: request::text_of(now),
        });
        let path = state.join("grants").join(format!("{}.json", grant.id));
        write_atomic(&path, to_json(&grant)?.as_bytes(), READABLE)?;
    }
    let answers = folder.join("answers");
    for id in granted::ids(&folder.join("requests"), 'r') {
        let Some((asked, bytes)) = granted::read::<Request>(&folder.join("requests"), &id) else {
            continue;
        };
        let path = answers.join(format!("{id}.json"));
        let grant = state
            .join("grants")
            .join(format!("{}.json", request::grant_id(&id)));
        if asked.is_late(now) || path.exists() || grant.exists() {
            continue;
        }
        let answer = Answer {
            schema: ANSWER_SCHEMA.to_owned(),
            request: id,
            request_sha256: bottle_plan::audit::hash(&bytes),
            verdict: Verdict::Closed,
            text: None,
            by: by.to_owned(),
            at: request::text_of(now),
        };
        write_atomic(&path, to_json(&answer)?.as_bytes(), READABLE)?;
    }
    Ok(())
}

/// The lock under which requests are decided. Not the bottle's own: that one is held for as long as `up` takes.
pub(super) fn lock(state: &Path) -> Result<File> {
    let path = state.join("supervise/lock");
    let file = open_lock_file(&path)?;
    file.lock().at("lock", &path)?;
    Ok(file)
}
