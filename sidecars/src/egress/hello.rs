//! The first bytes of a connection that should be TLS: who does the client want to talk to?
//!
//! They are read, looked at and kept, so that whoever takes the connection over (our TLS or, for a route that
//! is passed through, the destination) sees the stream from its beginning.

use bottle_plan::host::Host;
use rustls::server::Acceptor;
use tokio::io::{AsyncRead, AsyncReadExt};

use super::wire::Wire;
use crate::authority::parse_host;
use crate::reason::Reason;

/// The content type of a TLS handshake record.
const HANDSHAKE: u8 = 0x16;
/// A hello is some hundred bytes, with post-quantum keys under 2 KiB.
const MAX_HELLO: usize = 16 * 1024;

/// What the client said, and its connection with nothing taken out.
pub(crate) struct Hello<S> {
    pub(crate) name: Option<Host>,
    pub(crate) stream: Wire<S>,
}

/// Reads a ClientHello. `read` is what came in before.
pub(crate) async fn read<S: AsyncRead + Unpin>(
    mut stream: S,
    read: &[u8],
) -> Result<Hello<S>, Reason> {
    let mut buffer = read.to_vec();
    let mut acceptor = Acceptor::default();
    let mut fed = 0;
    loop {
        if buffer.first().is_some_and(|&first| first != HANDSHAKE) {
            return Err(Reason::NotTls);
        }
        while fed < buffer.len() {
            fed += acceptor
                .read_tls(&mut &buffer[fed..])
                .map_err(|_| Reason::NotTls)?;
            let accepted = acceptor.accept().map_err(|_| Reason::NotTls)?;
            if let Some(accepted) = accepted {
                let name = accepted
                    .client_hello()
                    .server_name()
                    .map(|name| parse_host(name.as_bytes()))
                    .transpose()?;
                return Ok(Hello {
                    name,
                    stream: Wire::replay(buffer, stream),
                });
            }
        }
        if buffer.len() >= MAX_HELLO {
            return Err(Reason::NotTls);
        }
        if stream
            .read_buf(&mut buffer)
            .await
            .map_err(|_| Reason::NotTls)?
            == 0
        {
            return Err(Reason::NotTls);
        }
    }
}
