//! What the rules refuse, and that the upstream never hears of it.

use crate::fixture::{EXAMPLE, Fixture, GIVEN, HOST, TOKEN};

const COMMIT: &str = "git add -A; git commit -qm work";

pub(crate) fn foreign_branch(f: &Fixture) {
    f.clone("foreign");
    let _ = f
        .agent(&format!("cd ~/foreign; echo x > foreign; {COMMIT}"))
        .ok();
    let done = f.assert_push_refused(
        "foreign",
        "git push origin HEAD:main",
        "git_ref_not_allowed",
    );
    assert!(
        done.stderr.contains("allowed: refs/heads/agent/*"),
        "{}",
        done.stderr
    );
}

pub(crate) fn force_push(f: &Fixture) {
    let _ = f
        .push_after("force", &format!("echo x > force; {COMMIT}"))
        .ok();
    let _ = f
        .agent("cd ~/force; git commit -q --amend -m rewritten")
        .ok();
    f.assert_push_refused("force", "git push --force origin agent/force", "git_force");
    f.assert_push_refused(
        "force",
        "git push origin +HEAD:refs/heads/agent/force",
        "git_force",
    );
}

pub(crate) fn delete(f: &Fixture) {
    let _ = f
        .push_after("delete", &format!("echo x > delete; {COMMIT}"))
        .ok();
    f.assert_push_refused("delete", "git push origin :agent/delete", "git_delete");
    f.assert_push_refused("delete", "git push origin --delete main", "git_delete");
}

pub(crate) fn tag(f: &Fixture) {
    f.clone("tag");
    let _ = f
        .agent(
            "cd ~/tag; git tag mine; git commit --allow-empty -qm moved; git tag -f v1 > /dev/null",
        )
        .ok();
    f.assert_push_refused("tag", "git push origin mine", "git_ref_not_allowed");
    // One that is there does not move, whoever may push what.
    f.assert_push_refused("tag", "git push --force origin v1", "git_force");
}

pub(crate) fn hostile_names(f: &Fixture) {
    f.clone("names");
    let _ = f
        .agent(&format!("cd ~/names; echo x > names; {COMMIT}"))
        .ok();
    for name in [
        "agent/$(id)",
        "agent/a;b",
        "agent/`id`",
        "agent/-x",
        "agent/a|b",
        "agent/x\u{202e}y",
        "agent/it's",
    ] {
        let push = format!(
            "git push origin \"HEAD:refs/heads/{}\"",
            name.replace('$', "\\$").replace('`', "\\`")
        );
        f.assert_push_refused("names", &push, "git_ref_invalid");
    }
    f.assert_push_refused(
        "names",
        "git push origin HEAD:refs/notes/commits",
        "git_ref_invalid",
    );
    let options = f.agent("cd ~/names; git push -o ci.skip origin HEAD:agent/names");
    assert!(!options.status.success(), "push options are not offered");
}

pub(crate) fn read_only_repository(f: &Fixture) {
    let url = f.upstream.url(HOST, "readonly");
    let script = format!(
        "rm -rf ~/ro; git clone -q {url} ~/ro; cd ~/ro; echo x > x; git add .; git commit -qm x; git push origin HEAD:agent/x"
    );
    let done = f.agent(&script);
    assert!(!done.status.success());
    assert!(
        done.stderr.contains("readonly can only be read"),
        "{}",
        done.stderr
    );
}

pub(crate) fn protected_path(f: &Fixture) {
    f.assert_refused(
        "workflow",
        &format!("echo on: always > .github/workflows/ci.yml; {COMMIT}"),
        "git_protected_path",
    );
    // Some file systems do not tell letters of either case apart.
    f.assert_refused(
        "workflow-case",
        &format!("mkdir -p .GitHub/Workflows; echo x > .GitHub/Workflows/x.yml; {COMMIT}"),
        "git_protected_path",
    );
    // Not only in the last commit, and not only by adding.
    f.assert_refused(
        "workflow-away",
        &format!("git rm -q .github/workflows/ci.yml; git commit -qm a; git revert --no-edit HEAD > /dev/null; echo y > y; {COMMIT}"),
        "git_protected_path",
    );
    // A merge that brings in what the upstream has changed there is no change of the agent's.
    f.clone("workflow-merge");
    let _ = f
        .agent(&format!("cd ~/workflow-merge; echo own > own; {COMMIT}"))
        .ok();
    let _ = f.upstream.git("cd /tmp/demo; echo on: tag > .github/workflows/ci.yml; git commit -qam workflow; git push -q /srv/git/demo.git main").ok();
    let _ = f.agent("cd ~/workflow-merge; git fetch -q; git merge -q --no-edit origin/main; git push -q origin agent/workflow-merge").ok();
}

pub(crate) fn too_many_commits(f: &Fixture) {
    let script = "for n in $(seq 21); do git commit -q --allow-empty -m $n; done";
    f.assert_refused("many", script, "git_too_many_commits");
    let script = "head -c 21000000 /dev/zero > zeros; git add .; git commit -qm zeros";
    f.assert_refused("large", script, "git_too_large");
}

pub(crate) fn secret_in_a_file(f: &Fixture) {
    let done = f.assert_refused(
        "s-file",
        &format!("echo 'token = \"{EXAMPLE}\"' > app.cfg; {COMMIT}"),
        "git_secret",
    );
    assert!(
        done.stderr.contains("app.cfg") && done.stderr.contains("github-pat"),
        "{}",
        done.stderr
    );
}

pub(crate) fn secret_in_a_message(f: &Fixture) {
    f.assert_refused(
        "s-message",
        &format!("git commit -q --allow-empty -m 'uses {EXAMPLE} now'"),
        "git_secret",
    );
}

pub(crate) fn secret_in_a_file_name(f: &Fixture) {
    f.assert_refused(
        "s-name",
        &format!("echo x > {EXAMPLE}.txt; {COMMIT}"),
        "git_secret",
    );
}

pub(crate) fn secret_in_an_author(f: &Fixture) {
    f.assert_refused(
        "s-author",
        &format!("git commit -q --allow-empty -m x --author 'A <{EXAMPLE}@example.com>'"),
        "git_secret",
    );
}

pub(crate) fn secret_in_a_commit_that_a_later_one_removes(f: &Fixture) {
    let script = format!("echo {EXAMPLE} > s; {COMMIT}; git rm -q s; git commit -qm 'remove it'");
    f.assert_refused("s-between", &script, "git_secret");
}

pub(crate) fn secret_in_a_merge(f: &Fixture) {
    // What only the merge itself brings in is in no difference to a parent that git shows by default.
    let script = format!(
        "git checkout -qb side; echo side > side; {COMMIT}; git checkout -q agent/s-merge; echo main > main; {COMMIT}; \
         git merge -q --no-commit side; echo {EXAMPLE} > evil; git add -A; git commit -qm merge"
    );
    f.assert_refused("s-merge", &script, "git_secret");
}

pub(crate) fn secret_in_base64(f: &Fixture) {
    let script = format!("printf 'token = \"{EXAMPLE}\"' | base64 -w0 > data; {COMMIT}");
    f.assert_refused("s-base64", &script, "git_secret");
}

pub(crate) fn secret_in_gzip(f: &Fixture) {
    let script = format!("printf 'token = \"{EXAMPLE}\"' | gzip > data.gz; {COMMIT}");
    f.assert_refused("s-gzip", &script, "git_secret");
}

pub(crate) fn the_words_that_silence_gitleaks(f: &Fixture) {
    let script = format!("echo 'token = \"{EXAMPLE}\" # gitleaks:allow' > s; {COMMIT}");
    f.assert_refused("s-allow", &script, "git_secret");
    let script = format!(
        "printf '[allowlist]\\npaths = [\".*\"]\\n' > .gitleaks.toml; printf 's:github-pat:1\\n0:github-pat:2\\n' > .gitleaksignore; \
         echo 'token = \"{EXAMPLE}\"' > s; {COMMIT}"
    );
    f.assert_refused("s-ignore", &script, "git_secret");
    let script = format!("printf '%%PDF-1.4\\ntoken = \"{EXAMPLE}\"' > go.sum; {COMMIT}");
    f.assert_refused("s-pdf", &script, "git_secret");
}

pub(crate) fn the_bottles_own_secrets(f: &Fixture) {
    for (case, secret) in [("own-token", TOKEN), ("own-given", GIVEN)] {
        f.assert_refused(case, &format!("echo {secret} > s; {COMMIT}"), "secret_leak");
        f.assert_refused(
            &format!("{case}-b64"),
            &format!("printf %s {secret} | base64 -w0 > s; {COMMIT}"),
            "secret_leak",
        );
        f.assert_refused(
            &format!("{case}-hex"),
            &format!("printf %s {secret} | od -An -tx1 | tr -d ' \\n' > s; {COMMIT}"),
            "secret_leak",
        );
        // In pieces, as some programs write both.
        f.assert_refused(
            &format!("{case}-folded"),
            &format!("printf %s {secret} | base64 -w 20 > s; {COMMIT}"),
            "secret_leak",
        );
        f.assert_refused(
            &format!("{case}-spaced"),
            &format!("printf %s {secret} | od -An -tx1 > s; {COMMIT}"),
            "secret_leak",
        );
        f.assert_refused(
            &format!("{case}-gz"),
            &format!("printf %s {secret} | gzip -9 | base64 > s; {COMMIT}"),
            "secret_leak",
        );
        f.assert_refused(
            &format!("{case}-msg"),
            &format!("git commit -q --allow-empty -m 'it is {secret}'"),
            "secret_leak",
        );
        f.assert_refused(
            &format!("{case}-name"),
            &format!("echo x > x-{secret}; {COMMIT}"),
            "secret_leak",
        );
    }
    f.clone("own-ref");
    let _ = f.agent(&format!("cd ~/own-ref; echo x > x; {COMMIT}")).ok();
    f.assert_push_refused(
        "own-ref",
        &format!("git push origin HEAD:agent/{TOKEN}"),
        "secret_leak",
    );
}
