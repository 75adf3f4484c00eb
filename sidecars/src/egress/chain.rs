//! An operator's own proxy between this one and the world: every connection goes through it with `CONNECT`.
//!
//! It resolves the names, so the addresses behind them are its business; the only address that is dialled from
//! here is its own, which the operator wrote down. Routes that list private ranges go direct: they name
//! networks that are reached from here, and their addresses are checked as always.

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use zeroize::Zeroizing;

use super::dial::{self, Network};
use crate::authority::Authority;
use crate::path::decode_lossy;
use crate::program::say;
use crate::reason::Reason;

/// The longest answer to `CONNECT`.
const MAX_HEAD: usize = 8 * 1024;

/// The proxy behind this one.
pub(crate) struct Chain {
    host: Box<str>,
    port: u16,
    /// `user:password` in base64.
    credentials: Option<Zeroizing<String>>,
}

impl Chain {
    /// Reads `http://[user:password@]host:port`. The problem never repeats the text: it may hold a password.
    pub(crate) fn parse(text: &str) -> Result<Self, &'static str> {
        let rest = text
            .strip_prefix("http://")
            .ok_or("must begin with http://")?;
        let rest = rest.strip_suffix('/').unwrap_or(rest);
        let (user, place) = match rest.rsplit_once('@') {
            Some((user, place)) => (Some(user), place),
            None => (None, rest),
        };
        let (host, port) = place.rsplit_once(':').ok_or("must name a port")?;
        let port = port
            .parse()
            .ok()
            .filter(|port| *port != 0)
            .ok_or("has a port that is not a number")?;
        let host = host
            .strip_prefix('[')
            .and_then(|host| host.strip_suffix(']'))
            .unwrap_or(host);
        let is_name = |b: u8| b.is_ascii_alphanumeric() || b".-_:".contains(&b);
        if host.is_empty() || !host.bytes().all(is_name) {
            return Err("has no plain host");
        }
        let credentials = user.map(|user| {
            let plain = Zeroizing::new(decode_lossy(user.as_bytes()).into_owned());
            Zeroizing::new(STANDARD.encode(&*plain))
        });
        Ok(Self {
            host: host.into(),
            port,
            credentials,
        })
    }

    /// A connection to the destination through the proxy.
    pub(crate) async fn connect(
        &self,
        network: &dyn Network,
        to: &Authority,
    ) -> Result<TcpStream, Reason> {
        let mut stream = self.reach(network).await?;
        let mut head = Zeroizing::new(format!("CONNECT {to} HTTP/1.1\r\nHost: {to}\r\n"));
        if let Some(credentials) = &self.credentials {
            head.push_str("Proxy-Authorization: Basic ");
            head.push_str(credentials);
            head.push_str("\r\n");
        }
        head.push_str("\r\n");
        let failed = |_| Reason::UpstreamUnreachable;
        stream.write_all(head.as_bytes()).await.map_err(failed)?;
        let answer = read_head(&mut stream).await?;
        if !is_success(&answer) {
            let line = answer.split(|&b| b == b'\r').next().unwrap_or_default();
            say!("the upstream proxy refused {to}: {}", line.escape_ascii());
            return Err(Reason::UpstreamUnreachable);
        }
        Ok(stream)
    }

    async fn reach(&self, network: &dyn Network) -> Result<TcpStream, Reason> {
        let addresses = match self.host.parse() {
            Ok(address) => vec![address],
            Err(_) => network
                .resolve(&self.host)
                .await
                .map_err(|_| Reason::DnsFailed)?,
        };
        dial::connect(network, &addresses, self.port).await
    }
}

/// Reads exactly the head: what follows belongs to the destination.
async fn read_head(stream: &mut TcpStream) -> Result<Vec<u8>, Reason> {
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        // A byte at a time is slow and right; it happens once a connection.
        match stream.read_u8().await {
            Ok(byte) if head.len() < MAX_HEAD => head.push(byte),
            _ => return Err(Reason::UpstreamUnreachable),
        }
    }
    Ok(head)
}

fn is_success(head: &[u8]) -> bool {
    let rest = head
        .strip_prefix(b"HTTP/1.1 ")
        .or_else(|| head.strip_prefix(b"HTTP/1.0 "));
    rest.is_some_and(|rest| {
        rest.first() == Some(&b'2') && matches!(rest.get(3), Some(b' ' | b'\r'))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn spellings() {
        for (text, host, port, credentials) in [
            ("http://proxy.corp:3128", "proxy.corp", 3128, None),
            ("http://10.0.0.1:80/", "10.0.0.1", 80, None),
            ("http://[fd00::1]:8080", "fd00::1", 8080, None),
            ("http://u:p%40ss@proxy:1", "proxy", 1, Some("dTpwQHNz")),
        ] {
            let chain = Chain::parse(text).map_err(str::to_owned).unwrap();
            assert_eq!((&*chain.host, chain.port), (host, port));
            assert_eq!(
                chain.credentials.as_deref().map(String::as_str),
                credentials
            );
        }
        for text in [
            "",
            "proxy:3128",
            "https://proxy:3128",
            "http://proxy",
            "http://:3128",
            "http://proxy:0",
            "http://proxy:x",
            "http://pro xy:1",
            "http://proxy:1/path",
        ] {
            assert!(Chain::parse(text).is_err(), "{text}");
        }
    }

    #[test]
    fn answers() {
        assert!(is_success(b"HTTP/1.1 200 Connection established\r\n\r\n"));
        assert!(is_success(b"HTTP/1.0 200\r\n\r\n"));
        for head in [
            "HTTP/1.1 407 x\r\n\r\n",
            "HTTP/1.1 2000\r\n\r\n",
            "SSH-2.0\r\n\r\n",
            "HTTP/1.1 20\r\n\r\n",
        ] {
            assert!(!is_success(head.as_bytes()), "{head}");
        }
    }
}
