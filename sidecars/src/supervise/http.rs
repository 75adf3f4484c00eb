//! Who may talk to the desk, and the plain way of asking: what `curl` can do.

use std::convert::Infallible;
use std::sync::Arc;
use std::time::Duration;

use http_body_util::combinators::BoxBody;
use http_body_util::{BodyExt as _, Full, Limited};
use hyper::body::{Bytes, Incoming};
use hyper::header::{CONTENT_TYPE, HOST, HeaderValue, ORIGIN};
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper::{Method, Request, Response, StatusCode};
use hyper_util::rt::{TokioIo, TokioTimer};
use serde_json::{Value, json};
use tokio::sync::Semaphore;
use tokio::time::sleep;

use super::desk::{Desk, Refusal};
use super::input::{self, Waiting};
use super::mcp;
use crate::listener::Listener;

/// The name the agent knows us by.
const NAME: &str = "supervise";
/// What an agent can say at once.
pub(super) const MAX_BODY: usize = 64 * 1024;
/// Connections at once; each waits for an answer at most.
const MAX_CONNECTIONS: usize = 64;
/// How long a request's head may take.
const HEAD: Duration = Duration::from_secs(10);
/// How long its body may.
const BODY: Duration = Duration::from_secs(10);
/// The pause after a failed accept.
const BACK_OFF: Duration = Duration::from_millis(50);

const HELP: &str = "\
Ask the operator of this bottle for more than its policy allows.

  curl supervise:9100/policy
  curl supervise:9100/requests/egress -d '{\"denial\": \"ID OF A DENIAL\", \"reason\": \"why\"}'
  curl supervise:9100/requests/egress -d '{\"url\": \"https://api.example.com/v1/x\", \"methods\": [\"POST\"], \"reason\": \"why\"}'
  curl supervise:9100/requests/push -d '{\"denial\": \"ID OF A DENIAL\", \"reason\": \"why\"}'
  curl supervise:9100/requests/push -d '{\"repo\": \"NAME\", \"ref\": \"refs/heads/x\", \"object\": \"COMMIT\", \"reason\": \"why\"}'
  curl supervise:9100/requests/question -d '{\"question\": \"which one?\", \"options\": [\"a\", \"b\"]}'
  curl supervise:9100/requests/ID

A POST waits for the answer; `\"wait\": SECONDS` waits less. The same as an MCP server: http://supervise:9100/mcp
";

pub(super) type Reply = Response<BoxBody<Bytes, Infallible>>;

/// Serves for ever.
pub(super) async fn serve(listener: Listener, desk: Arc<Desk>) {
    let mcp = mcp::service(desk.clone());
    let places = Arc::new(Semaphore::new(MAX_CONNECTIONS));
    loop {
        let Ok(stream) = listener.accept().await else {
            sleep(BACK_OFF).await;
            continue;
        };
        let Ok(place) = places.clone().try_acquire_owned() else {
            continue;
        };
        let (desk, mcp) = (desk.clone(), mcp.clone());
        let service = service_fn(move |request: Request<Incoming>| {
            let (desk, mcp) = (desk.clone(), mcp.clone());
            async move { Ok::<_, Infallible>(answer(&desk, &mcp, request).await) }
        });
        tokio::spawn(async move {
            let connection = http1::Builder::new()
                .timer(TokioTimer::new())
                .header_read_timeout(HEAD)
                .max_buf_size(16 * 1024)
                .serve_connection(TokioIo::new(stream), service);
            // The agent broke off; the request is on file.
            let _ = connection.await;
            drop(place);
        });
    }
}

async fn answer(desk: &Desk, mcp: &mcp::Service, request: Request<Incoming>) -> Reply {
    if let Err(problem) = check_caller(desk, &request) {
        return json_reply(StatusCode::FORBIDDEN, &json!({"error": problem}));
    }
    if request.uri().path() == "/mcp" {
        return mcp.handle(request).await;
    }
    match plain(desk, request).await {
        Ok(reply) => reply,
        Err(refusal) => refuse(&refusal),
    }
}

/// Only programs in the bottle that mean us. A page in the agent's browser that made its own name point here does not
/// know our name, and says where it comes from.
fn check_caller(desk: &Desk, request: &Request<Incoming>) -> Result<(), &'static str> {
    if request.headers().contains_key(ORIGIN) {
        return Err("pages of a browser have no business here");
    }
    let host = request.headers().get(HOST).map(HeaderValue::as_bytes);
    let (address, port) = (desk.settings.listen, desk.settings.port);
    let names = [
        NAME.to_owned(),
        format!("{NAME}:{port}"),
        address.to_string(),
        format!("{address}:{port}"),
    ];
    if host.is_some_and(|host| names.iter().any(|name| name.as_bytes() == host)) {
        return Ok(());
    }
    Err("the Host header does not name this server")
}

async fn plain(desk: &Desk, request: Request<Incoming>) -> Result<Reply, Refusal> {
    let (parts, body) = request.into_parts();
    let path = parts.uri.path().trim_end_matches('/');
    match (&parts.method, path) {
        (&Method::GET, "") => Ok(reply(
            StatusCode::OK,
            "text/plain; charset=utf-8",
            HELP.to_owned(),
        )),
        (&Method::GET, "/policy") => Ok(json_reply(StatusCode::OK, &desk.policy())),
        (&Method::POST, path) if path.starts_with("/requests/") => {
            let kind = path.trim_start_matches("/requests/").to_owned();
            let input = read_body(body).await?;
            let waiting = input::hand_in(desk, &kind, input).await?;
            wait(desk, waiting).await
        }
        (&Method::GET, path) if path.starts_with("/requests/") => {
            let mut input = json!({"id": path.trim_start_matches("/requests/")});
            let seconds = parts
                .uri
                .query()
                .and_then(|query| query.strip_prefix("wait="));
            if let Some(seconds) = seconds.and_then(|text| text.parse::<u64>().ok()) {
                input["wait"] = json!(seconds);
            }
            wait(desk, input::known(desk, input)?).await
        }
        _ => Err(Refusal::Unknown("GET / says what there is".to_owned())),
    }
}

async fn wait(desk: &Desk, Waiting { id, wait }: Waiting) -> Result<Reply, Refusal> {
    Ok(json_reply(StatusCode::OK, &desk.wait(&id, wait).await?))
}

async fn read_body(body: Incoming) -> Result<Value, Refusal> {
    let wrong = |problem: &str| Refusal::Wrong(problem.to_owned());
    let read = tokio::time::timeout(BODY, Limited::new(body, MAX_BODY).collect());
    let bytes = read
        .await
        .map_err(|_| wrong("the body took too long"))?
        .map_err(|_| wrong("the body is longer than 64 KiB, or broke off"))?
        .to_bytes();
    serde_json::from_slice(&bytes)
        .map_err(|error| Refusal::Wrong(format!("the body is not JSON: {error}")))
}

fn refuse(refusal: &Refusal) -> Reply {
    let (status, message) = match refusal {
        Refusal::Wrong(message) => (StatusCode::BAD_REQUEST, message),
        Refusal::TooMany(message) => (StatusCode::TOO_MANY_REQUESTS, message),
        Refusal::Unknown(message) => (StatusCode::NOT_FOUND, message),
        Refusal::Broken(message) => (StatusCode::INTERNAL_SERVER_ERROR, message),
    };
    json_reply(status, &json!({"error": message}))
}

fn json_reply(status: StatusCode, value: &Value) -> Reply {
    reply(status, "application/json", format!("{value}\n"))
}

fn reply(status: StatusCode, kind: &'static str, text: String) -> Reply {
    let mut response = Response::new(Full::new(Bytes::from(text)).boxed());
    *response.status_mut() = status;
    response
        .headers_mut()
        .insert(CONTENT_TYPE, HeaderValue::from_static(kind));
    response
}
