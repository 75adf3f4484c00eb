//! Connections that were led here by the DNS responder: they believe they are talking to the destination.

use std::sync::Arc;

use hyper::service::service_fn;
use tokio::io::AsyncWriteExt;

use super::listen::{self, Guard, HEAD_TIMEOUT};
use super::session::{Session, Target};
use super::wire::Wire;
use super::{Local, tunnel};
use crate::audit::{Entry, Way};
use crate::authority::Authority;
use crate::listener::Connection;
use crate::policy::{Scheme, Tls};
use crate::reason::Reason;

/// What the client thinks it connected to, whatever port we listen on.
const HTTPS: u16 = 443;
const HTTP: u16 = 80;

/// A fatal TLS alert, `access_denied`: the one word we can say before there is a certificate.
const ACCESS_DENIED: &[u8] = &[0x15, 3, 3, 0, 2, 2, 49];

/// Serves one connection to the HTTP port.
pub(crate) async fn serve_http(local: Arc<Local>, stream: Connection, _guard: Guard) {
    let session = Session::new(local, Way::Transparent, Target::Led(HTTP));
    let asked = session.clone();
    let service = service_fn(move |request| asked.clone().answer(request));
    listen::serve(&session, stream, HEAD_TIMEOUT, service).await;
}

/// Serves one connection to the HTTPS port.
pub(crate) async fn serve_https(local: Arc<Local>, stream: Connection, _guard: Guard) {
    let Ok(mut entry) = local.egress.audit.begin(Way::Transparent).await else {
        return;
    };
    if let Err(reason) = take_over(&local, stream, &mut entry).await {
        entry.record().reason = reason;
    }
}

async fn take_over(
    local: &Arc<Local>,
    stream: Connection,
    entry: &mut Entry,
) -> Result<(), Reason> {
    let hello = tunnel::hello(stream, &[]).await?;
    let host = hello.name.ok_or(Reason::SniMissing)?;
    let to = Authority { host, port: HTTPS };
    let record = entry.record();
    let policy = local.egress.policy();
    record.host = Some(policy.clean(to.host.as_str()).into());
    record.port = Some(to.port);
    let decision = policy.decide_destination(Scheme::Https, to.host.as_str(), to.port);
    record.rule = decision
        .route
        .map(|route| policy.routes[route].rule.clone());
    let route = match decision.route {
        Some(route) if decision.is_allowed() => route,
        _ => return Err(deny(decision.reason, hello.stream).await),
    };
    if let Err(reason) = policy.check_host(route, to.host.as_str()) {
        return Err(deny(reason, hello.stream).await);
    }
    match policy.routes[route].tls() {
        Tls::Inspect => {
            let session = Session::new(
                local.clone(),
                Way::Transparent,
                Target::Tunnel(Arc::new(to)),
            );
            tunnel::inspect(&local.egress, session, hello.stream, entry).await
        }
        Tls::Passthrough if hello.is_hidden => Err(deny(Reason::SniHidden, hello.stream).await),
        Tls::Passthrough => {
            let far = match tunnel::reach(&local.egress, &policy, route, &to).await {
                Ok(far) => far,
                Err(reason) => return Err(deny(reason, hello.stream).await),
            };
            tunnel::pass(&local.egress, &to, hello.stream, far, entry).await;
            Ok(())
        }
    }
}

async fn deny(reason: Reason, mut stream: Wire<Connection>) -> Reason {
    // The client may be gone; the record has the reason in any case.
    let _ = stream.write_all(ACCESS_DENIED).await;
    let _ = stream.shutdown().await;
    reason
}
