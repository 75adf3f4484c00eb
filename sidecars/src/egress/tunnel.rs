//! What happens to a connection that speaks TLS: opened with the bottle's CA, or passed through closed.

use std::sync::Arc;
use std::time::Duration;

use hyper::service::service_fn;
use tokio::io::{AsyncRead, AsyncWrite, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::time::timeout;

use super::flow::{IDLE, Silence, Tally};
use super::hello::{self, Hello};
use super::listen::{self, KEEP_ALIVE};
use super::pool::Place;
use super::session::Session;
use super::wire::Wire;
use super::{Egress, h2};
use crate::audit::Entry;
use crate::authority::Authority;
use crate::policy::{Policy, Scheme};
use crate::reason::Reason;

/// How long a client has for its hello and its half of the handshake.
const HANDSHAKE_TIMEOUT: Duration = Duration::from_secs(10);

/// Reads who the client wants to talk to.
pub(crate) async fn hello<S: AsyncRead + Unpin>(
    stream: S,
    read: &[u8],
) -> Result<Hello<S>, Reason> {
    timeout(HANDSHAKE_TIMEOUT, hello::read(stream, read))
        .await
        .unwrap_or(Err(Reason::ClientTimeout))
}

/// Opens the TLS and serves the requests inside; each has a record of its own, so `entry` is for what goes wrong
/// before.
pub(crate) async fn inspect<S>(
    egress: &Egress,
    session: Arc<Session>,
    stream: Wire<S>,
    entry: &mut Entry,
) -> Result<(), Reason>
where
    S: AsyncRead + AsyncWrite + Send + Unpin + 'static,
{
    let stream = match timeout(HANDSHAKE_TIMEOUT, egress.acceptor.accept(stream)).await {
        Ok(Ok(stream)) => stream,
        Ok(Err(_)) => return Err(Reason::TlsHandshakeFailed),
        Err(_) => return Err(Reason::ClientTimeout),
    };
    session.set_opened(entry);
    if stream.get_ref().1.alpn_protocol() == Some(b"h2") {
        h2::serve(egress, stream, session).await;
    } else {
        let asked = session.clone();
        let service = service_fn(move |request| asked.clone().answer(request));
        listen::serve(&session, stream, KEEP_ALIVE, service).await;
    }
    Ok(())
}

/// The destination's end of a tunnel that is passed through, and its place among those to the same host.
pub(crate) struct Far(TcpStream, Place);

/// Connects to a destination whose TLS is its own affair.
pub(crate) async fn reach(
    egress: &Egress,
    policy: &Policy,
    route: usize,
    to: &Authority,
) -> Result<Far, Reason> {
    let place = egress.hosts.place(&to.host).await?;
    Ok(Far(egress.dialer.tcp(policy, route, to).await?, place))
}

/// Joins both sides without looking, until one ends, both are silent or the policy no longer allows it.
pub(crate) async fn pass<S>(
    egress: &Egress,
    to: &Authority,
    mut client: Wire<S>,
    Far(mut server, _place): Far,
    entry: &mut Entry,
) where
    S: AsyncRead + AsyncWrite + Unpin,
{
    let mut tally = Tally::new(entry);
    let silence = Silence::new();
    let mut policies = egress.policy.subscribe();
    let (client_read, client_write) = tokio::io::split(&mut client);
    let (server_read, server_write) = server.split();
    let revoked = async {
        let still = |policy: &Arc<Policy>| is_passed(policy, to);
        // An error means the proxy is going down, which ends the tunnel as well.
        let _ = policies.wait_for(|policy| !still(policy)).await;
    };
    tokio::select! {
        _ = async { tokio::join!(
            copy(client_read, server_write, &silence, &mut tally.sent),
            copy(server_read, client_write, &silence, &mut tally.received),
        ) } => {}
        () = revoked => tally.reason = Some(Reason::PolicyChanged),
    }
}

fn is_passed(policy: &Policy, to: &Authority) -> bool {
    let decision = policy.decide_destination(Scheme::Https, to.host.as_str(), to.port);
    decision.is_allowed()
}

async fn copy(
    mut from: impl AsyncRead + Unpin,
    mut to: impl AsyncWrite + Unpin,
    silence: &Silence,
    count: &mut u64,
) {
    let mut buffer = Vec::with_capacity(16 * 1024);
    while let Some(read) = silence.read(&mut from, &mut buffer).await {
        *count += read as u64;
        if !matches!(timeout(IDLE, to.write_all(&buffer)).await, Ok(Ok(()))) {
            break;
        }
        buffer.clear();
    }
    // The other side may be gone already.
    let _ = to.shutdown().await;
}
