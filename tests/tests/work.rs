//! `diff` and `pull`: the agent's work comes back, and nothing else does.

#![allow(clippy::expect_used, reason = "a test's helpers fail by panicking")]

use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};

use bottle_tests::engine::{need_engine, note_skipped};
use bottle_tests::{Bottle, Call, Done, Home};

/// A bottle with git in it; nothing when its image cannot be built, which is said.
fn with_git(home: &Home, test: &str, more: &str) -> Option<Bottle> {
    home.bottle(
        "work",
        &format!("agent_provider: {{template: shell}}\n{more}"),
    );
    let slug = home.slug("work");
    let compose = home.render(&home.plan("work", &slug));
    let started = home.tool("bottle-run").args(["up"]).stdin(compose).run();
    if started.code() != 0 && started.stderr.contains("building the image") {
        note_skipped(test, "the image with git cannot be built here");
        return None;
    }
    Some(Bottle::started(home, &slug, started.json()))
}

fn git(folder: &Path, args: &[&str]) -> Done {
    let identity = ["-c", "user.name=Ann", "-c", "user.email=ann@example.com"];
    let usual = ["-c", "init.defaultBranch=main", "-C"];
    Call::new("git")
        .args(identity)
        .args(usual)
        .args([folder])
        .args(args.iter().copied())
        .run()
}

/// A repository with two commits in the folder the bottle is planned in.
fn repository(home: &Home) -> PathBuf {
    let folder = home.cwd();
    let _ = git(&folder, &["init", "--quiet"]).ok();
    for (name, text) in [("kept.txt", "one\n"), ("changed.txt", "two\n")] {
        fs::write(folder.join(name), text).expect("a file");
        let _ = git(&folder, &["add", "."]).ok();
        let _ = git(&folder, &["commit", "--quiet", "--message", name]).ok();
    }
    folder
}

fn inside(bottle: &Bottle, script: &str) {
    let script = format!("set -e; cd /workspace; {script}");
    let _ = bottle.exec(&["bash", "-c", &script]).ok();
}

fn run(home: &Home, args: &[&str]) -> Done {
    home.tool("bottle-run").args(args.iter().copied()).run()
}

const COMMIT: &str = "git -c user.name=agent -c user.email=agent@example.com commit --quiet";

#[test]
fn the_work_comes_back_as_a_branch() {
    let name = "the_work_comes_back_as_a_branch";
    if !need_engine(name) {
        return;
    }
    let home = Home::new();
    let repository = repository(&home);
    let Some(bottle) = with_git(&home, name, "workspace: {from: cwd}\n") else {
        return;
    };
    let slug = bottle.slug.as_str();
    let head = git(&repository, &["rev-parse", "HEAD"]).ok();

    // Nothing was done yet.
    assert_eq!(run(&home, &["diff", slug]).ok(), "");
    let pulled = run(&home, &["--json", "pull", slug]).json();
    assert!(pulled["branch"].is_null(), "{pulled}");

    inside(
        &bottle,
        &format!(
            "git checkout --quiet -b fix; echo more >> changed.txt; {COMMIT} --all --message 'a fix'; \
             echo loose > loose.txt; rm kept.txt; mkdir sub; echo deep > sub/deep.txt"
        ),
    );
    let diff = run(&home, &["diff", slug]).ok();
    for line in ["+more", "+loose", "-one", "+deep"] {
        assert!(diff.contains(line), "{line} in {diff}");
    }
    assert!(
        run(&home, &["diff", slug, "--stat"])
            .ok()
            .contains("4 files changed")
    );
    let some = run(&home, &["diff", slug, "--", "sub"]).ok();
    assert!(some.contains("+deep") && !some.contains("+more"), "{some}");
    let committed = run(&home, &["diff", slug, "--committed"]).ok();
    assert!(
        committed.contains("+more") && !committed.contains("+loose"),
        "{committed}"
    );
    let document = run(&home, &["--json", "diff", slug]).json();
    assert_eq!(document["base"], head.trim());
    assert_eq!(document["branch"], "fix");
    assert_eq!(document["uncommitted"], true);
    assert_eq!(document["commits"][0]["subject"], "a fix");
    assert_eq!(document["files"].as_array().map(Vec::len), Some(4));

    // What diff shows is what pull takes, and it applies.
    let pulled = run(&home, &["--json", "pull", slug]).json();
    let branch = format!("bottle/{slug}");
    assert_eq!(pulled["branch"], branch.as_str());
    assert_eq!(
        (&pulled["commits"], &pulled["uncommitted"]),
        (&1.into(), &true.into())
    );
    let same = git(
        &repository,
        &["diff", "--no-renames", "--patch", "main", &branch],
    )
    .ok();
    assert_eq!(same, diff);
    // Neither the working tree nor what is checked out has changed.
    assert_eq!(git(&repository, &["status", "--porcelain"]).ok(), "");
    assert_eq!(git(&repository, &["rev-parse", "HEAD"]).ok(), head);
    assert!(!repository.join(".git/FETCH_HEAD").exists());
    let _ = git(&repository, &["fsck", "--strict"]).ok();

    // The same again is no conflict; more work is, and says what to type.
    assert_eq!(run(&home, &["pull", slug]).ok(), format!("{branch}\n"));
    inside(&bottle, "echo again >> loose.txt");
    let conflict = run(&home, &["pull", slug]);
    assert_eq!(conflict.code(), 5, "{}", conflict.stderr);
    assert!(conflict.stderr.contains("--replace"), "{}", conflict.stderr);
    let _ = run(&home, &["pull", slug, "--replace"]).ok();
    assert!(
        git(&repository, &["show", &format!("{branch}:loose.txt")])
            .ok()
            .contains("again")
    );
    let _ = run(
        &home,
        &["pull", slug, "--committed", "--branch", "only/commits"],
    )
    .ok();
    let there = git(&repository, &["ls-tree", "--name-only", "only/commits"]).ok();
    assert_eq!(there, "changed.txt\nkept.txt\n");

    // The branch that is checked out is never touched, and a name that is none is said.
    let checked_out = run(&home, &["pull", slug, "--branch", "main", "--replace"]);
    assert_eq!(checked_out.code(), 5, "{}", checked_out.stderr);
    assert_eq!(git(&repository, &["rev-parse", "HEAD"]).ok(), head);
    for bad in ["-x", "a..b", "a b", "x.lock"] {
        let bad = run(&home, &["pull", slug, &format!("--branch={bad}")]);
        assert_eq!(bad.code(), 2, "{}", bad.stderr);
    }

    // Into a repository that has nothing of it, and into none.
    let other = home.path().join("other");
    fs::create_dir(&other).expect("a folder");
    let into = ["pull", slug, "--into", other.to_str().expect("text")];
    let none = run(&home, &into);
    assert_eq!(none.code(), 4, "{}", none.stderr);
    let _ = git(&other, &["init", "--quiet"]).ok();
    let _ = run(&home, &into).ok();
    assert_eq!(git(&other, &["rev-list", "--count", &branch]).ok(), "4\n");

    home.down(slug);
    let gone = run(&home, &["pull", slug]);
    assert_eq!(gone.code(), 4, "{}", gone.stderr);
    assert!(!home.state(slug).join("incoming").exists());
}

/// Writes hooks and settings that would leave a file behind, wherever git believes them.
fn booby_trap(repository: &Path, canary: &Path) {
    let touch = format!("touch {}", canary.display());
    let hooks = repository.join("hooks");
    fs::create_dir_all(&hooks).expect("a folder");
    for hook in [
        "reference-transaction",
        "post-checkout",
        "post-index-change",
        "pre-auto-gc",
        "post-merge",
        "fsmonitor-watchman",
        "post-rewrite",
    ] {
        let path = hooks.join(hook);
        fs::write(&path, format!("#!/bin/sh\n{touch}\n")).expect("a hook");
        fs::set_permissions(&path, fs::Permissions::from_mode(0o755)).expect("a mode");
    }
    let config = format!(
        "[core]\n\tfsmonitor = {touch}\n\tsshCommand = {touch}\n\tpager = {touch}\n\teditor = {touch}\n\
         \taskPass = {touch}\n\talternateRefsCommand = {touch}\n\tgitProxy = {touch}\n\thooksPath = {hooks}\n\
         [diff]\n\texternal = {touch}\n[diff \"x\"]\n\ttextconv = {touch}\n\tcommand = {touch}\n\
         [filter \"x\"]\n\tclean = {touch}\n\tsmudge = {touch}\n\tprocess = {touch}\n\
         [url \"ext::sh -c '{touch}' \"]\n\tinsteadOf = /\n[protocol \"ext\"]\n\tallow = always\n\
         [protocol]\n\tallow = always\n[uploadpack]\n\tpackObjectsHook = {touch}\n\
         [submodule]\n\trecurse = true\n[gc]\n\tauto = 1\n[credential]\n\thelper = !{touch}\n\
         [gpg]\n\tprogram = {touch}\n[log]\n\tshowSignature = true\n[fetch]\n\trecurseSubmodules = true\n",
        hooks = hooks.display(),
    );
    let file = repository.join("config");
    let before = fs::read_to_string(&file).unwrap_or_default();
    fs::write(&file, format!("{before}{config}")).expect("settings");
}

#[test]
fn nothing_of_a_repository_runs_on_the_host() {
    let name = "nothing_of_a_repository_runs_on_the_host";
    if !need_engine(name) {
        return;
    }
    let home = Home::new();
    let repository = repository(&home);
    fs::write(repository.join(".gitattributes"), "* filter=x diff=x\n").expect("a file");
    let _ = git(&repository, &["add", "."]).ok();
    let _ = git(
        &repository,
        &["commit", "--quiet", "--message", "attributes"],
    )
    .ok();
    let canary = home.path().join("canary");
    booby_trap(&repository.join(".git"), &canary);
    // The repository came from somewhere: copied in, it is hostile on both sides.
    let Some(bottle) = with_git(&home, name, "workspace: {from: cwd}\n") else {
        return;
    };
    let slug = bottle.slug.as_str();
    inside(
        &bottle,
        "printf '[submodule \"../../x\"]\\n path = sub\\n url = ext::sh -c touch\\n' > .gitmodules.new; \
         printf 'new\\n' >> changed.txt",
    );
    let diff = run(&home, &["diff", slug]).ok();
    assert!(diff.contains("+new"), "{diff}");
    let pulled = run(&home, &["--json", "pull", slug]).json();
    assert_eq!(pulled["uncommitted"], true);
    assert!(!canary.exists(), "the host ran something of the repository");

    // A .gitmodules that git knows to be an attack is refused, and leaves nothing behind.
    inside(&bottle, "mv .gitmodules.new .gitmodules");
    let refused = run(&home, &["pull", slug, "--branch", "tricks"]);
    assert_eq!(refused.code(), 1, "{}", refused.stderr);
    assert!(refused.stderr.contains("gitmodules"), "{}", refused.stderr);
    inside(&bottle, "rm .gitmodules");

    // References inside that would be paths, options or escape sequences outside.
    inside(
        &bottle,
        "export GIT_CONFIG_GLOBAL=/dev/null; id=$(cat .git/refs/heads/main); mkdir -p .git/refs/replace; \
         echo $id > .git/refs/heads/$(printf 'e\\033]52;c;eA==x'); echo $id > .git/refs/heads/--upload-pack=x; \
         echo $id > .git/refs/replace/$id",
    );
    let _ = run(&home, &["pull", slug, "--branch", "names"]).ok();

    // Objects borrowed from a place that is on the host and not in the bottle.
    let secret = home.path().join("secret");
    fs::create_dir(&secret).expect("a folder");
    let _ = git(&secret, &["init", "--quiet"]).ok();
    fs::write(secret.join("key"), "very secret\n").expect("a file");
    let _ = git(&secret, &["add", "."]).ok();
    let blob = git(&secret, &["hash-object", "key"]).ok();
    inside(
        &bottle,
        &format!(
            "echo {}/.git/objects > .git/objects/info/alternates; rm -f .git/index; \
             git -c core.fsmonitor=false -c core.hooksPath= update-index --add --cacheinfo 100644,{},stolen || true",
            secret.display(),
            blob.trim()
        ),
    );
    let _ = run(&home, &["pull", slug, "--branch", "borrowed"]);
    let stolen = git(&repository, &["cat-file", "-e", blob.trim()]);
    assert_ne!(stolen.code(), 0, "a file of the host came along");

    // A repository that is elsewhere, and one that is none.
    for script in [
        "mv .git ../tmp/moved.git; ln -s /tmp/moved.git .git",
        "rm .git; echo 'gitdir: /tmp/moved.git' > .git",
        "rm .git; echo 'gitdir: /etc' > .git",
        "rm .git; mkdir .git",
    ] {
        inside(&bottle, script);
        let looked = run(&home, &["diff", slug, "--stat"]);
        assert!(
            matches!(looked.code(), 0 | 1),
            "{script}: {}",
            looked.stderr
        );
        assert!(!looked.stderr.contains("panic"), "{}", looked.stderr);
    }
    assert!(!canary.exists(), "the host ran something of the bottle");
    home.down(slug);
}

#[test]
fn strange_files_neither_stop_nor_escape() {
    let name = "strange_files_neither_stop_nor_escape";
    if !need_engine(name) {
        return;
    }
    let home = Home::new();
    let repository = repository(&home);
    std::os::unix::fs::symlink("/etc/passwd", repository.join("out")).expect("a link");
    let _ = Call::new("mkfifo")
        .args([repository.join("fifo")])
        .run()
        .ok();
    fs::write(repository.join("new\nline \u{1b}]0;x\u{7}"), "odd\n").expect("a file");
    let sparse = fs::File::create(repository.join("sparse")).expect("a file");
    sparse.set_len(1 << 40).expect("a sparse file");
    let Some(bottle) = with_git(&home, name, "workspace: {from: cwd}\n") else {
        return;
    };
    let slug = bottle.slug.as_str();
    inside(
        &bottle,
        "test -L out; test ! -e sparse; test ! -e fifo; mkfifo pipe; truncate -s 1T huge; \
         ln -s /proc/self/environ env; ln -s ../../../../../../etc/shadow shadow; \
         echo x > \"$(printf 'more\\nodd\\033[31m')\"; python3 -c pass 2>/dev/null || true; \
         printf '\\000\\001' > bytes; mkdir -p deep/.git; echo '[core]' > deep/.git/config",
    );
    let diff = run(&home, &["diff", slug, "--stat"]);
    assert_eq!(diff.code(), 0, "{}", diff.stderr);
    assert!(
        diff.stderr.contains("left out") && diff.stderr.contains("huge"),
        "{}",
        diff.stderr
    );
    let pulled = run(&home, &["--json", "pull", slug]).json();
    let branch = pulled["branch"].as_str().expect("a branch").to_owned();
    // Links are links, and what they point at on the host is not read.
    let link = git(
        &repository,
        &["cat-file", "-p", &format!("{branch}:shadow")],
    )
    .ok();
    assert_eq!(link, "../../../../../../etc/shadow");
    let names = git(&repository, &["ls-tree", "-z", "--name-only", &branch]).ok();
    assert!(
        names.contains("more\nodd\u{1b}[31m") && !names.contains("huge"),
        "{names:?}"
    );
    home.down(slug);
}

#[test]
fn what_cannot_be_brought_back_is_said() {
    let name = "what_cannot_be_brought_back_is_said";
    if !need_engine(name) {
        return;
    }
    let home = Home::new();
    let repository = repository(&home);
    // No git in the image.
    home.bottle(
        "bare",
        "image: debian:trixie-slim\nworkspace: {from: cwd}\n",
    );
    let bare = home.up("bare", &home.slug("bare"));
    let without = run(&home, &["pull", &bare.slug]);
    assert_eq!(without.code(), 1, "{}", without.stderr);
    assert!(without.stderr.contains("has no git"), "{}", without.stderr);
    home.down(&bare.slug);

    // A mounted workspace: the work is on the host already, and diff looks at it without running what it says.
    let canary = home.path().join("canary");
    let Some(mounted) = with_git(&home, name, "workspace: {from: cwd, mode: mount}\n") else {
        return;
    };
    let pull = run(&home, &["pull", &mounted.slug]);
    assert_eq!(pull.code(), 2, "{}", pull.stderr);
    booby_trap(&repository.join(".git"), &canary);
    fs::write(repository.join("changed.txt"), "two\nthree\n").expect("a file");
    assert!(run(&home, &["diff", &mounted.slug]).ok().contains("+three"));
    assert!(!canary.exists());
    home.down(&mounted.slug);

    // No folder it came from: --into says where to.
    let Some(empty) = with_git(&home, name, "") else {
        return;
    };
    inside(&empty, "echo made > made.txt");
    assert!(run(&home, &["diff", &empty.slug]).ok().contains("+made"));
    let nowhere = run(&home, &["pull", &empty.slug]);
    assert_eq!(nowhere.code(), 4, "{}", nowhere.stderr);
    assert!(nowhere.stderr.contains("--into"), "{}", nowhere.stderr);
    home.down(&empty.slug);
}
