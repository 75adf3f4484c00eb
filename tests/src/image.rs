//! Images that suites build for themselves, kept by what they were made of.

use std::path::{Path, PathBuf};

use sha2::{Digest as _, Sha256};

use crate::engine::{docker, note_skipped};

/// What a build says when what it downloads is out of reach.
pub const OFFLINE: [&str; 8] = [
    "ENOTFOUND",
    "EAI_AGAIN",
    "ECONNREFUSED",
    "ECONNRESET",
    "ETIMEDOUT",
    "Temporary failure",
    "Could not connect",
    "no such host",
];

/// The image of these files, `(name, bytes)`, one of which is the `Dockerfile`; built in `folder` when the engine does not
/// have it. Nothing when the build's downloads are out of reach; `suite` is then said to be skipped.
///
/// # Panics
/// When the build fails for another reason.
#[must_use]
pub fn built(suite: &str, folder: &Path, files: &[(&str, &[u8])]) -> Option<String> {
    let mut digest = Sha256::new();
    for (name, bytes) in files {
        digest.update(format!("{name} {}\n", bytes.len()));
        digest.update(bytes);
    }
    let digest: String = digest.finalize()[..6]
        .iter()
        .map(|byte| format!("{byte:02x}"))
        .collect();
    let tag = format!("bottle-test-{suite}:{digest}");
    if docker(["image", "inspect", &tag]).status.success() {
        return Some(tag);
    }
    std::fs::create_dir_all(folder).expect("a folder");
    for (name, bytes) in files {
        let path = folder.join(name);
        std::fs::write(&path, bytes).expect("a file");
        if name.starts_with("bottle-") {
            executable(&path);
        }
    }
    eprintln!("building {tag} (the first time takes minutes)");
    let mut args: Vec<String> = [
        "buildx",
        "build",
        "--load",
        "--quiet",
        "--label=bottle.test=1",
    ]
    .map(str::to_owned)
    .into();
    args.push(format!("--tag={tag}"));
    args.extend(secrets());
    args.push(folder.display().to_string());
    let done = docker(args);
    if done.status.success() {
        return Some(tag);
    }
    let offline = OFFLINE.iter().any(|sign| done.stderr.contains(sign));
    assert!(offline, "cannot build {tag}: {}", done.stderr);
    let why = "its image cannot be built without npm and Debian's archive";
    note_skipped(suite, why);
    None
}

fn executable(path: &Path) {
    use std::os::unix::fs::PermissionsExt as _;
    let mode = std::fs::Permissions::from_mode(0o755);
    std::fs::set_permissions(path, mode).expect("the mode can be set");
}

/// The host's own way to its downloads, as `bottle-run` hands it to a build.
fn secrets() -> Vec<String> {
    let variable = |name: &str| std::env::var_os(name).map(PathBuf::from);
    let bundle = variable("SSL_CERT_FILE")
        .or_else(|| Some(PathBuf::from("/etc/ssl/certs/ca-certificates.crt")));
    let npmrc =
        variable("npm_config_userconfig").or_else(|| Some(variable("HOME")?.join(".npmrc")));
    let secret = |id: &str, path: Option<PathBuf>| {
        let path = path.filter(|path| path.is_file())?;
        Some(format!("--secret=id={id},src={}", path.display()))
    };
    [secret("host_ca", bundle), secret("npmrc", npmrc)]
        .into_iter()
        .flatten()
        .collect()
}
