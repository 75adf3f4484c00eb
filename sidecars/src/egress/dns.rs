//! The bottle's name server: allowed names have this sidecar's address, all others do not exist. Nothing is
//! ever asked of anyone else, so a name cannot carry anything out.

use std::sync::Arc;
use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::UdpSocket;
use tokio::time::{sleep, timeout};

use super::Egress;
use crate::audit::Way;
use crate::authority::parse_host;
use crate::dns_message::{Outcome, answer};
use crate::listener::{Connection, Listener};
use crate::reason::Reason;

/// The largest question over UDP; longer ones are not sent by resolvers.
const MAX_QUESTION: usize = 1232;
/// How long a client of a stream may be silent.
const IDLE: Duration = Duration::from_secs(10);
/// The pause after a failed accept or receive.
const BACK_OFF: Duration = Duration::from_millis(50);

/// Answers over UDP.
pub(crate) async fn serve_udp(egress: Arc<Egress>, socket: UdpSocket) {
    let mut buffer = vec![0; MAX_QUESTION];
    loop {
        let Ok((length, client)) = socket.recv_from(&mut buffer).await else {
            sleep(BACK_OFF).await;
            continue;
        };
        if let Some(reply) = respond(&egress, &buffer[..length]).await {
            // A resolver that is gone asks again or does not.
            let _ = socket.send_to(&reply, client).await;
        }
    }
}

/// Answers over TCP, or whatever else is a stream.
pub(crate) async fn serve_streams(egress: Arc<Egress>, listener: Listener) {
    loop {
        let Ok(stream) = listener.accept().await else {
            sleep(BACK_OFF).await;
            continue;
        };
        let Ok(place) = egress.connections.clone().try_acquire_owned() else {
            continue;
        };
        let egress = egress.clone();
        tokio::spawn(async move {
            // However it ends, it ends with this connection only.
            let _ = timeout(IDLE, converse(&egress, stream)).await;
            drop(place);
        });
    }
}

async fn converse(egress: &Egress, mut stream: Connection) -> std::io::Result<()> {
    loop {
        let length = stream.read_u16().await?;
        let mut question = vec![0; usize::from(length)];
        stream.read_exact(&mut question).await?;
        let Some(reply) = respond(egress, &question).await else {
            return Ok(());
        };
        let length = u16::try_from(reply.len()).map_err(std::io::Error::other)?;
        let message = [length.to_be_bytes().as_slice(), &reply].concat();
        stream.write_all(&message).await?;
    }
}

/// The reply; none to what is no question, or when a refusal cannot be recorded.
async fn respond(egress: &Egress, question: &[u8]) -> Option<Vec<u8>> {
    let policy = egress.policy();
    let knows = |name: &[u8]| parse_host(name).is_ok_and(|host| policy.knows(host.as_str()));
    match answer(question, policy.listen, knows) {
        Outcome::Silence => None,
        Outcome::Answered(reply) => Some(reply),
        Outcome::Refused { reply, name } => {
            let mut entry = egress.audit.begin(Way::Dns).await.ok()?;
            let record = entry.record();
            record.host = Some(policy.clean(&String::from_utf8_lossy(&name)).into());
            record.reason = Reason::DnsRefused;
            Some(reply)
        }
    }
}
