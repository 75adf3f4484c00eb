//! Plans one bottle: reads its manifests, reserves its place in the state home, resolves.

use std::fs;
use std::io::ErrorKind;
use std::path::PathBuf;

use ipnet::Ipv4Net;
use time::OffsetDateTime;
use time::format_description::well_known::Rfc3339;

use crate::failure::{Failure, PathContext, Result};
use crate::manifest::load::{self, Manifest, Places};
use crate::manifest::locate;
use crate::plan::Plan;
use crate::resolve::{self, Inputs, Resolved};
use crate::resume::{self, Begin, Past};
use crate::state::{self, METADATA_SCHEMA, Metadata, Origin, StateHome};
use crate::{slug, subnet};

/// A reservation nobody started within a day is somebody who only looked.
const STALE_RESERVATION_HOURS: i64 = 24;

/// What is asked for.
#[derive(Clone, Debug)]
pub struct Request {
    /// Home and working folder.
    pub places: Places,
    /// The user's home directory.
    pub user_home: Option<PathBuf>,
    /// An agent or a bottle, by name.
    pub name: Option<String>,
    /// One self-contained file instead.
    pub file: Option<PathBuf>,
    /// Bottles that replace the agent's own choice.
    pub bottles: Vec<String>,
    /// The slug, when it is not to be random.
    pub slug: Option<String>,
    /// The folder the agent is to work on.
    pub workspace: Option<PathBuf>,
    /// Whether `places.cwd` was asked for, or is only where the user stands.
    pub cwd_given: bool,
    /// Go on from a snapshot.
    pub begin: Option<Begin>,
    /// The block addresses are cut from.
    pub block: Ipv4Net,
}

/// A plan and what the user should know about it.
#[derive(Clone, Debug)]
pub struct Planned {
    /// The plan.
    pub plan: Plan,
    /// Warnings.
    pub warnings: Vec<String>,
}

/// Plans and reserves: afterwards the state folder holds the bottle's address range and built-in files.
///
/// # Errors
/// When a manifest is wrong or the state home cannot be used. Nothing is reserved then.
pub fn plan(request: &Request) -> Result<Planned> {
    match &request.begin {
        Some(begin) => go_on(request, begin),
        None => {
            let manifest = read(request)?;
            plan_in(request, &manifest, None)
        }
    }
}

/// Plans a bottle that begins with a snapshot.
fn go_on(request: &Request, begin: &Begin) -> Result<Planned> {
    let home = StateHome::at(&request.places.home);
    let past = Past::read(&home, begin)?;
    let from = &begin.wanted().slug;
    let (origin, name) = home
        .metadata(from)?
        .map(|m| (m.origin, m.name))
        .unwrap_or_default();
    let mut request = resume::as_before(request, origin.as_ref(), &name);
    match begin {
        Begin::Resume(_) => request.slug = Some(from.clone()),
        Begin::Fork(_) => not_started_yet(&home, request.slug.as_deref())?,
    }
    let manifest = read(&request).map_err(|failure| {
        failure.while_doing(format!("what `{from}` was planned from is not usable here"))
    })?;
    let mut planned = plan_in(&request, &manifest, Some(&past))?;
    planned.warnings.extend(past.warnings(&planned.plan)?);
    Ok(planned)
}

/// A fork must not take the place of a bottle that has a life of its own.
fn not_started_yet(home: &StateHome, slug: Option<&str>) -> Result<()> {
    let Some(slug) = slug else { return Ok(()) };
    match home.metadata(slug)? {
        Some(known) if known.started_at.is_some() => Err(Failure::conflict(format!(
            "there is a bottle `{slug}` already"
        ))
        .hint(format!("another --slug, or bottle-plan --resume {slug}"))),
        _ => Ok(()),
    }
}

fn plan_in(request: &Request, manifest: &Manifest, past: Option<&Past>) -> Result<Planned> {
    let home = StateHome::open(&request.places.home)?;
    // Held while the range is chosen and written down, so that two planners cannot take the same.
    let _lock = home.lock()?;
    drop_stale_reservations(&home);
    let slug = free_slug(request, manifest, &home)?;
    let known = home.metadata(&slug)?;
    let range = match &known {
        Some(metadata) => parse_range(&metadata.subnet)?,
        None => subnet::choose(request.block, &slug, &taken(&home))?,
    };
    let session = past.and_then(|past| past.session.clone());
    let mut resolved = resolve_in(
        request,
        manifest,
        &slug,
        home.folder(&slug)?,
        range,
        session,
    )?;
    resolved.plan.resume = past.and_then(|past| past.resume.clone());
    reserve(&home, request, &resolved, known.is_some(), &range)?;
    Ok(Planned {
        plan: resolved.plan,
        warnings: [manifest.warnings.clone(), resolved.warnings].concat(),
    })
}

/// Checks the manifests and makes the plan they would give, without reserving anything.
///
/// # Errors
/// As [`plan`].
pub fn check(request: &Request) -> Result<Planned> {
    let manifest = read(request)?;
    let home = StateHome::at(&request.places.home);
    let slug = request
        .slug
        .clone()
        .unwrap_or_else(|| format!("{}-check", manifest.name));
    let range = subnet::choose(request.block, &slug, &[])?;
    let resolved = resolve_in(request, &manifest, &slug, home.folder(&slug)?, range, None)?;
    Ok(Planned {
        plan: resolved.plan,
        warnings: [manifest.warnings, resolved.warnings].concat(),
    })
}

fn read(request: &Request) -> Result<Manifest> {
    match (&request.file, &request.name) {
        (Some(file), _) => load::single_file(&request.places, file),
        (None, Some(name)) => load::by_name(&request.places, name, &request.bottles),
        (None, None) => Err(nothing_asked_for(&request.places)),
    }
}

fn nothing_asked_for(places: &Places) -> Failure {
    let names = load::known_names(places);
    let failure = Failure::invalid("no agent or bottle is named");
    if names.is_empty() {
        failure.hint(format!(
            "there is none in {} yet; `bottle init` writes a first one",
            places.home.display()
        ))
    } else {
        failure.hint(format!("there are: {}", names.join(", ")))
    }
}

fn resolve_in(
    request: &Request,
    manifest: &Manifest,
    slug: &str,
    state: PathBuf,
    range: Ipv4Net,
    session: Option<String>,
) -> Result<Resolved> {
    let inputs = Inputs {
        places: &request.places,
        user_home: request.user_home.clone(),
        slug,
        state,
        range,
        session,
        workspace: request.workspace.clone(),
    };
    resolve::resolve(manifest, &inputs).map_err(|failure| {
        // What stands on the command line has no line in a file.
        let is_flag = request.workspace.is_some() && failure.chain().starts_with("workspace");
        if is_flag {
            failure
        } else {
            locate::placed(failure, &manifest.sources)
        }
    })
}

fn free_slug(request: &Request, manifest: &Manifest, home: &StateHome) -> Result<String> {
    if let Some(slug) = &request.slug {
        slug::check(slug)?;
        return Ok(slug.clone());
    }
    // Five characters of base36 meet by chance once in sixty million; a second try is enough for ever.
    for _ in 0..16 {
        let slug = slug::random(&manifest.name)?;
        if !home.folder(&slug)?.exists() {
            return Ok(slug);
        }
    }
    Err(Failure::failed("found no free slug").hint("give one with --slug"))
}

/// Ranges that are not to be had: what the host routes, and what bottles of this home have reserved.
#[must_use]
pub fn taken(home: &StateHome) -> Vec<Ipv4Net> {
    let mut taken = subnet::host_routes();
    taken.extend(
        home.bottles()
            .iter()
            .filter_map(|bottle| bottle.subnet.parse::<Ipv4Net>().ok()),
    );
    taken
}

fn parse_range(text: &str) -> Result<Ipv4Net> {
    text.parse().map_err(|error| {
        Failure::failed(format!("the reserved range `{text}` cannot be read")).because(error)
    })
}

fn reserve(
    home: &StateHome,
    request: &Request,
    resolved: &Resolved,
    known: bool,
    range: &Ipv4Net,
) -> Result<()> {
    let plan = &resolved.plan;
    let folder = home.folder(&plan.slug)?;
    let written = write_reservation(plan, request, resolved, known, range);
    if written.is_err() && !known {
        // Half a reservation would hold the range for ever.
        let _ = fs::remove_dir_all(&folder);
    }
    written
}

fn write_reservation(
    plan: &Plan,
    request: &Request,
    resolved: &Resolved,
    known: bool,
    range: &Ipv4Net,
) -> Result<()> {
    state::private_dir(&plan.state)?;
    for file in &resolved.files {
        if let Some(folder) = file.path.parent() {
            state::private_dir(folder)?;
        }
        if fs::read(&file.path).ok().as_deref() != Some(file.text.as_bytes()) {
            state::write_atomic(&file.path, file.text.as_bytes(), 0o600)?;
        }
    }
    if known {
        return Ok(());
    }
    let metadata = new_metadata(&plan.slug, &plan.agent.name, range, Some(origin(request)))?;
    state::write_atomic(
        &plan.state.join("metadata.json"),
        state::to_json(&metadata)?.as_bytes(),
        0o600,
    )
}

/// Reserves a place for a bottle that comes from another host.
///
/// # Errors
/// Conflict, when there is a bottle of that name; failed, when the state home cannot be used.
pub fn reserve_for_import(home: &StateHome, slug: &str, name: &str) -> Result<()> {
    let folder = home.folder(slug)?;
    let block = std::env::var("BOTTLE_SUBNETS");
    let block = subnet::parse_block(block.as_deref().unwrap_or(subnet::DEFAULT_BLOCK))?;
    state::private_dir(home.path())?;
    let _lock = home.lock()?;
    if folder.exists() {
        return Err(
            Failure::conflict(format!("there is a bottle `{slug}` already"))
                .hint("give the one that comes another name: --slug NAME"),
        );
    }
    let range = subnet::choose(block, slug, &taken(home))?;
    state::private_dir(&folder)?;
    let written = new_metadata(slug, name, &range, None).and_then(|metadata| {
        let text = state::to_json(&metadata)?;
        state::write_atomic(&folder.join("metadata.json"), text.as_bytes(), 0o600)
    });
    if written.is_err() {
        // Half a reservation would hold the range for ever.
        let _ = fs::remove_dir_all(&folder);
    }
    written
}

fn new_metadata(
    slug: &str,
    name: &str,
    range: &Ipv4Net,
    origin: Option<Origin>,
) -> Result<Metadata> {
    let created_at = OffsetDateTime::now_utc()
        .format(&Rfc3339)
        .map_err(|error| Failure::failed("the clock gives no date").because(error))?;
    Ok(Metadata {
        schema: METADATA_SCHEMA.to_owned(),
        slug: slug.to_owned(),
        name: name.to_owned(),
        subnet: range.to_string(),
        created_at,
        started_at: None,
        stopped_at: None,
        plan_digest: None,
        audit_head: None,
        preserved: false,
        origin,
    })
}

fn origin(request: &Request) -> Origin {
    let absolute = |path: &PathBuf| std::path::absolute(path).unwrap_or_else(|_| path.clone());
    Origin {
        manifest: request.file.as_ref().map(absolute),
        bottles: request.bottles.clone(),
        cwd: request.places.cwd.clone(),
        workspace: request.workspace.clone(),
    }
}

/// `bottle-plan X | less` reserves too; what was never started goes away by itself. The caller holds the home's lock.
pub fn drop_stale_reservations(home: &StateHome) {
    let old = |metadata: &Metadata| {
        let created = OffsetDateTime::parse(&metadata.created_at, &Rfc3339).ok();
        created.is_some_and(|at| {
            (OffsetDateTime::now_utc() - at).whole_hours() >= STALE_RESERVATION_HOURS
        })
    };
    for metadata in home
        .bottles()
        .iter()
        .filter(|m| m.started_at.is_none() && old(m))
    {
        let Ok(folder) = home.folder(&metadata.slug) else {
            continue;
        };
        // A lock file means that a runner has been here: then it is not only a reservation.
        if !folder.join("lock").exists() {
            let _ = fs::remove_dir_all(folder);
        }
    }
}

/// The state folder of a bottle, removed with everything in it. Whoever may share it holds its lock: what says that there
/// is a bottle goes last but one, and the lock last. Gone earlier, it would let an `up` begin in what is being removed.
///
/// # Errors
/// When something in it cannot be removed.
pub fn release(home: &StateHome, slug: &str) -> Result<()> {
    const LAST: [&str; 2] = ["metadata.json", "lock"];
    let folder = home.folder(slug)?;
    match fs::symlink_metadata(&folder) {
        Err(error) if error.kind() == ErrorKind::NotFound => return Ok(()),
        Ok(found) if found.is_dir() => {}
        // A link is removed, and what it leads to is not.
        found => {
            return found
                .and_then(|_| fs::remove_file(&folder))
                .at("remove", &folder);
        }
    }
    for entry in fs::read_dir(&folder).at("read", &folder)? {
        let entry = entry.at("read", &folder)?;
        if LAST.iter().all(|name| entry.file_name() != *name) {
            let path = entry.path();
            let removed = match entry.file_type() {
                Ok(kind) if kind.is_dir() => fs::remove_dir_all(&path),
                _ => fs::remove_file(&path),
            };
            removed.or_else(gone_is_done).at("remove", &path)?;
        }
    }
    for path in LAST.map(|name| folder.join(name)) {
        fs::remove_file(&path)
            .or_else(gone_is_done)
            .at("remove", &path)?;
    }
    match fs::remove_dir(&folder) {
        // Somebody began in it anew, as soon as the lock was gone.
        Err(error) if error.kind() == ErrorKind::DirectoryNotEmpty => Ok(()),
        removed => removed.or_else(gone_is_done).at("remove", &folder),
    }
}

fn gone_is_done(error: std::io::Error) -> std::io::Result<()> {
    match error.kind() {
        ErrorKind::NotFound => Ok(()),
        _ => Err(error),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn request(root: &std::path::Path, slug: Option<&str>) -> Request {
        fs::create_dir_all(root.join("home/bottles")).expect("mkdir");
        fs::write(
            root.join("home/bottles/web.yaml"),
            "image: debian:trixie-slim\n",
        )
        .expect("write");
        Request {
            places: Places {
                home: root.join("home"),
                cwd: root.join("repo"),
            },
            user_home: None,
            name: Some("web".into()),
            file: None,
            bottles: vec![],
            slug: slug.map(str::to_owned),
            workspace: None,
            cwd_given: false,
            begin: None,
            block: subnet::parse_block(subnet::DEFAULT_BLOCK).expect("valid"),
        }
    }

    #[test]
    fn the_same_slug_gives_the_same_bytes_and_another_slug_the_same_digest() {
        let root = tempfile::tempdir().expect("temp dir");
        let one = plan(&request(root.path(), Some("a"))).expect("plans").plan;
        let again = plan(&request(root.path(), Some("a"))).expect("plans").plan;
        let other = plan(&request(root.path(), Some("b"))).expect("plans").plan;
        assert_eq!(
            state::to_json(&one).expect("json"),
            state::to_json(&again).expect("json")
        );
        assert_eq!(one.digest, other.digest);
        assert_ne!(one.networks, other.networks);
    }

    #[test]
    fn a_failed_plan_reserves_nothing() {
        let root = tempfile::tempdir().expect("temp dir");
        let request = request(root.path(), Some("a"));
        fs::write(
            root.path().join("home/bottles/web.yaml"),
            "env: {HTTP_PROXY: x}\nimage: y\n",
        )
        .expect("write");
        plan(&request).expect_err("refused");
        assert!(!root.path().join("home/state/a").exists());
    }

    #[test]
    fn planners_at_the_same_time_get_different_ranges() {
        let root = tempfile::tempdir().expect("temp dir");
        let base = request(root.path(), None);
        let mut ranges: Vec<_> = std::thread::scope(|scope| {
            let threads: Vec<_> = (0..16)
                .map(|_| scope.spawn(|| plan(&base).expect("plans").plan.networks.internal.subnet))
                .collect();
            threads
                .into_iter()
                .map(|t| t.join().expect("no panic"))
                .collect()
        });
        ranges.sort();
        ranges.dedup();
        assert_eq!(ranges.len(), 16);
    }

    #[test]
    fn what_was_only_looked_at_goes_away_after_a_day() {
        let root = tempfile::tempdir().expect("temp dir");
        plan(&request(root.path(), Some("old"))).expect("plans");
        let file = root.path().join("home/state/old/metadata.json");
        let text = fs::read_to_string(&file).expect("reads");
        let mut metadata: Metadata = serde_json::from_str(&text).expect("valid");
        metadata.created_at = "2020-01-01T00:00:00Z".into();
        fs::write(&file, state::to_json(&metadata).expect("json")).expect("write");
        plan(&request(root.path(), Some("new"))).expect("plans");
        assert!(!root.path().join("home/state/old").exists());
        assert!(root.path().join("home/state/new").exists());
    }
}
