//! Git over HTTPS, against git's own server.

use bottle_tests::Internet;

use super::{Fixture, GIT, GIT_TOKEN, assert_paid_with};

/// Puts a repository with a few commits where the destination serves it from.
pub(crate) fn serve(internet: &Internet) {
    let script = "set -eu; export HOME=/served; mkdir -p /served/git; cd /served/git; \
        git init --quiet --bare --initial-branch=main garden.git; git -C garden.git config http.receivepack true; \
        git clone --quiet garden.git /served/work 2>/dev/null; cd /served/work; \
        git config user.name Host; git config user.email host@example.com; \
        for plant in apple pear quince; do echo $plant >> plants; git add plants; git commit --quiet --message=$plant; done; \
        git push --quiet origin main";
    let _ = internet.exec(&["sh", "-c", script]).ok();
}

const URL: &str = "https://git.example.com/git/garden.git";

/// Clones by the proxy, fetches what is new without it.
pub(crate) fn git_clones_and_fetches(f: &Fixture) {
    let _ = f.sh(&format!("git clone --quiet {URL} /tmp/garden")).ok();
    let log = f.sh("git -C /tmp/garden log --format=%s").ok();
    assert_eq!(log, "quince\npear\napple\n");

    let more = "cd /served/work && export HOME=/served && echo medlar >> plants && git commit --quiet --all --message=medlar \
                && git push --quiet origin main";
    let _ = f.internet.exec(&["sh", "-c", more]).ok();
    let _ = f.sh_direct("git -C /tmp/garden pull --quiet").ok();
    let log = f.sh("git -C /tmp/garden log -1 --format=%s").ok();
    assert_eq!(log, "medlar\n");

    let arrived = f.arrived_at(GIT, "/git/garden.git");
    assert!(arrived.len() >= 4, "{arrived:?}");
    for request in &arrived {
        assert_paid_with(request, GIT_TOKEN);
    }
    let posts = arrived.iter().filter(|request| request["method"] == "POST");
    assert!(posts.count() >= 2, "a fetch is a POST as well");
}

pub(crate) fn git_cannot_push(f: &Fixture) {
    let script = format!(
        "cd /tmp && rm -rf push && git clone --quiet {URL} push && cd push && echo thorn > plants && \
         git -c user.name=A -c user.email=a@example.com commit --quiet --all --message=thorn && git push origin main"
    );
    for done in [f.sh(&script), f.sh_direct(&script)] {
        assert_ne!(done.code(), 0);
        assert!(done.stderr.contains("403"), "{}", done.stderr);
    }
    let held = f
        .internet
        .exec(&["git", "-C", "/served/git/garden.git", "log", "--format=%s"]);
    assert!(!held.ok().contains("thorn"), "the push arrived");
    let arrived = f.arrived_at(GIT, "/git/garden.git");
    let push = |request: &serde_json::Value| request.to_string().contains("receive-pack");
    assert!(
        !arrived.iter().any(push),
        "a push was asked for at the destination"
    );
}
