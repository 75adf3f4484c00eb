//! A stand-in for a model: it speaks the two APIs that coding agents use, and does what the task says.
//!
//! Every line `CALL TOOL {…}` of the task is a tool call. One is made an answer, in order: how many were made is how
//! many results the conversation holds, so there is no state here, and a repeated request gets the same answer. After
//! the last one it says [`FINISHED`]. A task without such a line, such as an agent's wish for a title, is just answered.

use std::fmt::Write as _;

use serde_json::{Value, json};

/// The end of every task.
pub const FINISHED: &str = "The stand-in has made every call it was asked for.";

/// What goes back to the agent.
#[derive(Debug)]
pub(crate) struct Reply {
    pub(crate) content_type: &'static str,
    pub(crate) body: String,
}

impl Reply {
    fn json(value: &Value) -> Self {
        Self {
            content_type: "application/json",
            body: value.to_string(),
        }
    }

    /// Events as both APIs have them: the name is also the `type` of the data.
    fn events(events: &[Value]) -> Self {
        let mut body = String::new();
        for event in events {
            let name = event["type"].as_str().unwrap_or("message");
            let _ = write!(body, "event: {name}\ndata: {event}\n\n");
        }
        Self {
            content_type: "text/event-stream",
            body,
        }
    }
}

/// The answer of a model API, or nothing when this is no request to one.
pub(crate) fn reply(method: &str, path: &str, body: &[u8]) -> Option<Reply> {
    if method != "POST" {
        return None;
    }
    let request = serde_json::from_slice(body).unwrap_or_default();
    match path {
        "/v1/messages" => Some(messages(&request)),
        "/v1/messages/count_tokens" => Some(Reply::json(&json!({"input_tokens": 1}))),
        "/v1/responses" => Some(responses(&request)),
        _ => None,
    }
}

/// What to say next.
#[derive(Debug, PartialEq)]
enum Turn {
    Call {
        number: usize,
        tool: String,
        input: Value,
    },
    Text(String),
}

/// The next turn of a conversation: its texts by the user, and how many results it holds.
fn next(texts: &[&str], results: usize) -> Turn {
    let mut calls = texts
        .iter()
        .flat_map(|text| text.lines())
        .filter_map(|line| {
            let (tool, input) = line.trim().strip_prefix("CALL ")?.split_once(' ')?;
            Some((tool.to_owned(), serde_json::from_str(input).ok()?))
        });
    match calls.nth(results) {
        Some((tool, input)) => Turn::Call {
            number: results,
            tool,
            input,
        },
        None => Turn::Text(FINISHED.to_owned()),
    }
}

/// Anthropic's Messages API, in one piece or as events.
fn messages(request: &Value) -> Reply {
    let blocks: Vec<&Value> = list(&request["messages"])
        .filter(|message| message["role"] == "user")
        .flat_map(|message| match &message["content"] {
            text @ Value::String(_) => vec![text],
            blocks => list(blocks).collect(),
        })
        .collect();
    let texts: Vec<&str> = blocks
        .iter()
        .filter_map(|block| block.as_str().or_else(|| block["text"].as_str()))
        .collect();
    let results = blocks
        .iter()
        .filter(|block| block["type"] == "tool_result")
        .count();
    let model = &request["model"];
    let usage = json!({"input_tokens": 1, "output_tokens": 1});
    let (block, stop) = match next(&texts, results) {
        Turn::Text(text) => (json!({"type": "text", "text": text}), "end_turn"),
        Turn::Call {
            number,
            tool,
            input,
        } => (
            json!({"type": "tool_use", "id": format!("toolu_{number:08}"), "name": tool, "input": input}),
            "tool_use",
        ),
    };
    let message = |content: Value, stop: Value| {
        json!({
            "id": format!("msg_{results:08}"), "type": "message", "role": "assistant", "model": model,
            "content": content, "stop_reason": stop, "stop_sequence": null, "usage": usage,
        })
    };
    if request["stream"] != true {
        return Reply::json(&message(json!([block]), stop.into()));
    }
    // A block begins empty and is filled by deltas; an input travels as the text of its JSON.
    let mut empty = block.clone();
    let delta = if block["type"] == "text" {
        empty["text"] = "".into();
        json!({"type": "text_delta", "text": block["text"]})
    } else {
        empty["input"] = json!({});
        json!({"type": "input_json_delta", "partial_json": block["input"].to_string()})
    };
    Reply::events(&[
        json!({"type": "message_start", "message": message(json!([]), Value::Null)}),
        json!({"type": "content_block_start", "index": 0, "content_block": empty}),
        json!({"type": "content_block_delta", "index": 0, "delta": delta}),
        json!({"type": "content_block_stop", "index": 0}),
        json!({"type": "message_delta", "delta": {"stop_reason": stop, "stop_sequence": null}, "usage": usage}),
        json!({"type": "message_stop"}),
    ])
}

/// OpenAI's Responses API over a WebSocket: what came before need not be said again.
#[derive(Debug, Default)]
pub(crate) struct Conversation {
    input: Vec<Value>,
}

impl Conversation {
    /// The events that answer one message.
    pub(crate) fn answer(&mut self, message: &[u8]) -> Vec<Value> {
        let mut request: Value = serde_json::from_slice(message).unwrap_or_default();
        if request["previous_response_id"].is_null() {
            self.input.clear();
        }
        self.input.extend(list(&request["input"]).cloned());
        request["input"] = self.input.clone().into();
        response_events(&request)
    }
}

/// OpenAI's Responses API, as events.
fn responses(request: &Value) -> Reply {
    Reply::events(&response_events(request))
}

fn response_events(request: &Value) -> Vec<Value> {
    let items: Vec<&Value> = list(&request["input"]).collect();
    let texts: Vec<&str> = items
        .iter()
        .filter(|item| item["role"] == "user")
        .flat_map(|item| list(&item["content"]))
        .filter_map(|part| part["text"].as_str())
        .collect();
    let results = items
        .iter()
        .filter(|item| {
            item["type"]
                .as_str()
                .is_some_and(|kind| kind.ends_with("_call_output"))
        })
        .count();
    let item = match next(&texts, results) {
        Turn::Text(text) => json!({
            "type": "message", "id": format!("msg_{results:08}"), "role": "assistant", "status": "completed",
            "content": [{"type": "output_text", "text": text, "annotations": []}],
        }),
        Turn::Call {
            number,
            tool,
            input,
        } => json!({
            "type": "function_call", "id": format!("fc_{number:08}"), "call_id": format!("call_{number:08}"),
            "name": tool, "arguments": input.to_string(), "status": "completed",
        }),
    };
    let response = |status: &str, output: Value| {
        json!({
            "id": format!("resp_{results:08}"), "object": "response", "status": status, "model": request["model"],
            "output": output,
            "usage": {
                "input_tokens": 1, "input_tokens_details": {"cached_tokens": 0},
                "output_tokens": 1, "output_tokens_details": {"reasoning_tokens": 0}, "total_tokens": 2,
            },
        })
    };
    let created =
        json!({"type": "response.created", "response": response("in_progress", json!([]))});
    // A connection is warmed up by a request for nothing.
    if request["generate"] == false {
        let completed =
            json!({"type": "response.completed", "response": response("completed", json!([]))});
        return vec![created, completed];
    }
    vec![
        created,
        json!({"type": "response.output_item.done", "output_index": 0, "item": item}),
        json!({"type": "response.completed", "response": response("completed", json!([item]))}),
    ]
}

fn list(value: &Value) -> impl Iterator<Item = &Value> {
    value.as_array().into_iter().flatten()
}

#[cfg(test)]
mod tests {
    use super::*;

    const TASK: &str =
        "Do this.\nCALL Read {\"file_path\": \"/a\"}\n  CALL Bash {\"command\": \"git commit\"}\n";

    #[test]
    fn calls_are_made_in_order_and_then_it_is_finished() {
        let calls: Vec<Turn> = (0..3).map(|results| next(&[TASK], results)).collect();
        assert!(
            matches!(&calls[0], Turn::Call { tool, input, .. } if tool == "Read" && input["file_path"] == "/a")
        );
        assert!(matches!(&calls[1], Turn::Call { tool, .. } if tool == "Bash"));
        assert_eq!(calls[2], Turn::Text(FINISHED.to_owned()));
    }

    fn body(path: &str, request: &Value) -> String {
        reply("POST", path, request.to_string().as_bytes())
            .expect("an answer")
            .body
    }

    #[test]
    fn a_result_in_the_conversation_brings_the_next_call() {
        let first = json!({"role": "user", "content": TASK});
        let result =
            json!({"role": "user", "content": [{"type": "tool_result", "tool_use_id": "x"}]});
        let asked = body(
            "/v1/messages",
            &json!({"stream": true, "messages": [first, result]}),
        );
        assert!(
            asked.contains(r#""name":"Bash""#) && asked.contains("event: message_stop"),
            "{asked}"
        );
        let whole = body("/v1/messages", &json!({"messages": [first]}));
        let whole: Value = serde_json::from_str(&whole).expect("JSON");
        assert_eq!(
            (&whole["stop_reason"], &whole["content"][0]["name"]),
            (&json!("tool_use"), &json!("Read"))
        );
    }

    #[test]
    fn the_other_api_is_asked_in_its_own_words() {
        let task = json!({"type": "message", "role": "user", "content": [{"type": "input_text", "text": TASK}]});
        let output = json!({"type": "function_call_output", "call_id": "x", "output": ""});
        let asked = body(
            "/v1/responses",
            &json!({"input": [task, output, output.clone()]}),
        );
        assert!(
            asked.contains(FINISHED) && asked.contains("event: response.completed"),
            "{asked}"
        );
    }

    #[test]
    fn a_conversation_goes_on_where_it_was() {
        let mut conversation = Conversation::default();
        let task = json!({"role": "user", "content": [{"type": "input_text", "text": TASK}]});
        let warm = json!({"generate": false, "input": [task]}).to_string();
        assert_eq!(conversation.answer(warm.as_bytes()).len(), 2);
        let output = json!({"type": "function_call_output", "call_id": "x", "output": ""});
        let on = json!({"previous_response_id": "resp_0", "input": [output]}).to_string();
        let events = conversation.answer(on.as_bytes());
        assert_eq!(events[1]["item"]["name"], "Bash");
    }

    #[test]
    fn nothing_else_is_a_model() {
        assert!(reply("GET", "/v1/messages", b"{}").is_none());
        assert!(reply("POST", "/v1/files", b"{}").is_none());
    }
}
