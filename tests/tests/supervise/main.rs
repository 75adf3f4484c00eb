//! The agent asks, the operator answers, grants end: on the real engine, with the tools as they are typed.

// The lint knows tests by their attribute, and helpers and cases have none.
#![allow(clippy::expect_used, clippy::panic)]

mod asking;
mod claude;
mod crash;
mod crowd;
mod hostile;
mod mcp;
mod view;

use std::process::ExitCode;

use bottle_tests::internet::agent_image;
use bottle_tests::{Bottle, Done, Home, Internet, need_engine, suite};
use serde_json::{Value, json};

/// All of them are the same container; `other.example.net` is in no manifest.
const HOSTS: [&str; 4] = [
    "api.example.com",
    "other.example.net",
    "far.example.org",
    "api.anthropic.com",
];

fn main() -> ExitCode {
    suite::run(
        make,
        &[
            (
                "a_denial_becomes_a_grant_for_one_use",
                asking::a_denial_becomes_a_grant_for_one_use,
            ),
            (
                "a_host_of_no_manifest_can_be_granted",
                asking::a_host_of_no_manifest_can_be_granted,
            ),
            (
                "a_grant_ends_by_the_clock_and_by_hand",
                asking::a_grant_ends_by_the_clock_and_by_hand,
            ),
            (
                "a_no_is_told_with_its_why",
                asking::a_no_is_told_with_its_why,
            ),
            ("a_question_is_answered", asking::a_question_is_answered),
            (
                "nobody_answers_and_only_reading_is_left",
                asking::nobody_answers_and_only_reading_is_left,
            ),
            (
                "grants_are_in_the_list_and_in_the_audit",
                asking::grants_are_in_the_list_and_in_the_audit,
            ),
            (
                "a_grant_becomes_a_line_of_the_manifest",
                asking::a_grant_becomes_a_line_of_the_manifest,
            ),
            (
                "the_example_tells_what_waits",
                asking::the_example_tells_what_waits,
            ),
            ("mcp_in_every_version", mcp::mcp_in_every_version),
            ("mcp_says_that_it_waits", mcp::mcp_says_that_it_waits),
            (
                "what_the_agent_writes_stays_text",
                hostile::what_the_agent_writes_stays_text,
            ),
            (
                "what_widens_too_much_is_not_even_asked",
                hostile::what_widens_too_much_is_not_even_asked,
            ),
            (
                "only_programs_that_mean_it_can_ask",
                hostile::only_programs_that_mean_it_can_ask,
            ),
            ("a_flood_is_held_back", hostile::a_flood_is_held_back),
            (
                "a_file_the_sidecar_did_not_mean_is_not_shown",
                hostile::a_file_the_sidecar_did_not_mean_is_not_shown,
            ),
            (
                "uses_survive_the_death_of_egress",
                crash::uses_survive_the_death_of_egress,
            ),
            (
                "a_request_survives_the_death_of_supervise",
                crash::a_request_survives_the_death_of_supervise,
            ),
            (
                "an_approval_that_is_killed_is_whole_or_nothing",
                crash::an_approval_that_is_killed_is_whole_or_nothing,
            ),
            (
                "all_die_between_approval_and_application",
                crash::all_die_between_approval_and_application,
            ),
            (
                "a_grant_is_over_after_sleep_and_restart",
                crash::a_grant_is_over_after_sleep_and_restart,
            ),
            ("down_ends_everything", crash::down_ends_everything),
            (
                "a_crowd_of_bottles_and_three_operators",
                crowd::a_crowd_of_bottles_and_three_operators,
            ),
            (
                "the_real_claude_asks_by_itself",
                claude::the_real_claude_asks_by_itself,
            ),
            (
                "the_view_shows_and_decides",
                view::the_view_shows_and_decides,
            ),
        ],
    )
}

/// A bottle that may only read `/open`, one where reading is what is left without an answer, and their Internet.
struct Fixture {
    home: Home,
    internet: Internet,
    bottle: Bottle,
    reader: Bottle,
}

impl Drop for Fixture {
    fn drop(&mut self) {
        for bottle in [&self.bottle, &self.reader] {
            self.internet.leave(&egress_network(&bottle.slug));
        }
    }
}

fn make() -> Option<Fixture> {
    if !need_engine("supervise") {
        return None;
    }
    let home = Home::with_env(&[(
        "ANTHROPIC_API_KEY",
        "sk-ant-standin-0cc175b9c0f1b6a831c399e269772661",
    )]);
    let internet = Internet::start(&home, &HOSTS);
    home.write("bottles/upstream.pem", internet.ca_pem());
    home.bottle("asks", &manifest("{timeout: 60s}"));
    home.bottle(
        "reads",
        &manifest("{timeout: 2s, on_timeout: allow_readonly}"),
    );
    let start = |name: &str| {
        let bottle = home.up(name, &home.slug(name));
        internet.join(&egress_network(&bottle.slug), &HOSTS);
        bottle
    };
    Some(Fixture {
        bottle: start("asks"),
        reader: start("reads"),
        home: home.clone(),
        internet,
    })
}

fn manifest(supervise: &str) -> String {
    format!(
        "\
image: {}
supervise: {supervise}
egress:
  upstream_ca: upstream.pem
  routes:
    # the way in
    - host: api.example.com
      private: [10.213.0.0/16]
      limits: {{requests: 5000, bytes_out: 20m}}
      matches: [{{paths: [/echo/open], methods: [GET]}}]
",
        agent_image("debian:trixie-slim")
    )
}

fn egress_network(slug: &str) -> String {
    format!("bottle-{slug}-egress")
}

/// The body of an answer, as JSON.
fn body(answer: &Value) -> Value {
    let text = answer["body"].as_str().unwrap_or_default();
    serde_json::from_str(text).unwrap_or_else(|error| panic!("{error}: {answer}"))
}

/// What the agent is told when it asks; the same as with `curl`.
fn ask(bottle: &Bottle, kind: &str, what: &Value) -> Value {
    let url = format!("http://supervise:9100/requests/{kind}");
    bottle.fetch(&["--direct", "--body", &what.to_string(), "POST", &url])
}

/// Asks and does not wait; gives the request's id.
fn hand_in(bottle: &Bottle, kind: &str, mut what: Value) -> String {
    what["wait"] = json!(0);
    let answer = ask(bottle, kind, &what);
    assert_eq!(answer["status"], 200, "{answer}");
    body(&answer)["id"].as_str().expect("an id").to_owned()
}

/// What became of a request, as the agent hears it.
fn status(bottle: &Bottle, id: &str) -> Value {
    let url = format!("http://supervise:9100/requests/{id}");
    body(&bottle.fetch(&["--direct", "GET", &url]))
}

/// A command of the operator's.
fn operator(home: &Home, args: &[&str]) -> Done {
    home.tool("bottle-run").args(args.iter().copied()).run()
}

/// A request of the agent's through egress: its status, and the reason of a refusal.
fn send(bottle: &Bottle, method: &str, url: &str) -> (u64, String) {
    let answer = bottle.fetch(&[method, url]);
    let status = answer["status"].as_u64().expect("a status");
    let reason = if status == 200 {
        String::new()
    } else {
        body(&answer)["reason"]
            .as_str()
            .unwrap_or_default()
            .to_owned()
    };
    (status, reason)
}
