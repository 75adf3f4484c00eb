//! Many requests, several operators, nobody in charge.

use std::collections::BTreeMap;
use std::thread;

use bottle_tests::engine::wait_for;
use serde_json::{Value, json};

use crate::{Fixture, HOSTS, egress_network, hand_in, operator, status};

/// With those of the fixture. Twenty take this machine too long.
const MORE_BOTTLES: usize = 2;
/// Each bottle has so many open at once, as the sidecar allows no more.
const AT_ONCE: usize = 8;
const ROUNDS: usize = 3;
const OPERATORS: [&str; 3] = ["maria", "jun", "ade"];

/// Everything that can be answered is tried by everybody, in another order; each is decided once, and by who says so.
pub(crate) fn a_crowd_of_bottles_and_three_operators(f: &Fixture) {
    f.home.bottle("crowd", &crate::manifest("{timeout: 10m}"));
    let bottles: Vec<_> = (0..MORE_BOTTLES)
        .map(|number| {
            let bottle = f.home.up("crowd", &f.home.slug(&format!("crowd{number}")));
            f.internet.join(&egress_network(&bottle.slug), &HOSTS);
            bottle
        })
        .collect();
    let mut decided = BTreeMap::new();
    for round in 0..ROUNDS {
        let ids: Vec<String> = thread::scope(|scope| {
            let asking: Vec<_> = bottles.iter().map(|bottle| scope.spawn(move || {
                (0..AT_ONCE).map(|number| {
                    let wish = json!({"host": format!("h{round}-{number}.example.org"), "methods": ["GET"]});
                    hand_in(bottle, "egress", wish)
                }).collect::<Vec<_>>()
            })).collect();
            asking
                .into_iter()
                .flat_map(|asking| asking.join().expect("asked"))
                .collect()
        });
        let wins: Vec<(String, String)> = thread::scope(|scope| {
            let answering: Vec<_> = OPERATORS
                .iter()
                .enumerate()
                .map(|(number, name)| {
                    let mut mine = ids.clone();
                    let middle = number * mine.len() / OPERATORS.len();
                    mine.rotate_left(middle);
                    scope.spawn(move || answer_all(f, name, &mine))
                })
                .collect();
            answering
                .into_iter()
                .flat_map(|answering| answering.join().expect("answered"))
                .collect()
        });
        assert_eq!(wins.len(), ids.len(), "each is decided once");
        decided.extend(wins);
    }
    assert_eq!(
        decided.len(),
        MORE_BOTTLES * AT_ONCE * ROUNDS,
        "none is lost"
    );
    let all: Value = operator(&f.home, &["requests", "--all", "--json"]).json();
    for asked in all["requests"].as_array().expect("a list") {
        let id = asked["request"]["id"].as_str().expect("an id");
        if let Some(who) = decided.get(id) {
            let by = asked["grant"]["by"]
                .as_str()
                .or_else(|| asked["answer"]["by"].as_str());
            assert_eq!(by, Some(who.as_str()), "{asked}");
        }
    }
    for bottle in &bottles {
        let (id, _) = decided.iter().next().expect("some");
        let _ = status(bottle, id);
        f.internet.leave(&egress_network(&bottle.slug));
        f.home.down(&bottle.slug);
    }
    wait_for("an empty list", || {
        !operator(&f.home, &["requests"]).stdout.contains("crowd")
    });
}

/// Those this operator was first with.
fn answer_all(f: &Fixture, name: &str, ids: &[String]) -> Vec<(String, String)> {
    let mut won = Vec::new();
    for (number, id) in ids.iter().enumerate() {
        let args: &[&str] = if number % 2 == 0 {
            &["approve", id, "--for", "60s", "--by", name]
        } else {
            &["deny", id, "--by", name]
        };
        let done = operator(&f.home, args);
        match done.code() {
            0 => won.push((id.clone(), name.to_owned())),
            5 => assert!(done.stderr.contains(" by "), "{}", done.stderr),
            other => panic!("{other}: {}", done.stderr),
        }
    }
    won
}
