//! Bottles that work for a while: traffic of all kinds, reloads, grants, pushes and snapshots, and no sidecar grows.
//!
//! Three bottles for a minute and a half by default. `scripts/bench soak` runs the long form: `BOTTLE_SOAK_SECONDS` says
//! how long and `BOTTLE_SOAK_BOTTLES` with how many; every sample is written to `BOTTLE_SOAK_OUT`, one JSON object a line.

// What was done and how much the sidecars took is what a person runs this for.
#![allow(clippy::expect_used, clippy::panic, clippy::print_stdout)]

use std::collections::BTreeMap;
use std::fs;
use std::io::Write as _;
use std::path::Path;
use std::sync::Mutex;
use std::thread;
use std::time::{Duration, Instant};

use bottle_tests::engine::{docker, need_engine, note_skipped};
use bottle_tests::growth::{Taken, growth};
use bottle_tests::internet::{CLIENT, agent_image};
use bottle_tests::upstream::git_image;
use bottle_tests::{Bottle, Done, Home, Internet, Upstream};
use nix::unistd::Pid;
use serde_json::{Value, json};

const HOST: &str = "api.example.com";
const FORGE: &str = "git.example.com";
const TOKEN: &str = "tok-soak-suite-7c4a8d09ca3762af61e59520943dc264";

/// Bottles that work at the same time; more would measure the machine.
const AT_ONCE: usize = 2;

/// Until then a sidecar still fills: for half a minute egress keeps connections, also those of an older policy, and has the
/// file open that counts the uses of a grant.
const WARM_UP: Duration = Duration::from_secs(40);

/// Fewer samples than this, after the warm-up, say nothing.
const SAMPLES: usize = 9;

/// From the begin of a bottle's round to the next one's: a bottle may ask thirty times in ten minutes.
const PACE: Duration = Duration::from_secs(22);

/// The same in the short form, which ends before thirty.
const SHORT_PACE: Duration = Duration::from_secs(4);

/// The first of the rounds with a snapshot, and how many lie between two.
const SNAPSHOTS: (usize, usize) = (2, 6);

type Outcome<T> = Result<T, String>;

/// How long, and with how many.
struct Form {
    bottles: usize,
    length: Duration,
    pace: Duration,
}

impl Form {
    fn from_env() -> Self {
        let number = |name: &str| -> Option<u64> {
            let text = std::env::var(name).ok()?;
            Some(
                text.parse()
                    .unwrap_or_else(|_| panic!("{name} is not a number")),
            )
        };
        let bottles = number("BOTTLE_SOAK_BOTTLES").unwrap_or(3);
        let (length, pace) = match number("BOTTLE_SOAK_SECONDS") {
            Some(seconds) => (Duration::from_secs(seconds), PACE),
            None => (WARM_UP + Duration::from_secs(50), SHORT_PACE),
        };
        Self {
            bottles: usize::try_from(bottles).expect("few"),
            length,
            pace,
        }
    }
}

/// One sidecar of one bottle, and what it took after each round.
struct Sidecar {
    name: &'static str,
    pid: Pid,
    taken: Vec<(Duration, Taken)>,
}

impl Sidecar {
    fn warm(&self) -> Vec<Taken> {
        let warm = self.taken.iter().filter(|(at, _)| *at > WARM_UP);
        warm.map(|(_, taken)| *taken).collect()
    }
}

struct Worker {
    bottle: Bottle,
    sidecars: Vec<Sidecar>,
    round: usize,
    next: Instant,
    gated: bool,
}

/// What all do together.
struct Soak {
    home: Home,
    started: Instant,
    form: Form,
    upstream: Option<Upstream>,
    counts: Mutex<BTreeMap<&'static str, u64>>,
    errors: Mutex<Vec<String>>,
    out: Option<Mutex<fs::File>>,
}

impl Soak {
    fn count(&self, what: &'static str, number: u64) {
        *self.counts.lock().expect("whole").entry(what).or_default() += number;
    }

    fn note(&self, line: &Value) {
        if let Some(out) = &self.out {
            let written = writeln!(out.lock().expect("whole"), "{line}");
            written.expect("BOTTLE_SOAK_OUT can be written to");
        }
    }

    fn is_over(&self, worker: &Worker) -> bool {
        self.started.elapsed() >= self.form.length
            && worker
                .sidecars
                .iter()
                .all(|sidecar| sidecar.warm().len() >= SAMPLES)
    }

    /// One round of one bottle: everything a bottle is for.
    fn round(&self, worker: &mut Worker) {
        worker.round += 1;
        worker.next = Instant::now() + self.form.pace;
        let mut parts: Vec<(&str, Outcome<()>)> = vec![
            ("traffic", self.traffic_and_reload(worker)),
            ("grant", self.grant(worker)),
        ];
        if worker.gated {
            parts.push(("push", self.push(worker)));
        }
        if worker.round % SNAPSHOTS.1 == SNAPSHOTS.0 {
            parts.push(("snapshot", self.snapshot(worker)));
        }
        parts.push(("sample", self.sample(worker)));
        for (part, outcome) in parts {
            if let Err(error) = outcome {
                let what = format!(
                    "{}, round {}, {part}: {error}",
                    worker.bottle.slug, worker.round
                );
                eprintln!("soak: {what}");
                self.errors.lock().expect("whole").push(what);
            }
        }
    }

    /// The policy is read anew while requests are under way: none of them may notice.
    fn traffic_and_reload(&self, worker: &Worker) -> Outcome<()> {
        thread::scope(|scope| {
            let traffic = scope.spawn(|| self.traffic(worker));
            let reload = self.reload(worker);
            traffic.join().expect("it never panics").and(reload)
        })
    }

    fn traffic(&self, worker: &Worker) -> Outcome<()> {
        let script = format!(
            "proxy=${{https_proxy#http://}}; proxy=${{proxy%/}}
            load() {{ {CLIENT} load --ca \"$SSL_CERT_FILE\" --proxy \"$proxy\" --seconds 0.25 \"$@\"; }}
            load --connections 4 'https://{HOST}/bytes?n=4096'
            load --connections 2 --new-connections 'https://{HOST}/bytes?n=100'
            load --connections 2 --upload 65536 https://{HOST}/upload
            {CLIENT} fetch GET 'https://{HOST}/sse?n=3&ms=20'
            {CLIENT} fetch --direct GET 'https://{HOST}/bytes?n=200000'
            {CLIENT} fetch GET https://blocked.example.net/
            {CLIENT} fetch GET https://{HOST}/elsewhere"
        );
        let said = well(&worker.bottle.exec(&["sh", "-euc", &script]))?;
        let answers: Vec<Value> = said
            .lines()
            .filter_map(|line| serde_json::from_str(line).ok())
            .collect();
        if answers.len() != 7 {
            return Err(format!("{} answers: {said}", answers.len()));
        }
        for load in &answers[..3] {
            if load["errors"] != 0 || load["requests_total"] == 0 {
                return Err(format!("load: {load}"));
            }
            self.count("requests", load["requests_total"].as_u64().unwrap_or(0));
        }
        for (answer, status) in answers[3..].iter().zip([200, 200, 403, 403]) {
            if answer["status"] != status {
                return Err(format!("not {status}: {answer}"));
            }
        }
        self.count("requests", 2);
        self.count("denied", 2);
        Ok(())
    }

    /// Each time with other routes, so that there is something to change.
    fn reload(&self, worker: &Worker) -> Outcome<()> {
        let path = self
            .home
            .state(&worker.bottle.slug)
            .join("egress/policy.json");
        let text = fs::read(&path).map_err(|error| error.to_string())?;
        let mut policy: Value = serde_json::from_slice(&text).map_err(|error| error.to_string())?;
        let routes = policy["routes"]
            .as_array_mut()
            .ok_or("a policy without routes")?;
        let mut more = routes.first().cloned().ok_or("no route")?;
        routes.truncate(1);
        if worker.round % 2 == 1 {
            more["host"] = "also.example.com".into();
            routes.push(more);
        }
        let before = reloads(&worker.bottle)?;
        // In place: the sidecar has the file itself mounted.
        fs::write(&path, policy.to_string()).map_err(|error| error.to_string())?;
        well(&docker(["kill", "--signal=HUP", &worker.bottle.egress()]))?;
        let patience = Instant::now() + Duration::from_secs(60);
        while reloads(&worker.bottle)? == before {
            if Instant::now() > patience {
                return Err("the policy was not read again".to_owned());
            }
            thread::sleep(Duration::from_millis(50));
        }
        self.count("reloads", 1);
        Ok(())
    }

    /// The agent asks, the operator says yes, once; the second time it is no again.
    fn grant(&self, worker: &Worker) -> Outcome<()> {
        let bottle = &worker.bottle;
        let url = format!("https://{HOST}/echo/granted/{}", worker.round);
        let wish = json!({"url": url, "methods": ["POST"], "reason": "the soak", "wait": 0});
        let asked = bottle.exec(&[
            CLIENT,
            "fetch",
            "--direct",
            "--body",
            &wish.to_string(),
            "POST",
            "http://supervise:9100/requests/egress",
        ]);
        let asked = parsed(&well(&asked)?)?;
        let told = parsed(asked["body"].as_str().unwrap_or_default())?;
        let id = told["id"].as_str().ok_or_else(|| format!("{told}"))?;
        let approve = ["approve", id, "--for", "30s", "--uses", "1"];
        well(&self.home.tool("bottle-run").args(approve).run())?;
        let post =
            || -> Outcome<Value> { parsed(&well(&bottle.exec(&[CLIENT, "fetch", "POST", &url]))?) };
        for status in [200, 403] {
            let answer = post()?;
            if answer["status"] != status {
                return Err(format!("not {status}: {answer}"));
            }
        }
        self.count("grants", 1);
        Ok(())
    }

    fn push(&self, worker: &Worker) -> Outcome<()> {
        let upstream = self
            .upstream
            .as_ref()
            .ok_or("no upstream was made for a gated bottle")?;
        let (url, round) = (upstream.url(FORGE, "demo"), worker.round);
        let branch = format!("agent/{}-{round}", worker.bottle.slug);
        let script = format!(
            "cd ~; [ -d demo ] || git clone -q {url} demo; cd demo; git fetch -q origin
            git checkout -q -B {branch} origin/main; echo {round} > round.txt; git add .
            git commit -q -m 'round {round}'; git push -q origin {branch}"
        );
        well(&worker.bottle.exec(&["sh", "-euc", &script]))?;
        if upstream
            .oid("demo", &format!("refs/heads/{branch}"))
            .is_empty()
        {
            return Err(format!("{branch} did not arrive"));
        }
        self.count("pushes", 1);
        Ok(())
    }

    /// Made, proved, and removed again: ten bottles' would fill the disk.
    fn snapshot(&self, worker: &Worker) -> Outcome<()> {
        let slug = &worker.bottle.slug;
        let snapshot = |args: &[&str]| {
            let call = self.home.tool("bottle-snapshot");
            well(&call.args(args.iter().copied()).run())
        };
        let made = parsed(&snapshot(&["commit", slug])?)?;
        let reference = format!("{slug}@{}", made["number"]);
        snapshot(&["rm", "--force", &reference])?;
        self.count("snapshots", 1);
        Ok(())
    }

    fn sample(&self, worker: &mut Worker) -> Outcome<()> {
        for sidecar in &mut worker.sidecars {
            let taken = Taken::by(sidecar.pid)?;
            let at = self.started.elapsed();
            sidecar.taken.push((at, taken));
            self.note(&json!({
                "at": at.as_secs_f64(), "bottle": worker.bottle.slug, "round": worker.round,
                "sidecar": sidecar.name, "kib": taken.kib, "fds": taken.fds, "threads": taken.threads,
            }));
        }
        Ok(())
    }
}

/// What a call said that went well.
fn well(done: &Done) -> Outcome<String> {
    match done.code() {
        0 => Ok(done.stdout.clone()),
        code => Err(format!("exit {code}: {}{}", done.stderr, done.stdout)),
    }
}

fn parsed(text: &str) -> Outcome<Value> {
    serde_json::from_str(text).map_err(|error| format!("{error}: {text}"))
}

fn reloads(bottle: &Bottle) -> Outcome<usize> {
    let log = docker(["logs", &bottle.egress()]);
    if log.stderr.contains("policy not reloaded") {
        return Err(log.stderr);
    }
    Ok(log.stderr.matches("policy reloaded").count())
}

fn process_of(container: &str) -> Pid {
    let pid = docker(["inspect", "--format={{.State.Pid}}", container]).ok();
    Pid::from_raw(pid.trim().parse().expect("a number"))
}

fn manifest(image: &str, more: &str) -> String {
    format!(
        "\
image: {image}
resources: {{memory: 256m, cpus: 1, pids: 256}}
workspace: {{from: none}}
supervise: true
egress:
  upstream_ca: upstream.pem
  routes:
    - host: {HOST}
      private: [10.213.0.0/16]
      matches: [{{paths: [/bytes, /sse], methods: [GET]}}, {{paths: [/upload], methods: [POST]}}]
      auth: {{scheme: Bearer, token_ref: TEST_TOKEN}}
{more}"
    )
}

fn start(soak: &Soak, internet: &Internet, number: usize, gated: bool) -> Worker {
    let name = if gated { "gated" } else { "plain" };
    let bottle = soak.home.up(name, &soak.home.slug(&format!("s{number}")));
    let network = format!("bottle-{}-egress", bottle.slug);
    internet.join(&network, &[HOST]);
    let mut names = vec!["egress", "supervise"];
    if gated {
        names.push("git-gate");
        let upstream = soak.upstream.as_ref().expect("made for it");
        upstream.join(&network, &[FORGE]);
    }
    let sidecar = |name| Sidecar {
        name,
        pid: process_of(&format!("bottle-{}-{name}", bottle.slug)),
        taken: Vec::new(),
    };
    Worker {
        sidecars: names.into_iter().map(sidecar).collect(),
        bottle,
        round: 0,
        next: Instant::now(),
        gated,
    }
}

/// Rounds of all bottles in turn, some side by side, until it is over.
fn work(soak: &Soak, workers: Vec<Worker>) -> Vec<Worker> {
    let waiting = Mutex::new(std::collections::VecDeque::from(workers));
    let finished = Mutex::new(Vec::new());
    thread::scope(|scope| {
        for _ in 0..AT_ONCE {
            scope.spawn(|| {
                loop {
                    let worker = waiting.lock().expect("whole").pop_front();
                    // Whoever has none has nothing to wait for: the last ones are with the others.
                    let Some(mut worker) = worker else { break };
                    if soak.is_over(&worker) {
                        finished.lock().expect("whole").push(worker);
                        continue;
                    }
                    thread::sleep(worker.next.saturating_duration_since(Instant::now()));
                    soak.round(&mut worker);
                    waiting.lock().expect("whole").push_back(worker);
                }
            });
        }
    });
    finished.into_inner().expect("whole")
}

#[test]
fn nothing_grows() {
    if !need_engine("nothing_grows") {
        return;
    }
    let form = Form::from_env();
    let home = Home::with_env(&[("TEST_TOKEN", TOKEN)]);
    let internet = Internet::start(&home, &[HOST]);
    if Taken::by(process_of(&home.slug("internet"))).is_err() {
        note_skipped(
            "nothing_grows",
            "processes of containers cannot be looked at: not root, or not this machine's engine",
        );
        return;
    }
    home.write("bottles/upstream.pem", internet.ca_pem());
    let image = agent_image("debian:trixie-slim");
    home.bottle("plain", &manifest(&image, ""));
    let upstream = Upstream::start(&home);
    upstream.repository("demo");
    let repo = format!(
        "git-gate:\n  user: {{name: Agent, email: agent@example.com}}\n  repos:\n    demo:\n      url: {}\n      \
         host_key: \"{}\"\n      key: {{provider: static, path: {}}}\n",
        upstream.url(FORGE, "demo"),
        upstream.host_key,
        upstream.key.display()
    );
    home.bottle("gated", &manifest(&agent_image(&git_image()), &repo));
    let out = std::env::var_os("BOTTLE_SOAK_OUT").map(|path| {
        Mutex::new(fs::File::create(Path::new(&path)).expect("BOTTLE_SOAK_OUT can be written to"))
    });
    let mut soak = Soak {
        home: home.clone(),
        started: Instant::now(),
        form,
        upstream: Some(upstream),
        counts: Mutex::default(),
        errors: Mutex::default(),
        out,
    };
    // One in five has a git-gate too, at least one.
    let gated = soak.form.bottles.div_ceil(5);
    let workers: Vec<Worker> = (0..soak.form.bottles)
        .map(|number| start(&soak, &internet, number, number < gated))
        .collect();
    soak.started = Instant::now();
    let workers = work(&soak, workers);
    report(&soak, &workers);
    for worker in &workers {
        // Whoever joined a network keeps it from being removed.
        let network = format!("bottle-{}-egress", worker.bottle.slug);
        internet.leave(&network);
        if let Some(upstream) = &soak.upstream {
            upstream.leave(&network);
        }
        home.down(&worker.bottle.slug);
        assert_eq!(home.left_of(&worker.bottle.slug), Vec::<String>::new());
    }
}

fn report(soak: &Soak, workers: &[Worker]) {
    let counts = soak.counts.lock().expect("whole").clone();
    let errors = soak.errors.lock().expect("whole").clone();
    let seconds = soak.started.elapsed().as_secs();
    soak.note(
        &json!({"seconds": seconds, "bottles": workers.len(), "counts": counts, "errors": errors}),
    );
    println!(
        "soak: {seconds} s, {} bottles, {counts:?}, {} errors",
        workers.len(),
        errors.len()
    );
    let mut grown = Vec::new();
    for worker in workers {
        for sidecar in &worker.sidecars {
            let who = format!("{} of {}", sidecar.name, worker.bottle.slug);
            let container = format!("bottle-{}-{}", worker.bottle.slug, sidecar.name);
            assert_eq!(
                process_of(&container),
                sidecar.pid,
                "{who} was started again"
            );
            let warm = sidecar.warm();
            let series = |of: fn(&Taken) -> u64| warm.iter().map(of).collect::<Vec<_>>();
            for (what, series, slack) in [
                ("KiB", series(|taken| taken.kib), 1024),
                ("file descriptors", series(|taken| taken.fds), 2),
                // Those that look names up come and go.
                ("threads", series(|taken| taken.threads), 4),
            ] {
                println!("soak: {who}: {what}: {series:?}");
                if let Some((first, last)) = growth(&series, slack) {
                    grown.push(format!("{who}: {first} {what}, then {last}"));
                }
            }
        }
    }
    assert_eq!(errors, Vec::<String>::new());
    assert_eq!(grown, Vec::<String>::new());
}
