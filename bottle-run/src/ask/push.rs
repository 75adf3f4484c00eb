//! What a push would change, for the operator: written by git-gate from the objects it holds, shown escaped.

use std::fs::File;
use std::io::Read as _;
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::Path;

use bottle_plan::git::{MAX_REVIEW, review_file};
use bottle_plan::request::Ask;
use bottle_plan::state::StateHome;

use super::{Asked, Folder};
use crate::work::for_terminal;

/// What follows the page of a request to push: commits, files and difference. Empty for other requests.
#[must_use]
pub fn push_page(home: &StateHome, asked: &Asked, colour: bool) -> String {
    let Ask::Push {
        repo,
        reference,
        object,
    } = &asked.request.ask
    else {
        return String::new();
    };
    let Some(object) = object else {
        return "\nit names no object: approving it lets any content be pushed there\n".to_owned();
    };
    let text = Folder::of(home, &asked.slug)
        .ok()
        .and_then(|folder| read(&folder.state, &review_file(repo, reference, object)));
    let Some(text) = text else {
        return "\ngit-gate has not seen this object: when the agent has tried to push it, its changes are shown here\n"
            .to_owned();
    };
    let lines = text.split_inclusive(|byte| *byte == b'\n');
    let shown = lines.map(|line| for_terminal(line, colour));
    std::iter::once("\n".to_owned()).chain(shown).collect()
}

/// A plain file of ordinary size in a folder the gate can write to, or nothing.
fn read(state: &Path, name: &str) -> Option<Vec<u8>> {
    let flags = nix::libc::O_NOFOLLOW | nix::libc::O_NONBLOCK;
    let file = File::options()
        .read(true)
        .custom_flags(flags)
        .open(state.join("git-gate/reviews").join(name))
        .ok()?;
    if !file.metadata().ok()?.is_file() {
        return None;
    }
    let mut bytes = Vec::new();
    file.take(2 * MAX_REVIEW).read_to_end(&mut bytes).ok()?;
    Some(bytes)
}
