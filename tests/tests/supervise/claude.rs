//! The real Claude Code as MCP client, with a stand-in for its model: refused, asks, is approved by a script for one
//! use, succeeds, is refused again.

use std::thread;
use std::time::Duration;

use bottle_tests::Bottle;
use bottle_tests::engine::{note_skipped, wait_within};
use bottle_tests::model::FINISHED;

use crate::{Fixture, HOSTS, egress_network, operator};

const PATIENCE: Duration = Duration::from_secs(120);

const TASK: &str = r#"Post it.
CALL Bash {"command": "curl -s -o /workspace/1.txt -w '%{http_code}' -X POST https://api.example.com/echo/claude > /workspace/1.code; true", "description": "try"}
CALL mcp__bottle__request_egress {"url": "https://api.example.com/echo/claude", "methods": ["POST"], "reason": "the task says to post it"}
CALL Bash {"command": "curl -s -o /workspace/2.txt -w '%{http_code}' -X POST https://api.example.com/echo/claude > /workspace/2.code; true", "description": "again"}
CALL Bash {"command": "curl -s -o /workspace/3.txt -w '%{http_code}' -X POST https://api.example.com/echo/claude > /workspace/3.code; true", "description": "once more"}"#;

pub(crate) fn the_real_claude_asks_by_itself(f: &Fixture) {
    f.home.bottle("claude", "\
agent_provider: {template: claude}
supervise: {timeout: 90s}
egress:
  upstream_ca: upstream.pem
  routes:
    - {host: api.anthropic.com, private: [10.213.0.0/16]}
    - {host: api.example.com, private: [10.213.0.0/16], matches: [{paths: [/echo/open], methods: [GET]}]}
");
    let slug = f.home.slug("claude");
    let compose = f.home.render(&f.home.plan("claude", &slug));
    let done = f.home.tool("bottle-run").args(["up"]).stdin(compose).run();
    if done.code() != 0 {
        note_skipped(
            "the_real_claude_asks_by_itself",
            &format!("no bottle with claude: {}", done.stderr),
        );
        return;
    }
    let bottle = Bottle::started(&f.home, &slug, done.json());
    f.internet.join(&egress_network(&slug), &HOSTS);
    let task = thread::scope(|scope| {
        let working = scope.spawn(|| bottle.task(TASK));
        wait_within(PATIENCE, "the agent's request", || {
            let open = operator(&f.home, &["requests", "--json"]).json();
            let ids = open["requests"].as_array().into_iter().flatten();
            let mine = ids.filter(|asked| asked["slug"] == slug.as_str());
            let ids: Vec<String> = mine
                .filter_map(|asked| asked["request"]["id"].as_str().map(str::to_owned))
                .collect();
            ids.iter()
                .any(|id| operator(&f.home, &["approve", id, "--uses", "1"]).code() == 0)
                || working.is_finished()
        });
        working.join().expect("the task does not panic")
    });
    let read = |name: &str| bottle.exec(&["cat", &format!("/workspace/{name}")]).stdout;
    let codes = [read("1.code"), read("2.code"), read("3.code")];
    let told = read("1.txt");
    f.internet.leave(&egress_network(&slug));
    f.home.down(&slug);
    assert_eq!(task.code(), 0, "{}", task.stderr);
    assert_eq!(task.stdout.trim(), FINISHED, "{}", task.stderr);
    assert_eq!(codes, ["403", "200", "403"], "{told}");
    assert!(told.contains("request_egress"), "{told}");
}
