//! Other upstreams than plain SSH: HTTPS with a token, and one that wants pushes signed.

use std::fs;
use std::path::Path;

use bottle_tests::Done;
use bottle_tests::engine::wait_for;

use crate::fixture::{EXAMPLE, Fixture, HOST, WEB_HOST, WEB_TOKEN, audit};
use crate::review::{agent, work};

pub(crate) fn over_https_with_a_token_of_the_gates(f: &Fixture) {
    let url = format!("https://{WEB_HOST}/git/web.git");
    let clone = format!(
        "rm -rf ~/web; git clone -q {url} ~/web; cd ~/web; git checkout -qb agent/web; test -f src/main.txt; \
         head -c 3000000 /dev/urandom > large; echo x > x; git add .; git commit -qm web"
    );
    let _ = agent(f, &clone).ok();
    let done = agent(f, "cd ~/web; git push origin agent/web");
    assert!(done.status.success(), "{}", done.stderr);
    let here = agent(f, "git -C ~/web rev-parse HEAD").ok();
    assert_eq!(f.upstream.oid("web", "refs/heads/agent/web"), here.trim());
    // Three megabytes went in one request: without its buffer the agent's git asks first whether it may.
    let posts = || {
        let mut records = audit(&f.home, &f.asks);
        records.retain(|record| record["path"] == "/web.git/git-receive-pack");
        records.len()
    };
    wait_for("the record of the push", || posts() > 0);
    assert_eq!(posts(), 1);
    let _ = f.upstream.git("cd /tmp/web; echo more > more; git add .; git commit -qm more; git push -q /srv/git/web.git main").ok();
    let _ = agent(
        f,
        "cd ~/web; git fetch -q; git cat-file -e origin/main:more",
    )
    .ok();

    let before = f.upstream.web_requests();
    let script = format!("cd ~/web; echo {EXAMPLE} > s; git add s; git commit -qm s");
    let _ = agent(f, &script).ok();
    let done = agent(f, "cd ~/web; git push origin agent/web");
    assert!(
        done.stderr.contains("refused (git_secret)"),
        "{}",
        done.stderr
    );
    // Nor the token itself, in whatever coat.
    let script = format!(
        "cd ~/web; git reset -q --hard HEAD~1; printf %s {WEB_TOKEN} | base64 > t; git add t; git commit -qm t"
    );
    let _ = agent(f, &script).ok();
    let done = agent(f, "cd ~/web; git push origin agent/web");
    assert!(
        done.stderr.contains("refused (secret_leak)"),
        "{}",
        done.stderr
    );
    assert_eq!(
        f.upstream.web_requests(),
        before,
        "the upstream has heard of it"
    );
    let _ = agent(f, "rm -rf ~/web").ok();

    // Without the gate it gets nothing: not from the upstream, which is not there for it, and not by asking for the token.
    let direct = agent(
        f,
        &format!("git -c url.{url}.insteadOf=direct: ls-remote direct:"),
    );
    assert!(!direct.status.success(), "{}", direct.stdout);
    let look = format!(
        "env; cat ~/.gitconfig; printf 'protocol=https\\nhost={WEB_HOST}\\n\\n' | git credential fill 2>&1 || true; \
         for f in /proc/[0-9]*/environ /proc/[0-9]*/cmdline; do tr '\\0' '\\n' < $f 2> /dev/null || true; done; \
         grep -rs tok-web- /etc /home /root /run /tmp /usr/local /var/lib /workspace || true"
    );
    let seen = agent(f, &look).ok();
    assert!(!seen.contains(WEB_TOKEN), "the agent has found it");
    assert!(
        !holds(&f.home.state(&f.asks.slug), WEB_TOKEN.as_bytes()),
        "it is in a file of the host"
    );
}

/// Whether any file below holds it; mirrors too.
fn holds(folder: &Path, text: &[u8]) -> bool {
    let entries = fs::read_dir(folder).expect("a folder").flatten();
    entries.map(|entry| entry.path()).any(|path| {
        if path.is_dir() && !path.is_symlink() {
            return holds(&path, text);
        }
        let bytes = fs::read(&path).unwrap_or_default();
        bytes.windows(text.len()).any(|window| window == text)
    })
}

/// Makes a repository of the upstream ask for signed pushes, and take those of known signers alone; none is known yet.
fn ask_for_signatures(f: &Fixture, repo: &str) {
    // Git says `G` of a key that nobody knows as well, and then names no signer.
    let hook = "#!/bin/sh\ntest \"$GIT_PUSH_CERT_STATUS $GIT_PUSH_CERT_NONCE_STATUS\" = \"G OK\" && test -n \"$GIT_PUSH_CERT_SIGNER\" && \
                exec echo \"signed by $GIT_PUSH_CERT_SIGNER\"\n\
                echo \"not signed by anybody known: $GIT_PUSH_CERT_STATUS $GIT_PUSH_CERT_NONCE_STATUS\"; exit 1\n";
    let script = format!(
        "cd {repo}.git; git config receive.certNonceSeed a-seed-of-the-tests; touch signers; \
         git config gpg.ssh.allowedSignersFile /srv/git/{repo}.git/signers; \
         printf '%s' '{hook}' > hooks/pre-receive; chmod +x hooks/pre-receive"
    );
    let _ = f.upstream.git(&script).ok();
}

/// Makes the gate's key known there.
fn trust_the_gate(f: &Fixture, repo: &str) {
    let folder = f.home.state(&f.asks.slug).join("git-gate");
    let line = fs::read_to_string(folder.join("signing-key.pub")).expect("the public half");
    let script = format!("printf '%s' '{line}' > {repo}.git/signers");
    let _ = f.upstream.git(&script).ok();
}

/// A push from `~/CLONE` to a repository with `sign: ssh`, three times: to an upstream that does not ask for signatures, to
/// one that does not know the gate, and to one that does.
fn goes_through_signed(f: &Fixture, repo: &str, clone: &str) {
    let name = format!("refs/heads/agent/{clone}");
    let push = || agent(f, &format!("cd ~/{clone}; git push origin HEAD:{name}"));
    let says = |done: &Done, words: &[&str]| {
        for part in words {
            assert!(done.stderr.contains(part), "{part}: {}", done.stderr);
        }
    };
    // `sign: ssh` is a must: what does not ask for a signature gets nothing.
    says(
        &push(),
        &["refused (git_upstream_refused)", "takes no signed pushes"],
    );
    ask_for_signatures(f, repo);
    says(&push(), &["not signed by anybody known"]);
    assert_eq!(f.upstream.oid(repo, &name), "");
    trust_the_gate(f, repo);
    let done = push();
    assert!(done.status.success(), "{}", done.stderr);
    says(&done, &[&format!("signed by git-gate@{}", f.asks.slug)]);
    // The commits are the agent's own, with the ids it gave them.
    let here = agent(f, &format!("git -C ~/{clone} rev-parse HEAD")).ok();
    assert_eq!(f.upstream.oid(repo, &name), here.trim());
}

pub(crate) fn pushes_are_signed(f: &Fixture) {
    work(f, "signed", "sig", "echo x > sig");
    let url = f.upstream.url(HOST, "signed");
    goes_through_signed(f, "signed", "sig");
    // A second repository's upstream would not be fooled by the agent: it has no key, and cannot ask for a signature.
    let own = agent(
        f,
        &format!("cd ~/sig; git push --signed=yes {url} HEAD:agent/own"),
    );
    assert!(!own.status.success(), "{}", own.stderr);
}

pub(crate) fn pushes_are_signed_over_https_too(f: &Fixture) {
    let url = format!("https://{WEB_HOST}/git/sealed.git");
    let script = format!(
        "rm -rf ~/seal; git clone -q {url} ~/seal; cd ~/seal; git checkout -qb agent/seal; echo x > x; git add x; git commit -qm x"
    );
    let _ = agent(f, &script).ok();
    // Two requests, two processes: what the second one gets, the first one has asked for a moment ago.
    let _ = f
        .upstream
        .git("git -C sealed.git config receive.certNonceSlop 60")
        .ok();
    goes_through_signed(f, "sealed", "seal");
    // A secret is refused before anything is signed or sent.
    let before = f.upstream.web_requests();
    let script = format!("cd ~/seal; echo {EXAMPLE} > s; git add s; git commit -qm s");
    let _ = agent(f, &script).ok();
    let done = agent(f, "cd ~/seal; git push origin agent/seal");
    assert!(
        done.stderr.contains("refused (git_secret)"),
        "{}",
        done.stderr
    );
    assert_eq!(
        f.upstream.web_requests(),
        before,
        "the upstream has heard of it"
    );
}

pub(crate) fn a_listed_tag_goes_through_and_does_not_move(f: &Fixture) {
    work(f, "plain", "tags", "echo x > tags");
    let script =
        "cd ~/tags; git tag -a agent-1 -m one; git push -q origin agent-1; git rev-parse agent-1";
    let tag = agent(f, script).ok();
    assert_eq!(f.upstream.oid("plain", "refs/tags/agent-1"), tag.trim());
    let script = "cd ~/tags; git commit -q --allow-empty -m more; git tag -f -a agent-1 -m two; git push --force origin agent-1";
    let moved = agent(f, script);
    assert!(
        moved.stderr.contains("refused (git_force)"),
        "{}",
        moved.stderr
    );
    let script =
        format!("cd ~/tags; git tag -a agent-2 -m 'it is {EXAMPLE}'; git push origin agent-2");
    let secret = agent(f, &script);
    assert!(
        secret.stderr.contains("refused (git_secret)"),
        "{}",
        secret.stderr
    );
    assert_eq!(f.upstream.oid("plain", "refs/tags/agent-1"), tag.trim());
}
