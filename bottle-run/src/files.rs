//! The files of a bottle in its state folder: written before anything is started, removed when it is gone.

use std::fs::{self, Permissions};
use std::os::unix::fs::{PermissionsExt as _, lchown};
use std::path::Path;

use bottle_plan::failure::{Failure, PathContext as _, Result};
use bottle_plan::handle::Containers;
use bottle_plan::plan::Plan;
use bottle_plan::state::{private_dir, to_json, write_atomic};
use bottle_plan::strict::SOCKETS;
use nix::unistd::geteuid;

use crate::ask;

const SECCOMP: &str = include_str!("../assets/seccomp-agent.json");

/// Files that only a bottle that is up needs; the CA's key among them.
const WHILE_UP: [&str; 7] = [
    "egress",
    "git-gate/config",
    "seccomp.json",
    "override.json",
    "empty",
    crate::gvisor::RESOLVER,
    SOCKETS,
];

/// A folder that others may pass and not read. The state folder around it is 0700.
const PASSABLE: u32 = 0o711;

/// Writes everything the containers mount or the engine reads.
///
/// # Errors
/// When something cannot be written.
pub fn write(plan: &Plan, compose: &str) -> Result<()> {
    let state = &plan.state;
    let egress = state.join("egress");
    private_dir(&egress)?;
    // An empty project folder: an `.env` beside the file could rename the project.
    private_dir(&state.join("empty"))?;
    let audit = state.join("audit");
    given_dir(&audit)?;
    write_atomic(&state.join("plan.json"), to_json(plan)?.as_bytes(), 0o600)?;
    write_atomic(&state.join("docker-compose.yml"), compose.as_bytes(), 0o600)?;
    write_atomic(&state.join("seccomp.json"), SECCOMP.as_bytes(), 0o600)?;
    write_atomic(
        &egress.join("policy.json"),
        to_json(&plan.policy())?.as_bytes(),
        0o600,
    )?;
    let upstream_ca = egress.join("upstream-ca.pem");
    match &plan.egress.upstream_ca {
        Some(path) => write_atomic(&upstream_ca, &fs::read(path).at("read", path)?, 0o600)?,
        None => remove_file(&upstream_ca)?,
    }
    hand_to_sidecar(plan, &egress, &audit)?;
    if plan.is_strict() {
        make_sockets(plan)?;
    }
    ask::files::write(plan)
}

/// A folder for each sidecar, which alone can make a socket in it; the agent gets them read-only. What is inside can be
/// reached by its name and not be listed.
fn make_sockets(plan: &Plan) -> Result<()> {
    let (uid, gid) = user(&plan.sidecar.user)?;
    let sockets = plan.state.join(SOCKETS);
    private_dir(&sockets)?;
    fs::set_permissions(&sockets, Permissions::from_mode(PASSABLE))
        .at("set the mode of", &sockets)?;
    for (role, _) in Containers::of(plan).sidecars() {
        let folder = sockets.join(role);
        // What a start that was killed has left.
        if fs::symlink_metadata(&folder).is_ok() {
            fs::remove_dir_all(&folder).at("remove", &folder)?;
        }
        private_dir(&folder)?;
        fs::set_permissions(&folder, Permissions::from_mode(PASSABLE))
            .at("set the mode of", &folder)?;
        if geteuid().is_root() {
            give(&folder, uid, gid)?;
        }
    }
    Ok(())
}

/// The sidecar runs as a user of its own when we are root: what is mounted into it must be that user's.
fn hand_to_sidecar(plan: &Plan, egress: &Path, audit: &Path) -> Result<()> {
    let (uid, gid) = user(&plan.sidecar.user)?;
    if geteuid().is_root() {
        give(audit, uid, gid)?;
        for entry in fs::read_dir(egress).at("read", egress)? {
            give(&entry.at("read", egress)?.path(), uid, gid)?;
        }
        for entry in fs::read_dir(audit).at("read", audit)? {
            give(&entry.at("read", audit)?.path(), uid, gid)?;
        }
        fs::set_permissions(egress, Permissions::from_mode(PASSABLE))
            .at("set the mode of", egress)?;
    }
    Ok(())
}

/// A folder that a sidecar writes to. Once it is there its owner is that sidecar's user, who may not be us; what is no
/// folder, a link for one, is refused.
///
/// # Errors
/// When it cannot be made, or is something else.
pub fn given_dir(path: &Path) -> Result<()> {
    match fs::symlink_metadata(path) {
        Ok(found) if found.is_dir() => Ok(()),
        _ => private_dir(path),
    }
}

/// Makes `path` that user's.
///
/// # Errors
/// When it is a symbolic link, or we are not root.
pub(crate) fn give(path: &Path, uid: u32, gid: u32) -> Result<()> {
    let is_link = fs::symlink_metadata(path)
        .at("read", path)?
        .file_type()
        .is_symlink();
    if is_link {
        return Err(
            Failure::invalid(format!("{} is a symbolic link", path.display())).hint("remove it"),
        );
    }
    // Not followed either if it has become a link since.
    lchown(path, Some(uid), Some(gid)).at("change the owner of", path)
}

/// `uid:gid` as numbers.
///
/// # Errors
/// When it is anything else: a name would be looked up in the image.
pub fn user(text: &str) -> Result<(u32, u32)> {
    text.split_once(':')
        .and_then(|(uid, gid)| Some((uid.parse().ok()?, gid.parse().ok()?)))
        .ok_or_else(|| {
            Failure::invalid(format!(
                "the user `{text}` in the plan is not uid:gid in numbers"
            ))
        })
}

/// Removes what only a running bottle needs; with it the CA's key, and every grant.
///
/// # Errors
/// When something cannot be removed.
pub fn remove_while_up(state: &Path) -> Result<()> {
    ask::files::end_all(state, "down")?;
    for name in WHILE_UP {
        let path = state.join(name);
        let removed = match fs::symlink_metadata(&path) {
            Ok(found) if found.is_dir() => fs::remove_dir_all(&path),
            Ok(_) => fs::remove_file(&path),
            Err(error) => Err(error),
        };
        match removed {
            Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
                return Err(error).at("remove", &path);
            }
            _ => {}
        }
    }
    Ok(())
}

fn remove_file(path: &Path) -> Result<()> {
    match fs::remove_file(path) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => Err(error).at("remove", path),
        _ => Ok(()),
    }
}
