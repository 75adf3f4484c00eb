use super::*;
use crate::resolve::fixture::planned;

fn plan(manifest: &str) -> Plan {
    let mut plan = planned(manifest, "s");
    // That the file differs is tested once.
    plan.sources.clear();
    plan
}

/// The lines for two manifests that are alike but for what is given.
#[track_caller]
fn lines(old: &str, new: &str) -> Vec<String> {
    let made = |rest: &str| plan(&format!("image: x\n{rest}\n"));
    let diff = diff(&made(old), &made(new)).expect("compares");
    assert_eq!(diff.same, diff.changes.is_empty());
    diff.lines().lines().map(str::to_owned).collect()
}

fn routes(list: &str) -> String {
    format!("egress: {{routes: [{list}]}}")
}

const NOTHING: [&str; 0] = [];

#[test]
fn the_same_authority_has_no_line() {
    let one = routes("{host: a.example.com, matches: [{methods: [GET]}]}");
    assert_eq!(lines(&one, &one), NOTHING);
}

#[test]
fn what_a_destination_may_be_asked_is_told_by_method_and_path() {
    let old = routes("{host: api.example.com, matches: [{methods: [GET], paths: [/v1]}]}");
    let new = routes("{host: api.example.com, matches: [{methods: [GET, POST], paths: [/v1]}]}");
    assert_eq!(lines(&old, &new), ["gains: POST to api.example.com/v1/*"]);
    assert_eq!(lines(&new, &old), ["loses: POST to api.example.com/v1/*"]);
}

#[test]
fn a_workspace_says_whether_the_host_can_be_changed() {
    let folder = env!("CARGO_MANIFEST_DIR");
    let given = |more: &str| format!("workspace: {{from: {folder}, {more}}}");
    let read = given("mode: mount, read_only: true");
    let written = given("mode: mount");
    assert_eq!(
        lines(&read, &written),
        [
            format!("gains: {folder} itself at /workspace: the agent changes your files"),
            format!("loses: {folder} itself at /workspace, to be read only"),
        ]
    );
    // With what git ignores come the files that hold passwords.
    assert_eq!(
        lines(&given("ignore: true"), &given("ignore: false")),
        [
            format!("gains: a copy of {folder} at /workspace"),
            format!("loses: a copy of {folder} at /workspace, without what git ignores"),
        ]
    );
}

#[test]
fn a_narrower_rule_says_what_is_kept() {
    let wide = routes("{host: api.example.com}");
    let narrow = routes("{host: api.example.com, matches: [{methods: [GET], paths: [/v1]}]}");
    assert_eq!(
        lines(&wide, &narrow),
        ["loses: any request to api.example.com (keeps GET to api.example.com/v1/*)"]
    );
    assert_eq!(
        lines(&narrow, &wide),
        ["gains: any request to api.example.com (had only GET to api.example.com/v1/*)"]
    );
}

#[test]
fn a_rule_within_another_is_no_gain() {
    let one = routes("{host: a.example.com, matches: [{paths: [/v1]}]}");
    let two = routes(
        "{host: a.example.com, matches: [{paths: [/v1, /v1/x, {type: exact, value: /v1}]}]}",
    );
    assert_eq!(
        lines(&one, &two),
        ["changes: how the same authority is written (an order, or two rules instead of one)"]
    );
    // A prefix ends at a segment.
    let other = routes("{host: a.example.com, matches: [{paths: [/v1, /v10]}]}");
    assert_eq!(
        lines(&one, &other),
        ["gains: any request to a.example.com/v10/*"]
    );
}

/// The most specific pattern decides alone, so a new route can take away and a removed one give.
#[test]
fn hosts_are_asked_as_the_sidecar_asks_them() {
    let any = routes("{host: '*.example.com'}");
    let narrowed =
        routes("{host: '*.example.com'}, {host: a.example.com, matches: [{methods: [GET]}]}");
    let loses = "loses: HEAD/POST/PUT/PATCH/DELETE/OPTIONS to a.example.com";
    assert_eq!(lines(&any, &narrowed), [loses]);
    assert_eq!(lines(&narrowed, &any), [loses.replace("loses", "gains")]);
    let one = routes("{host: a.example.com}");
    assert_eq!(lines(&one, &any), ["gains: any request to *.example.com"]);
}

#[test]
fn a_budget_that_grew_is_a_gain() {
    let with = |limits: &str| routes(&format!("{{host: a.example.com, limits: {{{limits}}}}}"));
    let old = with("requests: 10, bytes_out: 1m, per: 1h");
    for (new, effect) in [
        ("requests: 20, bytes_out: 1m, per: 1h", "gains"),
        ("requests: 10, per: 1h", "gains"),
        ("requests: 5, bytes_out: 1m, per: 1h", "loses"),
        ("requests: 20, bytes_out: 1k, per: 1h", "changes"),
        ("requests: 10, bytes_out: 1m, per: 2h", "changes"),
    ] {
        let found = lines(&old, &with(new));
        let told = format!(
            "{effect}: the budget of a.example.com: at most 10 requests and 1 MiB out in 1 hour -> "
        );
        assert!(
            found.len() == 1 && found[0].starts_with(&told),
            "{new}: {found:?}"
        );
    }
}

#[test]
fn what_else_a_route_gives_is_told_too() {
    let old = routes("{host: a.example.com}");
    for (new, told) in [
        (
            "{host: a.example.com, private: [10.0.0.0/8]}",
            "gains: a.example.com at private addresses in 10.0.0.0/8",
        ),
        (
            "{host: a.example.com, auth: {scheme: Bearer, token_ref: T}}",
            "gains: the use of $T at a.example.com (in `authorization`, bearer)",
        ),
        (
            "{host: a.example.com, git: {fetch: true}}",
            "gains: git clone and fetch from a.example.com",
        ),
        (
            "{host: a.example.com, limits: {requests: 5}}",
            "loses: requests to a.example.com beyond at most 5 requests in all",
        ),
        (
            "{host: a.example.com, ports: [443, 8443]}",
            "gains: any request to a.example.com:8443",
        ),
        (
            "{host: a.example.com, dlp: {outbound_detectors: false}}",
            "changes: what is looked for in requests and answers of a.example.com (dlp)",
        ),
    ] {
        let found = lines(&old, &routes(new));
        assert!(found.iter().any(|line| line == told), "{new}: {found:?}");
    }
    let unseen = routes("{host: a.example.com, tls: passthrough}");
    let found = lines(&old, &unseen);
    assert!(
        found.contains(
            &"gains: anything to a.example.com, unseen (TLS is passed through)".to_owned()
        ),
        "{found:?}"
    );
}

#[test]
fn an_open_way_out_is_a_gain() {
    let told =
        "gains: any request to every public host, without a credential (egress.mode: observe)";
    assert_eq!(lines("", "egress: {mode: observe}"), [told]);
}

#[test]
fn a_smaller_private_range_is_a_loss_only() {
    let wide = routes("{host: a.example.com, private: [10.0.0.0/8]}");
    let narrow = routes("{host: a.example.com, private: [10.1.0.0/16]}");
    assert_eq!(
        lines(&wide, &narrow),
        ["loses: a.example.com at private addresses in 10.0.0.0/8"]
    );
}

#[test]
fn the_container_is_told_without_a_value() {
    for (old, new, told) in [
        (
            "",
            "env: {A: '${T}'}",
            "gains: A in its environment (the value of $T on your host)",
        ),
        (
            "env: {A: hush-1}",
            "env: {A: hush-2}",
            "changes: A: written in the manifest -> written in the manifest",
        ),
        (
            "env: {A: hush-1}",
            "env: {A: '${T}'}",
            "gains: A: written in the manifest -> the value of $T on your host",
        ),
        (
            "",
            "hardening: {cap_add: [CHOWN]}",
            "gains: the capability CHOWN",
        ),
        (
            "",
            "resources: {memory: 8g}",
            "gains: memory: 4096 MiB -> 8192 MiB",
        ),
        (
            "resources: {pids: 100}",
            "resources: {pids: 50}",
            "loses: processes: 100 -> 50",
        ),
        (
            "",
            "command: [id]",
            "changes: what `attach` and `run` start: ",
        ),
        ("", "runtime: runc", "changes: runtime: auto -> runc"),
        ("", "supervise: true", "gains: asking the operator for more"),
    ] {
        let found = lines(old, new);
        assert!(
            found.iter().any(|line| line.starts_with(told)),
            "{new}: {found:?}"
        );
        assert!(!found.concat().contains("hush"), "{found:?}");
    }
}

/// Whatever part of the authority is changed, some line speaks of it.
#[test]
fn no_key_is_forgotten() {
    let old = plan("image: x\nenv: {A: b}\negress: {routes: [{host: a.example.com}]}\n");
    let whole = serde_json::to_value(&old).expect("JSON");
    let mut tried = 0;
    for pointer in leaves("", &digest::authority(&old).expect("JSON")) {
        let mut value = whole.clone();
        let leaf = value.pointer_mut(&pointer).expect("there");
        *leaf = match leaf {
            serde_json::Value::Bool(value) => (!*value).into(),
            serde_json::Value::Number(value) => (value.as_u64().unwrap_or(0) + 1).into(),
            _ => format!("{}x", leaf.as_str().unwrap_or_default()).into(),
        };
        // A word of a closed list is no longer a plan.
        let Ok(new) = serde_json::from_value::<Plan>(value) else {
            continue;
        };
        let diff = diff(&old, &new).expect("compares");
        if !diff.same {
            assert!(
                !diff.lines().contains("how the same authority is written"),
                "{pointer}"
            );
            tried += 1;
        }
    }
    assert!(tried > 20, "{tried}");
}

fn leaves(at: &str, value: &serde_json::Value) -> Vec<String> {
    match value {
        serde_json::Value::Object(members) => members
            .iter()
            .flat_map(|(key, value)| leaves(&format!("{at}/{}", key.replace('/', "~1")), value))
            .collect(),
        serde_json::Value::Array(values) => values
            .iter()
            .enumerate()
            .flat_map(|(index, value)| leaves(&format!("{at}/{index}"), value))
            .collect(),
        _ => vec![at.to_owned()],
    }
}

#[test]
fn another_text_of_a_file_is_said() {
    let mut new = plan("image: x\n");
    let old = new.clone();
    new.sources.push(crate::plan::Source {
        role: "dockerfile".to_owned(),
        name: "web".to_owned(),
        path: "/x".into(),
        sha256: "00".to_owned(),
    });
    let found = diff(&old, &new).expect("compares").lines();
    assert_eq!(found, "changes: the dockerfile `web` is new\n");
}

#[test]
fn a_hostile_text_stays_on_its_line() {
    let mut new = plan("image: x\n");
    let old = new.clone();
    new.agent.user = "a\u{1b}[2J\ngains: nothing".to_owned();
    let found = diff(&old, &new).expect("compares").lines();
    assert_eq!(found.lines().count(), 1, "{found:?}");
    assert!(!found.contains('\u{1b}'));
}
