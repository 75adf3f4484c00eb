//! The desk as an MCP server: streamable HTTP, without sessions, so that nothing is lost with this process.

use std::borrow::Cow;
use std::sync::Arc;
use std::time::Duration;

use rmcp::model::{
    CallToolRequestParams, CallToolResponse, CallToolResult, ContentBlock, Implementation,
    ListToolsResult, PaginatedRequestParams, ProgressNotificationParam, ServerCapabilities,
    ServerConfig, Tool,
};
use rmcp::service::RequestContext;
use rmcp::transport::streamable_http_server::session::never::NeverSessionManager;
use rmcp::transport::streamable_http_server::{StreamableHttpServerConfig, StreamableHttpService};
use rmcp::{ErrorData, RoleServer, ServerHandler};
use serde_json::{Map, Value, json};
use tokio::time::{Instant, interval_at};

use super::desk::{Desk, Refusal};
use super::http::MAX_BODY;
use super::input::{self, Waiting};

/// How often a client that waits is told so: clients give up on calls that are silent.
const PROGRESS: Duration = Duration::from_secs(5);

const INSTRUCTIONS: &str = "You work in a bottle: a place whose only way out is a proxy that refuses what its policy does not allow. \
When it refuses something you need for your task, call request_egress with the id of the denial and an honest reason. \
A person decides, which can take minutes; do not ask twice for the same, and do not look for ways around a no.";

pub(super) type Service = StreamableHttpService<Server, NeverSessionManager>;

/// The service for `/mcp`.
pub(super) fn service(desk: Arc<Desk>) -> Service {
    let (address, port) = (desk.settings.listen, desk.settings.port);
    let config = StreamableHttpServerConfig::default()
        .with_legacy_session_mode(false)
        .with_json_response(true)
        .with_max_request_body_bytes(MAX_BODY)
        .with_allowed_hosts([
            "supervise".to_owned(),
            format!("supervise:{port}"),
            address.to_string(),
        ])
        .enforce_origin_validation();
    let server = Server { desk };
    StreamableHttpService::new(move || Ok(server.clone()), Arc::default(), config)
}

/// One of them a request.
#[derive(Clone)]
pub(super) struct Server {
    desk: Arc<Desk>,
}

impl ServerHandler for Server {
    fn get_info(&self) -> ServerConfig {
        ServerConfig::new(ServerCapabilities::builder().enable_tools().build())
            .with_server_info(Implementation::new("bottle", env!("CARGO_PKG_VERSION")))
            .with_instructions(INSTRUCTIONS)
    }

    async fn list_tools(
        &self,
        _request: Option<PaginatedRequestParams>,
        _context: RequestContext<RoleServer>,
    ) -> Result<ListToolsResult, ErrorData> {
        Ok(ListToolsResult::with_all_items(tools()))
    }

    async fn call_tool(
        &self,
        request: CallToolRequestParams,
        context: RequestContext<RoleServer>,
    ) -> Result<CallToolResponse, ErrorData> {
        let input = Value::Object(request.arguments.unwrap_or_default());
        let called = match request.name.as_ref() {
            "list_policy" => Ok(self.desk.policy()),
            "request_egress" => self.ask("egress", input, &context).await,
            "request_push" => self.ask("push", input, &context).await,
            "ask_operator" => self.ask("question", input, &context).await,
            "request_status" => match input::known(&self.desk, input) {
                Ok(waiting) => self.wait(waiting, &context).await,
                Err(refusal) => Err(refusal),
            },
            other => {
                let problem = format!("there is no tool `{other}`");
                return Err(ErrorData::invalid_params(problem, None));
            }
        };
        Ok(CallToolResponse::Complete(result(called)))
    }
}

impl Server {
    async fn ask(
        &self,
        kind: &str,
        input: Value,
        context: &RequestContext<RoleServer>,
    ) -> Result<Value, Refusal> {
        let waiting = input::hand_in(&self.desk, kind, input).await?;
        self.wait(waiting, context).await
    }

    /// Waits, and says from time to time that it does.
    async fn wait(
        &self,
        Waiting { id, wait }: Waiting,
        context: &RequestContext<RoleServer>,
    ) -> Result<Value, Refusal> {
        let began = Instant::now();
        let mut tick = interval_at(began + PROGRESS, PROGRESS);
        let answer = self.desk.wait(&id, wait);
        tokio::pin!(answer);
        loop {
            tokio::select! {
                answer = &mut answer => return answer,
                () = context.ct.cancelled() => return self.desk.state(&id),
                _ = tick.tick() => {
                    if let Some(token) = context.meta.get_progress_token() {
                        let progress = ProgressNotificationParam::new(token, began.elapsed().as_secs_f64())
                            .with_total(wait.as_secs_f64())
                            .with_message(format!("{id} waits for the operator"));
                        // A client that is gone will not hear the answer either.
                        let _ = context.peer.notify_progress(progress).await;
                    }
                }
            }
        }
    }
}

fn result(called: Result<Value, Refusal>) -> CallToolResult {
    match called {
        Ok(value) => CallToolResult::success(vec![ContentBlock::text(value.to_string())]),
        Err(
            Refusal::Wrong(message)
            | Refusal::TooMany(message)
            | Refusal::Unknown(message)
            | Refusal::Broken(message),
        ) => CallToolResult::error(vec![ContentBlock::text(message)]),
    }
}

fn tools() -> Vec<Tool> {
    let text = |about: &str| json!({"type": "string", "description": about});
    let reason = text("Why it is needed, in a sentence; the operator reads it");
    let wait = json!({"type": "integer", "minimum": 0, "description": "Seconds to wait for the answer; until the deadline if left out, 0 to go on at once and ask with request_status later"});
    vec![
        tool(
            "list_policy",
            "What this bottle may reach and push, what was granted for a while, and what can be asked for.",
            json!({"properties": {}}),
        ),
        tool(
            "request_egress",
            "Ask the operator to let requests to a host through. Give the id of the denial the proxy answered with, or a url, or host with methods and paths; ask for as little as the task needs.",
            json!({"properties": {
                "denial": text("The `id` of a denial (`bottle_denied`)"),
                "url": text("What is to be requested, such as https://api.example.com/v1/items"),
                "host": text("One exact host name"),
                "port": {"type": "integer"},
                "scheme": {"enum": ["https", "http"]},
                "methods": {"type": "array", "items": {"type": "string"}},
                "paths": {"type": "array", "items": {"type": "string"}, "description": "Path prefixes"},
                "git_fetch": {"type": "boolean", "description": "To clone and fetch with git"},
                "reason": reason, "wait": wait,
            }, "required": ["reason"]}),
        ),
        tool(
            "request_push",
            "Ask the operator to let through a push that git-gate refused. Give the id of the denial that git-gate told, or repo, ref and object; once it is granted, push the same commit again.",
            json!({"properties": {
                "denial": text("The id of a denial of git-gate"),
                "repo": text("The repository's name"), "ref": text("The full ref, refs/heads/..."),
                "object": text("The commit, as a full object id"), "reason": reason, "wait": wait,
            }, "required": ["reason"]}),
        ),
        tool(
            "ask_operator",
            "Ask the operator a question that only a person can answer.",
            json!({"properties": {
                "question": text("The question"),
                "options": {"type": "array", "items": {"type": "string"}, "description": "Answers to choose from"},
                "wait": wait,
            }, "required": ["question"]}),
        ),
        tool(
            "request_status",
            "What became of a request.",
            json!({"properties": {"id": text("The request's id, r-..."), "wait": wait}, "required": ["id"]}),
        ),
    ]
}

fn tool(name: &'static str, about: &'static str, mut schema: Value) -> Tool {
    schema["type"] = json!("object");
    schema["additionalProperties"] = json!(false);
    let schema = match schema {
        Value::Object(map) => map,
        _ => Map::new(),
    };
    Tool::new(Cow::Borrowed(name), Cow::Borrowed(about), Arc::new(schema))
}
