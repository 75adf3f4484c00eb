//! The explicit proxy: `CONNECT` for TLS, absolute URLs for plain HTTP.

use std::convert::Infallible;
use std::sync::Arc;

use hyper::body::Incoming;
use hyper::header::{HOST, HeaderValue};
use hyper::service::service_fn;
use hyper::upgrade::OnUpgrade;
use hyper::{Method, Request, Response};
use hyper_util::rt::TokioIo;
use tokio::net::TcpStream;

use super::body::Answer;
use super::listen::{self, Guard, HEAD_TIMEOUT};
use super::session::{Session, Target, refuse};
use super::upstream::Upstream;
use super::{Egress, denial, tunnel};
use crate::audit::{Entry, Way};
use crate::authority::Authority;
use crate::policy::{Scheme, Tls};
use crate::reason::Reason;

/// The destination's end of a tunnel, open before the client hears of it.
enum Far {
    Inspected(Upstream),
    Passed(TcpStream),
}

/// Serves one connection to the proxy port.
pub(crate) async fn serve(egress: Arc<Egress>, stream: TcpStream, guard: Guard) {
    let session = Session::new(egress.clone(), Way::Proxy, Target::Asked, None);
    let shared = egress.clone();
    let service = service_fn(move |request: Request<Incoming>| {
        let (session, egress, guard) = (session.clone(), shared.clone(), guard.clone());
        async move {
            if request.method() == Method::CONNECT {
                connect(egress, guard, request).await
            } else {
                session.answer(request).await
            }
        }
    });
    listen::serve(&egress, stream, HEAD_TIMEOUT, service).await;
}

/// Answers `CONNECT`: yes only when the destination has been reached and is who it says.
async fn connect(
    egress: Arc<Egress>,
    guard: Guard,
    mut request: Request<Incoming>,
) -> Result<Response<Answer>, Infallible> {
    let mut entry = match egress.audit.begin(Way::Proxy).await {
        Ok(entry) => entry,
        Err(reason) => return Ok(denial::unrecorded(reason)),
    };
    let (to, far) = match open(&egress, &request, &mut entry).await {
        Ok(opened) => opened,
        Err(reason) => return Ok(refuse(reason, &mut entry)),
    };
    let upgrade = hyper::upgrade::on(&mut request);
    tokio::spawn(async move {
        run(egress, upgrade, to, far, entry).await;
        // The connection counts until its tunnel ends.
        drop(guard);
    });
    Ok(Response::new(Answer::Own(None)))
}

async fn open(
    egress: &Egress,
    request: &Request<Incoming>,
    entry: &mut Entry,
) -> Result<(Authority, Far), Reason> {
    let record = entry.record();
    record.method = Some(Method::CONNECT);
    let name = request
        .uri()
        .authority()
        .ok_or(Reason::RequestMalformed)?
        .as_str();
    // Kept as it was sent until it is known to be a name.
    record.host = Some(egress.policy().clean(name).into());
    let to = Authority::parse(name.as_bytes(), None)?;
    record.host = Some(to.host.as_str().into());
    record.port = Some(to.port);
    let mut hosts = request
        .headers()
        .get_all(HOST)
        .iter()
        .map(HeaderValue::as_bytes);
    if !hosts.all(|host| to.agrees_with(host, to.port)) {
        return Err(Reason::AuthorityMismatch);
    }

    let policy = egress.policy();
    let decision = policy.decide_destination(Scheme::Https, to.host.as_str(), to.port);
    record.rule = decision
        .route
        .map(|route| policy.routes[route].rule.clone());
    let route = match decision.route {
        Some(route) if decision.is_allowed() => route,
        _ => return Err(decision.reason),
    };
    let far = match policy.routes[route].tls() {
        Tls::Inspect => {
            Far::Inspected(Upstream::open(egress, policy, route, Scheme::Https, to.clone()).await?)
        }
        Tls::Passthrough => Far::Passed(egress.dialer.tcp(&policy, route, &to).await?),
    };
    Ok((to, far))
}

/// Takes over the client's end after the answer went out.
async fn run(egress: Arc<Egress>, upgrade: OnUpgrade, to: Authority, far: Far, mut entry: Entry) {
    let Ok(upgraded) = upgrade.await else { return };
    // The connection is our own TCP stream again, with whatever the client sent ahead.
    let Ok(parts) = upgraded.downcast::<TokioIo<TcpStream>>() else {
        return;
    };
    if let Err(reason) = take_over(
        &egress,
        parts.io.into_inner(),
        &parts.read_buf,
        to,
        far,
        &mut entry,
    )
    .await
    {
        entry.record().reason = reason;
    }
}

async fn take_over(
    egress: &Arc<Egress>,
    stream: TcpStream,
    read: &[u8],
    to: Authority,
    far: Far,
    entry: &mut Entry,
) -> Result<(), Reason> {
    let hello = tunnel::hello(stream, read).await?;
    if hello.name.ok_or(Reason::SniMissing)? != to.host {
        return Err(Reason::AuthorityMismatch);
    }
    match far {
        Far::Inspected(upstream) => {
            let upstream = Some(upstream);
            tunnel::inspect(
                egress.clone(),
                Way::Proxy,
                to,
                upstream,
                hello.stream,
                entry,
            )
            .await
        }
        Far::Passed(server) => {
            tunnel::pass(egress, &to, hello.stream, server, entry).await;
            Ok(())
        }
    }
}
