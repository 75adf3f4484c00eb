//! Where the programs under test are.

use std::path::{Path, PathBuf};

/// One of the bottle tools: in `$BOTTLE_BIN_DIR`, or beside this test.
///
/// # Panics
/// When it was not built.
#[must_use]
pub fn tool(name: &str) -> PathBuf {
    let folder = std::env::var_os("BOTTLE_BIN_DIR").map_or_else(profile_folder, PathBuf::from);
    built(folder.join(name), name)
}

/// A program of this crate, always the one that was built with this test.
///
/// # Panics
/// When it was not built.
#[must_use]
pub fn own(name: &str) -> PathBuf {
    built(profile_folder().join(name), name)
}

fn built(path: PathBuf, name: &str) -> PathBuf {
    assert!(
        path.is_file(),
        "{name} is not at {}; build it first: cargo build --workspace",
        path.display()
    );
    path
}

/// The static sidecar, `$BOTTLE_SIDECAR` or from the target folder; nothing when it was not built.
#[must_use]
pub fn sidecar() -> Option<PathBuf> {
    static_binary("BOTTLE_SIDECAR", "bottle-sidecar")
}

/// The static test kit, `$BOTTLE_TESTKIT` or from the target folder; nothing when it was not built.
#[must_use]
pub fn testkit() -> Option<PathBuf> {
    static_binary("BOTTLE_TESTKIT", "bottle-testkit")
}

/// Puts all that `scripts/build --testkit` makes into a folder, as it does: the static ones as files, for they go into
/// images, and links to the others.
///
/// # Panics
/// When something was not built, or the folder is not writable.
pub fn install(folder: &Path) {
    for name in [
        "bottle-plan",
        "bottle-ca",
        "bottle-render",
        "bottle-run",
        "bottle-snapshot",
    ] {
        std::os::unix::fs::symlink(tool(name), folder.join(name)).expect("a link");
    }
    let front = Path::new(env!("CARGO_MANIFEST_DIR")).join("../scripts/bottle");
    let statics = [
        ("bottle-sidecar", sidecar()),
        ("bottle-testkit", testkit()),
        ("bottle", Some(front)),
    ];
    for (name, path) in statics {
        let path = path.unwrap_or_else(|| panic!("{name} is not built: scripts/build --testkit"));
        std::fs::copy(path, folder.join(name)).expect("a copy");
    }
}

fn static_binary(variable: &str, name: &str) -> Option<PathBuf> {
    let path = std::env::var_os(variable)
        .map_or_else(|| target_folder().join("bottle").join(name), PathBuf::from);
    path.is_file().then_some(path)
}

/// A program of the machine, where administrators keep theirs too.
#[must_use]
pub fn find(program: &str) -> Option<PathBuf> {
    let path = std::env::var_os("PATH").unwrap_or_default();
    let folders = std::env::split_paths(&path).chain(["/usr/sbin".into(), "/usr/local/bin".into()]);
    let mut found = folders.map(|folder| folder.join(program));
    found.find(|path| path.is_file())
}

/// `target/debug`, from `target/debug/deps/TEST` or `target/debug/PROGRAM`.
fn profile_folder() -> PathBuf {
    let test = std::env::current_exe().expect("this program has a path");
    let folder = test.parent().expect("a program is in a folder");
    match folder.file_name() {
        Some(name) if name == "deps" => folder.parent().unwrap_or(folder).to_owned(),
        _ => folder.to_owned(),
    }
}

fn target_folder() -> PathBuf {
    profile_folder()
        .parent()
        .map_or_else(|| PathBuf::from("target"), Path::to_owned)
}
