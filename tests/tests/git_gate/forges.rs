//! Deploy keys from end to end: a forge mints them at `up`, a real sshd takes them for as long as the forge has them, and no
//! longer.

use std::fs;
use std::path::PathBuf;

use bottle_tests::engine::docker;
use bottle_tests::forge::Broken;
use bottle_tests::upstream::git_image;
use bottle_tests::{Bottle, Done, Forge, Home};

use crate::fixture::{FORGE_TOKEN, Fixture, HOST, network};

/// A repository for each dialect, and one that is only read.
const REPOS: [(&str, &str, &str); 4] = [
    ("tea", "gitea", ""),
    ("hub", "github", ""),
    ("lab", "gitlab", ""),
    ("book", "gitea", ", refs: []"),
];

fn make(f: &Fixture, name: &str) -> Forge {
    let forge = Forge::start(FORGE_TOKEN, f.upstream.admit());
    let mut repos = String::new();
    for (repo, dialect, more) in REPOS {
        let (api, host_key) = (forge.api(dialect), &f.upstream.host_key);
        repos.push_str(&format!(
            "    {repo}: {{url: \"git@{HOST}:group/{repo}.git\", host_key: \"{host_key}\", \
             key: {{provider: {dialect}, forge_token_env: TEST_FORGE_TOKEN, api_url: \"{api}\"}}{more}}}\n"
        ));
        if !f
            .upstream
            .git(&format!("test -e {repo}.git"))
            .status
            .success()
        {
            f.upstream.repository(repo);
        }
    }
    let links = "mkdir -p ~/group; for r in tea hub lab book; do ln -sfn /srv/git/$r.git ~/group/$r.git; done";
    let _ = f.upstream.git(links).ok();
    let image = git_image();
    let user = "  user: {name: Agent, email: agent@example.com}\n";
    f.home.bottle(
        name,
        &format!("image: {image}\ngit-gate:\n{user}  repos:\n{repos}"),
    );
    forge
}

/// Commits in a fresh clone and pushes it.
fn push(bottle: &Bottle, repo: &str) -> Done {
    let script = format!(
        "rm -rf ~/{repo}; git clone -q git@{HOST}:group/{repo}.git ~/{repo}; cd ~/{repo}; git checkout -qb agent/x; \
         echo x > x; git add x; git commit -qm x; git push -q origin agent/x"
    );
    agent(bottle, &script)
}

fn agent(bottle: &Bottle, script: &str) -> Done {
    bottle.exec(&["sh", "-euc", script])
}

/// What somebody gets who holds the key itself, and reaches the upstream.
fn with_key(f: &Fixture, key: &str, script: &str) -> Done {
    let ssh = "ssh -F /dev/null -i ~/held -o IdentitiesOnly=yes -o BatchMode=yes -o StrictHostKeyChecking=no -o LogLevel=ERROR";
    let script = format!("umask 077; cat > ~/held; export GIT_SSH_COMMAND='{ssh}'; {script}");
    f.upstream.git_reading(key, &script)
}

fn refused_by_sshd(done: &Done) -> bool {
    !done.status.success() && done.stderr.contains("Permission denied (publickey)")
}

fn records(home: &Home) -> usize {
    let folder = home.path().join("state/.keys");
    fs::read_dir(folder).map_or(0, Iterator::count)
}

pub(crate) fn a_deploy_key_lives_as_long_as_its_bottle(f: &Fixture) {
    let forge = make(f, "forged");
    let slug = f.home.slug("f");
    let bottle = f.home.up("forged", &slug);
    f.upstream.join(&network(&bottle), &[HOST]);

    let keys = forge.keys();
    assert_eq!((keys.len(), records(&f.home)), (4, 4), "{keys:?}");
    for key in &keys {
        let repo = key.repo.strip_prefix("group/").expect("the path");
        let (_, dialect, _) = REPOS
            .into_iter()
            .find(|(name, ..)| *name == repo)
            .expect("one of ours");
        assert_eq!(key.dialect, dialect);
        assert_eq!(key.may_push, repo != "book", "{key:?}");
        let (title, until) = key.title.split_once(" until ").expect("a date");
        assert_eq!(title, format!("bottle {slug}"));
        assert!(until.starts_with("20") && until.len() == 10, "{key:?}");
        assert_eq!(key.expires.is_some(), dialect == "gitlab", "{key:?}");
    }
    let private = |repo: &str| {
        let path: PathBuf = f.home.state(&slug).join("git-gate/config/keys").join(repo);
        fs::read_to_string(path).expect("the private half")
    };
    let held: Vec<String> = REPOS.iter().map(|(repo, ..)| private(repo)).collect();

    // They are what the gate pushes with: the upstream lets in nobody else for these repositories.
    for repo in ["tea", "hub", "lab"] {
        let done = push(&bottle, repo);
        assert!(done.status.success(), "{repo}: {}", done.stderr);
        let here = agent(&bottle, &format!("git -C ~/{repo} rev-parse HEAD"));
        let there = f.upstream.oid(repo, "refs/heads/agent/x");
        assert!(
            !there.is_empty() && here.ok().trim() == there,
            "{repo}: {there}"
        );
    }
    // What the manifest only reads, the forge would not let it write either.
    let book =
        format!("git clone -q git@{HOST}:group/book.git ~/book; test -f ~/book/src/main.txt");
    let _ = agent(&bottle, &book).ok();
    let own = "git push -q git@127.0.0.1:group/book.git main:agent/x";
    let done = with_key(f, &held[3], &format!("cd /tmp/book; {own}"));
    assert!(
        done.stderr.contains("may only read group/book"),
        "{}",
        done.stderr
    );
    let done = with_key(f, &held[0], "git ls-remote git@127.0.0.1:group/tea.git");
    assert!(
        done.stdout.contains("refs/heads/agent/x"),
        "{}",
        done.stderr
    );

    // Somebody removes one at the forge. The gate says why it gets nothing, and `down` has one key less to revoke.
    forge.forget("group/tea");
    let done = agent(&bottle, "git -C ~/tea fetch");
    assert!(
        done.stderr.contains("cannot fetch from git.example.com")
            && done.stderr.contains("Permission denied (publickey)"),
        "{}",
        done.stderr
    );

    // One forge is out of order at the end: its key is told of, and stays written down.
    forge.set(Some(Broken {
        dialect: "gitlab",
        method: "",
    }));
    f.upstream.leave(&network(&bottle));
    let down = f.home.tool("bottle-run").args(["down", &slug]).run();
    assert_eq!(down.code(), 1, "{}", down.stderr);
    for part in [
        "a deploy key is still valid",
        &format!("bottle {slug} until"),
        "(status 500): try later",
    ] {
        assert!(down.stderr.contains(part), "{part}: {}", down.stderr);
    }
    assert_eq!(f.home.left_of(&slug), Vec::<String>::new());
    let left = forge.keys();
    assert_eq!((left.len(), records(&f.home)), (1, 1), "{left:?}");
    for (index, (repo, ..)) in REPOS.into_iter().enumerate() {
        let done = with_key(
            f,
            &held[index],
            &format!("git ls-remote git@127.0.0.1:group/{repo}.git"),
        );
        assert_eq!(
            refused_by_sshd(&done),
            repo != "lab",
            "{repo}: {}",
            done.stderr
        );
    }
    assert!(
        !f.home.state(&slug).join("git-gate/config").exists(),
        "the private halves are left"
    );

    // `gc` tries, says so, and tries again.
    let gc = || f.home.tool("bottle-run").args(["gc", "--json"]).run();
    let done = gc();
    assert_eq!(done.code(), 1, "{}{}", done.stdout, done.stderr);
    assert!(
        done.stdout.contains("try later") || done.stderr.contains("try later"),
        "{done:?}"
    );
    assert_eq!(records(&f.home), 1);
    forge.set(None);
    let found = gc().json();
    let removed = found["removed"].as_array().expect("a list");
    assert!(
        removed.iter().any(|found| found["slug"] == slug.as_str()),
        "{found}"
    );
    assert_eq!((forge.keys().len(), records(&f.home)), (0, 0));
    let push = "cd /tmp/lab; git push -q git@127.0.0.1:group/lab.git main:agent/late";
    assert!(refused_by_sshd(&with_key(f, &held[2], push)));
    assert_eq!(f.upstream.oid("lab", "refs/heads/agent/late"), "");
}

pub(crate) fn a_start_that_fails_leaves_no_deploy_key(f: &Fixture) {
    let forge = make(f, "unforged");
    let slug = f.home.slug("u");
    let up = || {
        let compose = f.home.render(&f.home.plan("unforged", &slug));
        f.home.tool("bottle-run").args(["up"]).stdin(compose).run()
    };
    // Two were made before the third is refused.
    forge.set(Some(Broken {
        dialect: "gitlab",
        method: "POST",
    }));
    let done = up();
    assert_eq!(done.code(), 1, "{}", done.stderr);
    assert!(
        done.stderr.contains("git-gate.repos.lab") && done.stderr.contains("try later"),
        "{}",
        done.stderr
    );
    let made = || {
        let seen = forge.seen();
        seen.iter().filter(|line| line.starts_with("POST")).count()
    };
    let before = made();
    assert!(before > 1, "{:?}", forge.seen());
    assert_eq!((forge.keys().len(), records(&f.home)), (0, 0));
    assert_eq!(f.home.left_of(&slug), Vec::<String>::new());
    // And the same when all keys were made, and the bottle does not start: its name is taken.
    forge.set(None);
    let agent = format!("bottle-{slug}-agent");
    let _ = docker([
        "create",
        "--name",
        &agent,
        "--label",
        "bottle.test=forges",
        &git_image(),
    ])
    .ok();
    let done = up();
    let _ = docker(["rm", "--force", &agent]).ok();
    assert_ne!(done.code(), 0, "{}", done.stderr);
    assert_eq!(made(), before + REPOS.len(), "{}", done.stderr);
    assert_eq!(
        (forge.keys().len(), records(&f.home)),
        (0, 0),
        "{}",
        done.stderr
    );
    assert_eq!(f.home.left_of(&slug), Vec::<String>::new());
}
