//! The answer to a request that is not let through: what happened, what would allow it, and how to ask.

use hyper::Response;
use hyper::body::Bytes;
use hyper::header::{CONNECTION, CONTENT_TYPE, HeaderName, HeaderValue};
use serde::Serialize;
use serde_json::{Value, json};

use super::body::Answer;
use crate::audit::Record;
use crate::reason::Reason;

static REASON: HeaderName = HeaderName::from_static("x-bottle-reason");

/// How an agent gets further.
const ASK: &str = "tell the operator: the route in `allow` is what the manifest lacks; \
                   trying other hosts, ports or spellings does not help";

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
    let denial = Denial {
        error: "bottle_denied",
        reason: reason.code(),
        message: reason.text(),
        method: record.method.as_ref().map(hyper::Method::as_str),
        host: record.host.as_deref(),
        port: record.port,
        path: record.path.as_deref(),
        allow: smallest_route(record),
        ask: ASK,
        id: &record.id,
    };
    respond(reason, serde_json::to_vec(&denial).unwrap_or_default())
}

/// The answer when there is no record, because records cannot be written.
pub(crate) fn unrecorded(reason: Reason) -> Response<Answer> {
    let denial =
        json!({"error": "bottle_denied", "reason": reason.code(), "message": reason.text()});
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
    let grantable = matches!(
        record.reason,
        Reason::HostNotAllowed
            | Reason::SchemeNotAllowed
            | Reason::PortNotAllowed
            | Reason::MethodNotAllowed
            | Reason::PathNotAllowed
    );
    if !git && !grantable {
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
