//! Export: one file with the image and what is known about it, for another host.
//!
//! Inside the zstd is one tar that is at once an OCI layout and what `docker load` of every version reads: blobs by digest,
//! `index.json` and `manifest.json` that name them, and our own documents in `bottle/`, which come first.

use std::fs::File;
use std::io::{self, BufRead as _, BufReader, Read, Seek as _, Write};

use bottle_plan::failure::{Failure, Result};
use bottle_plan::plan::Plan;
use bottle_plan::snapshot::Snapshot;
use bottle_plan::{resume, state};
use bottle_run::bottle::Home;
use bottle_run::engine::Engine;
use flate2::bufread::MultiGzDecoder;
use serde_json::json;
use sha2::{Digest as _, Sha256};

use crate::scan::BUFFER;
use crate::{engine, verify};

/// Our document about the snapshot; the first of the archive.
pub const SNAPSHOT_ENTRY: &str = "bottle/snapshot.json";

/// The plan its bottle ran.
pub const PLAN_ENTRY: &str = "bottle/plan.json";

/// Fast, and most of what there is to gain.
const LEVEL: i32 = 3;

/// The plan of a snapshot that is to leave: both its image and its documents must still be there.
///
/// # Errors
/// When one of them is gone.
pub fn plan_of(engine: &Engine, home: &Home, snapshot: &Snapshot) -> Result<Plan> {
    let plan = resume::frozen_plan(&home.state, snapshot)?
        .ok_or_else(|| Failure::failed(format!("the plan of {} is gone", snapshot.tag)))?;
    match engine::image(engine, &snapshot.image)? {
        Some(_) => Ok(plan),
        None => Err(verify::gone(snapshot)),
    }
}

/// Writes the archive of `snapshot` to `out`.
///
/// # Errors
/// When the engine does not give out what was recorded, or `out` cannot be written to.
pub fn export<W: Write + Send + 'static>(
    engine: &Engine,
    snapshot: &Snapshot,
    plan: &Plan,
    out: W,
) -> Result<W> {
    let documents = [
        (SNAPSHOT_ENTRY, state::to_json(snapshot)?),
        (PLAN_ENTRY, state::to_json(plan)?),
    ];
    let snapshot = snapshot.clone();
    engine
        .call(["image", "save", "--", snapshot.image.clone().as_str()])
        .unlimited()
        .run_read_by(move |stream| {
            let compressed = zstd::Encoder::new(out, LEVEL).map_err(cannot_write)?;
            let mut archive = tar::Builder::new(compressed);
            for (name, text) in &documents {
                append(&mut archive, name, text.as_bytes())?;
            }
            blobs(&mut archive, stream, &snapshot)?;
            let compressed = archive.into_inner().map_err(cannot_write)?;
            compressed.finish().map_err(cannot_write)
        })
}

/// The engine's archive, its files renamed to their digests, and what names them.
fn blobs<W: Write>(
    archive: &mut tar::Builder<W>,
    stream: &mut dyn Read,
    snapshot: &Snapshot,
) -> Result<()> {
    let broken =
        |error: io::Error| Failure::failed("the engine's archive cannot be read").because(error);
    let mut sizes = std::collections::BTreeMap::new();
    let mut given = tar::Archive::new(BufReader::with_capacity(BUFFER, stream));
    for entry in given.entries().map_err(broken)? {
        let entry = entry.map_err(broken)?;
        if !entry.header().entry_type().is_file() {
            continue;
        }
        let (digest, mut file, size) = spool(entry)?;
        let wanted = digest == snapshot.image || snapshot.layers.contains(&digest);
        if wanted && !sizes.contains_key(&digest) {
            append_from(archive, &blob(&digest), size, &mut file)?;
            sizes.insert(digest, size);
        }
    }
    let parts = [&snapshot.image].into_iter().chain(&snapshot.layers);
    if let Some(missing) = parts
        .into_iter()
        .find(|digest| !sizes.contains_key(*digest))
    {
        return Err(Failure::failed(format!(
            "the engine did not give out {missing} of {}",
            snapshot.tag
        )));
    }
    let manifest = oci_manifest(snapshot, &sizes).to_string();
    let digest = format!("sha256:{:x}", Sha256::digest(&manifest));
    append(archive, &blob(&digest), manifest.as_bytes())?;
    let index = json!({
        "schemaVersion": 2,
        "mediaType": "application/vnd.oci.image.index.v1+json",
        "manifests": [{
            "mediaType": "application/vnd.oci.image.manifest.v1+json",
            "digest": digest,
            "size": manifest.len(),
            "annotations": {
                "org.opencontainers.image.ref.name": snapshot.number.to_string(),
                "io.containerd.image.name": snapshot.tag,
            },
        }],
    });
    append(archive, "oci-layout", br#"{"imageLayoutVersion":"1.0.0"}"#)?;
    append(archive, "index.json", index.to_string().as_bytes())?;
    let docker = docker_manifest(snapshot, Some(&snapshot.tag));
    append(archive, "manifest.json", docker.to_string().as_bytes())
}

/// The path of a blob in an OCI layout.
#[must_use]
pub fn blob(digest: &str) -> String {
    format!(
        "blobs/sha256/{}",
        digest.strip_prefix("sha256:").unwrap_or(digest)
    )
}

/// What `docker load` reads: which file is the configuration, which are the layers.
#[must_use]
pub fn docker_manifest(snapshot: &Snapshot, name: Option<&str>) -> serde_json::Value {
    let layers: Vec<String> = snapshot.layers.iter().map(|digest| blob(digest)).collect();
    json!([{
        "Config": blob(&snapshot.image),
        "RepoTags": name.map(|name| vec![name]),
        "Layers": layers,
    }])
}

fn oci_manifest(
    snapshot: &Snapshot,
    sizes: &std::collections::BTreeMap<String, u64>,
) -> serde_json::Value {
    let part = |kind: &str, digest: &String| json!({"mediaType": kind, "digest": digest, "size": sizes[digest]});
    let layer = "application/vnd.oci.image.layer.v1.tar";
    let layers: Vec<_> = snapshot
        .layers
        .iter()
        .map(|digest| part(layer, digest))
        .collect();
    json!({
        "schemaVersion": 2,
        "mediaType": "application/vnd.oci.image.manifest.v1+json",
        "config": part("application/vnd.oci.image.config.v1+json", &snapshot.image),
        "layers": layers,
    })
}

/// A file of the engine's archive on disk, unpacked if it was packed: its digest must be known before its name is.
fn spool(entry: impl Read) -> Result<(String, File, u64)> {
    let cannot = |error: io::Error| {
        Failure::failed("a layer cannot be kept for the archive")
            .because(error)
            .hint("TMPDIR names the folder it is kept in; df -h shows what is free")
    };
    let mut content = BufReader::with_capacity(BUFFER, entry);
    let packed = content
        .fill_buf()
        .map_err(cannot)?
        .starts_with(&[0x1f, 0x8b]);
    let mut content: Box<dyn Read + '_> = if packed {
        Box::new(MultiGzDecoder::new(content))
    } else {
        Box::new(content)
    };
    let mut file = tempfile::tempfile().map_err(cannot)?;
    let mut hash = Sha256::new();
    let mut buffer = vec![0; BUFFER];
    let mut size = 0;
    loop {
        let count = content.read(&mut buffer).map_err(cannot)?;
        if count == 0 {
            break;
        }
        hash.update(&buffer[..count]);
        file.write_all(&buffer[..count]).map_err(cannot)?;
        size += count as u64;
    }
    file.rewind().map_err(cannot)?;
    Ok((format!("sha256:{:x}", hash.finalize()), file, size))
}

/// Adds a file that is in memory.
///
/// # Errors
/// When it cannot be written.
pub fn append<W: Write>(archive: &mut tar::Builder<W>, name: &str, bytes: &[u8]) -> Result<()> {
    append_from(archive, name, bytes.len() as u64, bytes)
}

/// Adds a file of this size.
///
/// # Errors
/// When it cannot be read or written.
pub fn append_from<W: Write>(
    archive: &mut tar::Builder<W>,
    name: &str,
    size: u64,
    content: impl Read,
) -> Result<()> {
    let mut header = tar::Header::new_ustar();
    header.set_size(size);
    header.set_mode(0o644);
    header.set_mtime(0);
    let added = archive.append_data(&mut header, name, content);
    added.map_err(cannot_write)
}

fn cannot_write(error: io::Error) -> Failure {
    let full = error.kind() == io::ErrorKind::StorageFull;
    let failure = Failure::failed("cannot write the archive").because(error);
    if full {
        failure.hint("the disk is full: df -h")
    } else {
        failure
    }
}
