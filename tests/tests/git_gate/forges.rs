//! Deploy keys from end to end: a forge mints them at `up`, a real sshd takes them for as long as the forge has them, and no
//! longer.

use std::fs;
use std::path::PathBuf;
use std::thread;
use std::time::Duration;

use bottle_tests::engine::{docker, wait_within};
use bottle_tests::forge::Broken;
use bottle_tests::upstream::git_image;
use bottle_tests::{Bottle, Call, Done, Forge, Home};
use serde_json::Value;

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

/// The deploy keys of a bottle that `gc` says it has revoked.
fn revoked(gc: &Done, slug: &str) -> Vec<String> {
    assert_eq!(gc.code(), 0, "{}{}", gc.stdout, gc.stderr);
    let found: Value = serde_json::from_str(&gc.stdout).expect("JSON");
    let all = found["removed"].as_array().expect("a list");
    let mine = all.iter().filter(|found| found["slug"] == slug);
    let keys = mine.filter(|found| found["kind"] == "deploy-key");
    let words = keys.map(|key| {
        let title = key["name"].as_str().unwrap_or_default();
        assert!(title.starts_with(&format!("bottle {slug} until ")), "{key}");
        let word = |name: &str| key[name].as_str().unwrap_or_default().to_owned();
        format!("{} {}", word("forge"), word("repository"))
    });
    words.collect()
}

fn gc(f: &Fixture) -> Done {
    f.home.tool("bottle-run").args(["gc", "--json"]).run()
}

fn up(f: &Fixture, name: &str, slug: &str) -> Call {
    let compose = f.home.render(&f.home.plan(name, slug));
    f.home.tool("bottle-run").args(["up"]).stdin(compose)
}

fn down(f: &Fixture, slug: &str) -> Call {
    f.home.tool("bottle-run").args(["down", slug])
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
    let done = gc(f);
    assert_eq!(done.code(), 1, "{}{}", done.stdout, done.stderr);
    assert!(
        done.stdout.contains("try later") || done.stderr.contains("try later"),
        "{done:?}"
    );
    assert_eq!(records(&f.home), 1);
    forge.set(None);
    let dry = f.home.tool("bottle-run").args(["gc", "--dry-run"]).run();
    let line = format!("would remove  {slug}  deploy-key bottle {slug} until ");
    assert_eq!(dry.stdout.matches(&line).count(), 1, "{}", dry.stdout);
    assert!(
        dry.stdout.contains(" (gitlab, group/lab)"),
        "{}",
        dry.stdout
    );
    assert_eq!(revoked(&gc(f), &slug), ["gitlab group/lab"]);
    assert_eq!((forge.keys().len(), records(&f.home)), (0, 0));
    let push = "cd /tmp/lab; git push -q git@127.0.0.1:group/lab.git main:agent/late";
    assert!(refused_by_sshd(&with_key(f, &held[2], push)));
    assert_eq!(f.upstream.oid("lab", "refs/heads/agent/late"), "");
}

pub(crate) fn a_start_that_fails_leaves_no_deploy_key(f: &Fixture) {
    let forge = make(f, "unforged");
    let slug = f.home.slug("u");
    let up = || up(f, "unforged", &slug).run();
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

/// Waits until the forge has done what it is asked for, and keeps the answer.
fn wait_for_the_forge(forge: &Forge) {
    wait_within(Duration::from_secs(60), "the forge", || forge.holding() > 0);
}

pub(crate) fn a_kill_between_a_key_and_its_record_leaves_no_deploy_key(f: &Fixture) {
    let forge = make(f, "killed");
    let slug = f.home.slug("k");
    // Two are made and written down; of the third nobody hears.
    let lab = |method| {
        Some(Broken {
            dialect: "gitlab",
            method,
        })
    };
    forge.hold(lab("POST"));
    let mut starting = up(f, "killed", &slug).start();
    wait_for_the_forge(&forge);
    starting.kill();
    starting.wait().no_product(137, "up");
    forge.hold(None);
    assert_eq!((forge.keys().len(), records(&f.home)), (3, 3));
    let made = ["gitea group/book", "github group/hub", "gitlab group/lab"];
    assert_eq!(revoked(&gc(f), &slug), made);
    assert_eq!((forge.keys().len(), records(&f.home)), (0, 0));
    assert_eq!(f.home.left_of(&slug), Vec::<String>::new());

    // The same at the end: the key is gone, and its record is not.
    let _ = up(f, "killed", &slug).run().ok();
    assert_eq!((forge.keys().len(), records(&f.home)), (4, 4));
    forge.hold(lab("DELETE"));
    let mut stopping = down(f, &slug).start();
    wait_for_the_forge(&forge);
    stopping.kill();
    stopping.wait().no_product(137, "down");
    forge.hold(None);
    // Those of `book` and `hub` are gone, and forgotten.
    assert_eq!((forge.keys().len(), records(&f.home)), (1, 2));
    let left = ["gitlab group/lab", "gitea group/tea"];
    assert_eq!(revoked(&gc(f), &slug), left);
    assert_eq!((forge.keys().len(), records(&f.home)), (0, 0));

    // And one that is killed in the middle of a start can be started again, without `gc`.
    forge.hold(lab("POST"));
    let mut starting = up(f, "killed", &slug).start();
    wait_for_the_forge(&forge);
    starting.kill();
    starting.wait().no_product(137, "up");
    forge.hold(None);
    let _ = up(f, "killed", &slug).run().ok();
    assert_eq!((forge.keys().len(), records(&f.home)), (4, 4));
    let _ = down(f, &slug).run().ok();
    assert_eq!((forge.keys().len(), records(&f.home)), (0, 0));
}

pub(crate) fn a_forge_that_does_not_answer_leaves_no_deploy_key(f: &Fixture) {
    // As long as nobody waits any more; both at once, for it is long.
    let (mute, deaf) = (make(f, "mute"), make(f, "deaf"));
    let starts = || {
        let forge = &mute;
        let slug = f.home.slug("m");
        forge.hold(Some(Broken {
            dialect: "github",
            method: "POST",
        }));
        let done = up(f, "mute", &slug).run();
        assert_eq!(done.code(), 1, "{}", done.stderr);
        for part in ["git-gate.repos.hub", "does not answer"] {
            assert!(done.stderr.contains(part), "{part}: {}", done.stderr);
        }
        // It was made all the same, and is found by its public half.
        assert!(forge.seen().iter().any(|line| line.starts_with("DELETE")));
        assert_eq!(forge.keys().len(), 0, "{:?}", forge.keys());
        assert_eq!(f.home.left_of(&slug), Vec::<String>::new());
        forge.hold(None);
    };
    let stops = || {
        let forge = &deaf;
        let slug = f.home.slug("d");
        let _ = up(f, "deaf", &slug).run().ok();
        assert_eq!(forge.keys().len(), 4);
        forge.hold(Some(Broken {
            dialect: "github",
            method: "DELETE",
        }));
        let done = down(f, &slug).run();
        assert_eq!(done.code(), 1, "{}", done.stderr);
        for part in ["a deploy key is still valid", "does not answer"] {
            assert!(done.stderr.contains(part), "{part}: {}", done.stderr);
        }
        assert_eq!(f.home.left_of(&slug), Vec::<String>::new());
        // Nobody knows that it is gone, so it is asked for once more, and 404 is as good.
        forge.hold(None);
        assert_eq!(forge.keys().len(), 0);
        assert_eq!(revoked(&gc(f), &slug), ["github group/hub"]);
    };
    thread::scope(|scope| {
        let starting = scope.spawn(starts);
        stops();
        starting.join().expect("the other half");
    });
    assert_eq!(records(&f.home), 0);
}

pub(crate) fn gc_does_not_forget_the_key_of_a_start_beside_it(f: &Fixture) {
    let forge = make(f, "beside");
    let slug = f.home.slug("b");
    let tea = |method| {
        Some(Broken {
            dialect: "gitea",
            method,
        })
    };
    let _ = up(f, "beside", &slug).run().ok();
    forge.set(tea("DELETE"));
    assert_eq!(down(f, &slug).run().code(), 1);
    forge.set(None);
    // All that is left is what is written down of two keys: `gc` is at work on them when the bottle is started again.
    let journal = format!("state/.journal/{slug}.jsonl");
    fs::remove_file(f.home.path().join(journal)).expect("the removal is open");
    assert_eq!(records(&f.home), 2);
    forge.hold(tea("DELETE"));
    let collecting = f.home.tool("bottle-run").args(["gc", "--json"]).start();
    wait_for_the_forge(&forge);
    let done = up(f, "beside", &slug).run();
    assert_eq!(done.code(), 5, "{}", done.stderr);
    forge.hold(None);
    let keys = ["gitea group/book", "gitea group/tea"];
    assert_eq!(revoked(&collecting.wait(), &slug), keys);
    let _ = up(f, "beside", &slug).run().ok();
    assert_eq!((forge.keys().len(), records(&f.home)), (4, 4));
    let _ = down(f, &slug).run().ok();
    assert_eq!((forge.keys().len(), records(&f.home)), (0, 0));
}
