//! Reaching a destination: resolve once, look at every answer, dial only what was looked at, verify who answers.

use std::collections::HashMap;
use std::future::Future;
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::pin::Pin;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use bottle_plan::host::Host;
use rustls::ClientConfig;
use rustls_pki_types::ServerName;
use tokio::net::{TcpStream, lookup_host};
use tokio::time::timeout;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;

use super::chain::Chain;
use super::wire::Wire;
use crate::address::{Cidr, classify};
use crate::authority::Authority;
use crate::policy::Policy;
use crate::program::say;
use crate::reason::Reason;

const RESOLVE_TIMEOUT: Duration = Duration::from_secs(5);
const CONNECT_TIMEOUT: Duration = Duration::from_secs(10);
const TLS_TIMEOUT: Duration = Duration::from_secs(10);
/// So many addresses are waited for when none of them answers.
const ATTEMPTS: u32 = 3;
/// More answers than this are not an honest service's.
const MAX_ADDRESSES: usize = 16;
/// How long answers are kept. Short enough to follow a change, long enough for a burst of connections.
const KEEP: Duration = Duration::from_secs(10);
/// More names than this only come from a wildcard route being swept.
const MAX_KEPT: usize = 256;

/// A future behind a pointer.
pub type Boxed<'a, T> = Pin<Box<dyn Future<Output = T> + Send + 'a>>;

/// The two things only the real network can do. Tests bring their own; every check stays in front of it.
pub trait Network: Send + Sync + 'static {
    /// All addresses of a name.
    fn resolve<'a>(&'a self, host: &'a str) -> Boxed<'a, io::Result<Vec<IpAddr>>>;
    /// Opens a connection to exactly this address.
    fn connect(&self, address: SocketAddr) -> Boxed<'_, io::Result<TcpStream>>;
}

/// The network this process is in.
pub struct System;

impl Network for System {
    fn resolve<'a>(&'a self, host: &'a str) -> Boxed<'a, io::Result<Vec<IpAddr>>> {
        Box::pin(async move {
            // The dot at the end keeps the resolver from trying the name with search domains appended.
            let absolute = format!("{host}.");
            Ok(lookup_host((absolute.as_str(), 0))
                .await?
                .map(|address| address.ip())
                .collect())
        })
    }

    fn connect(&self, address: SocketAddr) -> Boxed<'_, io::Result<TcpStream>> {
        Box::pin(TcpStream::connect(address))
    }
}

/// What a name resolved to, and when.
struct Answers {
    since: Instant,
    addresses: Arc<[IpAddr]>,
}

/// Opens connections to destinations the policy has allowed.
pub(crate) struct Dialer {
    network: Box<dyn Network>,
    /// Lets the destination choose between HTTP/2 and HTTP/1.
    any: TlsConnector,
    /// For HTTP/1 alone.
    h1: TlsConnector,
    chain: Option<Chain>,
    answers: Mutex<HashMap<Host, Answers>>,
}

impl Dialer {
    pub(crate) fn new(
        network: Box<dyn Network>,
        mut tls: ClientConfig,
        chain: Option<Chain>,
    ) -> Self {
        tls.alpn_protocols = vec![b"http/1.1".to_vec()];
        let h1 = Arc::new(tls.clone());
        tls.alpn_protocols.insert(0, b"h2".to_vec());
        Self {
            network,
            any: Arc::new(tls).into(),
            h1: h1.into(),
            chain,
            answers: Mutex::default(),
        }
    }

    /// Whether connections go through an operator's own proxy.
    pub(crate) fn is_chained(&self) -> bool {
        self.chain.is_some()
    }

    /// A TCP connection to one of the destination's addresses, all of which are allowed.
    pub(crate) async fn tcp(
        &self,
        policy: &Policy,
        route: usize,
        to: &Authority,
    ) -> Result<TcpStream, Reason> {
        let private = &policy.routes[route].private;
        if let Some(chain) = self.chain.as_ref().filter(|_| private.is_empty()) {
            return timeout(CONNECT_TIMEOUT, chain.connect(&*self.network, to))
                .await
                .unwrap_or(Err(Reason::UpstreamUnreachable));
        }
        let answers = self.resolve(&to.host).await?;
        let addresses = allowed(&answers, private, &policy.own_networks)?;
        connect(&*self.network, &addresses, to.port).await
    }

    /// The same with TLS, the destination's certificate verified for its name.
    pub(crate) async fn tls(
        &self,
        policy: &Policy,
        route: usize,
        to: &Authority,
        h2: bool,
    ) -> Result<TlsStream<Wire<TcpStream>>, Reason> {
        let stream = self.tcp(policy, route, to).await?;
        let name =
            ServerName::try_from(to.host.as_str().to_owned()).map_err(|_| Reason::UpstreamTls)?;
        let connector = if h2 { &self.any } else { &self.h1 };
        match timeout(TLS_TIMEOUT, connector.connect(name, Wire::new(stream))).await {
            Ok(Ok(stream)) => Ok(stream),
            Ok(Err(error)) => {
                say!("tls to {to}: {error}");
                Err(Reason::UpstreamTls)
            }
            Err(_) => Err(Reason::UpstreamTimeout),
        }
    }

    async fn resolve(&self, host: &Host) -> Result<Arc<[IpAddr]>, Reason> {
        if let Some(answers) = self.kept(host) {
            return Ok(answers);
        }
        let answers = match timeout(RESOLVE_TIMEOUT, self.network.resolve(host.as_str())).await {
            Ok(Ok(answers)) if (1..=MAX_ADDRESSES).contains(&answers.len()) => Arc::from(answers),
            _ => return Err(Reason::DnsFailed),
        };
        let mut kept = self.answers.lock().unwrap_or_else(PoisonError::into_inner);
        if kept.len() >= MAX_KEPT {
            kept.clear();
        }
        let addresses = Arc::clone(&answers);
        kept.insert(
            host.clone(),
            Answers {
                since: Instant::now(),
                addresses,
            },
        );
        Ok(answers)
    }

    fn kept(&self, host: &Host) -> Option<Arc<[IpAddr]>> {
        let kept = self.answers.lock().unwrap_or_else(PoisonError::into_inner);
        kept.get(host)
            .filter(|answers| answers.since.elapsed() < KEEP)
            .map(|answers| answers.addresses.clone())
    }
}

/// A connection to the first of the addresses that takes one. None may use up the time of all: of two addresses one may
/// be dead and say nothing.
pub(super) async fn connect(
    network: &dyn Network,
    addresses: &[IpAddr],
    port: u16,
) -> Result<TcpStream, Reason> {
    let attempts = u32::try_from(addresses.len()).unwrap_or(ATTEMPTS);
    let each = CONNECT_TIMEOUT / attempts.clamp(1, ATTEMPTS);
    let attempt = async {
        for address in addresses {
            let address = SocketAddr::new(*address, port);
            if let Ok(Ok(stream)) = timeout(each, network.connect(address)).await {
                // Without it small requests wait for acknowledgements.
                let _ = stream.set_nodelay(true);
                return Some(stream);
            }
        }
        None
    };
    let stream = timeout(CONNECT_TIMEOUT, attempt).await.ok().flatten();
    stream.ok_or(Reason::UpstreamUnreachable)
}

/// The addresses that may be dialled, IPv4 first: all of the answers or none.
fn allowed(answers: &[IpAddr], private: &[Cidr], own: &[Cidr]) -> Result<Vec<IpAddr>, Reason> {
    let mut refused = answers
        .iter()
        .filter_map(|address| refusal(*address, private, own));
    if let Some(reason) = refused.next() {
        let all = refused.count() + 1 == answers.len();
        return Err(if all { reason } else { Reason::DnsMixed });
    }
    let mut addresses = answers.to_vec();
    addresses.sort_by_key(IpAddr::is_ipv6);
    Ok(addresses)
}

fn refusal(address: IpAddr, private: &[Cidr], own: &[Cidr]) -> Option<Reason> {
    let class = classify(address);
    let listed = || private.iter().any(|range| range.contains(address));
    if class.is_never() {
        Reason::of_class(class)
    } else if own.iter().any(|range| range.contains(address)) {
        Some(Reason::IpOwnNetwork)
    } else {
        Reason::of_class(class).filter(|_| !listed())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(answers: &[&str], private: &[&str], own: &[&str]) -> Result<Vec<String>, Reason> {
        let answers: Vec<IpAddr> = answers.iter().map(|a| a.parse().unwrap()).collect();
        let ranges =
            |list: &[&str]| -> Vec<Cidr> { list.iter().map(|r| r.parse().unwrap()).collect() };
        let addresses = allowed(&answers, &ranges(private), &ranges(own))?;
        Ok(addresses.iter().map(ToString::to_string).collect())
    }

    /// The first two addresses never answer, the third refuses.
    struct Dead(SocketAddr);

    impl Network for Dead {
        fn resolve<'a>(&'a self, _: &'a str) -> Boxed<'a, io::Result<Vec<IpAddr>>> {
            Box::pin(std::future::pending())
        }

        fn connect(&self, address: SocketAddr) -> Boxed<'_, io::Result<TcpStream>> {
            let last = match address.ip() {
                IpAddr::V4(address) => address.octets()[3],
                IpAddr::V6(_) => 0,
            };
            Box::pin(async move {
                match last {
                    1 | 2 => std::future::pending().await,
                    3 => Err(io::ErrorKind::ConnectionRefused.into()),
                    // At once: a clock that stands still goes on when something is waited for.
                    _ => {
                        let stream = std::net::TcpStream::connect(self.0)?;
                        stream.set_nonblocking(true)?;
                        TcpStream::from_std(stream)
                    }
                }
            })
        }
    }

    #[tokio::test(start_paused = true)]
    async fn a_dead_address_does_not_hide_the_next_one() {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let network = Dead(listener.local_addr().unwrap());
        let addresses = |last: &[u8]| -> Vec<IpAddr> {
            last.iter()
                .map(|&last| [93, 184, 216, last].into())
                .collect()
        };
        let began = tokio::time::Instant::now();
        assert!(connect(&network, &addresses(&[1, 9]), 443).await.is_ok());
        assert_eq!(began.elapsed(), CONNECT_TIMEOUT / 2);
        assert!(
            connect(&network, &addresses(&[1, 3, 2, 9]), 443)
                .await
                .is_ok()
        );
        // All of them together are given up when one would be.
        let began = tokio::time::Instant::now();
        let refused = connect(&network, &addresses(&[1, 2, 1, 2, 9]), 443).await;
        assert_eq!(refused.map(drop), Err(Reason::UpstreamUnreachable));
        assert_eq!(began.elapsed(), CONNECT_TIMEOUT);
    }

    #[test]
    fn every_answer_must_be_allowed() {
        assert_eq!(
            check(&["93.184.216.34"], &[], &[]).unwrap(),
            ["93.184.216.34"]
        );
        assert_eq!(
            check(&["2606:4700::1", "93.184.216.34"], &[], &[]).unwrap(),
            ["93.184.216.34", "2606:4700::1"]
        );
        assert_eq!(check(&["10.0.0.5"], &[], &[]), Err(Reason::IpPrivate));
        assert_eq!(
            check(&["10.0.0.5", "10.0.0.6"], &[], &[]),
            Err(Reason::IpPrivate)
        );
        assert_eq!(
            check(&["93.184.216.34", "127.0.0.1"], &[], &[]),
            Err(Reason::DnsMixed)
        );
        assert_eq!(
            check(&["169.254.169.254"], &[], &[]),
            Err(Reason::IpLinkLocal)
        );
    }

    #[test]
    fn a_route_opens_what_it_lists_and_nothing_else() {
        assert_eq!(
            check(&["10.0.0.5"], &["10.0.0.0/24"], &[]).unwrap(),
            ["10.0.0.5"]
        );
        assert_eq!(
            check(&["10.0.1.5"], &["10.0.0.0/24"], &[]),
            Err(Reason::IpPrivate)
        );
        assert_eq!(
            check(&["10.0.0.5"], &["10.0.0.0/8"], &["10.0.0.0/28"]),
            Err(Reason::IpOwnNetwork)
        );
        for never in [
            "127.0.0.1",
            "0.0.0.0",
            "169.254.1.1",
            "224.0.0.1",
            "255.255.255.255",
            "100.100.100.200",
        ] {
            assert!(check(&[never], &["0.0.0.0/0"], &[]).is_err(), "{never}");
        }
        for never in [
            "::1",
            "::",
            "fe80::1",
            "ff02::1",
            "::ffff:8.8.8.8",
            "64:ff9b::808:808",
            "fd00:ec2::254",
        ] {
            assert!(
                check(&[never], &["::/0", "0.0.0.0/0"], &[]).is_err(),
                "{never}"
            );
        }
    }
}
