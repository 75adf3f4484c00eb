//! The explicit proxy: `CONNECT` for TLS, absolute URLs for plain HTTP.

use std::convert::Infallible;
use std::sync::Arc;

use hyper::body::Incoming;
use hyper::header::{HOST, HeaderValue};
use hyper::service::service_fn;
use hyper::upgrade::OnUpgrade;
use hyper::{Method, Request, Response};
use hyper_util::rt::TokioIo;

use super::body::Answer;
use super::heads::{BadHead, Heads};
use super::listen::{self, Guard, HEAD_TIMEOUT};
use super::session::{Session, Target, refuse};
use super::tunnel::{self, Far};
use super::upstream::{Upstream, Wanted};
use super::{Local, denial};
use crate::audit::{Entry, Way};
use crate::authority::Authority;
use crate::listener::Connection;
use crate::policy::{Scheme, Tls};
use crate::reason::Reason;

/// A tunnel whose destination was reached before the client hears of it.
struct Open {
    to: Arc<Authority>,
    /// There if the TLS is passed through; otherwise the connection waits in the pool.
    far: Option<Far>,
}

/// Serves one connection to the proxy port.
pub(crate) async fn serve(local: Arc<Local>, stream: Connection, guard: Guard) {
    let session = Session::new(local.clone(), Way::Proxy, Target::Asked);
    let asked = session.clone();
    let service = service_fn(move |request: Request<Incoming>| {
        let (session, local, guard) = (asked.clone(), local.clone(), guard.clone());
        async move {
            if request.method() == Method::CONNECT {
                connect(local, guard, request).await
            } else {
                session.answer(request).await
            }
        }
    });
    listen::serve(&session, stream, HEAD_TIMEOUT, service).await;
}

/// Answers `CONNECT`: yes only when the destination has been reached and is who it says.
async fn connect(
    local: Arc<Local>,
    guard: Guard,
    mut request: Request<Incoming>,
) -> Result<Response<Answer>, Infallible> {
    let mut entry = match local.egress.audit.begin(Way::Proxy).await {
        Ok(entry) => entry,
        Err(reason) => return Ok(denial::unrecorded(reason)),
    };
    let open = match open(&local, &request, &mut entry).await {
        Ok(open) => open,
        Err(reason) => return Ok(refuse(reason, &mut entry)),
    };
    let upgrade = hyper::upgrade::on(&mut request);
    tokio::spawn(async move {
        run(local, upgrade, open, entry).await;
        // The connection counts until its tunnel ends.
        drop(guard);
    });
    Ok(Response::new(Answer::Own(None)))
}

async fn open(
    local: &Local,
    request: &Request<Incoming>,
    entry: &mut Entry,
) -> Result<Open, Reason> {
    let egress = &local.egress;
    let record = entry.record();
    record.method = Some(Method::CONNECT);
    if request.extensions().get::<BadHead>().is_some() {
        return Err(Reason::RequestMalformed);
    }
    let name = request
        .uri()
        .authority()
        .ok_or(Reason::RequestMalformed)?
        .as_str();
    // Kept as it was sent until it is known to be a name.
    record.host = Some(egress.policy().clean(name).into());
    let to = Authority::parse(name.as_bytes(), None)?;
    record.host = Some(egress.policy().clean(to.host.as_str()).into());
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
    policy.check_host(route, to.host.as_str())?;
    let to = Arc::new(to);
    let far = match policy.routes[route].tls() {
        Tls::Inspect => {
            let wanted = Wanted {
                policy: &policy,
                route,
                scheme: Scheme::Https,
                to: &to,
                // What the client speaks shows later. A connection for HTTP/1 serves most of them.
                h2: false,
            };
            if !local.pool.reaches(&wanted) {
                local.pool.put(Upstream::open(egress, &wanted).await?);
            }
            None
        }
        Tls::Passthrough => Some(tunnel::reach(egress, &policy, route, &to).await?),
    };
    Ok(Open { to, far })
}

/// Takes over the client's end after the answer went out.
async fn run(local: Arc<Local>, upgrade: OnUpgrade, open: Open, mut entry: Entry) {
    let Ok(upgraded) = upgrade.await else { return };
    // The connection is our own again, with whatever the client sent ahead.
    let Ok(parts) = upgraded.downcast::<TokioIo<Heads<Connection>>>() else {
        return;
    };
    let (stream, read) = (parts.io.into_inner().into_inner(), parts.read_buf);
    if let Err(reason) = take_over(local, stream, &read, open, &mut entry).await {
        entry.record().reason = reason;
    }
}

async fn take_over(
    local: Arc<Local>,
    stream: Connection,
    read: &[u8],
    Open { to, far }: Open,
    entry: &mut Entry,
) -> Result<(), Reason> {
    let hello = tunnel::hello(stream, read).await?;
    if hello.name.ok_or(Reason::SniMissing)? != to.host {
        return Err(Reason::AuthorityMismatch);
    }
    let egress = local.egress.clone();
    match far {
        None => {
            let session = Session::new(local, Way::Proxy, Target::Tunnel(to));
            tunnel::inspect(&egress, session, hello.stream, entry).await
        }
        // Nothing but the name is known of what goes through.
        Some(_) if hello.is_hidden => Err(Reason::SniHidden),
        Some(far) => {
            tunnel::pass(&egress, &to, hello.stream, far, entry).await;
            Ok(())
        }
    }
}
