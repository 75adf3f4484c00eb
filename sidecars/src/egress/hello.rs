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
/// The extensions in which a client hides the name it means: Encrypted Client Hello, and the draft it came from.
const HIDING: [u16; 2] = [0xfe0d, 0xffce];

/// What the client said, and its connection with nothing taken out.
pub(crate) struct Hello<S> {
    pub(crate) name: Option<Host>,
    /// Whether it may mean another name than it shows.
    pub(crate) is_hidden: bool,
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
                    is_hidden: is_hidden(&buffer),
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

/// What cannot be read here, although TLS has read it, hides something.
fn is_hidden(records: &[u8]) -> bool {
    let mut message = Vec::with_capacity(records.len());
    let mut rest = records;
    // A hello may be cut into records anywhere.
    while let [HANDSHAKE, _, _, high, low, after @ ..] = rest {
        let length = usize::from(u16::from_be_bytes([*high, *low])).min(after.len());
        message.extend_from_slice(&after[..length]);
        rest = &after[length..];
    }
    extensions(&message).is_none_or(|all| all.iter().any(|kind| HIDING.contains(kind)))
}

/// The types of a ClientHello's extensions.
fn extensions(message: &[u8]) -> Option<Vec<u16>> {
    // The kind and length of the message, the version, the random.
    let mut rest = message.get(1 + 3 + 2 + 32..)?;
    // The session, the cipher suites, the compressions.
    for width in [1, 2, 1] {
        take(&mut rest, width)?;
    }
    if rest.is_empty() {
        return Some(Vec::new());
    }
    let mut list = take(&mut rest, 2)?;
    let mut all = Vec::new();
    while !list.is_empty() {
        all.push(u16::from_be_bytes(*list.first_chunk()?));
        list = list.get(2..)?;
        take(&mut list, 2)?;
    }
    Some(all)
}

/// A field whose length stands before it in so many bytes.
fn take<'a>(rest: &mut &'a [u8], width: usize) -> Option<&'a [u8]> {
    let (length, after) = rest.split_at_checked(width)?;
    let length = length
        .iter()
        .fold(0, |sum, &byte| sum << 8 | usize::from(byte));
    let (field, after) = after.split_at_checked(length)?;
    *rest = after;
    Some(field)
}
