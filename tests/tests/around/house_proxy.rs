//! A host whose way out is a proxy of the house.

use std::fs;
use std::path::Path;

use bottle_tests::engine::{docker, inspected, sweep, wait_for};
use bottle_tests::internet::agent_image;
use bottle_tests::upstream::git_image;
use bottle_tests::{Home, Internet, need_engine};
use serde_json::{Value, json};

use crate::TOKEN;

/// A house's own proxy: it asks for a password, and writes down whom it was asked for.
const PROXY: &str = r#"
import base64, socket, sys, threading
wanted = 'Basic ' + base64.b64encode(b'house:pass-around-77aa11cc').decode()
def pump(a, b):
    try:
        while data := a.recv(65536): b.sendall(data)
    except OSError: pass
    for s in (a, b):
        try: s.shutdown(socket.SHUT_RDWR)
        except OSError: pass
def serve(client):
    head = b''
    while not head.endswith(b'\r\n\r\n'):
        byte = client.recv(1)
        if not byte: return
        head += byte
    lines = head.decode('latin-1').split('\r\n')
    asked = 'Proxy-Authorization: ' + wanted in lines
    print(lines[0], 'with the password' if asked else 'without', flush=True)
    if not asked: return client.sendall(b'HTTP/1.1 407 no\r\n\r\n')
    host, port = lines[0].split(' ')[1].rsplit(':', 1)
    try: server = socket.create_connection((host, int(port)), 5)
    except OSError: return client.sendall(b'HTTP/1.1 502 no\r\n\r\n')
    client.sendall(b'HTTP/1.1 200 ok\r\n\r\n')
    threading.Thread(target=pump, args=(client, server), daemon=True).start()
    pump(server, client)
listener = socket.create_server(('0.0.0.0', 3128))
while True: threading.Thread(target=serve, args=(listener.accept()[0],), daemon=True).start()
"#;

const PASSWORD: &str = "pass-around-77aa11cc";

/// All files below a folder in which the text stands.
fn holding(folder: &Path, text: &str) -> Vec<String> {
    let mut found = Vec::new();
    for entry in fs::read_dir(folder).expect("a folder").flatten() {
        let path = entry.path();
        if path.is_dir() {
            found.extend(holding(&path, text));
        } else if fs::read(&path).is_ok_and(|bytes| {
            bytes
                .windows(text.len())
                .any(|window| window == text.as_bytes())
        }) {
            found.push(path.display().to_string());
        }
    }
    found
}

#[test]
fn the_way_out_goes_through_the_proxy_of_the_house() {
    if !need_engine("the_way_out_goes_through_the_proxy_of_the_house") {
        return;
    }
    let proxy = format!("http://house:{PASSWORD}@proxy.house:3128");
    let home = Home::with_env(&[("TEST_TOKEN", TOKEN), ("HOUSE_PROXY", &proxy)]);
    let internet = Internet::start(&home, &["api.example.com"]);
    home.write("bottles/upstream.pem", internet.ca_pem());
    home.bottle(
        "web",
        &format!(
            "image: {}\negress:\n  upstream_ca: upstream.pem\n  upstream_proxy: HOUSE_PROXY\n  \
             audit: {{max_bytes: 2m, files: 2}}\n  routes:\n    \
             - {{host: api.example.com, auth: {{scheme: Bearer, token_ref: TEST_TOKEN}}}}\n",
            agent_image("debian:trixie-slim")
        ),
    );
    let slug = home.slug("house");
    let plan = home.plan("web", &slug);
    assert!(
        !plan.contains(PASSWORD) && plan.contains("HOUSE_PROXY"),
        "{plan}"
    );
    let bottle = home.up("web", &slug);
    let network = format!("bottle-{slug}-egress");
    internet.join(&network, &["api.example.com"]);
    let label = format!("bottle.test={}", home.slug("proxy"));
    let name = home.slug("proxy");
    let args = [
        "run",
        "--detach",
        "--init",
        &format!("--name={name}"),
        &format!("--label={label}"),
        &format!("--network={network}"),
        "--network-alias=proxy.house",
        &git_image(),
        "python3",
        "-c",
        PROXY,
    ]
    .map(str::to_owned);
    let _ = docker(args).ok();
    let mut answer = Value::Null;
    wait_for("the proxy", || {
        answer = bottle.fetch(&["GET", "https://api.example.com/echo"]);
        answer["status"] == 200
    });
    let log = docker(["logs", &name]).ok();
    assert!(
        log.contains("CONNECT api.example.com:443 HTTP/1.1 with the password"),
        "{log}"
    );
    // The credential went to the destination, and the way to the proxy is known to egress alone.
    let arrived = internet.events_of("request");
    assert!(Value::from(arrived).to_string().contains(TOKEN));
    assert_eq!(holding(&home.path(), PASSWORD), Vec::<String>::new());
    for container in [bottle.agent(), bottle.egress()] {
        let config = inspected(
            &container,
            "{{json .Config.Labels}}{{json .Args}}{{json .Mounts}}",
        );
        assert!(!config.contains(PASSWORD), "{config}");
    }
    assert!(!inspected(&bottle.agent(), "{{json .Config.Env}}").contains(PASSWORD));
    assert!(!docker(["logs", &bottle.egress()]).stderr.contains(PASSWORD));
    let policy = fs::read_to_string(home.state(&slug).join("egress/policy.json")).expect("it");
    let policy: Value = serde_json::from_str(&policy).expect("JSON");
    assert_eq!(
        policy["audit"],
        json!({"max_bytes": 2 << 20, "files": 2, "on_full": "deny"})
    );
    // Without the proxy there is no way: nothing goes around it.
    sweep(&label);
    let answer = bottle.fetch(&["GET", "https://api.example.com/echo"]);
    assert_ne!(answer["status"], 200, "{answer}");
    internet.leave(&network);
    home.down(&slug);
    // What is no proxy is an error before anything is made, which does not show it.
    let bad = home
        .tool("bottle-run")
        .args(["up"])
        .env("HOUSE_PROXY", format!("https://house:{PASSWORD}@proxy"))
        .stdin(home.render(&plan))
        .run();
    assert_eq!(bad.code(), 2, "{}", bad.stderr);
    assert!(
        bad.stderr.contains("HOUSE_PROXY") && !bad.stderr.contains(PASSWORD),
        "{}",
        bad.stderr
    );
}
