//! Import: a snapshot of another host becomes one of this host.
//!
//! Nothing of the file is trusted. What is handed to the engine is an archive of our own making, whose parts have the
//! digests the file's own document names, and whose table of contents comes last: when a part is wrong, the engine has
//! not been told of any image. The file brings no authority either: what the bottle may do is decided by the manifests of
//! the host it lands on.

use std::collections::BTreeMap;
use std::io::{self, BufRead as _, BufReader, BufWriter, Read, Write};
use std::sync::mpsc;
use std::thread;

use bottle_plan::failure::{Failure, Kind, Result};
use bottle_plan::plan::{PLAN_SCHEMA, Plan};
use bottle_plan::planner;
use bottle_plan::snapshot::{SNAPSHOT_SCHEMA, Snapshot, Snapshots};
use bottle_plan::{slug, state};
use bottle_run::bottle::Home;
use bottle_run::engine::Engine;
use bottle_run::interrupt;
use bottle_run::lock::BottleLock;
use sha2::{Digest as _, Sha256};
use time::OffsetDateTime;
use time::format_description::well_known::Rfc3339;

use crate::commit::documents;
use crate::engine;
use crate::export::{PLAN_ENTRY, SNAPSHOT_ENTRY, append, append_from, blob, docker_manifest};
use crate::image;
use crate::journal::Journal;
use crate::recover::{self, mark_preserved};
use crate::scan::BUFFER;

/// Documents are far smaller.
pub(crate) const MAX_DOCUMENT: u64 = 16 << 20;

/// What is asked for.
#[derive(Clone, Debug)]
pub struct Request<'a> {
    /// The home it goes into.
    pub home: &'a Home,
    /// Another name for the bottle.
    pub slug: Option<String>,
    /// More bytes than this are not unpacked.
    pub max_bytes: u64,
}

/// Takes a snapshot in.
///
/// # Errors
/// Invalid, when the file is not what `export` writes; refused, when a digest is wrong or it is too large; conflict, when
/// there is a bottle of that name.
pub fn import(
    engine: &Engine,
    request: &Request<'_>,
    file: impl Read,
    say: &dyn Fn(&str),
) -> Result<Snapshot> {
    engine::check_can_commit(engine)?;
    let mut archive = tar::Archive::new(Limited::open(file, request.max_bytes)?);
    let mut entries = archive.entries().map_err(cannot_read)?;
    let snapshot = document(entries.next(), SNAPSHOT_ENTRY)?;
    let plan = document(entries.next(), PLAN_ENTRY)?;
    let documents = parse(Some(snapshot), Some(plan))?;
    take_in(engine, request, documents, Vec::new(), say, |snapshot| {
        load(engine, entries, snapshot)
    })
}

/// What comes with an image, read and not yet trusted.
#[derive(Debug)]
pub(crate) struct Documents {
    pub(crate) snapshot: Snapshot,
    pub(crate) plan: Plan,
}

/// Reads both documents.
pub(crate) fn parse(snapshot: Option<Vec<u8>>, plan: Option<Vec<u8>>) -> Result<Documents> {
    fn read<T: for<'a> serde::Deserialize<'a>>(
        bytes: Option<Vec<u8>>,
        name: &str,
        schema: &str,
    ) -> Result<T> {
        let bytes = bytes.ok_or_else(|| not_ours(&format!("{name} is not in it")))?;
        state::parse_document(&bytes, schema)
            .map_err(|failure| failure.while_doing(format!("reading {name}")))
    }
    Ok(Documents {
        snapshot: read(snapshot, SNAPSHOT_ENTRY, SNAPSHOT_SCHEMA)?,
        plan: read(plan, PLAN_ENTRY, PLAN_SCHEMA)?,
    })
}

/// Makes a bottle of `documents` and the image that `fetch` brings into the engine, or leaves nothing. `names` are taken
/// away from images at the end.
pub(crate) fn take_in(
    engine: &Engine,
    request: &Request<'_>,
    documents: Documents,
    names: Vec<String>,
    say: &dyn Fn(&str),
    fetch: impl FnOnce(&Snapshot) -> Result<()>,
) -> Result<Snapshot> {
    let snapshot = checked(documents.snapshot, request.slug.as_deref())?;
    let slug = snapshot.slug.clone();
    planner::reserve_for_import(&request.home.state, &slug, &snapshot.agent)?;
    let folder = request.home.state.folder(&slug)?;
    let journal = Journal {
        imported: Some(snapshot.image.clone()),
        ..Journal::of(&snapshot, names)
    };
    // First of all, so that whoever finds the folder knows what it is for.
    journal.write(&folder)?;
    let _lock = BottleLock::take(&folder, &slug)?;
    say(&format!("taking in {slug}@{}", snapshot.number));
    let taken = interrupt::check()
        .and_then(|()| fetch(&snapshot))
        .and_then(|()| record(engine, request.home, &snapshot, &documents.plan))
        .and_then(|()| journal.remove_names(engine));
    match taken {
        Ok(()) => {
            Journal::close(&folder)?;
            say(
                "its proof is the other host's word; `bottle-snapshot verify` repeats it where the values are",
            );
            Ok(snapshot)
        }
        Err(failure) => Err(undo(engine, request.home, &slug, failure)),
    }
}

/// What an import made is removed: the image, unless somebody gave it a name, and the bottle's folder.
fn undo(engine: &Engine, home: &Home, slug: &str, failure: Failure) -> Failure {
    interrupt::clear();
    match recover::recover(engine, home, slug, &|_| {}) {
        Ok(_) => failure,
        Err(more) => Failure::new(
            failure.kind(),
            format!("{}; and undoing it: {}", failure.chain(), more.chain()),
        )
        .hint("bottle-snapshot gc tries again"),
    }
}

/// What a document of a stranger may say: nothing that becomes a path or a name here is taken as it is.
fn checked(mut snapshot: Snapshot, slug: Option<&str>) -> Result<Snapshot> {
    if let Some(slug) = slug {
        slug.clone_into(&mut snapshot.slug);
    }
    slug::check(&snapshot.slug)?;
    let is_digest = |text: &String| {
        text.strip_prefix("sha256:").is_some_and(|hex| {
            hex.len() == 64
                && hex
                    .bytes()
                    .all(|b| b.is_ascii_digit() || (b'a'..=b'f').contains(&b))
        })
    };
    let is_id = snapshot.id.len() == 16 && snapshot.id.bytes().all(|b| b.is_ascii_hexdigit());
    let bad = [&snapshot.image]
        .into_iter()
        .chain(&snapshot.layers)
        .find(|d| !is_digest(d));
    if let Some(bad) = bad {
        return Err(not_ours(&format!("`{bad}` is no digest")));
    }
    // The next one has a number too.
    let is_number = (1..u32::MAX).contains(&snapshot.number);
    if !is_id || !is_number || snapshot.layers.is_empty() {
        return Err(not_ours("its id, number or layers are wrong"));
    }
    // These are shown in lists as they are.
    let parent = snapshot.parent.as_ref();
    let is_plain = slug::check(&snapshot.agent).is_ok()
        && parent.is_none_or(|parent| slug::check(&parent.slug).is_ok());
    if !is_plain || OffsetDateTime::parse(&snapshot.created_at, &Rfc3339).is_err() {
        return Err(not_ours("its agent, parent or time is wrong"));
    }
    snapshot.tag = image::tag(&snapshot.slug, snapshot.number);
    Ok(snapshot)
}

fn not_ours(why: &str) -> Failure {
    Failure::invalid(format!("this is no snapshot that was sent: {why}"))
        .hint("bottle-snapshot export SLUG -o FILE writes one, push puts one into a registry")
}

/// One of our own documents, which must be the entry that comes now.
fn document<R: Read>(entry: Option<io::Result<tar::Entry<'_, R>>>, name: &str) -> Result<Vec<u8>> {
    let entry = entry.ok_or_else(|| not_ours("it is empty"))?;
    let entry = entry.map_err(cannot_read)?;
    if entry.path_bytes().as_ref() != name.as_bytes() || entry.size() > MAX_DOCUMENT {
        return Err(not_ours(&format!("{name} is not where it should be")));
    }
    let mut bytes = Vec::new();
    entry
        .take(MAX_DOCUMENT)
        .read_to_end(&mut bytes)
        .map_err(cannot_read)?;
    Ok(bytes)
}

/// Hands the engine an archive with the parts of `snapshot`, each checked, and asks it what it made of them.
fn load<R: Read>(engine: &Engine, entries: tar::Entries<'_, R>, snapshot: &Snapshot) -> Result<()> {
    let (chunks, incoming) = mpsc::sync_channel::<Vec<u8>>(4);
    let call = engine
        .call(["image", "load"])
        .input_from(move |out| incoming.iter().try_for_each(|chunk| out.write_all(&chunk)))
        .unlimited();
    let (fed, loaded) = thread::scope(|scope| {
        let loading = scope.spawn(|| call.run());
        let fed = feed(entries, snapshot, chunks);
        (fed, loading.join())
    });
    let loaded = loaded.unwrap_or_else(|_| Err(Failure::failed("a thread panicked")));
    match (fed, loaded) {
        // It stopped listening, and says why.
        (Err(failure), Err(engine)) if failure.kind() == Kind::Conflict => Err(engine),
        (Err(failure), _) | (Ok(()), Err(failure)) => Err(failure),
        (Ok(()), Ok(_)) => Ok(()),
    }
}

/// The parts in the order they come, then the table of contents. Without it the engine takes nothing.
fn feed<R: Read>(
    entries: tar::Entries<'_, R>,
    snapshot: &Snapshot,
    chunks: mpsc::SyncSender<Vec<u8>>,
) -> Result<()> {
    let pipe = BufWriter::with_capacity(BUFFER, Chunks(chunks));
    let mut archive = tar::Builder::new(pipe);
    let parts = [&snapshot.image].into_iter().chain(&snapshot.layers);
    let mut missing: BTreeMap<String, &str> = parts
        .map(|digest| (blob(digest), digest.as_str()))
        .collect();
    for entry in entries {
        interrupt::check()?;
        let mut entry = entry.map_err(cannot_read)?;
        let name = String::from_utf8_lossy(&entry.path_bytes()).into_owned();
        if !entry.header().entry_type().is_file() {
            return Err(not_ours(&format!("{name:?} is no plain file")));
        }
        let Some(digest) = missing.remove(&name) else {
            allow(&name)?;
            continue;
        };
        let size = entry.size();
        let mut hashed = Hashed {
            content: &mut entry,
            hash: Sha256::new(),
        };
        append_from(&mut archive, &name, size, &mut hashed).map_err(hung_up)?;
        if format!("sha256:{:x}", hashed.hash.finalize()) != digest {
            return Err(
                Failure::refused(format!("{name} is not what its digest says"))
                    .hint("the file was damaged or changed on its way: export it again"),
            );
        }
    }
    if let Some(name) = missing.keys().next() {
        return Err(not_ours(&format!("{name} is not in it")));
    }
    let contents = docker_manifest(snapshot, None).to_string();
    append(&mut archive, "manifest.json", contents.as_bytes()).map_err(hung_up)?;
    let mut pipe = archive
        .into_inner()
        .map_err(|error| hung_up(cannot_read(error)))?;
    pipe.flush().map_err(|error| hung_up(cannot_read(error)))
}

/// What else an archive of ours holds. Anything more in it was put there by somebody else.
fn allow(name: &str) -> Result<()> {
    let known = ["oci-layout", "index.json", "manifest.json"].contains(&name);
    // The OCI manifest, whose digest only the index names; and a layer that is there twice.
    let is_blob = name
        .strip_prefix("blobs/sha256/")
        .is_some_and(|hex| hex.len() == 64 && hex.bytes().all(|byte| byte.is_ascii_hexdigit()));
    if known || is_blob {
        return Ok(());
    }
    Err(Failure::refused(format!(
        "{name:?} does not belong into an exported snapshot"
    )))
}

/// What the engine made is what was sent; then the name, the documents, the record.
fn record(engine: &Engine, home: &Home, snapshot: &Snapshot, plan: &Plan) -> Result<()> {
    let found = engine::image(engine, &snapshot.image)?.map(|(found, _)| found);
    let found = found.ok_or_else(|| {
        Failure::failed(format!(
            "the engine took the archive and has no image {}",
            snapshot.image
        ))
    })?;
    if found.root_fs.layers != snapshot.layers || found.label(image::ID) != Some(&snapshot.id) {
        return Err(Failure::refused(
            "the image is not that of the snapshot the file describes",
        ));
    }
    if let Some((there, _)) = engine::image(engine, &snapshot.tag)?
        && there.id != snapshot.image
    {
        return Err(Failure::conflict(format!(
            "the engine has another image named {}",
            snapshot.tag
        ))
        .hint("give the bottle another name: --slug NAME"));
    }
    engine::tag(engine, &snapshot.image, &snapshot.tag)?;
    let folder = documents(home, snapshot)?;
    let text = state::to_json(plan)?;
    state::write_atomic(&folder.join("plan.json"), text.as_bytes(), 0o600)?;
    let snapshots = Snapshots {
        next: snapshot.number.saturating_add(1),
        snapshots: vec![snapshot.clone()],
        ..Snapshots::default()
    };
    // As a commit does: from before there is a record, nobody removes it without its image.
    mark_preserved(home, &snapshot.slug, true)?;
    snapshots.write(&home.state, &snapshot.slug)?;
    engine::tag(engine, &snapshot.image, &image::latest(&snapshot.slug))
}

/// Not a kind of the system's: a full disk has the same.
const TOO_LARGE: &str = "the file unpacks to more than it may";

fn too_large() -> Failure {
    Failure::refused(TOO_LARGE).hint("--max-size BYTES allows more")
}

fn cannot_read(error: io::Error) -> Failure {
    if error.to_string().contains(TOO_LARGE) {
        return too_large();
    }
    Failure::invalid("the file cannot be read as an exported snapshot").because(error)
}

/// The engine's client is gone; what it said counts more.
fn hung_up(failure: Failure) -> Failure {
    if failure.chain().contains(TOO_LARGE) {
        return too_large();
    }
    let broken = failure.chain().contains("the engine hung up");
    if broken {
        failure.with_kind(Kind::Conflict)
    } else {
        failure
    }
}

/// Writes into the pipe to the engine.
struct Chunks(mpsc::SyncSender<Vec<u8>>);

impl Write for Chunks {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let sent = self.0.send(bytes.to_vec());
        sent.map_err(|_| io::Error::other("the engine hung up"))?;
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

struct Hashed<R> {
    content: R,
    hash: Sha256,
}

impl<R: Read> Read for Hashed<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let count = self.content.read(buffer)?;
        self.hash.update(&buffer[..count]);
        Ok(count)
    }
}

/// The unpacked file, up to so many bytes.
struct Limited<'a> {
    content: Box<dyn Read + 'a>,
    left: u64,
}

impl<'a> Limited<'a> {
    fn open(file: impl Read + 'a, max_bytes: u64) -> Result<Self> {
        let mut file = BufReader::with_capacity(BUFFER, file);
        let packed = file
            .fill_buf()
            .map_err(cannot_read)?
            .starts_with(&[0x28, 0xb5, 0x2f, 0xfd]);
        let content: Box<dyn Read + 'a> = if packed {
            Box::new(zstd::Decoder::with_buffer(file).map_err(cannot_read)?)
        } else {
            Box::new(file)
        };
        Ok(Self {
            content,
            left: max_bytes,
        })
    }
}

impl Read for Limited<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let count = self.content.read(buffer)?;
        self.left = self
            .left
            .checked_sub(count as u64)
            .ok_or_else(|| io::Error::other(TOO_LARGE))?;
        Ok(count)
    }
}

#[cfg(test)]
mod tests {
    use bottle_plan::snapshot::Proof;

    use super::*;

    fn snapshot() -> Snapshot {
        let digest = format!("sha256:{}", "0".repeat(64));
        Snapshot {
            schema: SNAPSHOT_SCHEMA.to_owned(),
            id: "0123456789abcdef".to_owned(),
            slug: "demo".to_owned(),
            number: 1,
            image: digest.clone(),
            tag: String::new(),
            created_at: "2026-11-26T10:00:00Z".to_owned(),
            message: None,
            agent: "web".to_owned(),
            plan_digest: digest.clone(),
            parent: None,
            layers: vec![digest],
            base_layers: 1,
            size: 0,
            added: 0,
            changes: bottle_plan::snapshot::Changes::default(),
            squashed: false,
            proof: Proof {
                searched_at: String::new(),
                values: Vec::new(),
                forms: Vec::new(),
                patterns: 0,
                searched: BTreeMap::new(),
                inherited: Vec::new(),
                unpacked: 0,
                left_out: Vec::new(),
            },
        }
    }

    #[test]
    fn what_a_stranger_wrote_is_not_shown_or_counted_on_as_it_is() {
        assert_eq!(
            checked(snapshot(), None).expect("good").tag,
            "bottle-snapshot-demo:1"
        );
        let parent = |slug: &str| {
            Some(bottle_plan::snapshot::Parent {
                id: "0123456789abcdef".to_owned(),
                slug: slug.to_owned(),
                number: 1,
            })
        };
        let changes: [fn(&mut Snapshot); 6] = [
            |one| one.number = 0,
            |one| one.number = u32::MAX,
            |one| one.agent = "web\u{1b}]0;owned\u{7}".to_owned(),
            |one| one.created_at = "\u{1b}[2J".to_owned(),
            |one| one.slug = "../x".to_owned(),
            |one| one.image = "sha256:--".to_owned(),
        ];
        for (number, change) in changes.iter().enumerate() {
            let mut bad = snapshot();
            change(&mut bad);
            assert_eq!(
                checked(bad, None).expect_err("bad").kind(),
                Kind::Invalid,
                "{number}"
            );
        }
        let mut bad = snapshot();
        bad.parent = parent("x\u{1b}[31m");
        assert!(checked(bad, None).is_err());
        let mut good = snapshot();
        good.parent = parent("demo-0");
        assert!(checked(good, None).is_ok());
    }
}
