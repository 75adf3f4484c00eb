//! What the egress sidecar of a running bottle does when its host gives it something to do: another policy, a full disk,
//! the end.

use std::fs;
use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::thread;
use std::time::Duration;

use bottle_tests::engine::{docker, inspected, skip, wait_for, wait_within};
use bottle_tests::internet::agent_image;
use bottle_tests::raw::{Exchange, Outcome};
use bottle_tests::{Bottle, Call, Home, Internet, need_engine, tools};
use serde_json::{Value, json};

const API: &str = "api.example.com";
const PLAIN: &str = "plain.example.com";

/// Line by line, because decisions name their line.
const ROUTES: &str = "  upstream_ca: upstream.pem
  routes:
    - host: api.example.com
      private: [10.213.0.0/16]
      matches: [{paths: [/bytes, /slow], methods: [GET]}]
    - host: plain.example.com
      scheme: http
      private: [10.213.0.0/16]
";

// In the order they are dropped: the internet leaves before the home removes the networks.
struct World {
    bottle: Bottle,
    internet: Internet,
    home: Home,
}

impl Drop for World {
    fn drop(&mut self) {
        self.leave();
    }
}

impl World {
    /// `more` is a line of the manifest. `before` is done once the bottle is planned.
    fn start<T>(more: &str, before: impl FnOnce(&Path) -> Option<T>) -> Option<(Self, T)> {
        let home = Home::new();
        let internet = Internet::start(&home, &[API, PLAIN]);
        home.write("bottles/upstream.pem", internet.ca_pem());
        let image = agent_image("debian:trixie-slim");
        home.bottle("web", &format!("image: {image}\negress:\n{more}{ROUTES}"));
        let slug = home.slug("sidecar");
        let compose = home.render(&home.plan("web", &slug));
        let made = before(&home.state(&slug))?;
        let up = home.tool("bottle-run").args(["up"]).stdin(compose).run();
        let bottle = Bottle::started(&home, &slug, up.json());
        internet.join(&format!("bottle-{slug}-egress"), &[API, PLAIN]);
        let world = Self {
            bottle,
            internet,
            home,
        };
        Some((world, made))
    }

    /// The bottle is removed as any other.
    fn end(&self) {
        self.leave();
        self.home.down(&self.bottle.slug);
        assert_eq!(self.home.left_of(&self.bottle.slug), Vec::<String>::new());
    }

    fn leave(&self) {
        self.internet
            .leave(&format!("bottle-{}-egress", self.bottle.slug));
    }

    fn audit(&self) -> PathBuf {
        self.home.state(&self.bottle.slug).join("audit")
    }

    /// The files of the audit, oldest first.
    fn audit_files(&self) -> Vec<PathBuf> {
        let all = fs::read_dir(self.audit()).expect("the audit").flatten();
        let mut files: Vec<PathBuf> = all
            .map(|entry| entry.path())
            .filter(|path| path.extension().is_some_and(|ending| ending == "jsonl"))
            .collect();
        // The open one has no number, and comes last.
        files.sort_by_key(|path| (path.ends_with("audit.jsonl"), path.clone()));
        files
    }

    fn records(&self) -> Vec<Value> {
        let texts = self.audit_files().into_iter().map(|path| {
            let text = fs::read_to_string(&path).expect("the audit can be read");
            text.rsplit_once('\n')
                .map_or(String::new(), |(whole, _)| whole.to_owned())
        });
        let texts: Vec<String> = texts.collect();
        let lines = texts.iter().flat_map(|text| text.lines());
        lines
            .map(|line| serde_json::from_str(line).expect("a record is one line of JSON"))
            .collect()
    }

    fn count_of(&self, reason: &str) -> usize {
        let records = self.records();
        records
            .iter()
            .filter(|record| record["reason"] == reason)
            .count()
    }

    /// What `audit verify` says of it.
    fn verified(&self) -> String {
        let slug = &self.bottle.slug;
        let args = ["audit", "verify", slug];
        self.home.tool("bottle-run").args(args).run().ok()
    }

    fn get(&self, url: &str) -> Value {
        self.bottle.fetch(&["GET", url])
    }

    fn arrived(&self, mark: &str) -> usize {
        let requests = self.internet.events_of("request");
        requests
            .iter()
            .filter(|request| request["query"]["mark"] == mark)
            .count()
    }

    /// Has the policy read again, and waits until the sidecar says what came of it.
    fn hang_up(&self, said: &str) {
        let count = || {
            docker(["logs", &self.bottle.egress()])
                .stderr
                .matches(said)
                .count()
        };
        let before = count();
        let _ = docker(["kill", "--signal=HUP", &self.bottle.egress()]).ok();
        wait_for(said, || count() > before);
    }
}

fn reason(answer: &Value) -> &str {
    let all = answer["headers"].as_array().expect("headers");
    let found = all.iter().find(|pair| pair[0] == "x-bottle-reason");
    found.and_then(|pair| pair[1].as_str()).unwrap_or_default()
}

/// Questions about the policy of a real bottle, asked where no bottle is; and what a policy that cannot be read does to one.
#[test]
fn a_policy_is_explained_offline_and_the_last_good_one_stays() {
    if !need_engine("a_policy_is_explained_offline_and_the_last_good_one_stays") {
        return;
    }
    let (world, ()) = World::start("  log: 1\n", |_| Some(())).expect("a bottle");
    // What is refused is also said in the log, from the first request on.
    assert_eq!(
        world.get("https://api.example.com/bytes?n=3")["status"],
        200
    );
    let refused = world.get("https://api.example.com/not-in-it");
    assert_eq!(reason(&refused), "path_not_allowed", "{refused}");
    wait_for("the refusal in the log", || {
        let log = docker(["logs", &world.bottle.egress()]).stderr;
        assert!(!log.contains("/bytes"), "{log}");
        log.contains("bottle-sidecar: deny path_not_allowed GET api.example.com:443/not-in-it (")
    });
    let path = world
        .home
        .state(&world.bottle.slug)
        .join("egress/policy.json");
    let good = fs::read_to_string(&path).expect("the policy");
    let file = path.display().to_string();
    let sidecar = |args: &[&str]| {
        let program = tools::sidecar().expect("need_engine looked for it");
        Call::new(program).args(args.iter().copied()).run()
    };
    let line = |text: &str| {
        let manifest = world.home.path().join("bottles/web.yaml");
        let manifest = fs::read_to_string(manifest).expect("the manifest");
        let at = manifest.lines().position(|line| line.contains(text));
        format!("web.yaml:{}", at.expect("its line") + 1)
    };
    let api = line("host: api.example.com");
    let said = sidecar(&["check", &file]).ok();
    assert!(
        said.contains(&format!("https://{API}:443  1 match(es)")),
        "{said}"
    );
    for source in [&api, &line("host: plain.example.com")] {
        assert!(said.contains(&format!("({source})")), "{source}: {said}");
    }
    let none = Value::Null;
    let cases = [
        (
            "GET",
            "https://api.example.com/bytes",
            0,
            "allowed",
            json!(api),
        ),
        (
            "POST",
            "https://api.example.com/bytes",
            3,
            "method_not_allowed",
            json!(api),
        ),
        (
            "GET",
            "https://api.example.com/admin",
            3,
            "path_not_allowed",
            json!(api),
        ),
        (
            "GET",
            "https://untold.example.com/",
            3,
            "host_not_allowed",
            none,
        ),
    ];
    for (method, url, code, reason, source) in cases {
        let done = sidecar(&["why", &file, method, url]);
        let answer = done.stdout.parse::<Value>().expect("JSON");
        assert_eq!(
            (done.code(), &answer["reason"], &answer["source"]),
            (code, &json!(reason), &source),
            "{method} {url}: {answer}"
        );
    }

    for bad in ["{", &good.replace("\"routes\"", "\"rutes\""), ""] {
        fs::write(&path, bad).expect("the policy can be written");
        assert_ne!(sidecar(&["check", &file]).code(), 0);
        world.hang_up("policy not reloaded, the last good one stays: /etc/bottle/policy.json: ");
        assert_eq!(
            world.get("https://api.example.com/bytes?n=3")["status"],
            200
        );
        let refused = world.get("https://api.example.com/admin");
        assert_eq!(reason(&refused), "path_not_allowed", "{refused}");
    }
    fs::write(&path, good.replace("/bytes", "/admin")).expect("the policy can be written");
    world.hang_up("policy reloaded");
    assert_eq!(world.get("https://api.example.com/admin")["status"], 404);
    world.end();
}

/// The engine's own way to end a container, in the middle of an answer.
#[test]
fn egress_that_is_told_to_end_answers_what_it_has_begun() {
    if !need_engine("egress_that_is_told_to_end_answers_what_it_has_begun") {
        return;
    }
    let (world, ()) = World::start("", |_| Some(())).expect("a bottle");
    let egress = world.bottle.egress();
    thread::scope(|scope| {
        let url = "https://api.example.com/slow?ms=700&mark=under-way";
        let asking = scope.spawn(|| world.get(url));
        wait_for("the request", || world.arrived("under-way") == 1);
        // With the time it is given where nobody says otherwise.
        let _ = docker(["stop", &egress]).ok();
        let answer = asking.join().expect("no panic");
        assert_eq!(
            (&answer["status"], &answer["body"]),
            (&json!(200), &json!("at last\n")),
            "{answer}"
        );
    });
    assert_eq!(
        inspected(&egress, "{{.State.Status}} {{.State.ExitCode}}"),
        "exited 0"
    );
    let records = world.records();
    let slow = records.iter().find(|record| record["path"] == "/slow");
    let slow = slow.unwrap_or_else(|| panic!("not on record: {records:?}"));
    assert_eq!(
        (&slow["reason"], &slow["status"]),
        (&json!("allowed"), &json!(200))
    );
    let last = records.last().expect("records");
    assert_eq!(last["reason"], "audit_closed", "{last}");
    assert!(world.verified().contains("intact"), "{}", world.verified());
    world.end();
}

/// More records than the manifest has room for.
#[test]
fn the_audit_keeps_to_the_size_it_was_given() {
    if !need_engine("the_audit_keeps_to_the_size_it_was_given") {
        return;
    }
    let (world, ()) =
        World::start("  audit: {max_bytes: 2m, files: 2}\n", |_| Some(())).expect("a bottle");
    // What is let through is always listed, and its path is the longest thing in a record.
    let path = "p".repeat(1000);
    let request = format!("GET http://{PLAIN}/{path} HTTP/1.1\r\nHost: {PLAIN}\r\n\r\n");
    let exchange = Exchange {
        to: "egress:3128".to_owned(),
        send: vec![request.repeat(100)],
        patience_ms: 5000,
        ..Exchange::default()
    };
    let answered = |outcomes: &[Outcome]| -> usize {
        let all = outcomes.iter().map(|outcome| outcome.statuses().len());
        all.sum()
    };
    let mut requests = 0;
    while world.count_of("audit_dropped") == 0 {
        let outcomes = world.bottle.raw(&vec![exchange.clone(); 4]);
        assert_eq!(answered(&outcomes), 400, "{:?}", outcomes[0]);
        requests += 400;
        assert!(requests <= 8000, "nothing was given up");
    }
    assert!(requests > 1000, "{requests} requests filled 2 MiB");
    let files = world.audit_files();
    assert_eq!(files.len(), 2, "{files:?}");
    for file in &files {
        let size = fs::metadata(file).expect("it is there").len();
        // A file is closed by the first write after it is full: at most one batch of records is beyond.
        assert!(
            size < (1 << 20) + 64 * 2048,
            "{} has {size} bytes",
            file.display()
        );
    }
    let records = world.records();
    let word = records
        .iter()
        .rev()
        .find(|record| record["reason"] == "audit_dropped");
    let word = &word.expect("a word about it")["dropped"];
    assert_eq!(
        (word["through"].as_u64().map(|last| last + 1), &word["hash"]),
        (records[0]["seq"].as_u64(), &records[0]["prev"])
    );
    let said = world.verified();
    assert!(
        said.contains("intact") && said.contains("in 2 files"),
        "{said}"
    );
    // Without the word it would be missing records.
    let current = files.last().expect("two files");
    let text = fs::read_to_string(current).expect("the audit can be read");
    let kept = text
        .lines()
        .filter(|line| !line.contains("\"audit_dropped\""));
    let kept: String = kept.map(|line| format!("{line}\n")).collect();
    let _ = docker(["stop", "--time=10", &world.bottle.egress()]).ok();
    fs::write(current, kept).expect("the audit can be written");
    let args = ["audit", "verify", &world.bottle.slug];
    let done = world.home.tool("bottle-run").args(args).run();
    assert_ne!(done.code(), 0, "{}", done.stdout);
    world.end();
}

/// A disk of the test's own below the audit of a bottle, and what fills it.
struct SmallDisk(PathBuf);

impl SmallDisk {
    fn mount(state: &Path) -> Option<Self> {
        let folder = state.join("audit");
        fs::create_dir_all(&folder).expect("the folder of the audit");
        let mounted = Command::new("mount")
            .args(["-t", "tmpfs", "-o", "size=128k,mode=700", "none"])
            .arg(&folder)
            .status();
        mounted
            .is_ok_and(|status| status.success())
            .then_some(Self(folder))
    }

    fn fill(&self) {
        let mut file = fs::File::create(self.0.join("ballast")).expect("a file");
        while file.write_all(&[b'x'; 4096]).is_ok() {}
    }

    fn empty(&self) {
        fs::remove_file(self.0.join("ballast")).expect("the ballast");
    }
}

impl Drop for SmallDisk {
    fn drop(&mut self) {
        let _ = Command::new("umount").arg("-l").arg(&self.0).status();
    }
}

fn on_a_small_disk(name: &str, audit: &str) -> Option<(World, SmallDisk)> {
    if !need_engine(name) {
        return None;
    }
    let made = World::start(audit, SmallDisk::mount);
    if made.is_none() {
        skip(name, "only root can mount a small disk");
    }
    made
}

/// Refusals, each of a host of its own: of one they would be counted and not listed.
fn refusals(world: &World, from: usize) -> Vec<String> {
    let one = |number: usize| Exchange {
        to: "egress:3128".to_owned(),
        send: vec![format!(
            "GET http://n{number}.example.org/ HTTP/1.1\r\nHost: n{number}.example.org\r\nConnection: close\r\n\r\n"
        )],
        // As long as a request may wait for its place in the audit, and some more.
        patience_ms: 8000,
        ..Exchange::default()
    };
    let exchanges: Vec<Exchange> = (from..from + 20).map(one).collect();
    let outcomes = world.bottle.raw(&exchanges);
    outcomes
        .iter()
        .map(|outcome| outcome.reasons().concat())
        .collect()
}

/// What cannot be recorded does not happen: an agent that has filled the disk is shut in, and nothing else is lost.
#[test]
fn row_72_a_full_disk_stops_everything() {
    let name = "row_72_a_full_disk_stops_everything";
    let Some((world, disk)) = on_a_small_disk(name, "") else {
        return;
    };
    assert_eq!(
        world.get("https://api.example.com/bytes?n=3")["status"],
        200
    );
    disk.fill();
    let mut from = 0;
    // A few more may fit into what the file already has.
    while !refusals(&world, from).contains(&"audit_unavailable".to_owned()) {
        from += 20;
        assert!(from < 1000, "nothing was refused");
    }
    for url in [
        "https://api.example.com/bytes?mark=full",
        "http://plain.example.com/bytes?mark=full",
    ] {
        let answer = world.get(url);
        assert_eq!(
            (&answer["status"], reason(&answer)),
            (&json!(503), "audit_unavailable")
        );
    }
    // Names, too.
    let allowed = vec![format!("dns:127.0.0.11:nobody.{API}")];
    world.bottle.probe(&allowed).assert_closed();
    assert_eq!(world.arrived("full"), 0, "it went out without a record");
    let egress = world.bottle.egress();
    wait_within(Duration::from_secs(30), "its health to say so", || {
        inspected(&egress, "{{.State.Health.Status}}") == "unhealthy"
    });
    disk.empty();
    wait_for("the audit", || {
        world.get("https://api.example.com/bytes?n=3")["status"] == 200
    });
    assert!(world.verified().contains("intact"), "{}", world.verified());
    assert_eq!(world.count_of("audit_lost"), 0);
    world.end();
}

/// The operator's own choice: it goes on by the same rules, and how much was not written is.
#[test]
fn where_the_manifest_says_so_a_full_disk_stops_nothing() {
    let name = "where_the_manifest_says_so_a_full_disk_stops_nothing";
    let Some((world, disk)) = on_a_small_disk(name, "  audit: {on_full: allow}\n") else {
        return;
    };
    disk.fill();
    let mut from = 0;
    while !docker(["logs", &world.bottle.egress()])
        .stderr
        .contains("audit cannot be written, and requests go on without it")
    {
        let reasons = refusals(&world, from);
        assert!(
            reasons.iter().all(|reason| reason == "host_not_allowed"),
            "{reasons:?}"
        );
        from += 20;
        assert!(from < 1000, "the disk is not full");
    }
    let answer = world.get("https://api.example.com/bytes?n=3&mark=unseen");
    assert_eq!(answer["status"], 200, "{answer}");
    assert_eq!(world.arrived("unseen"), 1);
    let refused = world.get("https://api.example.com/admin");
    assert_eq!(reason(&refused), "path_not_allowed", "{refused}");
    disk.empty();
    wait_for("a word about what was lost", || {
        let _ = world.get("https://api.example.com/bytes?n=3");
        world.count_of("audit_lost") > 0
    });
    let records = world.records();
    let lost = records
        .iter()
        .filter(|record| record["reason"] == "audit_lost");
    let lost: u64 = lost.filter_map(|record| record["count"].as_u64()).sum();
    assert!(lost >= 2, "{lost} records were lost");
    // The chain goes on behind the gap, which is no tampering.
    assert!(world.verified().contains("intact"), "{}", world.verified());
    world.end();
}
