//! Deploy keys against a forge that speaks each dialect as documented, and sometimes does not speak at all.

#![allow(clippy::expect_used, clippy::panic)]

mod stand;

use std::os::unix::process::ExitStatusExt as _;
use std::path::Path;
use std::process::Command;
use std::thread;

use bottle_plan::plan::{Forge, GitGate, Plan, PushRules, Repo, RepoKey};
use bottle_plan::state::StateHome;
use bottle_run::keys;
use stand::{Fault, Stand, TOKEN_ENV};

const FORGES: [&str; 3] = ["gitea", "github", "gitlab"];

fn plan(state: &Path, kind: &str, api: &str, refs: &[&str]) -> Plan {
    let path =
        Path::new(env!("CARGO_MANIFEST_DIR")).join("../tests/golden/render/everything/plan.json");
    let text = std::fs::read_to_string(path).expect("the golden plan");
    let mut plan: Plan = serde_json::from_str(&text).expect("a plan");
    let forge = Forge {
        forge_token_env: TOKEN_ENV.into(),
        api_url: Some(api.into()),
    };
    plan.state = state.to_owned();
    plan.git_gate = Some(GitGate {
        image: "bottle-git-gate:test".into(),
        repos: vec![Repo {
            name: "app".into(),
            url: "git@git.example.com:group/app.git".into(),
            host_key: None,
            key: match kind {
                "gitea" => RepoKey::Gitea(forge),
                "github" => RepoKey::Github(forge),
                _ => RepoKey::Gitlab(forge),
            },
            refs: refs.iter().map(|&text| text.into()).collect(),
            push: PushRules {
                max_commits: 1,
                max_bytes: 1,
                protected_paths: Vec::new(),
                review: false,
                hold: None,
            },
            sign: None,
        }],
    });
    plan
}

struct Place {
    _folder: tempfile::TempDir,
    home: StateHome,
    keys: std::path::PathBuf,
}

fn place() -> Place {
    let folder = tempfile::tempdir().expect("a folder");
    let keys = folder.path().join("keys");
    std::fs::create_dir(&keys).expect("a folder");
    Place {
        home: StateHome::open(folder.path()).expect("a home"),
        keys,
        _folder: folder,
    }
}

/// A forge of this kind, a home, and the plan of a bottle that may push there.
fn pushing(kind: &str) -> (Stand, Place, Plan) {
    let (stand, place) = (Stand::start(), place());
    let refs = ["refs/heads/agent/*"];
    let plan = plan(place.home.path(), kind, &stand.url, &refs);
    (stand, place, plan)
}

#[test]
fn a_key_lives_as_long_as_its_bottle_at_every_forge() {
    for (kind, path) in [
        ("gitea", "/repos/group/app/keys"),
        ("github", "/repos/group/app/keys"),
        ("gitlab", "/projects/group%2Fapp/deploy_keys"),
    ] {
        let (stand, place, plan) = pushing(kind);
        keys::mint(&place.home, &plan, &place.keys).expect("mints");
        let made = stand.keys();
        assert_eq!(made.len(), 1, "{kind}");
        let title = made[0]["title"].as_str().expect("a title");
        assert!(
            title.contains(&plan.slug) && title.contains("until 20"),
            "{kind}: {title}"
        );
        let may_push = if kind == "gitlab" {
            made[0]["can_push"] == true
        } else {
            made[0]["read_only"] == false
        };
        assert!(may_push, "{kind}: {made:?}");
        assert_eq!(kind == "gitlab", made[0]["expires_at"].is_string());
        assert!(
            stand.seen()[0].starts_with(&format!("POST {path} ")),
            "{:?}",
            stand.seen()
        );
        // The private half is a file of ours alone, and in nothing that was sent or written down.
        use std::os::unix::fs::PermissionsExt as _;
        let private = place.keys.join("app");
        assert_eq!(
            std::fs::metadata(&private)
                .expect("there")
                .permissions()
                .mode()
                & 0o777,
            0o600
        );
        let records = keys::all(&place.home, None).expect("reads");
        assert_eq!((records.len(), records[0].id), (1, Some(7)));
        keys::revoke(&place.home, &plan.slug).expect("revokes");
        assert_eq!(
            (
                stand.keys().len(),
                keys::all(&place.home, None).expect("reads").len()
            ),
            (0, 0),
            "{kind}"
        );
        // Once more does no harm, and neither does a key somebody else has removed.
        keys::revoke(&place.home, &plan.slug).expect("nothing to do");
    }
}

#[test]
fn a_repository_that_is_only_read_gets_a_key_that_only_reads() {
    for kind in ["gitea", "github", "gitlab"] {
        let (stand, place) = (Stand::start(), place());
        keys::mint(
            &place.home,
            &plan(place.home.path(), kind, &stand.url, &[]),
            &place.keys,
        )
        .expect("mints");
        let made = &stand.keys()[0];
        let reads = if kind == "gitlab" {
            made["can_push"] == false
        } else {
            made["read_only"] == true
        };
        assert!(reads, "{kind}: {made}");
    }
}

#[test]
fn a_key_nobody_heard_of_is_found_and_revoked() {
    for kind in ["gitea", "github", "gitlab"] {
        let (stand, place, plan) = pushing(kind);
        stand.set(Fault::SilentCreate);
        let failure = keys::mint(&place.home, &plan, &place.keys).expect_err("nobody answers");
        assert!(
            failure.chain().contains("does not answer"),
            "{}",
            failure.chain()
        );
        assert_eq!(stand.keys().len(), 1);
        assert_eq!(keys::all(&place.home, None).expect("reads")[0].id, None);
        stand.set(Fault::None);
        // As `gc` does for a bottle that is no more.
        let left = revoke_left(&place.home, &|slug| slug != plan.slug);
        assert_eq!((left.len(), stand.keys().len()), (1, 0), "{kind}");
        assert!(keys::all(&place.home, None).expect("reads").is_empty());
    }
}

#[test]
fn the_key_of_a_bottle_that_lives_is_left_alone() {
    let (stand, place, plan) = pushing("gitea");
    keys::mint(&place.home, &plan, &place.keys).expect("mints");
    let left = revoke_left(&place.home, &|slug| slug == plan.slug);
    assert_eq!((left.len(), stand.keys().len()), (0, 1));
}

#[test]
fn a_key_that_cannot_be_revoked_is_loud_and_stays_written_down() {
    let (stand, place, plan) = pushing("github");
    keys::mint(&place.home, &plan, &place.keys).expect("mints");
    stand.set(Fault::Broken);
    let failure = keys::revoke(&place.home, &plan.slug).expect_err("the forge is broken");
    let text = failure.chain();
    assert!(
        text.contains("a deploy key is still valid") && text.contains("try later"),
        "{text}"
    );
    assert!(!text.contains("PRIVATE"));
    assert_eq!(keys::all(&place.home, None).expect("reads").len(), 1);
    stand.set(Fault::None);
    keys::revoke(&place.home, &plan.slug).expect("revokes");
    assert!(stand.keys().is_empty());
}

#[test]
fn a_second_start_first_takes_back_what_the_first_one_left() {
    let (stand, place, plan) = pushing("gitea");
    stand.set(Fault::SilentCreate);
    keys::mint(&place.home, &plan, &place.keys).expect_err("nobody answers");
    stand.set(Fault::None);
    keys::mint(&place.home, &plan, &place.keys).expect("mints");
    assert_eq!(stand.keys().len(), 1);
    stand.set(Fault::Collision);
    let other = Plan {
        slug: "other".into(),
        ..plan
    };
    let failure = keys::mint(&place.home, &other, &place.keys).expect_err("in use");
    assert!(
        failure.chain().contains("key is already in use"),
        "{}",
        failure.chain()
    );
}

#[test]
fn a_forge_that_breaks_leaves_no_key() {
    for kind in FORGES {
        let (stand, place, plan) = pushing(kind);
        stand.set(Fault::Broken);
        let failure = keys::mint(&place.home, &plan, &place.keys).expect_err("500");
        assert!(
            failure.chain().contains("(status 500): try later"),
            "{kind}: {}",
            failure.chain()
        );
        // Whether it has made one all the same is not known: it stays written down until the forge can be asked.
        keys::revoke(&place.home, &plan.slug).expect_err("still broken");
        assert_eq!(keys::all(&place.home, None).expect("reads").len(), 1);
        stand.set(Fault::None);
        keys::revoke(&place.home, &plan.slug).expect("revokes");
        assert_eq!(
            (
                stand.keys().len(),
                keys::all(&place.home, None).expect("reads").len()
            ),
            (0, 0),
            "{kind}"
        );
        // The same at the end of the bottle.
        keys::mint(&place.home, &plan, &place.keys).expect("mints");
        stand.set(Fault::Broken);
        let failure = keys::revoke(&place.home, &plan.slug).expect_err("500");
        assert!(failure.chain().contains("a deploy key is still valid"));
        stand.set(Fault::None);
        assert_eq!(revoke_left(&place.home, &|_| false).len(), 1);
        assert!(stand.keys().is_empty(), "{kind}");
    }
}

#[test]
fn a_forge_that_does_not_answer_in_time_leaves_no_key() {
    thread::scope(|scope| {
        for kind in FORGES {
            scope.spawn(move || {
                let (stand, place, plan) = pushing(kind);
                stand.set(Fault::Hang);
                let failure = keys::mint(&place.home, &plan, &place.keys).expect_err("no answer");
                assert!(
                    failure.chain().contains("does not answer"),
                    "{kind}: {}",
                    failure.chain()
                );
                assert_eq!(stand.keys().len(), 1, "{kind}: it was made all the same");
                // And not at the end either.
                keys::revoke(&place.home, &plan.slug).expect_err("no answer");
                assert_eq!(keys::all(&place.home, None).expect("reads").len(), 1);
                stand.set(Fault::None);
                assert_eq!(revoke_left(&place.home, &|_| false).len(), 1);
                assert!(stand.keys().is_empty(), "{kind}");
                assert!(keys::all(&place.home, None).expect("reads").is_empty());
            });
        }
    });
}

const CHILD: &str = "BOTTLE_TEST_MINT";

/// Not a test: what the next one kills.
#[test]
fn mints_when_it_is_told_to() {
    let Ok(told) = std::env::var(CHILD) else {
        return;
    };
    let words: Vec<&str> = told.split(' ').collect();
    // Only now is it known whom to kill.
    std::io::stdin().read_line(&mut String::new()).expect("go");
    let folder = Path::new(words[0]);
    let home = StateHome::open(folder).expect("a home");
    let plan = plan(home.path(), words[1], words[2], &["refs/heads/agent/*"]);
    let _ = keys::mint(&home, &plan, &folder.join("keys"));
}

#[test]
fn a_kill_between_the_key_and_its_record_leaves_no_key() {
    for kind in FORGES {
        let (stand, place) = (Stand::start(), place());
        let folder = place.keys.parent().expect("a folder").display();
        let mut child = Command::new(std::env::current_exe().expect("this program"))
            .args(["--exact", "mints_when_it_is_told_to"])
            .env(CHILD, format!("{folder} {kind} {}", stand.url))
            .stdin(std::process::Stdio::piped())
            .stdout(std::process::Stdio::null())
            .spawn()
            .expect("starts");
        stand.set(Fault::Kill(child.id()));
        drop(child.stdin.take());
        let status = child.wait().expect("ends");
        assert_eq!(status.signal(), Some(9), "{kind}: {status}");
        assert_eq!(stand.keys().len(), 1, "{kind}");
        let written = keys::all(&place.home, None).expect("reads");
        assert_eq!((written.len(), written[0].id), (1, None), "{kind}");
        stand.set(Fault::None);
        assert_eq!(revoke_left(&place.home, &|_| false).len(), 1);
        assert!(stand.keys().is_empty(), "{kind}");
        assert!(keys::all(&place.home, None).expect("reads").is_empty());
    }
}

/// As `gc` does: those of bottles that are gone.
fn revoke_left(home: &StateHome, alive: &dyn Fn(&str) -> bool) -> Vec<keys::Record> {
    let mut left = keys::all(home, None).expect("readable records");
    left.retain(|record| !alive(&record.slug));
    for record in &left {
        keys::revoke_one(home, record).expect("revokes");
    }
    left
}
