//! Where a sidecar listens: at an address of the bottle's network, or, where the agent has none, at a socket in a folder
//! that it can only look into.

use std::fs::{self, Permissions};
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::pin::Pin;
use std::task::{Context, Poll};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::{TcpListener, TcpStream, UnixListener, UnixStream};

/// Everybody may connect who is given the folder; the one around it on the host is 0700.
const FOR_THE_AGENT: u32 = 0o666;

/// All the places of one sidecar.
#[derive(Clone, Debug)]
pub(crate) struct Side {
    /// The sidecar's address as the agent knows it.
    pub(crate) address: IpAddr,
    /// The folder of its sockets, when it has no network in common with the agent.
    pub(crate) sockets: Option<PathBuf>,
}

impl Side {
    /// Listens for what the agent finds at `port`; `name` is the socket's.
    pub(crate) async fn listen(&self, name: &str, port: u16) -> io::Result<Listener> {
        match &self.sockets {
            None => TcpListener::bind((self.address, port))
                .await
                .map(Listener::Tcp),
            Some(folder) => bind(&folder.join(name)).map(Listener::Unix),
        }
    }

    /// Where that is, for a message.
    pub(crate) fn told(&self, name: &str, port: u16) -> String {
        match &self.sockets {
            None => format!("{} port {port}", self.address),
            Some(folder) => folder.join(name).display().to_string(),
        }
    }
}

/// Makes a socket; one that an earlier run left behind is replaced.
fn bind(path: &Path) -> io::Result<UnixListener> {
    let _ = fs::remove_file(path);
    let listener = UnixListener::bind(path)?;
    fs::set_permissions(path, Permissions::from_mode(FOR_THE_AGENT))?;
    Ok(listener)
}

/// Accepts connections.
pub(crate) enum Listener {
    Tcp(TcpListener),
    Unix(UnixListener),
}

impl Listener {
    pub(crate) async fn accept(&self) -> io::Result<Connection> {
        match self {
            Self::Tcp(listener) => {
                let (stream, _) = listener.accept().await?;
                // What an exchange writes last must not wait for an answer to what it wrote first.
                stream.set_nodelay(true)?;
                Ok(Connection::Tcp(stream))
            }
            Self::Unix(listener) => Ok(Connection::Unix(listener.accept().await?.0)),
        }
    }

    /// Its address; none, when it is a socket in a folder.
    pub(crate) fn address(&self) -> Option<SocketAddr> {
        match self {
            Self::Tcp(listener) => listener.local_addr().ok(),
            Self::Unix(_) => None,
        }
    }
}

/// A connection of the agent's.
pub(crate) enum Connection {
    Tcp(TcpStream),
    Unix(UnixStream),
}

/// A connection on its way to another thread.
pub(crate) enum Parked {
    Tcp(std::net::TcpStream),
    Unix(std::os::unix::net::UnixStream),
}

impl Connection {
    pub(crate) fn park(self) -> io::Result<Parked> {
        match self {
            Self::Tcp(stream) => stream.into_std().map(Parked::Tcp),
            Self::Unix(stream) => stream.into_std().map(Parked::Unix),
        }
    }
}

impl Parked {
    /// Goes on in the scheduler of this thread.
    pub(crate) fn resume(self) -> io::Result<Connection> {
        match self {
            Self::Tcp(stream) => TcpStream::from_std(stream).map(Connection::Tcp),
            Self::Unix(stream) => UnixStream::from_std(stream).map(Connection::Unix),
        }
    }
}

/// The same call to whichever it is.
macro_rules! pass_on {
    ($connection:expr, $stream:ident => $call:expr) => {
        match $connection {
            Connection::Tcp($stream) => $call,
            Connection::Unix($stream) => $call,
        }
    };
}

impl AsyncRead for Connection {
    fn poll_read(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        out: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        pass_on!(self.get_mut(), stream => Pin::new(stream).poll_read(cx, out))
    }
}

impl AsyncWrite for Connection {
    fn poll_write(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        data: &[u8],
    ) -> Poll<io::Result<usize>> {
        pass_on!(self.get_mut(), stream => Pin::new(stream).poll_write(cx, data))
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        data: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        pass_on!(self.get_mut(), stream => Pin::new(stream).poll_write_vectored(cx, data))
    }

    fn is_write_vectored(&self) -> bool {
        pass_on!(self, stream => stream.is_write_vectored())
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        pass_on!(self.get_mut(), stream => Pin::new(stream).poll_flush(cx))
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        pass_on!(self.get_mut(), stream => Pin::new(stream).poll_shutdown(cx))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

    async fn says_hello(listener: Listener, client: impl AsyncRead + AsyncWrite + Unpin) {
        let mut client = client;
        let mut connection = listener
            .accept()
            .await
            .and_then(Connection::park)
            .and_then(Parked::resume)
            .expect("a connection");
        connection.write_all(b"hello").await.expect("writes");
        connection.shutdown().await.expect("ends");
        let mut text = String::new();
        client.read_to_string(&mut text).await.expect("reads");
        assert_eq!(text, "hello");
    }

    #[tokio::test]
    async fn both_kinds_carry_the_same() {
        let folder = tempfile::tempdir().expect("a folder");
        let mut side = Side {
            address: IpAddr::from([127, 0, 0, 1]),
            sockets: None,
        };
        let listener = side.listen("x", 0).await.expect("listens");
        let address = listener.address().expect("TCP");
        let client = TcpStream::connect(address).await.expect("connects");
        says_hello(listener, client).await;

        side.sockets = Some(folder.path().to_owned());
        let path = folder.path().join("x");
        // One that a killed run left behind.
        drop(side.listen("x", 0).await.expect("listens"));
        assert!(path.exists());
        let listener = side.listen("x", 0).await.expect("listens again");
        let mode = fs::metadata(&path).expect("there").permissions().mode();
        assert_eq!(mode & 0o777, FOR_THE_AGENT);
        let client = UnixStream::connect(&path).await.expect("connects");
        says_hello(listener, client).await;
    }
}
