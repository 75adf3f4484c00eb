//! A release as it is downloaded: the installer believes no tarball whose sum is wrong, and installs all or nothing.
//!
//! The tarball here has scripts for tools: what is tested is the installer. `scripts/release --debug` makes a real one.

use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};

use bottle_tests::{Call, Done};

const NAME: &str = "bottle-0.0.1-test";

struct Release(tempfile::TempDir);

impl Release {
    fn new() -> Self {
        let release = Self(tempfile::tempdir().expect("a folder"));
        let tool = release.path(&format!("{NAME}/bin/bottle-plan"));
        fs::create_dir_all(tool.parent().expect("a folder")).expect("a folder");
        fs::write(&tool, "#!/bin/sh\necho bottle-plan 0.0.1\n").expect("a tool");
        fs::set_permissions(&tool, fs::Permissions::from_mode(0o755)).expect("a mode");
        let page = release.path(&format!("{NAME}/share/man/man1/bottle-plan.1"));
        fs::create_dir_all(page.parent().expect("a folder")).expect("a folder");
        fs::write(page, ".TH x\n").expect("a page");
        let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("../scripts/install.sh");
        fs::copy(script, release.path("install.sh")).expect("the installer");
        release.shell(&format!(
            "tar -czf {NAME}.tar.gz {NAME} && sha256sum {NAME}.tar.gz > SHA256SUMS"
        ));
        release
    }

    fn path(&self, name: &str) -> PathBuf {
        self.0.path().join(name)
    }

    fn shell(&self, script: &str) {
        let _ = Call::new("sh")
            .cwd(self.0.path())
            .args(["-c", script])
            .run()
            .ok();
    }

    fn install(&self, args: &[&str]) -> Done {
        Call::new("sh")
            .cwd(self.0.path())
            .env("HOME", self.path("home"))
            .args(["install.sh"])
            .args(args.iter().copied())
            .run()
    }
}

#[test]
fn what_is_whole_is_installed() {
    let release = Release::new();
    for prefix in ["home/.local", "elsewhere"] {
        let to = release.path("elsewhere").display().to_string();
        let args = if prefix == "elsewhere" {
            vec!["--to", &to]
        } else {
            vec![]
        };
        let done = release.install(&args);
        assert_eq!(done.code(), 0, "{}", done.stderr);
        assert!(done.stderr.contains("export PATH="), "{}", done.stderr);
        let tool = release.path(prefix).join("bin/bottle-plan");
        assert_eq!(Call::new(tool).run().ok(), "bottle-plan 0.0.1\n");
        assert!(
            release
                .path(prefix)
                .join("share/man/man1/bottle-plan.1")
                .is_file()
        );
        let left = fs::read_dir(release.path(prefix)).expect("lists").count();
        assert_eq!(left, 2, "bin, share and nothing else");
    }
    // Again, over what is there.
    assert_eq!(release.install(&[]).code(), 0);
}

#[test]
fn what_is_not_is_refused_and_leaves_nothing() {
    for (change, said) in [
        (
            format!("printf x >> {NAME}.tar.gz"),
            "is not what SHA256SUMS says",
        ),
        ("rm SHA256SUMS".to_owned(), "no SHA256SUMS"),
        (
            "echo 00 other.tar.gz > SHA256SUMS".to_owned(),
            "does not name",
        ),
        (
            "cat SHA256SUMS SHA256SUMS > twice && mv twice SHA256SUMS".to_owned(),
            "does not name",
        ),
        (format!("cp {NAME}.tar.gz bottle-2.tar.gz"), "more than one"),
        (format!("rm {NAME}.tar.gz"), "no tarball"),
        (
            format!("echo > x && tar -czf {NAME}.tar.gz x && sha256sum {NAME}.tar.gz > SHA256SUMS"),
            "holds no tools",
        ),
    ] {
        let release = Release::new();
        release.shell(&change);
        let done = release.install(&[]);
        assert_eq!(done.code(), 1, "{change}: {}", done.stderr);
        assert!(done.stderr.contains(said), "{change}: {}", done.stderr);
        assert!(!release.path("home/.local/bin").exists(), "{change}");
        let left = fs::read_dir(release.path("home/.local")).map_or(0, Iterator::count);
        assert_eq!(left, 0, "{change}");
    }
}

#[test]
fn wrong_usage_is_said() {
    let release = Release::new();
    for args in [["--nosuch"].as_slice(), &["--to"], &["a", "b"]] {
        let done = release.install(args);
        assert_eq!(done.code(), 2, "{args:?}: {}", done.stderr);
        assert!(done.stderr.contains("hint: "), "{}", done.stderr);
    }
    assert_eq!(release.install(&["--check"]).code(), 0);
    assert!(!release.path("home").exists());
}
