//! The screen, driven by tmux as a person would: 80 by 24, without colour.

use bottle_tests::engine::wait_for;
use bottle_tests::terminal::{Terminal, need_tmux};
use bottle_tests::{Bottle, Home, Internet};
use serde_json::json;

use crate::{Fixture, HOSTS, egress_network, hand_in, operator, send, status};

/// A home of its own, so that what is on the screen is known.
struct Watched {
    home: Home,
    bottle: Bottle,
    internet: Internet,
}

impl Watched {
    fn start() -> Self {
        let home = Home::new();
        let internet = Internet::start(&home, &HOSTS);
        home.write("bottles/upstream.pem", internet.ca_pem());
        home.bottle("seen", &crate::manifest("{timeout: 10m}"));
        let bottle = home.up("seen", &home.slug("seen"));
        internet.join(&egress_network(&bottle.slug), &HOSTS);
        Self {
            home,
            bottle,
            internet,
        }
    }

    /// The lines of the screen, with what differs from run to run made the same: ids, times, and rules to the edge.
    fn shape(&self, terminal: &Terminal) -> Vec<String> {
        let text = terminal.screen().replace(&self.bottle.slug, "SLUG");
        let word = |word: &str| {
            let bare = word.trim_end_matches([':', ',']);
            let end = &word[bare.len()..];
            let is_id = bare.len() == 10 && (bare.starts_with("r-") || bare.starts_with("g-"));
            let is_time = bare.contains(':')
                && bare
                    .bytes()
                    .all(|byte| byte.is_ascii_digit() || byte == b':');
            match (is_id, is_time) {
                (true, _) => format!("{}ID{end}", &bare[..2]),
                (_, true) => format!("TIME{end}"),
                _ => word.to_owned(),
            }
        };
        let line = |line: &str| {
            let words: Vec<String> = line
                .trim_end_matches('─')
                .split_whitespace()
                .map(word)
                .collect();
            words.join(" ")
        };
        text.lines()
            .map(line)
            .filter(|line| !line.is_empty())
            .collect()
    }
}

/// Whether the screen has a colour: a code of SGR other than bold, reverse and their ends.
fn has_colour(screen: &str) -> bool {
    let codes = screen.split("\u{1b}[").skip(1);
    codes
        .filter_map(|rest| rest.split_once('m'))
        .flat_map(|(numbers, _)| numbers.split(';').collect::<Vec<_>>())
        .filter_map(|number| number.parse::<u8>().ok())
        .any(|code| matches!(code, 30..=38 | 40..=48 | 90..=107))
}

impl Drop for Watched {
    fn drop(&mut self) {
        self.internet.leave(&egress_network(&self.bottle.slug));
    }
}

pub(crate) fn the_view_shows_and_decides(_: &Fixture) {
    if !need_tmux("the_view_shows_and_decides") {
        return;
    }
    let w = Watched::start();
    let (home, bottle) = (&w.home, &w.bottle);
    let url = "https://api.example.com/echo/view";
    assert_eq!(
        send(bottle, "GET", "https://api.example.com/echo/open").0,
        200
    );
    assert_eq!(send(bottle, "PUT", url).0, 403);
    let granted = hand_in(
        bottle,
        "egress",
        json!({"url": "https://api.example.com/echo/more", "methods": ["POST"]}),
    );
    let _ = operator(home, &["approve", &granted, "--for", "5m"]).ok();
    let id = hand_in(
        bottle,
        "egress",
        json!({"url": url, "methods": ["PUT"], "reason": "seen \u{1b}[2J on the screen"}),
    );
    let terminal = Terminal::start(home, "view", 80, 24);
    terminal.types("TERM=vt100 bottle-run watch --by tmux; echo \"left with $?\"");
    terminal.waits_for(&id);
    terminal.waits_for("running");
    let shape = w.shape(&terminal);
    let (upper, traffic) = shape.split_at(7);
    // How often the canary was refused is its own affair.
    let bottle_line =
        upper[5]
            .replace(" denied", "")
            .split_whitespace()
            .fold(String::new(), |line, word| {
                let is_count = line.ends_with("allowed") && word.ends_with(',');
                format!("{line} {}", if is_count { "N," } else { word })
            });
    assert_eq!(
        [&upper[..5], &[bottle_line, upper[6].clone()]].concat(),
        [
            "Requests: 1 waiting",
            "> r-ID SLUG TIME left to PUT to /echo/view of api.example.com",
            "Grants",
            "g-ID TIME left: SLUG may POST to /echo/more of api.example.com",
            "Bottles",
            " SLUG running 1 allowed N, left 4999 requests 20 MB",
            "Traffic",
        ],
        "{shape:#?}"
    );
    for line in [
        "TIME SLUG allow GET api.example.com/echo/open",
        "TIME SLUG deny PUT api.example.com/echo/view path_not_allowed",
        "TIME SLUG note api.example.com grant_begun",
        "j/k move enter open a approve 10m 1 once d deny v change w work q quit",
    ] {
        assert!(
            traffic.iter().any(|shown| shown == line),
            "{line}: {shape:#?}"
        );
    }
    let coloured = terminal.tmux(&["capture-pane", "-e", "-p", "-t", "t"]);
    assert!(!has_colour(&coloured), "{coloured:?}");

    terminal.presses(&["Enter"]);
    terminal.waits_for("it says");
    let page = terminal.screen();
    assert!(page.contains("\\u{1b}[2J on the screen"), "{page}");
    // What it would change, as a diff.
    terminal.presses(&["v"]);
    terminal.waits_for("what it would change");
    assert_eq!(
        w.shape(&terminal),
        [
            "r-ID: what it would change",
            "--- SLUG",
            "+++ SLUG with r-ID",
            "- host: api.example.com",
            "private: [10.213.0.0/16]",
            "matches:",
            "- {methods: [GET], paths: [{type: prefix, value: \"/echo/open\"}]}",
            "+- host: api.example.com",
            "+ private: [10.213.0.0/16]",
            "+ matches:",
            "+ - {methods: [PUT], paths: [{type: exact, value: \"/echo/view\"}]}",
            "j/k move space next page esc back",
        ]
    );
    terminal.presses(&["Escape"]);
    terminal.waits_for("Traffic");
    // Its work: this image has no git to give it with, which is said there.
    terminal.presses(&["w"]);
    terminal.waits_for("the image has no git");
    terminal.presses(&["Escape"]);
    terminal.waits_for("Traffic");

    terminal.presses(&["1"]);
    terminal.waits_for("Approve?");
    terminal.presses(&["y"]);
    terminal.waits_for("for 10 minutes, once");
    wait_for("the approval", || {
        status(bottle, &id)["status"] == "approved"
    });
    assert_eq!(send(bottle, "PUT", url).0, 200);
    terminal.waits_for("PUT api.example.com/echo/view");

    let id = hand_in(bottle, "question", json!({"question": "shall I?"}));
    terminal.waits_for(&id);
    terminal.presses(&["d"]);
    terminal.waits_for("Deny it?");
    terminal.presses(&["y"]);
    wait_for("the refusal", || status(bottle, &id)["status"] == "denied");
    terminal.presses(&["q"]);
    terminal.waits_for("left with 0");
    w.internet.leave(&egress_network(&bottle.slug));
    home.down(&bottle.slug);
}
