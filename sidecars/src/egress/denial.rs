//! The answer to a request that is not let through: what happened, what would allow it, and how to ask. And to one
//! that was let through and failed: where.

use hyper::Response;
use hyper::body::Bytes;
use hyper::header::{CONNECTION, CONTENT_TYPE, HeaderValue};
use serde::Serialize;
use serde_json::{Value, json};

use super::body::Answer;
use crate::audit::Record;
use crate::headers::REASON;
use crate::reason::Reason;

/// How an agent gets further when there is somebody to ask; `id` is what it asks with.
const ASK_TOOL: &str = "call the tool `request_egress` of the MCP server `bottle` with {\"denial\": \"<the id here>\", \"reason\": \"why\"}, \
                        or POST the same to http://supervise:9100/requests/egress; a person decides, which can take minutes; \
                        trying other hosts, ports or spellings does not help";

/// How an agent gets further when there is not.
const ASK: &str = "tell the operator: the route in `allow` is what the manifest lacks; \
                   trying other hosts, ports or spellings does not help";

/// How an agent gets further when nothing was forbidden.
const DESTINATION: &str = "nothing was forbidden: the destination failed at this step; try again later, \
                           and tell the operator if it goes on";
const OURSELVES: &str = "nothing was forbidden: the bottle cannot do it at the moment; try again later, \
                         and tell the operator if it goes on";

#[derive(Serialize)]
struct Failure<'a> {
    error: &'static str,
    reason: &'static str,
    /// `dns`, `connect`, `tls`, `timeout` or `answer`.
    #[serde(skip_serializing_if = "Option::is_none")]
    step: Option<&'static str>,
    message: &'static str,
    method: Option<&'a str>,
    host: Option<&'a str>,
    port: Option<u16>,
    path: Option<&'a str>,
    hint: &'static str,
    id: &'a str,
}

#[derive(Serialize)]
struct Denial<'a> {
    error: &'static str,
    reason: &'static str,
    message: &'static str,
    method: Option<&'a str>,
    host: Option<&'a str>,
    port: Option<u16>,
    path: Option<&'a str>,
    allow: Option<Value>,
    ask: &'static str,
    id: &'a str,
}

/// Builds the answer from the record, which by now says all that is known of the request.
pub(crate) fn answer(record: &Record) -> Response<Answer> {
    let reason = record.reason;
    if reason.status().is_server_error() {
        return failure(record);
    }
    let denial = Denial {
        error: error(reason),
        reason: reason.code(),
        message: reason.text(),
        method: record.method.as_ref().map(hyper::Method::as_str),
        host: record.host.as_deref(),
        port: record.port,
        path: record.path.as_deref(),
        allow: smallest_route(record),
        ask: if record.can_ask && reason.can_be_granted() {
            ASK_TOOL
        } else {
            ASK
        },
        id: &record.id,
    };
    respond(reason, serde_json::to_vec(&denial).unwrap_or_default())
}

/// The answer when nothing was forbidden and it went wrong all the same.
fn failure(record: &Record) -> Response<Answer> {
    let reason = record.reason;
    let step = reason.step();
    let failure = Failure {
        error: error(reason),
        reason: reason.code(),
        step,
        message: reason.text(),
        method: record.method.as_ref().map(hyper::Method::as_str),
        host: record.host.as_deref(),
        port: record.port,
        path: record.path.as_deref(),
        hint: step.map_or(OURSELVES, |_| DESTINATION),
        id: &record.id,
    };
    respond(reason, serde_json::to_vec(&failure).unwrap_or_default())
}

/// Whose no it is: the policy's, the destination's, or our own.
fn error(reason: Reason) -> &'static str {
    match reason.step() {
        Some(_) => "bottle_upstream",
        None if reason.status().is_server_error() => "bottle_unavailable",
        None => "bottle_denied",
    }
}

/// The answer when there is no record, because records cannot be written.
pub(crate) fn unrecorded(reason: Reason) -> Response<Answer> {
    let denial = json!({"error": error(reason), "reason": reason.code(), "message": reason.text()});
    respond(reason, denial.to_string().into_bytes())
}

fn respond(reason: Reason, mut body: Vec<u8>) -> Response<Answer> {
    body.push(b'\n');
    let mut response = Response::new(Answer::Own(Some(Bytes::from(body))));
    *response.status_mut() = reason.status();
    let headers = response.headers_mut();
    headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
    headers.insert(REASON.clone(), HeaderValue::from_static(reason.code()));
    if reason == Reason::RequestMalformed {
        // Where it ends is as doubtful as the rest of it, so nothing after it is read as another request.
        headers.insert(CONNECTION, HeaderValue::from_static("close"));
    }
    response
}

/// The smallest route that would have let it through; none where no route would.
fn smallest_route(record: &Record) -> Option<Value> {
    let host = record.host.as_deref()?;
    let port = record.port?;
    let git = record.reason == Reason::GitFetchNotAllowed;
    if !record.reason.can_be_granted() {
        return None;
    }
    let mut route = json!({"host": host, "ports": [port]});
    if record.plain_http {
        route["scheme"] = json!("http");
    }
    if git {
        route["git"] = json!({"fetch": true});
    } else if let (Some(method), Some(path)) = (&record.method, &record.path) {
        route["matches"] =
            json!([{"methods": [method.as_str()], "paths": [{"type": "exact", "value": path}]}]);
    }
    Some(route)
}
