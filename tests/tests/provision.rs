//! What is put into a bottle before its agent runs: the workspace by its rules, skills, and Java's keystore.

#![allow(clippy::expect_used, reason = "a test's helpers fail by panicking")]

use std::fs;
use std::os::unix::fs::PermissionsExt as _;

use bottle_tests::engine::{docker, need_engine};
use bottle_tests::{Bottle, Call, Home};

fn inside(bottle: &Bottle, script: &str) -> String {
    bottle.exec(&["bash", "-c", script]).ok()
}

#[test]
fn a_copy_can_leave_out_what_git_ignores() {
    if !need_engine("a_copy_can_leave_out_what_git_ignores") {
        return;
    }
    let home = Home::new();
    let folder = home.cwd();
    for (name, text) in [
        (".gitignore", "target/\n*.log\n!kept.log\n"),
        ("a.txt", "a"),
        ("target/big", "big"),
        ("sub/x.log", "x"),
        ("sub/kept.log", "kept"),
        ("sub/new.txt", "new"),
    ] {
        let path = folder.join(name);
        fs::create_dir_all(path.parent().expect("a folder")).expect("a folder");
        fs::write(path, text).expect("a file");
    }
    let git = |args: &[&str]| {
        let call = Call::new("git").cwd(home.cwd()).args(args.iter().copied());
        let _ = call.run().ok();
    };
    home.bottle(
        "copy",
        "image: debian:trixie-slim\nworkspace: {from: cwd, ignore: true}\n",
    );
    // Outside a repository there are no rules to go by.
    let compose = home.render(&home.plan("copy", &home.slug("copy")));
    let refused = home.tool("bottle-run").args(["up"]).stdin(compose).run();
    assert_eq!(refused.code(), 2, "{}", refused.stderr);
    assert!(home.left_of(&home.slug("copy")).is_empty());

    git(&["init", "--quiet"]);
    git(&["add", "a.txt"]);
    // Settings of the repository that would run something, were they believed.
    let canary = home.path().join("canary");
    git(&[
        "config",
        "core.fsmonitor",
        &format!("touch {}", canary.display()),
    ]);
    let bottle = home.up("copy", &home.slug("copy"));
    let there = inside(
        &bottle,
        "cd /workspace; find . -path ./.git -prune -o -type f -print | sort | xargs",
    );
    assert_eq!(
        there.trim(),
        "./.gitignore ./a.txt ./sub/kept.log ./sub/new.txt"
    );
    assert_eq!(
        inside(
            &bottle,
            "stat -c %u /workspace/sub/new.txt /workspace/.git/HEAD"
        ),
        "10001\n10001\n"
    );
    assert!(!canary.exists());
    home.down(&bottle.slug);
}

#[test]
fn a_mount_is_the_folder_itself() {
    if !need_engine("a_mount_is_the_folder_itself") {
        return;
    }
    let home = Home::new();
    fs::write(home.cwd().join("file"), "before").expect("a file");
    fs::set_permissions(home.cwd(), fs::Permissions::from_mode(0o777)).expect("a mode");
    for (name, more) in [("rw", ""), ("ro", ", read_only: true")] {
        home.bottle(
            name,
            &format!("image: debian:trixie-slim\nworkspace: {{from: cwd, mode: mount{more}}}\n"),
        );
        let bottle = home.up(name, &home.slug(name));
        assert_eq!(inside(&bottle, "cat /workspace/file"), "before");
        let wrote = bottle.exec(&["bash", "-c", &format!("echo made > /workspace/{name}")]);
        assert_eq!(wrote.code() == 0, name == "rw", "{}", wrote.stderr);
        assert_eq!(home.cwd().join(name).exists(), name == "rw");
        home.down(&bottle.slug);
    }
    for (bad, says) in [
        ("{from: cwd, read_only: true}", "mode: mount"),
        ("{from: cwd, mode: mount, ignore: true}", "mode: copy"),
        ("{mode: mount}", "nothing to mount"),
    ] {
        home.bottle(
            "bad",
            &format!("image: debian:trixie-slim\nworkspace: {bad}\n"),
        );
        let refused = home.tool("bottle-plan").args(["bad", "--check"]).run();
        assert_eq!(refused.code(), 2, "{}", refused.stderr);
        assert!(refused.stderr.contains(says), "{}", refused.stderr);
    }
}

/// An image made for a test, gone with this value.
struct Image(String);

impl Image {
    fn build(home: &Home, name: &str, dockerfile: &str) -> Self {
        let folder = home.path().join(format!("image-{name}"));
        fs::create_dir_all(&folder).expect("a folder");
        fs::write(folder.join("Dockerfile"), dockerfile).expect("a file");
        let tag = format!("{}:test", home.slug(name));
        let _ = docker([
            "build",
            "--quiet",
            "--tag",
            &tag,
            &folder.display().to_string(),
        ])
        .ok();
        Self(tag)
    }
}

impl Drop for Image {
    fn drop(&mut self) {
        let _ = docker(["image", "rm", "--force", &self.0]);
    }
}

#[test]
fn skills_take_the_place_of_what_is_there() {
    if !need_engine("skills_take_the_place_of_what_is_there") {
        return;
    }
    let home = Home::new();
    let image = Image::build(
        &home,
        "skills",
        "FROM debian:trixie-slim\n\
         RUN mkdir -p /home/agent/.claude/skills/review /home/agent/.claude/skills/own && \
         echo old > /home/agent/.claude/skills/review/SKILL.md && touch /home/agent/.claude/skills/review/planted && \
         echo own > /home/agent/.claude/skills/own/SKILL.md && chown -R 10001:10001 /home/agent\n",
    );
    home.write("skills/review/SKILL.md", "new\n");
    let private = home.write("skills/review/scripts/run.sh", "#!/bin/sh\n");
    fs::set_permissions(private, fs::Permissions::from_mode(0o700)).expect("a mode");
    home.bottle(
        "skilled",
        &format!("image: {}\nskills: [review]\n", image.0),
    );
    let slug = home.slug("skilled");
    // Twice: the second start finds what the first has left nowhere.
    for _ in 0..2 {
        let bottle = home.up("skilled", &slug);
        let listed = inside(
            &bottle,
            "cd ~/.claude/skills; cat */SKILL.md; ls review; test -x review/scripts/run.sh; rm -r review",
        );
        assert_eq!(listed, "own\nnew\nSKILL.md\nscripts\n");
        home.down(&slug);
    }
    // Gone between plan and start: nothing is started.
    let compose = home.render(&home.plan("skilled", &slug));
    fs::remove_dir_all(home.path().join("skills/review")).expect("removed");
    let refused = home.tool("bottle-run").args(["up"]).stdin(compose).run();
    assert_eq!(refused.code(), 4, "{}", refused.stderr);
    assert!(refused.stderr.contains("review"), "{}", refused.stderr);
    assert!(home.left_of(&slug).is_empty());
}

#[test]
fn java_is_told_by_its_own_tool() {
    if !need_engine("java_is_told_by_its_own_tool") {
        return;
    }
    let home = Home::new();
    // The layout of Debian's Java, with a keytool that notes what it was called with.
    let java = |name: &str, ends: &str| {
        let dockerfile = format!(
            "FROM debian:trixie-slim\n\
             RUN mkdir -p /etc/ssl/certs/java && touch /etc/ssl/certs/java/cacerts && \
             printf '#!/bin/sh\\nid -u >> /etc/ssl/certs/java/cacerts; echo \"$@\" >> /etc/ssl/certs/java/cacerts\\n\
             {ends}\\n' > /usr/bin/keytool && chmod 755 /usr/bin/keytool\n"
        );
        Image::build(&home, name, &dockerfile)
    };
    let image = java("java", "exit 0");
    home.bottle("java", &format!("image: {}\n", image.0));
    let bottle = home.up("java", &home.slug("java"));
    let called = inside(&bottle, "cat /etc/ssl/certs/java/cacerts");
    let last: Vec<&str> = called.lines().rev().take(2).collect();
    assert!(
        last[0].starts_with("-importcert -noprompt -trustcacerts -file /etc/bottle/egress-ca.pem"),
        "{called}"
    );
    assert_eq!(last[1], "0");
    home.down(&bottle.slug);

    // One that does not work is said, and stops nothing.
    let image = java("nojava", "exit 1");
    home.bottle("nojava", &format!("image: {}\n", image.0));
    let slug = home.slug("nojava");
    let compose = home.render(&home.plan("nojava", &slug));
    let up = home.tool("bottle-run").args(["up"]).stdin(compose).run();
    assert!(up.stderr.contains("keytool did not take"), "{}", up.stderr);
    let _ = up.ok();
    home.down(&slug);
}

#[test]
fn an_image_of_nothing_is_said_to_be_too_little() {
    if !need_engine("an_image_of_nothing_is_said_to_be_too_little") {
        return;
    }
    let home = Home::new();
    let image = Image::build(&home, "scratch", "FROM scratch\nCOPY Dockerfile /\n");
    home.bottle("scratch", &format!("image: {}\n", image.0));
    let slug = home.slug("scratch");
    let compose = home.render(&home.plan("scratch", &slug));
    let refused = home.tool("bottle-run").args(["up"]).stdin(compose).run();
    assert_eq!(refused.code(), 1, "{}", refused.stderr);
    assert!(
        refused.stderr.contains("an image needs `sleep`"),
        "{}",
        refused.stderr
    );
    assert!(home.left_of(&slug).is_empty());
}

/// Enough to wait, and nothing else: no shell, no roots, no passwd, no git.
const BARE: &str = "\
FROM debian:trixie-slim AS whole
RUN mkdir /bare && cp --parents -L /usr/bin/sleep /usr/bin/cat $(ldd /usr/bin/sleep | grep -o '/[^ ]*') /bare
FROM scratch
COPY --from=whole /bare /
";

#[test]
fn what_an_image_lacks_is_said() {
    if !need_engine("what_an_image_lacks_is_said") {
        return;
    }
    let home = Home::new();
    let image = Image::build(&home, "bare", BARE);
    home.bottle(
        "bare",
        &format!(
            "image: {}\negress: {{routes: [{{host: pinned.example.com, tls: passthrough}}]}}\n",
            image.0
        ),
    );
    let slug = home.slug("bare");
    let compose = home.render(&home.plan("bare", &slug));
    let up = home.tool("bottle-run").args(["up"]).stdin(compose).run();
    for said in [
        "the image has no root certificates",
        "the image has no /etc/passwd",
        "the image has no /bin/bash",
        "`command`",
    ] {
        assert!(up.stderr.contains(said), "{said}: {}", up.stderr);
    }
    let bottle = Bottle::started(&home, &slug, up.json());
    // What is there works, with the bottle's roots and as its user.
    let roots = bottle.exec(&["/usr/bin/cat", "/etc/ssl/certs/ca-certificates.crt"]);
    assert!(roots.ok().contains("BEGIN CERTIFICATE"));
    let status = bottle.exec(&["/usr/bin/cat", "/proc/self/status"]).ok();
    assert!(status.contains("Uid:\t10001"), "{status}");
    // What is not is a code of its own, and says what was looked for.
    let shell = bottle.exec(&["/bin/bash", "-c", "true"]);
    assert!(matches!(shell.code(), 126 | 127), "{}", shell.code());
    // The engine's client says it on stdout.
    let said = format!("{}{}", shell.stdout, shell.stderr);
    assert!(said.contains("/bin/bash"), "{said}");
    home.down(&slug);
}

/// What a build is given so that it can download behind a proxy that opens TLS, and that it is used up there.
#[test]
fn a_build_is_given_the_hosts_roots_and_is_made_once() {
    if !need_engine("a_build_is_given_the_hosts_roots_and_is_made_once") {
        return;
    }
    let marked = "# roots of this test's host: 8d2c1f\n";
    let folder = tempfile::tempdir().expect("a folder");
    let bundle = folder.path().join("roots.pem");
    fs::write(&bundle, marked).expect("a bundle");
    let home = Home::with_env(&[("SSL_CERT_FILE", &bundle.display().to_string())]);
    let slug = home.slug("built");
    // The slug: a build does not know by the secret that it was made before with another one.
    let dockerfile = |more: &str| {
        home.write(
            "bottles/Dockerfile",
            format!(
                "FROM debian:trixie-slim\n\
                 RUN --mount=type=secret,id=host_ca,required=true \
                 sha256sum < /run/secrets/host_ca > /seen && : {slug}\n{more}"
            ),
        );
    };
    home.bottle("built", "dockerfile: Dockerfile\n");
    let up = || {
        let compose = home.render(&home.plan("built", &slug));
        let up = home.tool("bottle-run").args(["up"]).stdin(compose).run();
        let bottle = Bottle::started(&home, &slug, up.json());
        let id = docker(["inspect", "--format={{.Image}}", &bottle.agent()]).ok();
        let seen = inside(&bottle, "cat /seen; ls /run/secrets 2>/dev/null || true");
        let name = bottle.plan()["agent"]["image"]["reference"].to_string();
        home.down(&slug);
        (id, seen, name)
    };
    dockerfile("");
    let (id, seen, name) = up();
    let sum = Call::new("sha256sum").stdin(marked).run().ok();
    assert_eq!(
        seen, sum,
        "the build saw the bundle, and it is not in the image"
    );
    let history = docker(["history", "--no-trunc", id.trim()]).ok();
    assert!(!history.contains("8d2c1f"), "{history}");
    // The same again is the same image; another Dockerfile another one.
    assert_eq!(up(), (id.clone(), seen.clone(), name.clone()));
    dockerfile("RUN touch /more\n");
    let (other, _, other_name) = up();
    assert!(other != id && other_name != name, "{name} {other_name}");
    for image in [id, other] {
        let _ = docker(["image", "rm", "--force", image.trim()]);
    }
}
