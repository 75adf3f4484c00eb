//! A clock that is set back or forward, before, during and after a start: nothing alive is taken for dead, nothing dead for
//! alive, and nobody is granted more time. libfaketime tells the host's tools another time than the machine has.

#![allow(clippy::expect_used, clippy::panic)]

use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};

use bottle_tests::engine::{need_engine, skip};
use bottle_tests::fake::{FakeDocker, Rule};
use bottle_tests::internet::agent_image;
use bottle_tests::{Call, Done, Home};
use serde_json::{Value, json};

/// Where Debian has it, by architecture.
fn library(test: &str) -> Option<PathBuf> {
    let machine = if cfg!(target_arch = "aarch64") {
        "aarch64-linux-gnu"
    } else {
        "x86_64-linux-gnu"
    };
    let path = Path::new("/usr/lib")
        .join(machine)
        .join("faketime/libfaketime.so.1");
    if path.is_file() {
        return Some(path);
    }
    skip(
        test,
        "there is no libfaketime; scripts/setup --tests installs it",
    );
    None
}

/// A tool whose clock is off by what the file says now: `+25h`, `-400d`. How long something takes it sees as it is.
fn off(call: Call, library: &Path, clock: &Path) -> Call {
    call.env("LD_PRELOAD", library)
        .env("FAKETIME_TIMESTAMP_FILE", clock)
        .env("FAKETIME_NO_CACHE", "1")
        .env("FAKETIME_DONT_FAKE_MONOTONIC", "1")
        // What a file says of its age stays true.
        .env("NO_FAKE_STAT", "1")
}

struct Clock {
    library: PathBuf,
    file: PathBuf,
}

impl Clock {
    fn of(home: &Home, test: &str) -> Option<Self> {
        let clock = Self {
            library: library(test)?,
            file: home.write("clock", "+0d\n"),
        };
        // A clock that does not move would let all of this pass.
        let year = |offset: &str| {
            clock.set(offset);
            let done = off(Call::new("date").args(["+%s"]), &clock.library, &clock.file).run();
            done.ok().trim().parse::<i64>().expect("seconds")
        };
        let (now, later) = (year("+0d"), year("+400d"));
        assert!(later - now > 399 * 86_400, "the clock cannot be moved");
        Some(clock)
    }

    fn set(&self, offset: &str) {
        fs::write(&self.file, format!("{offset}\n")).expect("written");
    }

    /// A call of a tool at that time.
    fn call(&self, home: &Home, tool: &str, offset: &str, args: &[&str]) -> Call {
        self.set(offset);
        let call = home.tool(tool).args(args.iter().copied());
        off(call, &self.library, &self.file)
    }

    fn gc(&self, home: &Home, offset: &str) -> Value {
        let done = self
            .call(home, "bottle-run", offset, &["gc", "--json"])
            .run();
        let done = done.json();
        assert_eq!(done["failed"], json!([]), "{offset}: {done}");
        done
    }
}

const AROUND: [&str; 4] = ["-400d", "-2h", "+2h", "+400d"];

fn home() -> Home {
    let home = Home::new();
    home.bottle("web", "image: debian:trixie-slim\n");
    home
}

#[test]
fn a_reservation_is_dropped_a_day_later_and_never_earlier() {
    let home = home();
    let test = "a_reservation_is_dropped_a_day_later_and_never_earlier";
    if !need_engine(test) {
        return;
    }
    let Some(clock) = Clock::of(&home, test) else {
        return;
    };
    let _ = home.plan("web", "reserved");
    for offset in ["-400d", "-25h", "+0d", "+23h"] {
        clock.gc(&home, offset);
        assert!(home.state("reserved").exists(), "{offset}");
        // Planned again it has its addresses still.
        let args = ["web", "--slug", "reserved"];
        let plan = clock.call(&home, "bottle-plan", offset, &args).run();
        assert_eq!(plan.code(), 0, "{offset}: {}", plan.stderr);
    }
    clock.gc(&home, "+25h");
    assert!(!home.state("reserved").exists());
}

#[test]
fn what_lives_is_kept_and_what_is_dead_removed_at_any_time() {
    let test = "what_lives_is_kept_and_what_is_dead_removed_at_any_time";
    if !need_engine(test) {
        return;
    }
    let home = home();
    let Some(clock) = Clock::of(&home, test) else {
        return;
    };
    let bottle = home.up("web", &home.slug("alive"));
    for (number, offset) in AROUND.iter().enumerate() {
        // A start that was killed before the clock was set.
        let slug = home.slug(&format!("dead{number}"));
        let engine = FakeDocker::killing(9, Rule::for_args(&["compose", "up"]));
        let killed = home
            .tool("bottle-run")
            .env("BOTTLE_DOCKER", engine.program())
            .args(["up"])
            .stdin(home.render(&home.plan("web", &slug)))
            .run();
        assert_eq!(killed.code(), 137, "{}", killed.stderr);
        let lock = fs::File::open(home.state(&slug).join("lock")).expect("a lock file");
        lock.lock().expect("the orphan ends");
        drop(lock);
        let done = clock.gc(&home, offset);
        assert_eq!(home.left_of(&slug), Vec::<String>::new(), "{offset}");
        let kept = done["kept"].as_array().expect("a list");
        assert!(
            kept.iter().any(|kept| kept["slug"] == bottle.slug.as_str()),
            "{offset}: {done}"
        );
        assert_eq!(bottle.exec(&["true"]).code(), 0, "{offset}");
    }
    let removed = clock
        .call(&home, "bottle-run", "-400d", &["down", &bottle.slug])
        .run();
    assert_eq!(removed.code(), 0, "{}", removed.stderr);
    assert_eq!(home.left_of(&bottle.slug), Vec::<String>::new());
}

#[test]
fn a_clock_that_is_set_during_a_start_harms_nothing() {
    let test = "a_clock_that_is_set_during_a_start_harms_nothing";
    if !need_engine(test) {
        return;
    }
    let home = home();
    let Some(clock) = Clock::of(&home, test) else {
        return;
    };
    for (name, offset) in [("back", "-3d"), ("forward", "+3d")] {
        let slug = home.slug(name);
        // Set when the first network is made: reserved and begun before, handed over after.
        let engine = home.write(
            format!("{name}/docker"),
            format!(
                "#!/bin/sh\ncase \"$*\" in *'network create'*) echo {offset} > '{}' ;; esac\nexec docker \"$@\"\n",
                clock.file.display()
            ),
        );
        fs::set_permissions(&engine, fs::Permissions::from_mode(0o755)).expect("a program");
        let file = home.render(&home.plan("web", &slug));
        let up = clock
            .call(&home, "bottle-run", "+0d", &["up"])
            .env("BOTTLE_DOCKER", &engine)
            .stdin(file)
            .run();
        assert_eq!(up.code(), 0, "{name}: {}", up.stderr);
        let set = fs::read_to_string(&clock.file).expect("the clock");
        assert_eq!(set.trim(), offset, "{name}: the clock was not set");
        for later in ["+0d", offset] {
            let done = clock.gc(&home, later);
            assert_eq!(done["removed"], json!([]), "{name}, {later}");
            let call =
                |args: &[&str]| -> Done { clock.call(&home, "bottle-run", later, args).run() };
            let exec = call(&["exec", &slug, "--", "true"]);
            assert_eq!(exec.code(), 0, "{name}, {later}: {}", exec.stderr);
            let list = call(&["list", "--json"]).json();
            let mut bottles = list["bottles"].as_array().expect("a list").iter();
            let mine = bottles.find(|bottle| bottle["slug"] == slug.as_str());
            assert_eq!(
                mine.expect("listed")["status"],
                "running",
                "{name}, {later}"
            );
            let audit = call(&["audit", "verify", &slug]);
            assert_eq!(audit.code(), 0, "{name}, {later}: {}", audit.stderr);
        }
        home.down(&slug);
        assert_eq!(home.left_of(&slug), Vec::<String>::new(), "{name}");
    }
}

#[test]
fn a_clock_that_is_wrong_grants_no_more_time() {
    let test = "a_clock_that_is_wrong_grants_no_more_time";
    if !need_engine(test) {
        return;
    }
    let home = Home::new();
    let Some(clock) = Clock::of(&home, test) else {
        return;
    };
    let image = agent_image("debian:trixie-slim");
    home.bottle(
        "asks",
        &format!(
            "image: {image}\nsupervise: true\negress: {{routes: [{{host: api.example.com, matches: [{{paths: [/open]}}]}}]}}\n"
        ),
    );
    let bottle = home.up("asks", &home.slug("asks"));
    // Granted, as egress sees it, long before or long after: over, or not begun. Both are no.
    for offset in ["-2h", "+2h"] {
        let url = format!("http://api.example.com/{}", &offset[1..]);
        let wish = json!({"url": url, "methods": ["GET"], "reason": offset, "wait": 0});
        let asked = bottle.fetch(&[
            "--direct",
            "--body",
            &wish.to_string(),
            "POST",
            "http://supervise:9100/requests/egress",
        ]);
        let told: Value =
            serde_json::from_str(asked["body"].as_str().expect("a body")).expect("JSON");
        let id = told["id"].as_str().expect("an id");
        let args = ["approve", id, "--for", "10m"];
        let said = clock.call(&home, "bottle-run", offset, &args).run();
        let denied = bottle.fetch(&["GET", &url]);
        assert_eq!(denied["status"], 403, "{offset}: {denied} {}", said.stderr);
        let list = home
            .tool("bottle-run")
            .args(["grants", "--json"])
            .run()
            .ok();
        assert!(!list.contains("\"live\":true"), "{offset}: {list}");
    }
    home.down(&bottle.slug);
}
