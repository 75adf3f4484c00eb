//! Commit: an agent's container becomes an image, and the image a snapshot once it is proved that no secret is in it.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::Arc;
use std::thread;

use bottle_plan::explain::counted;
use bottle_plan::failure::{Failure, Result};
use bottle_plan::handle::Containers;
use bottle_plan::plan::Plan;
use bottle_plan::resume::SNAPSHOTS_FOLDER;
use bottle_plan::snapshot::{Changes, Parent, Proof, SNAPSHOT_SCHEMA, Snapshot, Snapshots};
use bottle_plan::state;
use bottle_run::bottle::Home;
use bottle_run::engine::{Engine, at_once};
use bottle_run::interrupt;

use crate::engine::{self, Container, Image};
use crate::fingerprint::Fingerprints;
use crate::image;
use crate::journal::{JOURNAL_SCHEMA, Journal};
use crate::needles::Needles;
use crate::proof::{self, Effort, Parts, now};
use crate::recover::{self, mark_preserved, remove_folder, sweep, thaw};
use crate::scan::{self, folder};
use crate::squash;
use crate::values::{self, Choice, Collected, Known};

/// What is asked for.
#[derive(Clone, Debug)]
pub struct Request<'a> {
    /// The home the bottle is in.
    pub home: &'a Home,
    /// The bottle.
    pub slug: &'a str,
    /// What the user says about the snapshot.
    pub message: Option<String>,
    /// Make all layers one.
    pub squash: bool,
    /// Let the agent go on meanwhile: files that it writes just then may be in it by half.
    pub no_pause: bool,
    /// What the user says about values.
    pub choice: Choice,
}

/// Freezes a bottle. Whatever goes wrong, the agent goes on and no image is left.
///
/// # Errors
/// Not found, when its agent is not there; refused, when a secret is inside; invalid, when a value to look for is not to
/// be had; failed otherwise.
pub fn commit(engine: &Engine, request: &Request<'_>, say: &dyn Fn(&str)) -> Result<Snapshot> {
    let slug = request.slug;
    let folder = request.home.state.folder(slug)?;
    // Of a bottle that is not there, there is no lock either.
    request.home.plan(slug)?;
    let _lock = recover::wait_for_lock(&folder, slug, say)?;
    if Journal::read(&folder)?.is_some() {
        engine::check_can_commit(engine)?;
        recover::recover(engine, request.home, slug, say)?;
    }
    // There is nothing to sweep where no journal is, and a list of all images takes longer than a small commit. The plan
    // is read once more: whoever had the lock may have started the bottle anew, with other secrets.
    let ready = Ready::look(engine, request, request.home.plan(slug)?)?;
    let journal = Journal {
        schema: JOURNAL_SCHEMA.to_owned(),
        id: image::new_id()?,
        number: ready.snapshots.next,
        container: ready.container.id.clone(),
        pauses: !request.no_pause && !ready.container.state.paused,
        imported: None,
        names: Vec::new(),
    };
    interrupt::check()?;
    journal.write(&folder)?;
    let made = make(engine, request, &ready, &journal, say);
    match made {
        Ok(snapshot) => {
            Journal::close(&folder)?;
            Ok(snapshot)
        }
        Err(failure) => Err(undo(engine, request, &journal, failure, say)),
    }
}

/// What is known before anything is made.
struct Ready {
    plan: Plan,
    container: Container,
    /// What the container was started from.
    from: Image,
    snapshots: Snapshots,
    collected: Collected,
    needles: Arc<Needles>,
    lineage: Lineage,
    fingerprints: Fingerprints,
}

/// Where the container comes from.
#[derive(Clone)]
struct Lineage {
    parent: Option<Parent>,
    base_layers: usize,
    /// Layers above the base that are proved to hold none of these values.
    proven_layers: usize,
}

impl Ready {
    /// Asks everything at once: each question takes the engine's client longer than the engine.
    fn look(engine: &Engine, request: &Request<'_>, plan: Plan) -> Result<Self> {
        let snapshots = Snapshots::read(&request.home.state, request.slug)?;
        let tag = image::tag(request.slug, snapshots.next);
        let names = Containers::of(&plan);
        let from = likely_image(&plan);
        let mut containers = vec![names.agent.as_str()];
        containers.extend(values::egress_has_some(&plan).then_some(names.egress.as_str()));
        let (of_engine, of_bottle) = at_once(
            || {
                at_once(
                    || engine::check_can_commit(engine),
                    || engine::two_images(engine, [from, &tag]),
                )
            },
            || {
                at_once(
                    || engine::containers(engine, &containers),
                    || values::given(engine, &plan),
                )
            },
        )?;
        let ((able, images), (containers, given)) = (of_engine?, of_bottle?);
        able?;
        let (mut images, mut containers) = (images?, containers?);
        let mut take = |name: &str| {
            let at = containers.iter().position(|one| one.is(name))?;
            Some(containers.swap_remove(at))
        };
        let container = take(&names.agent)
            .filter(|container| {
                let labels = container.config.labels.as_ref();
                labels.and_then(|labels| labels.get("bottle.home")) == Some(&request.home.label)
            })
            .ok_or_else(|| not_there(request.slug, &plan))?;
        let egress = take(&names.egress).map(|mut egress| egress.take_environment());
        let known = Known {
            egress: egress.unwrap_or_default(),
            agent: given?,
        };
        let collected = values::collect_from(&plan, &request.choice, &known)?;
        if !images.missing[1] {
            return Err(foreign_tag(&tag));
        }
        images.found.retain(|image| image.id == container.image);
        let from = match images.found.pop() {
            Some(image) => image,
            None => image_of(engine, &container)?,
        };
        let fingerprints = Fingerprints::open(request.home, request.slug)?;
        let needles = Arc::new(Needles::new(&collected.values)?);
        let lineage = lineage(request.home, &from, &collected)?;
        Ok(Self {
            plan,
            container,
            from,
            snapshots,
            collected,
            needles,
            lineage,
            fingerprints,
        })
    }
}

/// What the agent's container was most likely made from. That it was is for its id to say; a name may be another image's
/// by now.
fn likely_image(plan: &Plan) -> &str {
    let resumed = plan
        .resume
        .as_ref()
        .and_then(|resume| resume.images.first());
    resumed.map_or(plan.agent.image.reference.as_str(), |image| &image.image)
}

fn image_of(engine: &Engine, container: &Container) -> Result<Image> {
    let found = engine::image(engine, &container.image)?;
    found.map(|(image, _)| image).ok_or_else(|| {
        Failure::failed("the image of the agent's container is gone from the engine")
    })
}

fn not_there(slug: &str, plan: &Plan) -> Failure {
    Failure::not_found(format!("the bottle `{slug}` is not running")).hint(format!(
        "bottle-plan {} --slug {slug} | bottle-render | bottle-run up",
        plan.agent.name
    ))
}

/// What the labels of the container's image say: they are the engine's, and no agent writes them.
fn lineage(home: &Home, from: &Image, collected: &Collected) -> Result<Lineage> {
    let layers = from.root_fs.layers.len();
    let Some(parent) = image::snapshot_of(from) else {
        return Ok(Lineage {
            parent: None,
            base_layers: layers,
            proven_layers: 0,
        });
    };
    let base_layers = from
        .label(image::BASE_LAYERS)
        .and_then(|text| text.parse().ok())
        .unwrap_or(0)
        .min(layers);
    let covered = Fingerprints::cover(home, &parent, &collected.values)?;
    Ok(Lineage {
        parent: Some(parent),
        base_layers,
        proven_layers: if covered { layers - base_layers } else { 0 },
    })
}

fn make(
    engine: &Engine,
    request: &Request<'_>,
    ready: &Ready,
    journal: &Journal,
    say: &dyn Fn(&str),
) -> Result<Snapshot> {
    say(&format!("freezing `{}`", request.slug));
    let created_at = now()?;
    let labels = labels(request, ready, journal, &created_at);
    let (image, told) = freeze(engine, request, ready, &labels)?;
    interrupt::check()?;
    let (image, lineage) = if request.squash {
        say("making all layers one");
        // One layer, and all of it is new: nothing of it was proved as it is now.
        let lineage = Lineage {
            base_layers: 0,
            proven_layers: 0,
            ..ready.lineage.clone()
        };
        let squashed = squash::squash(engine, &image, &ready.from, &labels)?;
        (squashed, lineage)
    } else {
        (image, ready.lineage.clone())
    };
    let secrets = counted(proof::count(&ready.needles) as u64, "secret");
    say(&format!("searching it for {secrets}"));
    let Searched {
        found,
        proof,
        changes,
    } = search(engine, ready, &image, &lineage, told)?;
    interrupt::check()?;
    let snapshot = Snapshot {
        schema: SNAPSHOT_SCHEMA.to_owned(),
        id: journal.id.clone(),
        slug: request.slug.to_owned(),
        number: journal.number,
        image: found.id.clone(),
        tag: image::tag(request.slug, journal.number),
        created_at,
        message: request.message.clone(),
        agent: ready.plan.agent.name.clone(),
        plan_digest: ready.plan.digest.clone(),
        parent: lineage.parent,
        layers: found.root_fs.layers.clone(),
        base_layers: lineage.base_layers,
        size: found.size,
        added: found.size.saturating_sub(ready.from.size),
        changes,
        squashed: request.squash,
        proof,
    };
    record(engine, request, ready, &snapshot)?;
    Ok(snapshot)
}

/// What a look at the new image came to.
struct Searched {
    found: Image,
    proof: Proof,
    changes: Changes,
}

/// Proves that no value is in the image. `told` is what it changes, when the engine has said it already.
fn search(
    engine: &Engine,
    ready: &Ready,
    image: &str,
    lineage: &Lineage,
    told: Option<Changes>,
) -> Result<Searched> {
    // The history is asked for beside all the rest: it takes as long as the engine's client takes to start.
    thread::scope(|scope| {
        let history = scope.spawn(|| engine::history(engine, image));
        let (found, text) = engine::image(engine, image)?
            .ok_or_else(|| Failure::failed("the engine lost the image it made"))?;
        let parts = Parts {
            image: &found,
            text: &text,
            base_layers: lineage.base_layers,
            proven_layers: lineage.proven_layers,
        };
        let (changes, proof) = at_once(
            || match told {
                Some(changes) => Ok(changes),
                None => scan::changes::of(&found)
                    .unwrap_or_else(|| changes(engine, &ready.container.id)),
            },
            || {
                let (needles, collected) = (&ready.needles, &ready.collected);
                proof::prove(engine, needles, collected, &parts, Effort::New, || {
                    let told = history.join();
                    told.unwrap_or_else(|_| Err(Failure::failed("a thread panicked")))
                })
            },
        )?;
        let (proof, changes) = (proof?, changes?);
        Ok(Searched {
            found,
            proof,
            changes,
        })
    })
}

fn labels(
    request: &Request<'_>,
    ready: &Ready,
    journal: &Journal,
    created_at: &str,
) -> BTreeMap<&'static str, String> {
    let base_layers = if request.squash {
        0
    } else {
        ready.lineage.base_layers
    };
    let parent = ready.lineage.parent.as_ref();
    BTreeMap::from([
        (image::ID, journal.id.clone()),
        (image::SLUG, request.slug.to_owned()),
        (image::NUMBER, journal.number.to_string()),
        (image::BASE_LAYERS, base_layers.to_string()),
        (image::PLAN, ready.plan.digest.clone()),
        (
            image::PARENT,
            parent.map(|parent| parent.id.clone()).unwrap_or_default(),
        ),
        (image::CREATED, created_at.to_owned()),
        ("bottle.home", request.home.label.clone()),
    ])
}

/// The commit itself, and beside it what it changes, where only the engine can say that. The engine thaws the agent again
/// when it is done, also when we are not there any more.
fn freeze(
    engine: &Engine,
    request: &Request<'_>,
    ready: &Ready,
    labels: &BTreeMap<&'static str, String>,
) -> Result<(String, Option<Changes>)> {
    let mut call = engine
        .call(["container", "commit"])
        .arg(format!("--pause={}", !request.no_pause));
    for (name, value) in labels {
        call = call.arg(format!("--change=LABEL {name}=\"{value}\""));
    }
    if let Some(message) = &request.message {
        call = call.arg(format!("--message={message}"));
    }
    let id = ready.container.id.as_str();
    // All of a squashed image is one layer, which shows no change any more.
    let is_seen_later = !request.squash && folder::of(&ready.from).is_some();
    let (committed, changes) = at_once(
        || call.args(["--", id]).unlimited().run(),
        || match is_seen_later {
            true => Ok(None),
            false => changes(engine, id).map(Some),
        },
    )?;
    let committed = committed.map_err(|failure| failure.while_doing("freezing the agent"))?;
    Ok((committed.text(), changes?))
}

fn changes(engine: &Engine, container: &str) -> Result<Changes> {
    let output = engine
        .call(["container", "diff", "--", container])
        .unlimited()
        .run()?;
    let mut changes = Changes::default();
    for line in output.stdout.split(|byte| *byte == b'\n') {
        match line.first() {
            Some(b'A') => changes.added += 1,
            Some(b'C') => changes.changed += 1,
            Some(b'D') => changes.deleted += 1,
            _ => {}
        }
    }
    Ok(changes)
}

/// The names and the documents, then the record: what is recorded is there.
fn record(
    engine: &Engine,
    request: &Request<'_>,
    ready: &Ready,
    snapshot: &Snapshot,
) -> Result<()> {
    let slug = request.slug;
    let latest = image::latest(slug);
    let (named, written) = at_once(
        || {
            at_once(
                || engine::tag(engine, &snapshot.image, &snapshot.tag),
                || engine::tag(engine, &snapshot.image, &latest),
            )
        },
        || write_documents(request, ready, snapshot),
    )?;
    let (tagged, is_latest) = named?;
    tagged.and(is_latest).and(written)?;
    interrupt::check()?;
    let mut snapshots = ready.snapshots.clone();
    snapshots.next = snapshot.number.saturating_add(1);
    snapshots.snapshots.push(snapshot.clone());
    snapshots.write(&request.home.state, slug)
}

fn write_documents(request: &Request<'_>, ready: &Ready, snapshot: &Snapshot) -> Result<()> {
    let folder = documents(request.home, snapshot)?;
    let plan = state::to_json(&ready.plan)?;
    state::write_atomic(&folder.join("plan.json"), plan.as_bytes(), 0o600)?;
    ready
        .fingerprints
        .write(&folder, &snapshot.id, &ready.collected.values)?;
    // Before it is recorded: a `down --purge` in between would take the record along and leave the image.
    mark_preserved(request.home, &snapshot.slug, true)
}

/// The folder of a snapshot's documents, made when it is not there.
///
/// # Errors
/// When it cannot be made.
pub fn documents(home: &Home, snapshot: &Snapshot) -> Result<PathBuf> {
    let folder = home.state.folder(&snapshot.slug)?.join(SNAPSHOTS_FOLDER);
    state::private_dir(&folder)?;
    let folder = folder.join(snapshot.number.to_string());
    state::private_dir(&folder)?;
    Ok(folder)
}

/// Names are shared by all homes of an engine: a snapshot of somebody else keeps its own.
fn foreign_tag(tag: &str) -> Failure {
    Failure::conflict(format!("the engine has another image named {tag}"))
        .hint(format!("if nobody needs it: docker image rm {tag}"))
}

/// Removes what was made. The signal or the failure that led here must not keep it from being done.
fn undo(
    engine: &Engine,
    request: &Request<'_>,
    journal: &Journal,
    failure: Failure,
    say: &dyn Fn(&str),
) -> Failure {
    interrupt::clear();
    let undone = undo_all(engine, request, journal, say);
    match undone {
        Ok(()) => failure,
        Err(more) => Failure::new(
            failure.kind(),
            format!("{}; and undoing it: {}", failure.chain(), more.chain()),
        )
        .hint("bottle-snapshot gc tries again"),
    }
}

fn undo_all(
    engine: &Engine,
    request: &Request<'_>,
    journal: &Journal,
    say: &dyn Fn(&str),
) -> Result<()> {
    let folder = request.home.state.folder(request.slug)?;
    thaw(engine, journal, say)?;
    let snapshots = Snapshots::read(&request.home.state, request.slug)?;
    if snapshots.snapshots.iter().any(|one| one.id == journal.id) {
        // It is recorded: the next command does what is left.
        return Ok(());
    }
    recover::remove_named(engine, request.slug, journal, &snapshots)?;
    sweep(engine, request.home, request.slug)?;
    remove_folder(&folder, journal.number)?;
    mark_preserved(request.home, request.slug, !snapshots.snapshots.is_empty())?;
    Journal::close(&folder)
}
