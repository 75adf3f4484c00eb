//! The egress proxy: the bottle's only way out.
//!
//! Two ways in (an explicit proxy, and transparent TLS and HTTP behind a DNS responder that answers allowed
//! names with this address), one policy. The order is always the same: parse, normalise, compare the names,
//! decide, check for credentials, resolve, classify, connect, verify, rewrite, forward, look through, record.
//!
//! * `listen`, `dns`: what accepts
//! * `proxy`, `transparent`, `tunnel`, `hello`: from a connection to a session
//! * `heads`, `h2`, `session`, `upload`, `answer`, `relay`, `body`, `grant`, `pace`, `denial`: from a request to an answer
//! * `websocket`, `messages`, `order`, `frames`, `flow`: from a request to a conversation
//! * `upstream`, `pool`, `dial`, `chain`, `wire`: from a name to a verified connection

mod answer;
mod body;
mod chain;
mod denial;
mod dial;
mod dns;
mod flow;
pub(crate) mod frames;
mod grant;
mod h2;
mod heads;
pub(crate) mod hello;
mod listen;
mod messages;
mod order;
mod pace;
mod pool;
mod proxy;
mod relay;
mod run;
mod session;
pub(crate) mod status;
mod transparent;
mod tunnel;
mod upload;
mod upstream;
mod websocket;
mod wire;

use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use bottle_plan::policy as doc;
use rustls::{ClientConfig, RootCertStore, ServerConfig};
use rustls_pki_types::CertificateDer;
use rustls_pki_types::pem::PemObject;
use tokio::sync::{Semaphore, watch};
use tokio_rustls::TlsAcceptor;
use zeroize::Zeroizing;

use crate::audit::{Audit, AuditLimits, Writer};
use crate::ca::{Ca, CaError};
use crate::credential::Slots;
use crate::grants::Grants;
use crate::policy::{self, LoadError, Policy};
use crate::program::say;
use chain::Chain;
use dial::Dialer;
use pool::{Hosts, Pool};

pub use dial::{Boxed, Network, System};
pub use listen::{Bound, Ports};
pub use run::{Running, run, start};
pub(crate) use status::DEFAULT_SOCKET;

/// Connections at once, of all ways in together.
const MAX_CONNECTIONS: usize = 256;

/// Where everything is.
pub struct Settings {
    /// Holds `policy.json`, `mitmproxy-ca.pem` and perhaps `upstream-ca.pem`.
    pub config_dir: PathBuf,
    /// Holds `audit.jsonl` and what it was before it was full.
    pub audit_dir: PathBuf,
    /// Holds `grants/`, which is looked into, and `denials/`, which is written to, in a bottle that can ask.
    pub asking_dir: PathBuf,
    /// How much the audit may take, if it is not what the policy says.
    pub audit_limits: Option<AuditLimits>,
    /// The socket that `health` asks.
    pub status_socket: PathBuf,
    /// A proxy to go through, `http://[user:password@]host:port`.
    pub upstream_proxy: Option<Zeroizing<String>>,
    /// The ports of the listeners; 0 lets the system choose.
    pub ports: Ports,
    /// The folder of sockets that take the ports' place for an agent without a network.
    pub sockets: Option<PathBuf>,
}

/// Why the proxy does not start.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// The policy is not usable.
    #[error("{}: {error}", path.display())]
    Policy {
        /// Which file.
        path: PathBuf,
        /// Why.
        error: LoadError,
    },
    /// The CA is not usable.
    #[error(transparent)]
    Ca(#[from] CaError),
    /// TLS cannot be set up.
    #[error("tls: {0}")]
    Tls(#[from] rustls::Error),
    /// A file cannot be read or written.
    #[error("{}: {error}", path.display())]
    File {
        /// Which file.
        path: PathBuf,
        /// Why.
        error: io::Error,
    },
    /// The upstream proxy is not usable.
    #[error("BOTTLE_UPSTREAM_PROXY {0}")]
    UpstreamProxy(&'static str),
    /// The way out is to be observed through an upstream proxy, which resolves the names: nobody could say whether what
    /// is reached is public.
    #[error(
        "egress.mode `observe` does not go through BOTTLE_UPSTREAM_PROXY: private addresses could be reached"
    )]
    Observing,
    /// A listener or thread cannot be made.
    #[error("{what}: {error}")]
    System {
        /// What was to be made.
        what: String,
        /// Why.
        error: io::Error,
    },
}

/// What all connections share.
pub(crate) struct Egress {
    policy: watch::Sender<Arc<Policy>>,
    /// What that was made of, without what was granted.
    document: Mutex<doc::Policy>,
    audit: Audit,
    dialer: Dialer,
    acceptor: TlsAcceptor,
    connections: Arc<Semaphore>,
    hosts: Hosts,
    /// True once the proxy is going down.
    draining: watch::Sender<bool>,
}

/// What the connections of one worker share.
pub(crate) struct Local {
    egress: Arc<Egress>,
    pool: Arc<Pool>,
}

impl Egress {
    fn new(
        settings: &Settings,
        network: Box<dyn Network>,
        slots: &Slots<'_>,
    ) -> Result<(Self, Writer), StartError> {
        let document = read_policy(&settings.config_dir)?;
        let policy = load_policy(&settings.config_dir, &document, slots, None)?;
        let policy = Arc::new(policy);
        let ca = Ca::read(&settings.config_dir.join("mitmproxy-ca.pem"))?;
        let chain = settings
            .upstream_proxy
            .as_deref()
            .map(|text| Chain::parse(text));
        let chain = chain.transpose().map_err(StartError::UpstreamProxy)?;
        if chain.is_some() && policy.is_observing() {
            return Err(StartError::Observing);
        }
        let roots = read_roots(&settings.config_dir.join("upstream-ca.pem"))?;
        let limits = settings
            .audit_limits
            .unwrap_or_else(|| AuditLimits::of(&policy.audit));
        let audit = Audit::open(
            &settings.audit_dir,
            (limits, policy.audit.on_full),
            policy.bottle.clone(),
            Some(&settings.asking_dir.join("denials")),
        );
        let (audit, writer) = audit.map_err(|error| StartError::File {
            path: settings.audit_dir.clone(),
            error,
        })?;
        audit.set_log(policy.log);
        let egress = Self {
            policy: watch::Sender::new(policy),
            document: Mutex::new(document),
            audit,
            dialer: Dialer::new(network, client_config(roots)?, chain),
            acceptor: Arc::new(server_config(ca)?).into(),
            connections: Arc::new(Semaphore::new(MAX_CONNECTIONS)),
            hosts: Hosts::default(),
            draining: watch::Sender::new(false),
        };
        Ok((egress, writer))
    }

    /// The policy as it is now.
    fn policy(&self) -> Arc<Policy> {
        self.policy.borrow().clone()
    }

    /// Reads the policy again; a bad one changes nothing.
    fn reload(
        &self,
        config_dir: &Path,
        grants: Option<&Grants>,
        slots: &Slots<'_>,
    ) -> Result<(), StartError> {
        self.replace(config_dir, read_policy(config_dir)?, grants, slots)
    }

    /// Makes the policy anew with other grants. The file is left alone: while it is being written, or cannot be read, what
    /// was taken back must end all the same.
    fn apply_grants(
        &self,
        config_dir: &Path,
        grants: Option<&Grants>,
        slots: &Slots<'_>,
    ) -> Result<(), StartError> {
        let document = self.document().clone();
        self.replace(config_dir, document, grants, slots)
    }

    fn document(&self) -> MutexGuard<'_, doc::Policy> {
        self.document.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn replace(
        &self,
        config_dir: &Path,
        document: doc::Policy,
        grants: Option<&Grants>,
        slots: &Slots<'_>,
    ) -> Result<(), StartError> {
        let before = self.policy();
        let mut policy = load_policy(config_dir, &document, slots, Some(&before))?;
        let granted = grants.into_iter().flat_map(Grants::known);
        if self.dialer.is_chained() && policy.is_observing() {
            return Err(StartError::Observing);
        }
        for (id, problem) in policy.grant(granted, slots, Some(&before)) {
            say!("grant {id} is not applied: {problem}");
        }
        self.audit.set_log(policy.log);
        *self.document() = document;
        self.policy.send_replace(Arc::new(policy));
        Ok(())
    }
}

fn read_policy(config_dir: &Path) -> Result<doc::Policy, StartError> {
    let path = config_dir.join("policy.json");
    match fs::read(&path) {
        Ok(json) => policy::read(&json).map_err(|error| StartError::Policy { path, error }),
        Err(error) => Err(StartError::File { path, error }),
    }
}

fn load_policy(
    config_dir: &Path,
    document: &doc::Policy,
    slots: &Slots<'_>,
    before: Option<&Policy>,
) -> Result<Policy, StartError> {
    let policy = policy::load(document.clone(), slots, before);
    let policy = policy.map_err(|error| StartError::Policy {
        path: config_dir.join("policy.json"),
        error,
    })?;
    for credential in policy
        .routes
        .iter()
        .filter_map(|route| route.credential.as_ref())
    {
        if !credential.is_available() {
            say!(
                "slot {} is not set or not usable (at least 8 characters, no control characters); \
                 its route answers credential_unavailable",
                credential.slot()
            );
        }
    }
    if policy.is_observing() {
        say!("observing: every public destination is let through and recorded");
    }
    Ok(policy)
}

/// The public roots, and those of the operator's own CAs if there are any.
fn read_roots(path: &Path) -> Result<RootCertStore, StartError> {
    let mut roots = RootCertStore {
        roots: webpki_roots::TLS_SERVER_ROOTS.to_vec(),
    };
    let failed = |error| StartError::File {
        path: path.to_owned(),
        error,
    };
    let pem = match fs::read(path) {
        Ok(pem) => pem,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(roots),
        Err(error) => return Err(failed(error)),
    };
    for certificate in CertificateDer::pem_slice_iter(&pem) {
        let certificate = certificate.map_err(|error| failed(io::Error::other(error)))?;
        roots
            .add(certificate)
            .map_err(|error| failed(io::Error::other(error)))?;
    }
    Ok(roots)
}

fn client_config(roots: RootCertStore) -> Result<ClientConfig, StartError> {
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    Ok(ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()?
        .with_root_certificates(roots)
        .with_no_client_auth())
}

/// Towards the agent: HTTP/2 or HTTP/1, as it likes, and tickets instead of a session store, so that a returning
/// client costs no memory.
fn server_config(ca: Ca) -> Result<ServerConfig, StartError> {
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let mut config = ServerConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()?
        .with_no_client_auth()
        .with_cert_resolver(Arc::new(ca));
    config.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
    config.ticketer = rustls::crypto::ring::Ticketer::new()?;
    Ok(config)
}
