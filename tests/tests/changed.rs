//! A rendered file that was changed on its way to the runner: it gets no more than its plan grants.

#![allow(clippy::expect_used)]

use bottle_tests::Home;
use bottle_tests::engine::need_engine;
use serde_json::{Value, json};

type Change = (&'static str, fn(&mut Value), &'static str);

/// What somebody between `bottle-render` and `bottle-run` might try, and what the runner says.
const CHANGES: [Change; 15] = [
    (
        "engine socket",
        |agent| agent["volumes"] = bind("/var/run/docker.sock"),
        "a bind mount of /var/run/docker.sock",
    ),
    (
        "host folder",
        |agent| agent["volumes"] = bind("/etc"),
        "a bind mount of /etc",
    ),
    (
        "named volume",
        |agent| agent["volumes"] = json!([{"type": "volume", "target": "/data"}]),
        "a volume mount",
    ),
    (
        "privileged",
        |agent| agent["privileged"] = json!(true),
        "privileged",
    ),
    (
        "capability",
        |agent| agent["cap_add"] = json!(["NET_RAW"]),
        "the capability NET_RAW",
    ),
    (
        "capabilities kept",
        |agent| agent["cap_drop"] = json!([]),
        "capabilities that were not dropped",
    ),
    (
        "no seccomp",
        |agent| agent["security_opt"] = json!(["no-new-privileges:true"]),
        "seccomp",
    ),
    (
        "no AppArmor",
        |agent| add_option(agent, "apparmor=unconfined"),
        "the security option `apparmor=unconfined`",
    ),
    (
        "no SELinux",
        |agent| add_option(agent, "label=disable"),
        "the security option `label=disable`",
    ),
    (
        "no masks",
        |agent| add_option(agent, "systempaths=unconfined"),
        "what of /proc and /sys is hidden",
    ),
    (
        "root",
        |agent| agent["user"] = json!("0:0"),
        "it runs as `0:0`",
    ),
    (
        "host pids",
        |agent| agent["pid"] = json!("host"),
        "the pid namespace",
    ),
    (
        "device",
        |agent| agent["devices"] = json!(["/dev/null:/dev/other"]),
        "devices",
    ),
    (
        "published port",
        |agent| agent["ports"] = json!(["127.0.0.1::80"]),
        "published ports",
    ),
    (
        "host alias",
        |agent| agent["extra_hosts"] = json!(["inside:10.0.0.1"]),
        "extra hosts",
    ),
];

fn bind(source: &str) -> Value {
    json!([{"type": "bind", "source": source, "target": "/mnt/host"}])
}

fn add_option(agent: &mut Value, option: &str) {
    let options = agent["security_opt"].as_array_mut();
    options.expect("a list").push(json!(option));
}

#[test]
fn no_change_of_the_file_gives_the_agent_more_than_its_plan() {
    if !need_engine("no_change_of_the_file_gives_the_agent_more_than_its_plan") {
        return;
    }
    let home = Home::new();
    home.bottle("web", "image: debian:trixie-slim\n");
    let slug = home.slug("changed");
    let render = home.tool("bottle-render").args(["--format", "json"]);
    let document: Value = render.stdin(home.plan("web", &slug)).run().json();
    for (name, change, refusal) in CHANGES {
        let mut changed = document.clone();
        change(&mut changed["services"]["agent"]);
        let done = home
            .tool("bottle-run")
            .args(["up"])
            .stdin(changed.to_string())
            .run();
        assert_eq!(done.code(), 3, "{name}: {}", done.stderr);
        assert!(done.stderr.contains(refusal), "{name}: {}", done.stderr);
        assert!(done.stdout.is_empty(), "{name}");
        assert_eq!(home.left_of(&slug), Vec::<String>::new(), "{name}");
    }
    // And the file as it was is taken.
    let _ = home
        .tool("bottle-run")
        .args(["up"])
        .stdin(document.to_string())
        .run()
        .ok();
    home.down(&slug);
}

#[test]
fn a_folder_that_is_to_be_read_cannot_be_made_one_to_be_written() {
    if !need_engine("a_folder_that_is_to_be_read_cannot_be_made_one_to_be_written") {
        return;
    }
    let home = Home::new();
    let folder = home.cwd().join("shared");
    std::fs::create_dir(&folder).expect("a folder");
    home.bottle(
        "web",
        &format!(
            "image: debian:trixie-slim\nworkspace: {{from: {}, mode: mount, read_only: true}}\n",
            folder.display()
        ),
    );
    let slug = home.slug("shared");
    let render = home.tool("bottle-render").args(["--format", "json"]);
    let mut document: Value = render.stdin(home.plan("web", &slug)).run().json();
    let up = |document: &Value| {
        let call = home.tool("bottle-run").args(["up"]);
        call.stdin(document.to_string()).run()
    };
    let as_rendered = document.clone();
    document["services"]["agent"]["volumes"][0]["read_only"] = json!(false);
    let done = up(&document);
    assert_eq!(done.code(), 3, "{}", done.stderr);
    let refusal = format!("a bind mount of {}", folder.display());
    assert!(done.stderr.contains(&refusal), "{}", done.stderr);
    let _ = up(&as_rendered).ok();
    home.down(&slug);
}
