//! Images: found, or built with progress.

use std::fs;
use std::io::Write as _;
use std::path::{Path, PathBuf};

use bottle_plan::failure::{Failure, PathContext as _, Result};
use bottle_plan::plan::Plan;
use bottle_plan::tool;
use sha2::{Digest as _, Sha256};

use crate::engine::{Engine, at_once, failure_of};

const SIDECAR_DOCKERFILE: &str = include_str!("../../sidecars/images/egress/Dockerfile");

/// What git-gate's image is built from, beside the binary.
const GIT_GATE_FILES: [(&str, &str); 3] = [
    (
        "Dockerfile",
        include_str!("../../sidecars/images/git-gate/Dockerfile"),
    ),
    (
        "pre-receive",
        include_str!("../../sidecars/images/git-gate/pre-receive"),
    ),
    (
        "gitleaks.toml",
        include_str!("../../sidecars/images/git-gate/gitleaks.toml"),
    ),
];

/// Says which binary the image was built from, so that a new one is noticed under the same version.
const SIDECAR_LABEL: &str = "bottle.sidecar.sha256";

/// Enough of the hash to tell every build on a machine from every other, and to be read out loud.
const TAG_DIGITS: usize = 12;

/// Images of other builds that stay in the engine: two installations side by side need not build in turn.
const KEPT_BUILDS: usize = 4;

/// A static binary: `bottle-sidecar`, which runs in egress and, as a helper, in the agent's container, or
/// `bottle-services`, which runs in supervise and git-gate.
#[derive(Clone, Debug)]
pub struct SidecarBinary {
    path: PathBuf,
    sha256: String,
}

impl SidecarBinary {
    /// `$BOTTLE_SIDECAR`, or `bottle-sidecar` beside this program.
    ///
    /// # Errors
    /// When it is not there, or is not statically linked: the image has no libraries.
    pub fn find() -> Result<Self> {
        Self::at(tool::sidecar()?)
    }

    /// `bottle-services` beside it, for a bottle in which something needs it.
    ///
    /// # Errors
    /// As [`Self::find`].
    pub fn find_services(plan: &Plan) -> Result<Option<Self>> {
        let is_needed = plan.supervise.is_some() || plan.git_gate.is_some();
        is_needed.then(|| Self::at(tool::services()?)).transpose()
    }

    fn at(path: PathBuf) -> Result<Self> {
        let hint = tool::SIDECAR_HINT;
        let bytes = fs::read(&path)
            .at("read the sidecar", &path)
            .map_err(|failure| failure.hint(hint))?;
        if !is_static(&bytes) {
            return Err(Failure::invalid(format!(
                "{} is not a static Linux binary",
                path.display()
            ))
            .hint(hint));
        }
        let sha256 = Sha256::digest(&bytes)
            .iter()
            .map(|byte| format!("{byte:02x}"))
            .collect();
        Ok(Self { path, sha256 })
    }

    /// The name of the image made from exactly this binary. The version's name in the compose file can move under a
    /// start (two installations on one engine); this one cannot.
    #[must_use]
    pub fn image(&self, repository: &str) -> String {
        format!("{repository}:{}", &self.sha256[..TAG_DIGITS])
    }

    /// Its bytes.
    ///
    /// # Errors
    /// When it cannot be read.
    pub fn read(&self) -> Result<Vec<u8>> {
        fs::read(&self.path).at("read the sidecar", &self.path)
    }
}

/// Whether an ELF file asks for no interpreter: it runs without a library in the image.
fn is_static(elf: &[u8]) -> bool {
    const PT_INTERP: u32 = 3;
    let u16_at = |at: usize| {
        elf.get(at..at + 2)
            .map(|b| usize::from(u16::from_le_bytes([b[0], b[1]])))
    };
    let u64_at = |at: usize| {
        let bytes: [u8; 8] = elf.get(at..at + 8)?.try_into().ok()?;
        usize::try_from(u64::from_le_bytes(bytes)).ok()
    };
    let kind_at = |at: usize| {
        let bytes: [u8; 4] = elf.get(at..at + 4)?.try_into().ok()?;
        Some(u32::from_le_bytes(bytes))
    };
    if !elf.starts_with(b"\x7fELF\x02\x01") {
        return false;
    }
    let (Some(table), Some(size), Some(count)) = (u64_at(32), u16_at(54), u16_at(56)) else {
        return false;
    };
    (0..count).all(|index| {
        let kind = table.checked_add(index * size).and_then(kind_at);
        kind.is_some_and(|kind| kind != PT_INTERP)
    })
}

/// Makes sure that the images of egress and the agent are in the engine, and says which one egress is to use. An agent
/// that goes on from a snapshot needs none of its own.
///
/// # Errors
/// When one cannot be built or found.
pub fn ensure(
    engine: &Engine,
    plan: &Plan,
    binary: &SidecarBinary,
    resumed: Option<&str>,
    progress: bool,
) -> Result<String> {
    let (sidecar, agent) = at_once(
        || ensure_static(engine, &plan.sidecar.image, binary),
        || inspect(engine, &plan.agent.image.reference, "{{.Id}}"),
    )?;
    let exact = sidecar?;
    let has_agent = agent?.is_some();
    if resumed.is_some() {
        return Ok(exact);
    }
    match (&plan.agent.image.build, has_agent) {
        (Some(build), known) => {
            // A built-in Dockerfile copies nothing in, so its hash in the tag says all about the image.
            let whole = build.dockerfile.starts_with(&plan.state);
            if !(known && whole) {
                build_agent(engine, plan, build, progress)?;
            }
        }
        (None, true) => {}
        (None, false) => pull(engine, &plan.agent.image.reference, progress)?,
    }
    Ok(exact)
}

/// The same for one image that holds a static binary and nothing else.
///
/// # Errors
/// When it cannot be built.
pub fn ensure_static(engine: &Engine, image: &str, binary: &SidecarBinary) -> Result<String> {
    let label = format!("{{{{index .Config.Labels \"{SIDECAR_LABEL}\"}}}}");
    let repository = repository(image);
    let exact = binary.image(repository);
    if inspect(engine, &exact, &label)?.as_deref() != Some(binary.sha256.as_str()) {
        build_sidecar(engine, &[&exact, image], binary)?;
        forget_old_builds(engine, repository, &exact)?;
    }
    Ok(exact)
}

/// An image's name without its tag. A colon before a slash belongs to a registry's port.
fn repository(image: &str) -> &str {
    match image.rsplit_once(':') {
        Some((name, tag)) if !tag.contains('/') => name,
        _ => image,
    }
}

/// What the engine says of an image; nothing when it does not have it.
///
/// # Errors
/// When it does not answer.
pub fn inspect(engine: &Engine, image: &str, format: &str) -> Result<Option<String>> {
    let output = engine
        .call(["image", "inspect", "--format", format, "--", image])
        .output()?;
    if output.status.success() {
        return Ok(Some(output.text()));
    }
    if output.stderr.to_lowercase().contains("no such image") {
        return Ok(None);
    }
    Err(failure_of("docker image inspect", &output))
}

/// What is built from: a Dockerfile, the binary, and what else there is, as one archive.
fn build_context(files: &[(&str, &str)], binary: &SidecarBinary) -> Result<Vec<u8>> {
    let mut context = tar::Builder::new(Vec::new());
    for (name, text) in files {
        append(&mut context, name, 0o644, text.as_bytes())?;
    }
    // By this name in every image: the health check and git's hook call it.
    append(&mut context, "bottle-sidecar", 0o755, &binary.read()?)?;
    context
        .into_inner()
        .map_err(|error| Failure::failed("cannot put the sidecar's image together").because(error))
}

/// Makes sure that git-gate's image is there, and says which one it is: exactly this binary with exactly these files.
///
/// # Errors
/// When it cannot be built.
pub fn ensure_git_gate(
    engine: &Engine,
    image: &str,
    binary: &SidecarBinary,
    progress: bool,
) -> Result<String> {
    let mut all = Sha256::new();
    for (name, text) in GIT_GATE_FILES {
        all.update(name.as_bytes());
        all.update(text.as_bytes());
    }
    all.update(binary.sha256.as_bytes());
    let hash: String = all
        .finalize()
        .iter()
        .map(|byte| format!("{byte:02x}"))
        .collect();
    let repository = repository(image);
    let exact = format!("{repository}:{}", &hash[..TAG_DIGITS]);
    if inspect(engine, &exact, "{{.Id}}")?.is_some() {
        return Ok(exact);
    }
    announce(&format!("building {exact} (the first time takes a while)"));
    let mut call = engine
        .call(["buildx", "build", "--load", "--label=bottle.sidecar=1"])
        .args([&exact, image].map(|name| format!("--tag={name}")));
    if let Some(bundle) = host_ca() {
        call = call.arg(format!("--secret=id=host_ca,src={}", bundle.display()));
    }
    call.arg("-")
        .input(build_context(&GIT_GATE_FILES, binary)?)
        .unlimited()
        .showing_progress(progress)
        .run()
        .map_err(|failure| failure.while_doing("building git-gate's image"))?;
    forget_old_builds(engine, repository, &exact)?;
    Ok(exact)
}

fn build_sidecar(engine: &Engine, names: &[&str], binary: &SidecarBinary) -> Result<()> {
    let context = build_context(&[("Dockerfile", SIDECAR_DOCKERFILE)], binary)?;
    engine
        .call(["build", "--quiet"])
        .args(names.iter().map(|name| format!("--tag={name}")))
        .arg(format!("--label={SIDECAR_LABEL}={}", binary.sha256))
        .args(["--label=bottle.sidecar=1", "-"])
        .input(context)
        .unlimited()
        .run()
        .map(drop)
        .map_err(|failure| failure.while_doing("building the sidecar's image"))
}

/// Takes the names of old builds away, all but the newest few. One that a bottle still uses stays: the engine refuses.
fn forget_old_builds(engine: &Engine, repository: &str, current: &str) -> Result<()> {
    let newest_first = engine
        .call(["image", "ls", "--filter=label=bottle.sidecar=1"])
        .args(["--format={{.Repository}}:{{.Tag}}", "--", repository])
        .output()?
        .text();
    let is_build = |name: &&str| {
        name.rsplit_once(':').is_some_and(|(_, tag)| {
            tag.len() == TAG_DIGITS && tag.bytes().all(|b| b.is_ascii_hexdigit())
        })
    };
    let others = newest_first
        .lines()
        .filter(is_build)
        .filter(|name| *name != current);
    for old in others.skip(KEPT_BUILDS) {
        engine.call(["image", "rm", "--", old]).output()?;
    }
    let unnamed = ["--force", "--filter=label=bottle.sidecar=1"];
    engine
        .call(["image", "prune"])
        .args(unnamed)
        .output()
        .map(drop)
}

fn append(context: &mut tar::Builder<Vec<u8>>, name: &str, mode: u32, bytes: &[u8]) -> Result<()> {
    let mut header = tar::Header::new_gnu();
    header.set_mode(mode);
    header.set_size(bytes.len() as u64);
    header.set_cksum();
    context
        .append_data(&mut header, name, bytes)
        .map_err(|error| Failure::failed("cannot put the sidecar's image together").because(error))
}

fn build_agent(
    engine: &Engine,
    plan: &Plan,
    build: &bottle_plan::plan::Build,
    progress: bool,
) -> Result<()> {
    announce(&format!(
        "building {} (the first time takes a while)",
        plan.agent.image.reference
    ));
    let mut call = engine.call(["buildx", "build", "--load"]).args([
        format!("--tag={}", plan.agent.image.reference),
        format!("--file={}", build.dockerfile.display()),
        "--label=bottle.agent=1".to_owned(),
    ]);
    if let Some(bundle) = host_ca() {
        call = call.args([format!("--secret=id=host_ca,src={}", bundle.display())]);
    }
    if let Some(npmrc) = npmrc() {
        call = call.args([format!("--secret=id=npmrc,src={}", npmrc.display())]);
    }
    call.args(["--".into(), build.context.clone().into_os_string()])
        .unlimited()
        .showing_progress(progress)
        .run()
        .map(drop)
        .map_err(|failure| {
            failure.while_doing(format!("building the image {}", plan.agent.image.reference))
        })
}

/// The host's CA bundle: behind a proxy that intercepts TLS a build cannot download anything without it.
pub(crate) fn host_ca() -> Option<PathBuf> {
    let named = std::env::var_os("SSL_CERT_FILE").map(PathBuf::from);
    let usual = [
        "/etc/ssl/certs/ca-certificates.crt",
        "/etc/pki/tls/certs/ca-bundle.crt",
        "/etc/ssl/cert.pem",
    ];
    let all = named
        .into_iter()
        .chain(usual.into_iter().map(PathBuf::from));
    all.into_iter().find(|path| can_be_secret(path))
}

/// What the host's user tells npm: a mirror and the way into it, which builds that fetch from npm need as well.
fn npmrc() -> Option<PathBuf> {
    let named = ["npm_config_userconfig", "NPM_CONFIG_USERCONFIG"]
        .into_iter()
        .find_map(std::env::var_os)
        .map(PathBuf::from);
    let usual = || Some(PathBuf::from(std::env::var_os("HOME")?).join(".npmrc"));
    named.or_else(usual).filter(|path| can_be_secret(path))
}

/// The engine's client takes `id=…,src=…`, which is text, apart at the commas.
fn can_be_secret(path: &Path) -> bool {
    path.is_file() && path.to_str().is_some_and(|path| !path.contains(','))
}

fn pull(engine: &Engine, image: &str, progress: bool) -> Result<()> {
    announce(&format!("pulling {image}"));
    let pulled = engine
        .call(["pull", "--quiet", "--", image])
        .unlimited()
        .showing_progress(progress)
        .run();
    pulled.map(drop).map_err(|failure| {
        failure
            .while_doing(format!("there is no image `{image}` here, and pulling it"))
            .hint("check the name, or give a `dockerfile:` instead")
    })
}

fn announce(text: &str) {
    let _ = writeln!(std::io::stderr(), "bottle-run: {text}");
}

#[cfg(test)]
mod tests {
    use super::{is_static, repository};

    #[test]
    fn a_port_is_not_a_tag() {
        assert_eq!(repository("bottle-sidecar:0.1.0"), "bottle-sidecar");
        assert_eq!(repository("example.com:5000/a/b"), "example.com:5000/a/b");
        assert_eq!(repository("example.com:5000/a/b:1"), "example.com:5000/a/b");
    }

    #[test]
    fn dynamic_programs_and_scripts_are_not_static() {
        let this_test = std::fs::read(std::env::current_exe().expect("path")).expect("reads");
        assert!(!is_static(&this_test));
        assert!(!is_static(b"#!/bin/sh\n"));
        assert!(!is_static(b""));
        assert!(!is_static(&this_test[..60]));
    }
}
