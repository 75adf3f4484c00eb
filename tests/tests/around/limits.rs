//! What a bottle may use of its host.

use bottle_tests::engine::{inspected, wait_for};
use bottle_tests::{Bottle, Home, need_engine};

use crate::PLAIN;

/// Processes, memory and the folders in memory end where the plan says, and the bottle goes on. The disk does not end: that
/// is said when a plan asks for it.
#[test]
fn row_68_a_fork_bomb_memory_and_disk() {
    if !need_engine("row_68_a_fork_bomb_memory_and_disk") {
        return;
    }
    let home = Home::new();
    home.bottle("web", &PLAIN.replace("pids: 64", "pids: 64, disk: 1g"));
    let slug = home.slug("bomb");
    let compose = home.render(&home.plan("web", &slug));
    let up = home.tool("bottle-run").args(["up"]).stdin(compose).run();
    assert!(
        up.stderr.contains("resources.disk is not enforced"),
        "{}",
        up.stderr
    );
    let bottle = Bottle::started(&home, &slug, up.json());
    let forks = bottle.exec(&[
        "sh",
        "-c",
        "i=0; while [ $i -lt 200 ]; do sleep 3 & i=$((i+1)); done; echo made all of them",
    ]);
    assert!(
        forks.stderr.to_lowercase().contains("cannot fork")
            && !forks.stdout.contains("made all of them"),
        "{}{}",
        forks.stdout,
        forks.stderr
    );
    // A program that makes threads meets the same end, once the sleepers have made room for it to begin.
    let threads = "threads:200".to_owned();
    wait_for("room for another process", || {
        let found = bottle.probe(std::slice::from_ref(&threads));
        !found.of(&threads).1.contains("not tried")
    });
    bottle.probe(&[threads]).assert_closed();
    let memory = bottle.exec(&["sh", "-c", "tail /dev/zero; echo the code is $?"]);
    assert!(
        memory.stdout.contains("the code is 137"),
        "{}{}",
        memory.stdout,
        memory.stderr
    );
    let full = bottle.exec(&[
        "sh",
        "-c",
        "dd if=/dev/zero of=/dev/shm/full bs=1M count=2000; code=$?; rm -f /dev/shm/full; exit $code",
    ]);
    assert!(
        full.code() != 0,
        "a folder in memory has no end: {}",
        full.stderr
    );
    assert_eq!(bottle.exec(&["echo", "it goes on"]).ok(), "it goes on\n");
    assert_eq!(inspected(&bottle.agent(), "{{.State.Running}}"), "true");
    home.down(&slug);
}
