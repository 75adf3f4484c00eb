//! What carries the agent there: it cannot be ended, comes back, and is there again after a snapshot.

use bottle_tests::engine::{docker, wait_for, wait_within};
use bottle_tests::terminal::PATIENCE;
use bottle_tests::{Bottle, Call};

use crate::fixture::{ALLOWED, Fixture, inspected};

pub(crate) fn the_forwarder_cannot_be_ended(f: &Fixture) {
    let started = inspected(&f.bottle.agent())["State"]["StartedAt"].clone();
    for signal in ["KILL", "TERM", "INT", "HUP", "SEGV", "STOP", "QUIT", "USR1"] {
        let _ = f.sh(&format!("kill -s {signal} 1"));
    }
    f.assert_works();
    // Nor taken over from within.
    let attach = "import ctypes; print(ctypes.CDLL(None, use_errno=True).ptrace(16, 1, 0, 0))";
    assert_eq!(f.sh(&format!("python3 -c '{attach}'")).ok().trim(), "-1");
    assert!(!f.sh("cat /proc/1/mem").status.success());
    // Its ports are taken; whoever could listen there would serve itself alone.
    let taken = f.sh("python3 -c \"import socket; s=socket.socket(); s.bind(('127.0.0.1',3128))\"");
    assert!(
        taken.stderr.contains("Address already in use"),
        "{}",
        taken.stderr
    );
    // It collects what commands leave behind.
    let _ = f
        .sh("sh -c 'sleep 0.01 & exec true'; sh -c '(sleep 0.01 &) ; true'")
        .ok();
    let zombies = "grep -l '^State:.Z' /proc/[0-9]*/status 2>/dev/null | wc -l";
    wait_for("the orphans to be collected", || {
        f.bottle.exec(&["sh", "-c", zombies]).stdout.trim() == "0"
    });
    // Many connections at once end neither it nor the way out.
    let flood = "import socket\nheld=[]\nfor n in range(700):\n    s=socket.socket()\n    s.settimeout(5)\n    s.connect(('127.0.0.1',3128))\n    held.append(s)\nprint(len(held))";
    assert_eq!(f.sh(&format!("python3 -c \"{flood}\"")).ok().trim(), "700");
    wait_within(PATIENCE, "the way out to be free again", || {
        let url = format!("https://{ALLOWED}/echo/open");
        f.bottle
            .exec(&[bottle_tests::internet::CLIENT, "fetch", "GET", &url])
            .status
            .success()
    });
    f.assert_works();
    assert_eq!(inspected(&f.bottle.agent())["State"]["StartedAt"], started);
}

pub(crate) fn a_sidecar_that_died_is_found_again(f: &Fixture) {
    let egress = f.bottle.egress();
    let probe = ["http:127.0.0.1:3128:x.example.net:443".to_owned()];
    // Stopped by hand: cut off, and not free.
    let _ = docker(["stop", "--time=2", &egress]).ok();
    let findings = f.bottle.probe(&probe);
    let (reached, detail) = findings.of(&probe[0]);
    assert!(!reached && !detail.contains("x-bottle-reason"), "{detail}");
    let name = format!("dns:127.0.0.1:{ALLOWED}");
    f.bottle
        .probe(&[name, format!("tcp:{}:443", f.internet.address)])
        .assert_closed();
    let _ = docker(["start", &egress]).ok();
    wait_for("egress", || {
        f.bottle
            .probe(&probe)
            .of(&probe[0])
            .1
            .contains("host_not_allowed")
    });
    f.assert_works();
    // Killed as by the kernel: the engine brings it back, and the forwarder finds its new socket.
    for role in ["egress", "git-gate", "supervise"] {
        let container = format!("bottle-{}-{role}", f.bottle.slug);
        let before = inspected(&container);
        let pid = before["State"]["Pid"].to_string();
        let _ = Call::new("kill").args(["-KILL", &pid]).run().ok();
        wait_for("the sidecar", || {
            let health = docker(["exec", &container, "/bottle-sidecar", "health"]);
            inspected(&container)["State"]["Pid"] != before["State"]["Pid"]
                && health.status.success()
        });
    }
    f.assert_works();
    let _ = f
        .sh("git -C ~/work fetch -q || git ls-remote http://git-gate:9418/demo")
        .ok();
    let help = f
        .bottle
        .fetch(&["--direct", "GET", "http://supervise:9100/policy"]);
    assert_eq!(help["status"], 200, "{help}");
}

pub(crate) fn a_snapshot_is_gone_on_from(f: &Fixture) {
    let slug = f.home.slug("frozen");
    let bottle = f.home.up("small", &slug);
    let sh = |bottle: &Bottle, script: &str| bottle.exec(&["sh", "-euc", script]).ok();
    sh(&bottle, "echo built > /workspace/work");
    let made = f.home.tool("bottle-snapshot").args(["commit", &slug]).run();
    let made = made.json();
    // Of the sockets an image has at most the name of their place.
    let image = made["image"].as_str().expect("an id");
    let find = ["run", "--rm", "--entrypoint=find", image];
    let inside = docker([&find[..], &["/run", "-type", "s"]].concat()).ok();
    assert_eq!(inside, "");
    f.home.down(&slug);
    assert_eq!(f.home.left_of(&slug), Vec::<String>::new());
    assert!(!f.home.state(&slug).join("sockets").exists());
    let plan = f
        .home
        .tool("bottle-plan")
        .args(["--resume", &slug])
        .run()
        .ok();
    let up = f
        .home
        .tool("bottle-run")
        .args(["up"])
        .stdin(f.home.render(&plan))
        .run();
    let again = Bottle::started(&f.home, &slug, up.json());
    assert_eq!(sh(&again, "cat /workspace/work"), "built\n");
    let probes = ["interfaces", "tcp:127.0.0.1:3128"].map(str::to_owned);
    let findings = again.probe(&probes);
    assert!(
        !findings.of(&probes[0]).0 && findings.of(&probes[1]).0,
        "{findings:?}"
    );
    f.home.down(&slug);
    let swept = f.operator(&["gc"]);
    assert_eq!(swept.code(), 0, "{}", swept.stderr);
    f.assert_works();
}
