//! Many requests, several operators, nobody in charge.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::thread;
use std::time::Duration;

use bottle_tests::Bottle;
use bottle_tests::engine::wait_within;
use serde_json::{Value, json};

use crate::{Fixture, ask, body, operator};

/// How many bottles ask. `BOTTLE_CROWD=20` is the whole crowd; every run takes fewer, as each is three containers and
/// two networks.
const BOTTLES: usize = 4;
/// Requests of all of them together, whatever their number.
const REQUESTS: usize = 100;
/// Bottles that are started or removed at once.
const PARALLEL: usize = 4;
const OPERATORS: [&str; 3] = ["maria", "jun", "ade"];
/// Egress looks five times a second; on a machine full of bottles it may be late.
const PATIENCE: Duration = Duration::from_secs(60);

/// Everybody answers whatever waits, each beginning elsewhere and not always with the same: each request is decided once,
/// by who says so, and heard by who asked.
pub(crate) fn a_crowd_of_bottles_and_three_operators(f: &Fixture) {
    let count = std::env::var("BOTTLE_CROWD").map_or(BOTTLES, |text| {
        text.parse().expect("BOTTLE_CROWD is a number")
    });
    let small = "resources: {memory: 64m, cpus: 1, pids: 64}\n";
    let manifest = format!("{small}{}", crate::manifest("{timeout: 10m}"));
    f.home.bottle("crowd", &manifest);
    let bottles = in_parallel(count, |number| {
        f.home.up("crowd", &f.home.slug(&format!("crowd{number}")))
    });

    let all_asked = AtomicBool::new(false);
    let (ids, wins) = thread::scope(|scope| {
        let asking: Vec<_> = bottles
            .iter()
            .enumerate()
            .map(|(number, bottle)| {
                let share = REQUESTS / count + usize::from(number < REQUESTS % count);
                scope.spawn(move || (0..share).map(|n| hand_in_patiently(bottle, n)).collect())
            })
            .collect();
        let answering: Vec<_> = OPERATORS
            .iter()
            .enumerate()
            .map(|(number, name)| {
                let all_asked = &all_asked;
                scope.spawn(move || answer_all(f, number, name, all_asked))
            })
            .collect();
        let ids: Vec<Vec<String>> = asking
            .into_iter()
            .map(|asking| asking.join().expect("asked"))
            .collect();
        all_asked.store(true, Ordering::Release);
        let wins: Vec<Vec<(String, String)>> = answering
            .into_iter()
            .map(|answering| answering.join().expect("answered"))
            .collect();
        (ids, wins)
    });
    assert_eq!(ids.iter().map(Vec::len).sum::<usize>(), REQUESTS);
    let decisions = wins.iter().map(Vec::len).sum::<usize>();
    assert_eq!(decisions, REQUESTS, "each is decided once");
    let decided: BTreeMap<String, String> = wins.iter().flatten().cloned().collect();
    assert_eq!(decided.len(), REQUESTS, "none is lost");

    let all: Value = operator(&f.home, &["requests", "--all", "--json"]).json();
    let mut approved = Vec::new();
    for asked in all["requests"].as_array().expect("a list") {
        let id = asked["request"]["id"].as_str().expect("an id");
        let Some(who) = decided.get(id) else { continue };
        // Not both: what was granted was not refused as well.
        assert!(
            asked["grant"].is_null() != asked["answer"].is_null(),
            "{asked}"
        );
        let by = [&asked["grant"]["by"], &asked["answer"]["by"]];
        assert!(by.contains(&&json!(who)), "{asked}");
        if asked["status"] == "approved" {
            approved.push(id.to_owned());
        }
    }
    assert!(!approved.is_empty() && approved.len() < REQUESTS);
    for (bottle, ids) in bottles.iter().zip(&ids) {
        told_and_applied(f, bottle, ids, &approved);
    }
    let _ = in_parallel(count, |number| f.home.down(&bottles[number].slug));
    eprintln!(
        "{REQUESTS} requests of {count} bottles: {} approved, {} denied; {}",
        approved.len(),
        REQUESTS - approved.len(),
        OPERATORS
            .iter()
            .zip(&wins)
            .map(|(name, wins)| format!("{name} {}", wins.len()))
            .collect::<Vec<_>>()
            .join(", ")
    );
}

/// `work` for every number, some at a time; the results in order.
fn in_parallel<T: Send>(count: usize, work: impl Fn(usize) -> T + Sync) -> Vec<T> {
    let next = AtomicUsize::new(0);
    let one_after_the_other = || {
        let mut done = Vec::new();
        loop {
            let number = next.fetch_add(1, Ordering::Relaxed);
            if number >= count {
                return done;
            }
            done.push((number, work(number)));
        }
    };
    let done: BTreeMap<usize, T> = thread::scope(|scope| {
        let workers: Vec<_> = (0..PARALLEL)
            .map(|_| scope.spawn(one_after_the_other))
            .collect();
        let done = workers
            .into_iter()
            .map(|worker| worker.join().expect("it works"));
        done.flatten().collect()
    });
    done.into_values().collect()
}

/// Asks again while the sidecar says that too many wait.
fn hand_in_patiently(bottle: &Bottle, number: usize) -> String {
    let wish = json!({"host": format!("h{number}.example.org"), "methods": ["GET"], "wait": 0});
    loop {
        let answer = ask(bottle, "egress", &wish);
        match answer["status"].as_u64() {
            Some(200) => return body(&answer)["id"].as_str().expect("an id").to_owned(),
            Some(429) => thread::sleep(Duration::from_millis(50)),
            _ => panic!("{answer}"),
        }
    }
}

/// Those this operator was first with.
fn answer_all(
    f: &Fixture,
    number: usize,
    name: &str,
    all_asked: &AtomicBool,
) -> Vec<(String, String)> {
    let crowd = f.home.slug("crowd");
    let mut won = Vec::new();
    let mut tried = number;
    loop {
        let was_last = all_asked.load(Ordering::Acquire);
        let open: Value = operator(&f.home, &["requests", "--json"]).json();
        let mut ids: Vec<String> = open["requests"]
            .as_array()
            .expect("a list")
            .iter()
            .filter(|asked| {
                asked["slug"]
                    .as_str()
                    .is_some_and(|slug| slug.starts_with(&crowd))
            })
            .filter_map(|asked| Some(asked["request"]["id"].as_str()?.to_owned()))
            .collect();
        if ids.is_empty() && was_last {
            return won;
        }
        let middle = number * ids.len() / OPERATORS.len();
        ids.rotate_left(middle);
        for id in ids {
            let args: &[&str] = if tried.is_multiple_of(2) {
                &["approve", &id, "--for", "1h", "--by", name]
            } else {
                &["deny", &id, "--by", name]
            };
            tried += 1;
            let done = operator(&f.home, args);
            match done.code() {
                0 => won.push((id, name.to_owned())),
                5 => assert!(done.stderr.contains(" by "), "{}", done.stderr),
                other => panic!("{other}: {}", done.stderr),
            }
        }
    }
}

/// The agent hears what was decided, and egress has begun each grant once and nothing else.
fn told_and_applied(f: &Fixture, bottle: &Bottle, ids: &[String], approved: &[String]) {
    let script = format!(
        "for id in {}; do {} fetch --direct GET http://supervise:9100/requests/$id; done",
        ids.join(" "),
        bottle_tests::internet::CLIENT
    );
    let said = bottle.exec(&["bash", "-c", &script]).ok();
    let answers = serde_json::Deserializer::from_str(&said).into_iter::<Value>();
    let told: Vec<Value> = answers.map(|answer| body(&answer.expect("JSON"))).collect();
    assert_eq!(told.len(), ids.len());
    for (id, told) in ids.iter().zip(&told) {
        let status = if approved.contains(id) {
            "approved"
        } else {
            "denied"
        };
        assert_eq!(told["status"], status, "{told}");
    }
    let begun = |audit: &str, id: &String| {
        let grant = id.replace("r-", "g-");
        let of_it = |line: &&str| line.contains("grant_begun") && line.contains(&grant);
        audit.lines().filter(of_it).count()
    };
    let audit = || operator(&f.home, &["audit", &bottle.slug, "--json"]).stdout;
    wait_within(PATIENCE, "every grant in the audit", || {
        let audit = audit();
        let mut granted = ids.iter().filter(|id| approved.contains(id));
        granted.all(|id| begun(&audit, id) > 0)
    });
    let audit = audit();
    for id in ids {
        let times = usize::from(approved.contains(id));
        assert_eq!(begun(&audit, id), times, "{id}");
    }
}
