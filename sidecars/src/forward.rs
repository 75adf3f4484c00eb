//! `forward`: in an agent's container without a network, what listens where programs expect the sidecars, and carries
//! each connection to the sidecar's socket.
//!
//! It decides nothing and holds nothing: everything it can do, the agent can do at those sockets by itself. It is process
//! 1 of the container, whom the kernel lets nobody inside end, so it also collects the orphans that commands leave behind.

use std::fmt::Display;
use std::io;
use std::net::Ipv4Addr;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use nix::sys::wait::{WaitPidFlag, WaitStatus, waitpid};
use tokio::io::{
    AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _, BufReader, copy_buf,
};
use tokio::net::{TcpListener, TcpStream, UdpSocket, UnixStream};
use tokio::runtime::Builder;
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::Semaphore;
use tokio::time::{sleep, timeout};

use crate::egress::status;

/// Connections and questions at once; twice what egress admits.
const MAX_CONNECTIONS: usize = 512;
/// How much of a connection is under way in each direction.
const BUFFER: usize = 32 * 1024;
/// How long an agent that heard the sidecar's last word may go on talking.
const LINGER: Duration = Duration::from_secs(60);
/// The largest question over UDP.
const MAX_QUESTION: usize = 1232;
/// How long a question may wait for its answer.
const ANSWER: Duration = Duration::from_secs(5);
/// The pause after a failed accept or receive.
const BACK_OFF: Duration = Duration::from_millis(50);

/// A port of the loopback, and the socket in the folder that answers there.
pub(crate) type Door = (u16, PathBuf);

/// What is carried where.
#[derive(Default)]
pub(crate) struct Settings {
    /// The folder of the sockets.
    pub(crate) sockets: PathBuf,
    /// The socket that `health` asks.
    pub(crate) status_socket: PathBuf,
    /// Connections.
    pub(crate) tcp: Vec<Door>,
    /// Questions, by TCP and UDP.
    pub(crate) dns: Vec<Door>,
}

/// Carries until the container ends.
///
/// # Errors
/// When a port cannot be listened on.
pub(crate) fn run(settings: Settings) -> Result<(), String> {
    // Programs of the same user could trace us, and end us from within.
    let _ = nix::sys::prctl::set_dumpable(false);
    let runtime = Builder::new_current_thread()
        .enable_all()
        .build()
        .map_err(told("runtime"))?;
    runtime.block_on(async {
        let orphans = signal(SignalKind::child()).map_err(told("signal handler"))?;
        open(&settings).await?;
        collect(orphans).await;
        Ok(())
    })
}

/// Opens all doors, and says so.
async fn open(settings: &Settings) -> Result<(), String> {
    let places = Arc::new(Semaphore::new(MAX_CONNECTIONS));
    for (port, socket) in settings.tcp.iter().chain(&settings.dns) {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, *port))
            .await
            .map_err(told(format!("port {port}")))?;
        let socket = settings.sockets.join(socket);
        tokio::spawn(accept(listener, socket, places.clone()));
    }
    for (port, socket) in &settings.dns {
        let datagrams = UdpSocket::bind((Ipv4Addr::LOCALHOST, *port))
            .await
            .map_err(told(format!("port {port} by UDP")))?;
        let socket = settings.sockets.join(socket);
        tokio::spawn(receive(Arc::new(datagrams), socket, places.clone()));
    }
    let ready = status::bind(&settings.status_socket).map_err(told("status socket"))?;
    tokio::spawn(status::say_ready(ready));
    Ok(())
}

/// Waits for whoever nobody else waits for.
async fn collect(mut orphans: tokio::signal::unix::Signal) {
    loop {
        while let Ok(status) = waitpid(None, Some(WaitPidFlag::WNOHANG)) {
            if status == WaitStatus::StillAlive {
                break;
            }
        }
        orphans.recv().await;
    }
}

async fn accept(listener: TcpListener, socket: PathBuf, places: Arc<Semaphore>) {
    loop {
        let Ok((agent, _)) = listener.accept().await else {
            sleep(BACK_OFF).await;
            continue;
        };
        // Whoever is one too many, or finds the sidecar gone, sees the connection end.
        let Ok(place) = places.clone().try_acquire_owned() else {
            continue;
        };
        let socket = socket.clone();
        tokio::spawn(async move {
            let _ = carry(agent, &socket).await;
            drop(place);
        });
    }
}

/// A sidecar that was started again has a new socket, so each connection looks for it anew.
async fn carry(mut agent: TcpStream, socket: &Path) -> io::Result<()> {
    let mut sidecar = UnixStream::connect(socket).await?;
    agent.set_nodelay(true)?;
    let (from_agent, to_agent) = agent.split();
    let (from_sidecar, to_sidecar) = sidecar.split();
    let mut there = std::pin::pin!(one_way(from_agent, to_sidecar));
    let mut back = std::pin::pin!(one_way(from_sidecar, to_agent));
    // A connection that broke in one direction has nothing to say in the other.
    tokio::select! {
        ended = there.as_mut() => {
            ended?;
            back.await
        }
        ended = back.as_mut() => {
            ended?;
            timeout(LINGER, there).await?
        }
    }
}

async fn one_way(from: impl AsyncRead + Unpin, mut to: impl AsyncWrite + Unpin) -> io::Result<()> {
    copy_buf(&mut BufReader::with_capacity(BUFFER, from), &mut to).await?;
    to.shutdown().await
}

async fn receive(datagrams: Arc<UdpSocket>, socket: PathBuf, places: Arc<Semaphore>) {
    let mut buffer = vec![0; MAX_QUESTION];
    loop {
        let Ok((length, agent)) = datagrams.recv_from(&mut buffer).await else {
            sleep(BACK_OFF).await;
            continue;
        };
        let Ok(place) = places.clone().try_acquire_owned() else {
            continue;
        };
        let (datagrams, socket) = (datagrams.clone(), socket.clone());
        let question = buffer[..length].to_vec();
        tokio::spawn(async move {
            // A resolver without an answer asks again or does not.
            if let Ok(Ok(answer)) = timeout(ANSWER, ask(&socket, &question)).await {
                let _ = datagrams.send_to(&answer, agent).await;
            }
            drop(place);
        });
    }
}

/// One question, as over TCP.
async fn ask(socket: &Path, question: &[u8]) -> io::Result<Vec<u8>> {
    let mut sidecar = UnixStream::connect(socket).await?;
    let length = u16::try_from(question.len()).map_err(io::Error::other)?;
    let message = [length.to_be_bytes().as_slice(), question].concat();
    sidecar.write_all(&message).await?;
    let mut answer = vec![0; usize::from(sidecar.read_u16().await?)];
    sidecar.read_exact(&mut answer).await?;
    Ok(answer)
}

fn told(what: impl Display) -> impl FnOnce(io::Error) -> String {
    move |error| format!("{what}: {error}")
}

#[cfg(test)]
mod tests {
    use super::*;
    use tokio::net::UnixListener;

    /// A free port: whoever takes it in between makes the test fail, not pass.
    fn free_port() -> u16 {
        let listener = std::net::TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).expect("binds");
        listener.local_addr().expect("bound").port()
    }

    /// Says back what it hears, as each connection.
    fn echo(path: &Path) -> tokio::task::JoinHandle<()> {
        let _ = std::fs::remove_file(path);
        let listener = UnixListener::bind(path).expect("binds");
        tokio::spawn(async move {
            loop {
                let (mut stream, _) = listener.accept().await.expect("a connection");
                let (mut from, mut to) = stream.split();
                let _ = tokio::io::copy(&mut from, &mut to).await;
                let _ = to.shutdown().await;
            }
        })
    }

    async fn say(port: u16, text: &str) -> io::Result<String> {
        let mut stream = TcpStream::connect((Ipv4Addr::LOCALHOST, port)).await?;
        stream.write_all(text.as_bytes()).await?;
        stream.shutdown().await?;
        let mut heard = String::new();
        stream.read_to_string(&mut heard).await?;
        Ok(heard)
    }

    #[tokio::test]
    async fn connections_and_datagrams_reach_the_socket_and_one_that_comes_back() {
        let folder = tempfile::tempdir().expect("a folder");
        let (tcp, dns) = (free_port(), free_port());
        let settings = Settings {
            sockets: folder.path().to_owned(),
            status_socket: folder.path().join("status"),
            tcp: vec![(tcp, "a".into())],
            dns: vec![(dns, "b".into())],
        };
        open(&settings).await.expect("opens");
        // Nobody there yet: the connection ends, and the next one is another.
        assert!(say(tcp, "x").await.unwrap_or_default().is_empty());
        let sidecar = echo(&folder.path().join("a"));
        let long = "a long text ".repeat(20_000);
        assert_eq!(say(tcp, &long).await.expect("carried"), long);
        sidecar.abort();
        let _ = sidecar.await;
        assert!(say(tcp, "x").await.unwrap_or_default().is_empty());
        echo(&folder.path().join("a"));
        assert_eq!(say(tcp, "back").await.expect("carried"), "back");

        echo(&folder.path().join("b"));
        let client = UdpSocket::bind((Ipv4Addr::LOCALHOST, 0))
            .await
            .expect("binds");
        client
            .connect((Ipv4Addr::LOCALHOST, dns))
            .await
            .expect("connects");
        client.send(b"question").await.expect("sends");
        let mut answer = [0; 64];
        let length = timeout(ANSWER, client.recv(&mut answer))
            .await
            .expect("in time")
            .expect("reads");
        assert_eq!(&answer[..length], b"question");
    }
}
