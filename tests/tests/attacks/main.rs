//! The attacks that concern the way out, one by one and from inside a real bottle. A name has the number of its row in
//! docs/attacks.md, which says what the defence is and what the test printed without it.

// The lint knows tests by their attribute, and helpers and cases have none.
#![allow(clippy::expect_used, clippy::panic)]

mod credentials;
mod endurance;
mod h2;
mod names;
mod policy;
mod tls;
mod wire;

use std::fs;
use std::process::ExitCode;

use bottle_tests::engine::{docker, wait_for};
use bottle_tests::internet::agent_image;
use bottle_tests::raw::{Exchange, Outcome};
use bottle_tests::{Bottle, Home, Internet, need_engine, suite};
use serde_json::Value;

const TOKEN: &str = "tok-attacks-c3fcd3d76192e4007dfb496c";

const API: &str = "api.example.com";
const FREE: &str = "free.example.com";
const OTHER: &str = "other.example.net";

/// All of them are one container; the routes tell them apart.
const HOSTS: [&str; 17] = [
    API,
    PINNED,
    FREE,
    OTHER,
    "plain.example.com",
    "reflect.example.com",
    "reflect-h2.example.com",
    "suspend.example.com",
    "gone.example.com",
    "inside.example.com",
    "mint.example.com",
    "watched.example.com",
    "limited.example.com",
    "metered.example.com",
    "mixed.example.com",
    "a.wild.example.com",
    "wild.example.com",
];

/// Its clients pin its certificate, so what they say is not looked at.
const PINNED: &str = "pinned.example.com";
/// They lead to the container too, but its certificate does not name them.
const MISNAMED: &str = "misnamed.example.com";
/// Its certificate comes from a root that nobody told the bottle about.
const UNTRUSTED: &str = "untrusted.example.com";
/// It has an address inside the bottle's own network.
const OWN: &str = "own.example.com";

fn manifest(image: &str) -> String {
    let mut text = format!(
        "\
image: {image}
egress:
  log: 1
  upstream_ca: upstream.pem
  routes:
    - host: {API}
      private: [10.213.0.0/16]
      auth: {{scheme: Bearer, token_ref: TEST_TOKEN}}
      matches:
        - {{paths: [/echo, /bytes, /early, /upload], methods: [GET, POST]}}
    - {{host: {FREE}, private: [10.213.0.0/16]}}
    - {{host: {OTHER}, private: [10.213.0.0/16]}}
    - {{host: {PINNED}, private: [10.213.0.0/16], tls: passthrough}}
    - {{host: plain.example.com, scheme: http, private: [10.213.0.0/16]}}
    - {{host: gone.example.com, private: [10.213.0.0/16]}}
    - {{host: inside.example.com}}
    - host: limited.example.com
      private: [10.213.0.0/16]
      limits: {{requests: 4}}
    - host: metered.example.com
      private: [10.213.0.0/16]
      limits: {{bytes_out: 1000}}
    - {{host: \"*.wild.example.com\", private: [10.213.0.0/16]}}
"
    );
    text.push_str(
        "    - {host: watched.example.com, private: [10.213.0.0/16], dlp: {outbound_detectors: [token_patterns]}}\n",
    );
    for host in [
        "reflect.example.com",
        "reflect-h2.example.com",
        "suspend.example.com",
        "mint.example.com",
    ] {
        text.push_str(&format!(
            "    - {{host: {host}, private: [10.213.0.0/16], auth: {{scheme: Bearer, token_ref: TEST_TOKEN}}}}\n"
        ));
    }
    for host in [MISNAMED, UNTRUSTED, OWN, "mixed.example.com"] {
        text.push_str(&format!(
            "    - {{host: {host}, private: [10.213.0.0/16]}}\n"
        ));
    }
    text
}

macro_rules! cases {
    ($($module:ident::$name:ident),* $(,)?) => {
        &[$((stringify!($name), $module::$name as fn(&Fixture))),*]
    };
}

fn main() -> ExitCode {
    suite::run(
        make,
        cases![
            names::row_20_metadata,
            policy::row_21_domain_fronting,
            tls::row_21_a_hidden_server_name,
            policy::row_22_credential_for_a_host_of_ones_choice,
            names::row_23_host_spellings,
            names::row_24_addresses_in_odd_notations,
            policy::row_25_port_pivot,
            names::row_26_mixed_answers,
            names::row_27_private_address,
            names::row_28_the_proxy_itself,
            names::row_29_wildcards,
            wire::row_30_lengths_that_disagree,
            wire::row_31_heads_that_parsers_read_differently,
            wire::row_32_a_second_request_in_the_first,
            policy::row_33_keep_alive_outlives_the_policy,
            policy::row_34_path_tricks,
            policy::row_35_every_way_in_has_the_same_rules,
            policy::row_36_method_and_url_overrides,
            h2::row_37_http2_without_tls,
            h2::row_38_http2_resets_and_floods,
            h2::row_38_http2_names_another_host,
            wire::row_39_a_websocket_that_is_none,
            endurance::row_40_a_websocket_without_end,
            policy::row_41_methods_that_show_or_tunnel,
            wire::row_42_answers_that_come_early,
            wire::row_43_trailers_and_chunk_extensions,
            wire::row_44_headers_named_in_connection,
            credentials::row_45_a_destination_that_keeps_echoing,
            credentials::row_46_reflected_in_other_forms,
            h2::row_46_secrets_in_http2,
            credentials::row_48_a_key_of_the_attackers_own,
            credentials::row_50_a_token_the_destination_mints,
            credentials::row_54_a_value_with_line_ends,
            credentials::row_55_a_value_in_pieces,
            credentials::row_55_the_placeholder_elsewhere,
            credentials::row_56_cookies_of_a_session,
            credentials::row_57_without_its_value_nothing_passes,
            tls::row_58_the_key_of_the_ca,
            tls::row_59_the_ca_signs_for_the_routes_alone,
            tls::row_61_a_flood_of_server_names,
            tls::row_62_destinations_that_are_not_who_they_say,
            endurance::row_63_slow_clients,
            endurance::row_64_too_many_connections,
            endurance::row_66_heads_and_bodies_without_end,
            endurance::row_67_a_flood_of_denials,
            endurance::row_69_budgets,
            endurance::row_70_lines_forged_in_the_audit,
            endurance::row_73_the_audit_is_altered,
        ],
    )
}

// In the order they are dropped: the internets leave before the home removes the networks.
struct Fixture {
    bottle: Bottle,
    internet: Internet,
    untrusted: Internet,
    home: Home,
}

impl Drop for Fixture {
    fn drop(&mut self) {
        for network in [self.network("egress"), self.network("internal")] {
            self.internet.leave(&network);
            self.untrusted.leave(&network);
        }
    }
}

fn make() -> Option<Fixture> {
    if !need_engine("attacks") {
        return None;
    }
    let home = Home::with_env(&[("TEST_TOKEN", TOKEN)]);
    let internet = Internet::start(&home, &HOSTS);
    home.write("bottles/upstream.pem", internet.ca_pem());
    home.bottle("web", &manifest(&agent_image("debian:trixie-slim")));
    let bottle = home.up("web", &home.slug("x"));
    let another = Home::new();
    let untrusted = Internet::start(&another, &[UNTRUSTED]);
    let network = format!("bottle-{}-egress", bottle.slug);
    let mut names = HOSTS.to_vec();
    names.push(MISNAMED);
    internet.join(&network, &names);
    internet.join(&format!("bottle-{}-internal", bottle.slug), &[OWN]);
    untrusted.join(&network, &[UNTRUSTED, "mixed.example.com"]);
    Some(Fixture {
        bottle,
        internet,
        untrusted,
        home,
    })
}

impl Fixture {
    fn network(&self, which: &str) -> String {
        format!("bottle-{}-{which}", self.bottle.slug)
    }

    /// What arrived with this mark somewhere in its path, query, headers or body.
    fn arrived(&self, mark: &str) -> Vec<Value> {
        let mut requests = self.internet.events_of("request");
        requests.retain(|request| request.to_string().contains(mark));
        requests
    }

    fn assert_nothing_arrived(&self, mark: &str) {
        let arrived = self.arrived(mark);
        assert!(arrived.is_empty(), "arrived: {arrived:?}");
    }

    /// Requests in a tunnel to `host`, one connection each.
    fn in_tunnels(&self, host: &str, requests: &[String]) -> Vec<Outcome> {
        let exchanges: Vec<Exchange> = requests
            .iter()
            .map(|request| tunnel(host, &[request]))
            .collect();
        self.bottle.raw(&exchanges)
    }

    /// An ordinary request still gets its answer.
    fn assert_works(&self) {
        let answer = self
            .bottle
            .fetch(&["GET", "https://free.example.com/bytes?n=5"]);
        assert_eq!(answer["body"], "xxxxx", "{answer}");
    }

    /// Everything on record so far; a line that is no record fails the test.
    fn records(&self) -> Vec<Value> {
        let folder = self.home.state(&self.bottle.slug).join("audit");
        let mut records = Vec::new();
        for entry in fs::read_dir(folder).expect("the audit").flatten() {
            let text = fs::read_to_string(entry.path()).expect("the audit can be read");
            let whole = text.rsplit_once('\n').map_or("", |(whole, _)| whole);
            records.extend(whole.lines().map(|line| {
                serde_json::from_str::<Value>(line)
                    .unwrap_or_else(|error| panic!("not a record: {error}: {line}"))
            }));
        }
        records
    }

    /// Waits for the record of a refusal.
    fn assert_recorded(&self, host: &str, reason: &str) {
        wait_for(&format!("a record of {reason} for {host}"), || {
            let records = self.records();
            records
                .iter()
                .any(|record| record["host"] == host && record["reason"] == reason)
        });
    }

    /// Changes the routes of the running policy and waits until they count.
    fn reload(&self, change: impl FnOnce(&mut Vec<Value>)) {
        let path = self
            .home
            .state(&self.bottle.slug)
            .join("egress/policy.json");
        let text = fs::read_to_string(&path).expect("the policy");
        let mut policy: Value = serde_json::from_str(&text).expect("JSON");
        change(policy["routes"].as_array_mut().expect("routes"));
        let before = self.reloads();
        // In place: the sidecar has the file itself mounted.
        fs::write(&path, policy.to_string()).expect("the policy can be written");
        let _ = docker(["kill", "--signal=HUP", &self.bottle.egress()]).ok();
        wait_for("the new policy", || self.reloads() > before);
    }

    fn reloads(&self) -> usize {
        let log = docker(["logs", &self.bottle.egress()]);
        assert!(
            !log.stderr.contains("policy not reloaded"),
            "{}",
            log.stderr
        );
        log.stderr.matches("policy reloaded").count()
    }
}

/// Pieces sent in a tunnel to `host`, to be read as HTTP/1.1.
fn tunnel(host: &str, pieces: &[&str]) -> Exchange {
    Exchange {
        to: "egress:3128".to_owned(),
        connect: format!("{host}:443"),
        sni: host.to_owned(),
        send: pieces.iter().map(|&piece| piece.to_owned()).collect(),
        ..Exchange::default()
    }
}

/// Bytes sent to the proxy's port as they are.
fn bare(text: &str) -> Exchange {
    Exchange {
        to: "egress:3128".to_owned(),
        send: vec![text.to_owned()],
        ..Exchange::default()
    }
}

fn get(host: &str, target: &str) -> String {
    format!("GET {target} HTTP/1.1\r\nHost: {host}\r\nConnection: close\r\n\r\n")
}

/// `CONNECT target`, with nothing after it.
fn connect(target: &str) -> Exchange {
    Exchange {
        to: "egress:3128".to_owned(),
        connect: target.to_owned(),
        patience_ms: 1,
        ..Exchange::default()
    }
}

/// The answer is the denial with this reason, and nothing after it.
fn assert_refused(outcome: &Outcome, reason: &str) {
    assert_eq!(outcome.reasons(), [reason], "{outcome:?}");
}

fn headers<'a>(message: &'a Value, name: &str) -> Vec<&'a str> {
    let list = message["headers"].as_array().expect("headers");
    let named = list.iter().filter(|pair| {
        pair[0]
            .as_str()
            .is_some_and(|found| found.eq_ignore_ascii_case(name))
    });
    named.filter_map(|pair| pair[1].as_str()).collect()
}
