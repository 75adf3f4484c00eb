//! What somebody tries who knows git well.

use crate::fixture::{EXAMPLE, Fixture, HOST};

const COMMIT: &str = "git add -A; git commit -qm work";

pub(crate) fn attributes_do_not_hide_anything(f: &Fixture) {
    let script = format!(
        "echo '* binary -diff -text filter=x' > .gitattributes; echo '{EXAMPLE}' > s; {COMMIT}"
    );
    f.assert_refused("attributes", &script, "git_secret");
}

pub(crate) fn lfs_pointers(f: &Fixture) {
    let pointer = "version https://git-lfs.github.com/spec/v1\\noid sha256:4d7a214614ab2935c943f9e0ff69d22eadbb8f32b1258daaa5e2ca24d17e2393\\nsize 12345\\n";
    f.assert_refused(
        "lfs",
        &format!("printf '{pointer}' > big.bin; {COMMIT}"),
        "git_lfs_pointer",
    );
}

pub(crate) fn submodules(f: &Fixture) {
    let script = format!(
        "printf '[submodule \"x\"]\\n\\tpath = x\\n\\turl = https://evil.example.com/x\\n' > .gitmodules; {COMMIT}"
    );
    f.assert_refused("submodule", &script, "git_protected_path");
    // fsck: an address that git would take for an option. Git itself says no, before there is anything to judge.
    f.clone("submodule-u");
    let script = format!(
        "cd ~/submodule-u; printf '[submodule \"x\"]\\n\\tpath = x\\n\\turl = -u./payload\\n' > .gitmodules; {COMMIT}"
    );
    let _ = f.agent(&script).ok();
    let before = f.upstream.contacts();
    let done = f.agent("cd ~/submodule-u; git push origin HEAD:agent/submodule-u");
    assert!(
        !done.status.success() && done.stderr.contains("gitmodulesUrl"),
        "{}",
        done.stderr
    );
    assert_eq!(f.upstream.contacts(), before);
}

pub(crate) fn control_characters_in_a_path(f: &Fixture) {
    f.assert_refused(
        "cr",
        &format!("printf x > \"$(printf 'sub\\r')\"; {COMMIT}"),
        "git_path_invalid",
    );
    f.assert_refused(
        "esc",
        &format!("printf x > \"$(printf 'a\\033[2J')\"; {COMMIT}"),
        "git_path_invalid",
    );
}

pub(crate) fn replace_refs(f: &Fixture) {
    let script = format!(
        "echo {EXAMPLE} > s; {COMMIT}; bad=$(git rev-parse HEAD:s); good=$(echo clean | git hash-object -w --stdin); git replace $bad $good"
    );
    f.clone("replace");
    let _ = f.agent(&format!("cd ~/replace; {script}")).ok();
    f.assert_push_refused(
        "replace",
        "git push origin 'refs/replace/*:refs/replace/*'",
        "git_ref_invalid",
    );
    f.assert_push_refused("replace", "git push origin agent/replace", "git_secret");
}

pub(crate) fn alternates_and_dumb_requests(f: &Fixture) {
    let script = r#"
import urllib.request, sys
for method, path in [("GET", "/demo.git/HEAD"), ("GET", "/demo.git/config"), ("PUT", "/demo.git/objects/info/alternates"),
                     ("GET", "/demo.git/objects/info/packs"), ("GET", "/demo.git/info/refs"), ("GET", "/../demo.git/HEAD"),
                     ("GET", "/demo.git/../../etc/passwd"), ("POST", "/demo.git/git-upload-archive"),
                     ("POST", "/demo.git/info/lfs/objects/batch"), ("GET", "/other.git/HEAD")]:
    request = urllib.request.Request("http://git-gate:9418" + path, method=method, data=b"x" if method != "GET" else None)
    try:
        print(urllib.request.urlopen(request).status, path)
    except urllib.error.HTTPError as error:
        print(error.code, path)
"#;
    let out = f.bottle.exec(&["python3", "-c", script]).ok();
    assert_eq!(out.lines().count(), 10, "{out}");
    assert!(
        out.lines()
            .all(|line| line.starts_with("404") || line.starts_with("403")),
        "{out}"
    );
    let unknown = f.agent("git ls-remote http://git-gate:9418/other.git");
    assert!(
        unknown.stderr.contains(
            "git-gate has no repository `other`; there are: demo, readonly, sha256, stranger"
        ),
        "{}",
        unknown.stderr
    );
}

/// Sends a pack of the case's own making, with `extra` beside what the branch needs.
fn push_pack(f: &Fixture, case: &str, revs: &str, after: &str) -> bottle_tests::Done {
    let script = format!(
        "cd ~/{case}; new=$(git rev-parse agent/{case}); zero=0000000000000000000000000000000000000000; \
         line=\"$zero $new refs/heads/agent/{case}\"; \
         {{ printf '%04x%s\\0 report-status agent=x' $((4 + ${{#line}} + 1 + 22)) \"$line\"; printf '0000'; \
         ({revs}) | git pack-objects --stdout -q {after}; }} > /tmp/{case}.body; \
         python3 -c \"import urllib.request as u; r = u.Request('http://git-gate:9418/demo.git/git-receive-pack', \
         data=open('/tmp/{case}.body','rb').read(), headers={{'Content-Type': 'application/x-git-receive-pack-request'}}); \
         print(u.urlopen(r).read().decode(errors='replace'))\""
    );
    f.agent(&script)
}

pub(crate) fn a_hidden_commit_does_not_get_there(f: &Fixture) {
    f.clone("hidden");
    let script = format!(
        "cd ~/hidden; echo {EXAMPLE} > s; {COMMIT}; git rev-parse HEAD > /tmp/hidden-oid; git reset -q --hard HEAD~1; \
         echo clean > clean; {COMMIT}"
    );
    let _ = f.agent(&script).ok();
    let hidden = f.agent("cat /tmp/hidden-oid").ok().trim().to_owned();
    let done = push_pack(
        f,
        "hidden",
        "git rev-list --objects agent/hidden $(cat /tmp/hidden-oid) --not origin/main | cut -d' ' -f1",
        "",
    );
    assert!(
        done.status.success() && done.stdout.contains("ok refs/heads/agent/hidden"),
        "{done:?}"
    );
    assert_ne!(f.upstream.oid("demo", "refs/heads/agent/hidden"), "");
    assert!(
        !f.upstream.has("demo", &hidden),
        "the hidden commit got there"
    );
}

pub(crate) fn a_pack_bomb(f: &Fixture) {
    // Small as a pack, large as soon as it is unfolded.
    let script = "head -c 400000000 /dev/zero > bomb; git add bomb; git commit -qm bomb; rm bomb";
    f.assert_refused("bomb", script, "git_too_large");
    // Many names for one large thing: what is counted is each object once, and no list of all names is ever made.
    let script = "echo x > f; git add f; git commit -qm f; t=$(git rev-parse HEAD^{tree}); \
         for d in $(seq 9); do t=$(for n in a b c d e f g h i j; do printf '040000 tree %s\\t%s\\n' $t $n; done | git mktree); done; \
         git reset -q --soft $(git commit-tree -p HEAD -m tree-bomb $t)";
    f.clone("tree-bomb");
    let _ = f.agent(&format!("cd ~/tree-bomb; {script}")).ok();
    let before = f.upstream.contacts();
    let done = f.agent("cd ~/tree-bomb; git push origin agent/tree-bomb");
    assert!(!done.status.success(), "{}", done.stderr);
    assert_eq!(f.upstream.contacts(), before, "{}", done.stderr);
    let alive = f.agent("cd ~/tree-bomb; git ls-remote origin").ok();
    assert!(alive.contains("refs/heads/main"));
}

pub(crate) fn a_damaged_pack(f: &Fixture) {
    f.clone("damaged");
    let _ = f
        .agent(&format!("cd ~/damaged; echo damaged > damaged; {COMMIT}"))
        .ok();
    let before = f.upstream.contacts();
    let done = push_pack(
        f,
        "damaged",
        "git rev-list --objects agent/damaged --not origin/main | cut -d' ' -f1",
        "| head -c 60",
    );
    assert!(
        !done.stdout.contains("ok refs/heads/agent/damaged"),
        "{done:?}"
    );
    // Half of what is needed: the pack is whole, the history is not.
    let done = push_pack(f, "damaged", "git rev-parse agent/damaged", "");
    assert!(
        !done.stdout.contains("ok refs/heads/agent/damaged"),
        "{done:?}"
    );
    assert_eq!(f.upstream.contacts(), before);
    let audit = f.audit();
    assert!(
        audit
            .iter()
            .any(|record| record["reason"] == "git_pack_refused")
    );
}

pub(crate) fn a_secret_in_two_steps(f: &Fixture) {
    // First the object gets into the mirror beside something harmless, then a commit names it.
    f.clone("steps");
    let script = format!(
        "cd ~/steps; echo {EXAMPLE} > s; git add s; git write-tree > /dev/null; git rev-parse :s > /tmp/blob; git reset -q --hard; \
         echo first > first; {COMMIT}"
    );
    let _ = f.agent(&script).ok();
    let revs =
        "git rev-list --objects agent/steps --not origin/main | cut -d' ' -f1; cat /tmp/blob";
    let done = push_pack(f, "steps", revs, "");
    assert!(
        done.stdout.contains("ok refs/heads/agent/steps"),
        "{done:?}"
    );
    let url = f.upstream.url(HOST, "demo");
    let _ = f.agent(&format!("cd ~/steps; git fetch -q {url}; git update-index --add --cacheinfo 100644,$(cat /tmp/blob),s; git commit -qm second")).ok();
    f.assert_push_refused("steps", "git push origin agent/steps", "git_secret");
}

pub(crate) fn files_that_scanners_skip(f: &Fixture) {
    // What gitleaks takes for an archive, a picture of a patient, a font or a disk, it does not look into.
    let tar = format!("echo 'token = \"{EXAMPLE}\"' > s; tar -cf all.tar s; rm s; {COMMIT}");
    let done = f.assert_refused("skip-tar", &tar, "git_secret");
    assert!(done.stderr.contains("all.tar"), "{}", done.stderr);
    for (case, at, mark) in [
        ("skip-ustar", 256, "ustar"),
        ("skip-dicom", 127, "DICM"),
        ("skip-iso", 32768, "CD001"),
        ("skip-font", 33, "LP"),
    ] {
        let script = format!(
            "python3 -c \"d = bytearray(b'lorem ipsum ' * 5000); d[{at}:{at}+len('{mark}')] = b'{mark}'; d[7:10] = b'\\2\\0\\1'; \
             open('s', 'wb').write(d[:40000] + b'\\ntoken = {EXAMPLE}\\n' + d[40000:])\"; {COMMIT}"
        );
        let done = f.assert_refused(case, &script, "git_secret");
        assert!(done.stderr.contains("line 2"), "{}", done.stderr);
    }
}

/// Commits so many files with so long paths that git's list of what is new is a little longer than what of it is read, with
/// the secret where nobody would have read it.
const LONG_LISTING: &str = r#"
import subprocess, sys
deep = "/".join(["d" * 250] * 15)
line = lambda path: 40 + 1 + len(path) + 1
before = 41 + line("") + sum(line("/".join(deep.split("/")[:at + 1])) for at in range(15))
count = -(-((64 << 20) - before) // line(deep + "/00000"))
out = [b"commit refs/heads/agent/listing\ncommitter A <a@example.com> 1700000000 +0000\ndata 4\nlong\nfrom refs/remotes/origin/main^0\n"]
file = lambda path, text: out.append(b"M 100644 inline %s\ndata %d\n%s\n" % (path.encode(), len(text), text))
for number in range(count):
    file("%s/%05d" % (deep, number), b"%d" % number)
file("z", sys.argv[1].encode())
subprocess.run(["git", "fast-import", "--quiet", "--force"], input=b"".join(out), check=True)
listed = subprocess.run(["git", "rev-list", "--objects", "agent/listing", "--not", "origin/main"], stdout=subprocess.PIPE, check=True).stdout
assert 0 < len(listed) - (64 << 20) < 8192 and listed.rstrip().endswith(b" z"), len(listed)
"#;

pub(crate) fn a_listing_without_end(f: &Fixture) {
    f.clone("listing");
    let script = "cd ~/listing; git checkout -q --detach; exec python3 -c \"$1\" \"$2\"";
    let made = f
        .bottle
        .exec(&["sh", "-euc", script, "sh", LONG_LISTING, EXAMPLE]);
    let _ = made.ok();
    f.assert_push_refused("listing", "git push origin agent/listing", "git_too_large");
    let _ = f.agent("rm -rf ~/listing").ok();
}
