//! The front: a handful of exact requests, everything else refused.

use std::io;
use std::sync::Arc;
use std::time::Duration;

use hyper::body::Incoming;
use hyper::header::{CONTENT_ENCODING, LOCATION};
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper::{Request, Response, StatusCode};
use hyper_util::rt::{TokioIo, TokioTimer};

use super::answer::{Answer, Reply, error_for_git, text};
use super::backend::{self, Call, Tally};
use super::fetch;
use super::repo::Repo;
use super::run::Gate;
use super::wish::{Wish, protocol, wish};
use crate::audit::{Entry, Way};
use crate::listener::{Connection, Listener};
use crate::program::say;
use crate::reason::Reason;

/// How long a client may take for a head.
const HEAD_TIMEOUT: Duration = Duration::from_secs(30);

/// Accepts until the gate goes down.
pub(super) async fn serve(gate: Arc<Gate>, listener: Listener) {
    let mut draining = gate.draining.subscribe();
    loop {
        let accepted = tokio::select! {
            accepted = listener.accept() => accepted,
            _ = draining.wait_for(|draining| *draining) => return,
        };
        let Ok(stream) = accepted else {
            tokio::time::sleep(Duration::from_millis(50)).await;
            continue;
        };
        // Whoever is one too many waits for nothing: git tells its user that nobody answered.
        if let Ok(place) = gate.connections.clone().try_acquire_owned() {
            let gate = gate.clone();
            tokio::spawn(async move {
                attend(gate, stream).await;
                drop(place);
            });
        }
    }
}

async fn attend(gate: Arc<Gate>, stream: Connection) {
    let mut draining = gate.draining.subscribe();
    let service = service_fn(move |request| {
        let gate = gate.clone();
        async move { answer(&gate, request).await }
    });
    let connection = http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(HEAD_TIMEOUT)
        .max_buf_size(256 * 1024)
        .serve_connection(TokioIo::new(stream), service);
    let mut connection = std::pin::pin!(connection);
    // How a client's connection ends is its own affair.
    tokio::select! {
        _ = connection.as_mut() => return,
        _ = draining.wait_for(|draining| *draining) => connection.as_mut().graceful_shutdown(),
    }
    let _ = connection.await;
}

async fn answer(gate: &Arc<Gate>, request: Request<Incoming>) -> Reply {
    let Ok(mut entry) = gate.audit.begin(Way::Git).await else {
        return Ok(text(
            StatusCode::SERVICE_UNAVAILABLE,
            Reason::AuditUnavailable.text(),
        ));
    };
    let record = entry.record();
    record.method = Some(request.method().clone());
    record.path = Some(gate.secrets.shown(request.uri().path()).to_owned());
    record.host = Some("git-gate".into());
    let (name, wish) = match wish(&request) {
        Ok(found) => found,
        Err(reason) => return Ok(refuse(entry, reason)),
    };
    let Some(repo) = gate.repos.get(&name).cloned() else {
        if let (Wish::Refs { push: false }, Some(meant)) = (wish, meant(gate, &name)) {
            entry.record().status = Some(StatusCode::TEMPORARY_REDIRECT.as_u16());
            return Ok(redirect(&meant));
        }
        return Ok(match wish {
            Wish::Refs { push } => {
                let known: Vec<&str> = gate.repos.keys().map(String::as_str).collect();
                let message = format!(
                    "git-gate has no repository `{name}`; there are: {}",
                    known.join(", ")
                );
                refuse_to_git(entry, Reason::GitUnknownRepo, service(push), &message)
            }
            _ => refuse(entry, Reason::GitUnknownRepo),
        });
    };
    entry.record().host = Some(repo.host.clone());
    Ok(match wish {
        Wish::Refs { push } => refs(&repo, push, &request, entry).await,
        Wish::Fetch => objects(&repo, request, entry).await,
        Wish::Push => push(gate, &repo, request, entry).await,
    })
}

/// `insteadOf` takes beginnings: `https://host/o/app` also leads `https://host/o/app-other` here, as `app.git-other`. That
/// repository is none of the gate's, and what was meant is said again; whether egress lets it through is egress's affair.
fn meant(gate: &Gate, name: &str) -> Option<String> {
    gate.repos.values().find_map(|repo| {
        let rest = name
            .strip_prefix(repo.rules.name.as_str())?
            .strip_prefix(".git")?;
        let path = super::repo::path_of(&repo.rules.url);
        (!rest.is_empty()).then(|| format!("https://{}/{path}{rest}", repo.host))
    })
}

fn redirect(address: &str) -> Response<Answer> {
    let mut response = text(
        StatusCode::TEMPORARY_REDIRECT,
        "this is not behind the gate",
    );
    let location = format!("{address}.git/info/refs?service=git-upload-pack");
    if let Ok(location) = location.parse() {
        response.headers_mut().insert(LOCATION, location);
    }
    response
}

/// The advertisement. For a fetch the upstream is asked first. For a push it is not: what is refused must not be heard of
/// there, and the checks need nothing newer than what the mirror knows.
async fn refs(
    repo: &Arc<Repo>,
    push: bool,
    request: &Request<Incoming>,
    entry: Entry,
) -> Response<Answer> {
    let service = service(push);
    if push && repo.rules.refs.is_empty() {
        let message = format!("git-gate: {} can only be read", repo.rules.name);
        return refuse_to_git(entry, Reason::GitRefNotAllowed, service, &message);
    }
    let fresh = if push {
        fetch::ensure(repo).await
    } else {
        fetch::refresh(repo).await
    };
    if let Err(why) = fresh {
        say!("{}: {why}", repo.rules.name);
        return refuse_to_git(
            entry,
            Reason::UpstreamUnreachable,
            service,
            &format!("git-gate: {why}"),
        );
    }
    let call = Call {
        repo,
        method: "GET",
        place: "info/refs",
        query: if push {
            "service=git-receive-pack"
        } else {
            "service=git-upload-pack"
        },
        content_type: None,
        is_gzip: false,
        protocol: protocol(request.headers()),
        push: None,
    };
    run(&call, None, entry).await
}

async fn objects(repo: &Arc<Repo>, request: Request<Incoming>, entry: Entry) -> Response<Answer> {
    let is_gzip = match request
        .headers()
        .get(CONTENT_ENCODING)
        .map(|value| value.as_bytes())
    {
        None | Some(b"identity") => false,
        Some(b"gzip" | b"x-gzip") => true,
        Some(_) => return refuse(entry, Reason::RequestMalformed),
    };
    let call = Call {
        repo,
        method: "POST",
        place: "git-upload-pack",
        query: "",
        content_type: Some("application/x-git-upload-pack-request"),
        is_gzip,
        protocol: protocol(request.headers()),
        push: None,
    };
    run(&call, Some(request.into_body()), entry).await
}

async fn push(
    gate: &Arc<Gate>,
    repo: &Arc<Repo>,
    request: Request<Incoming>,
    mut entry: Entry,
) -> Response<Answer> {
    // Git does not compress a push; what does could grow without end in front of every check.
    let is_coded = request
        .headers()
        .get(CONTENT_ENCODING)
        .is_some_and(|value| value != "identity");
    if is_coded || repo.rules.refs.is_empty() {
        return refuse(
            entry,
            if is_coded {
                Reason::RequestMalformed
            } else {
                Reason::GitRefNotAllowed
            },
        );
    }
    let (number, push) = gate.pushes.begin(repo.clone());
    let call = Call {
        repo,
        method: "POST",
        place: "git-receive-pack",
        query: "",
        content_type: Some("application/x-git-receive-pack-request"),
        is_gzip: false,
        protocol: protocol(request.headers()),
        push: Some(number),
    };
    let running = match backend::start(&call) {
        Ok(running) => running,
        Err(error) => {
            gate.pushes.end(number);
            return broken(entry, &error);
        }
    };
    entry.record().status = Some(StatusCode::OK.as_u16());
    let (gate, held) = (gate.clone(), push.clone());
    let ended = move |tally: Tally| {
        gate.pushes.end(number);
        let record = entry.record();
        record.bytes_out = tally.from_agent;
        record.bytes_in = tally.to_agent;
        // Before a large push git sends four bytes to see whether it may. Whatever else asks no hook, git has refused.
        if !push.was_asked() && tally.from_agent > 4 {
            record.reason = Reason::GitPackRefused;
        }
    };
    match running
        .answer(Some(request.into_body()), Some(held), ended)
        .await
    {
        Ok(response) => response,
        Err(error) => {
            say!("git http-backend: {error}");
            text(StatusCode::BAD_GATEWAY, "git did not answer")
        }
    }
}

/// Runs git for a request that changes nothing.
async fn run(call: &Call<'_>, body: Option<Incoming>, mut entry: Entry) -> Response<Answer> {
    let running = match backend::start(call) {
        Ok(running) => running,
        Err(error) => return broken(entry, &error),
    };
    entry.record().status = Some(StatusCode::OK.as_u16());
    let ended = move |tally: Tally| {
        let record = entry.record();
        record.bytes_out = tally.from_agent;
        record.bytes_in = tally.to_agent;
    };
    match running.answer(body, None, ended).await {
        Ok(response) => response,
        Err(error) => {
            say!("git http-backend: {error}");
            text(StatusCode::BAD_GATEWAY, "git did not answer")
        }
    }
}

fn service(push: bool) -> &'static str {
    if push {
        "git-receive-pack"
    } else {
        "git-upload-pack"
    }
}

fn refuse(mut entry: Entry, reason: Reason) -> Response<Answer> {
    let status = if reason == Reason::GitUnknownRepo {
        StatusCode::NOT_FOUND
    } else {
        reason.status()
    };
    let record = entry.record();
    record.reason = reason;
    record.status = Some(status.as_u16());
    text(status, reason.text())
}

fn refuse_to_git(
    mut entry: Entry,
    reason: Reason,
    service: &str,
    message: &str,
) -> Response<Answer> {
    let record = entry.record();
    record.reason = reason;
    record.status = Some(StatusCode::OK.as_u16());
    error_for_git(service, message)
}

fn broken(mut entry: Entry, error: &io::Error) -> Response<Answer> {
    say!("cannot start git: {error}");
    let record = entry.record();
    record.reason = Reason::UpstreamFailed;
    record.status = Some(StatusCode::BAD_GATEWAY.as_u16());
    text(StatusCode::BAD_GATEWAY, "git did not start")
}
