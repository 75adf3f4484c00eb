//! The same desk as an MCP server, to clients of every age.

use bottle_tests::Bottle;
use serde_json::{Value, json};

use crate::{Fixture, body, operator, send, status};

/// Those that begin with `initialize`, oldest first: what is deployed.
const WITH_INITIALIZE: [&str; 4] = ["2024-11-05", "2025-03-26", "2025-06-18", "2025-11-25"];
/// The current one says its version with every request.
const CURRENT: &str = "2026-07-28";
/// From here on the version is also a header.
const WITH_HEADER: &str = "2025-06-18";

/// One client.
struct Client<'a> {
    bottle: &'a Bottle,
    version: &'a str,
}

impl Client<'_> {
    /// The whole answer to a message.
    fn post(&self, message: &Value) -> Value {
        let text = message.to_string();
        let mut args = vec![
            "--direct",
            "--body",
            &text,
            "POST",
            "http://supervise:9100/mcp",
            "Content-Type:application/json",
            "Accept:application/json, text/event-stream",
        ];
        let version = format!("MCP-Protocol-Version:{}", self.version);
        let method = format!("Mcp-Method:{}", message["method"].as_str().unwrap_or(""));
        let name = format!(
            "Mcp-Name:{}",
            message["params"]["name"].as_str().unwrap_or("")
        );
        if self.version >= WITH_HEADER && message["method"] != "initialize" {
            args.push(&version);
        }
        if self.version == CURRENT {
            args.push(&method);
            if message["method"] == "tools/call" {
                args.push(&name);
            }
        }
        self.bottle.fetch(&args)
    }

    fn request(&self, method: &str, mut params: Value) -> Value {
        if self.version == CURRENT {
            params["_meta"] = json!({
                "io.modelcontextprotocol/protocolVersion": self.version,
                "io.modelcontextprotocol/clientInfo": {"name": "a test", "version": "1"},
                "io.modelcontextprotocol/clientCapabilities": {},
            });
        }
        let answer =
            self.post(&json!({"jsonrpc": "2.0", "id": 7, "method": method, "params": params}));
        assert_eq!(answer["status"], 200, "{}: {answer}", self.version);
        let answer = body(&answer);
        assert_eq!(answer["id"], 7, "{}: {answer}", self.version);
        answer["result"].clone()
    }

    /// What a tool says, and whether it is an error.
    fn call(&self, tool: &str, arguments: &Value) -> (String, bool) {
        let result = self.request("tools/call", json!({"name": tool, "arguments": arguments}));
        let text = result["content"][0]["text"].as_str().expect("a text");
        (text.to_owned(), result["isError"] == true)
    }

    fn call_well(&self, tool: &str, arguments: &Value) -> Value {
        let (text, failed) = self.call(tool, arguments);
        assert!(!failed, "{}: {text}", self.version);
        serde_json::from_str(&text).expect("JSON")
    }
}

pub(crate) fn mcp_in_every_version(f: &Fixture) {
    for version in WITH_INITIALIZE.into_iter().chain([CURRENT]) {
        let client = Client {
            bottle: &f.bottle,
            version,
        };
        let about = if version == CURRENT {
            client.request("server/discover", json!({}))
        } else {
            let hello = json!({
                "protocolVersion": version, "capabilities": {},
                "clientInfo": {"name": "a test", "version": "1"},
            });
            let about = client.request("initialize", hello);
            assert_eq!(about["protocolVersion"], version, "{about}");
            let ready = json!({"jsonrpc": "2.0", "method": "notifications/initialized"});
            assert_eq!(client.post(&ready)["status"], 202);
            about
        };
        assert!(about.to_string().contains("\"bottle\""), "{about}");
        let listed = client.request("tools/list", json!({}));
        let tools = listed["tools"].as_array().expect("tools");
        let names: Vec<&str> = tools
            .iter()
            .filter_map(|tool| tool["name"].as_str())
            .collect();
        assert_eq!(
            names,
            [
                "list_policy",
                "request_egress",
                "request_push",
                "ask_operator",
                "request_status"
            ],
            "{version}"
        );

        // The whole way: a denial, one call with its id, the answer, the request.
        let policy = client.call_well("list_policy", &json!({}));
        assert_eq!(policy["without_an_answer"], "deny", "{policy}");
        assert_eq!(policy["answer_within_seconds"], 60, "{policy}");
        let url = format!("https://api.example.com/echo/mcp/{version}");
        let denied = body(&f.bottle.fetch(&["PUT", &url]));
        let wish = json!({"denial": denied["id"], "reason": "by MCP", "wait": 0});
        let asked = client.call_well("request_egress", &wish);
        assert_eq!(asked["status"], "waiting", "{asked}");
        let id = asked["id"].as_str().expect("an id");
        let _ = operator(&f.home, &["approve", id, "--uses", "1"]).ok();
        let told = client.call_well("request_status", &json!({"id": id}));
        assert_eq!(told["status"], "approved", "{told}");
        assert_eq!(status(&f.bottle, id)["status"], "approved");
        assert_eq!(send(&f.bottle, "PUT", &url).0, 200);

        let question = client.call_well("ask_operator", &json!({"question": version, "wait": 0}));
        let id = question["id"].as_str().expect("an id");
        let _ = operator(&f.home, &["answer", id, "yes"]).ok();
        let told = client.call_well("request_status", &json!({"id": id}));
        assert_eq!(told["text"], "yes", "{told}");
        let push = json!({"repo": "none", "ref": "refs/heads/x", "reason": "r", "wait": 0});
        let _ = client.call("request_push", &push);
        // What is wrong is said as a tool's error, which the model reads.
        let (text, failed) = client.call("request_egress", &json!({"reason": "nothing"}));
        assert!(failed && text.contains("give `denial`"), "{text}");
    }
    let open = operator(&f.home, &["requests", "--json"]).json();
    for asked in open["requests"].as_array().expect("a list") {
        let _ = operator(
            &f.home,
            &["deny", asked["request"]["id"].as_str().expect("an id")],
        );
    }
}

/// Clients give up on a call that is silent.
pub(crate) fn mcp_says_that_it_waits(f: &Fixture) {
    let client = Client {
        bottle: &f.bottle,
        version: "2025-11-25",
    };
    let answer = client.post(&json!({
        "jsonrpc": "2.0", "id": 8, "method": "tools/call",
        "params": {
            "name": "ask_operator", "arguments": {"question": "is anybody there?", "wait": 7},
            "_meta": {"progressToken": "p1"},
        },
    }));
    let text = answer["body"].as_str().expect("a body");
    let messages: Vec<Value> = text
        .lines()
        .filter_map(|line| line.strip_prefix("data:"))
        .filter_map(|data| serde_json::from_str(data.trim()).ok())
        .collect();
    let progress = messages
        .iter()
        .find(|message| message["method"] == "notifications/progress")
        .unwrap_or_else(|| panic!("no progress: {answer}"));
    assert_eq!(progress["params"]["progressToken"], "p1", "{progress}");
    assert_eq!(progress["params"]["total"], 7.0, "{progress}");
    let last = messages.last().expect("an answer");
    let said = last["result"]["content"][0]["text"]
        .as_str()
        .expect("a text");
    let said: Value = serde_json::from_str(said).expect("JSON");
    assert_eq!(said["status"], "waiting", "{said}");
    let id = said["id"].as_str().expect("an id");
    let _ = operator(&f.home, &["deny", id, "--why", "nobody"]).ok();
}
