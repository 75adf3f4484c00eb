//! A bottle's surroundings: a CA, a policy, an upstream, a proxy between them, and a client's eye on it all.

use std::collections::HashMap;
use std::fs;
use std::io::{self, Write};
use std::net::{IpAddr, SocketAddr, TcpStream};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::Duration;

use bottle_sidecar::egress::{Bound, Boxed, Network, Ports, Running, Settings, start};
use rcgen::{BasicConstraints, CertificateParams, DnType, IsCa, Issuer, KeyPair, KeyUsagePurpose};
use rustls::{ClientConfig, ClientConnection, RootCertStore, ServerConfig, StreamOwned};
use rustls_pki_types::{CertificateDer, PrivateKeyDer, ServerName};
use serde_json::{Value, json};
use tempfile::TempDir;
use zeroize::Zeroizing;

use crate::one::upstream;
pub(crate) use crate::one::{Handler, Message, Stream, discreet, echo, read_message};
use crate::two;

/// The credential of the test policies.
pub(crate) const SECRET: &str = "sk-real-0123456789abcdef";
/// What the agent holds instead.
pub(crate) const PLACEHOLDER: &str = "bottle-placeholder-0001";

/// A CA of the tests' own.
pub(crate) struct TestCa {
    issuer: Issuer<'static, KeyPair>,
    pub(crate) certificate: CertificateDer<'static>,
    pub(crate) pem: String,
    pub(crate) key_pem: String,
}

impl TestCa {
    pub(crate) fn new(name: &str) -> Self {
        let key = KeyPair::generate().unwrap();
        let mut params = CertificateParams::default();
        params.distinguished_name = rcgen::DistinguishedName::new();
        params.distinguished_name.push(DnType::CommonName, name);
        params.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
        params.key_usages = vec![KeyUsagePurpose::KeyCertSign];
        let certificate = params.self_signed(&key).unwrap();
        Self {
            pem: certificate.pem(),
            key_pem: key.serialize_pem(),
            certificate: certificate.der().clone(),
            issuer: Issuer::new(params, key),
        }
    }

    pub(crate) fn server(&self, names: &[&str]) -> ServerConfig {
        let key = KeyPair::generate().unwrap();
        let names: Vec<String> = names.iter().map(ToString::to_string).collect();
        let leaf = CertificateParams::new(names)
            .unwrap()
            .signed_by(&key, &self.issuer)
            .unwrap();
        let key = PrivateKeyDer::Pkcs8(key.serialize_der().into());
        ServerConfig::builder()
            .with_no_client_auth()
            .with_single_cert(vec![leaf.der().clone()], key)
            .unwrap()
    }

    pub(crate) fn client(&self) -> ClientConfig {
        let mut roots = RootCertStore::empty();
        roots.add(self.certificate.clone()).unwrap();
        ClientConfig::builder()
            .with_root_certificates(roots)
            .with_no_client_auth()
    }
}

/// Names and where connections to their addresses really go.
#[derive(Clone, Default)]
pub(crate) struct TestNetwork {
    names: Arc<Mutex<HashMap<String, Vec<IpAddr>>>>,
    ports: Arc<Mutex<HashMap<u16, SocketAddr>>>,
    /// Everything that was asked of the outside, in order.
    pub(crate) log: Arc<Mutex<Vec<String>>>,
}

impl TestNetwork {
    pub(crate) fn name(&self, name: &str, addresses: &[&str]) {
        let addresses = addresses.iter().map(|a| a.parse().unwrap()).collect();
        self.names.lock().unwrap().insert(name.into(), addresses);
    }

    pub(crate) fn port(&self, port: u16, really: SocketAddr) {
        self.ports.lock().unwrap().insert(port, really);
    }

    /// Where connections to this port go.
    pub(crate) fn really(&self, port: u16) -> SocketAddr {
        self.ports.lock().unwrap()[&port]
    }

    pub(crate) fn log(&self) -> Vec<String> {
        self.log.lock().unwrap().clone()
    }
}

impl Network for TestNetwork {
    fn resolve<'a>(&'a self, host: &'a str) -> Boxed<'a, io::Result<Vec<IpAddr>>> {
        self.log.lock().unwrap().push(format!("resolve {host}"));
        let found = self.names.lock().unwrap().get(host).cloned();
        Box::pin(async move { found.ok_or_else(|| io::Error::from(io::ErrorKind::NotFound)) })
    }

    fn connect(&self, address: SocketAddr) -> Boxed<'_, io::Result<tokio::net::TcpStream>> {
        self.log.lock().unwrap().push(format!("connect {address}"));
        let really = self.ports.lock().unwrap().get(&address.port()).copied();
        Box::pin(async move {
            let really = really.ok_or_else(|| io::Error::from(io::ErrorKind::ConnectionRefused))?;
            tokio::net::TcpStream::connect(really).await
        })
    }
}

/// A proxy with everything around it.
pub(crate) struct World {
    pub(crate) dir: TempDir,
    pub(crate) ca: TestCa,
    pub(crate) upstream_ca: TestCa,
    pub(crate) network: TestNetwork,
    pub(crate) seen: Arc<Mutex<Vec<Message>>>,
    pub(crate) bound: Bound,
    pub(crate) running: Option<Running>,
    /// Whether both ends speak HTTP/2.
    is_two: bool,
}

/// Values for slots.
pub(crate) fn slots(name: &str) -> Option<Zeroizing<Vec<u8>>> {
    (name == "EGRESS_TOKEN_0").then(|| Zeroizing::new(SECRET.as_bytes().to_vec()))
}

/// A policy with these routes.
pub(crate) fn policy(routes: &Value) -> Value {
    json!({
        "schema": "bottle.policy/v1", "bottle": "demo-abcde", "plan_digest": "d", "listen": "127.0.0.1",
        "own_networks": ["10.9.0.0/28"], "routes": routes,
    })
}

/// A route that injects.
pub(crate) fn credentialed(host: &str) -> Value {
    json!({"source": "demo.yaml:7", "host": host, "ports": [443], "auth": {
        "scheme": "header", "header": "x-api-key", "slot": "EGRESS_TOKEN_0", "placeholder": PLACEHOLDER}})
}

impl World {
    /// Everything with an upstream that echoes, known as api.example.com and a few other names.
    pub(crate) fn new(routes: &Value) -> Self {
        Self::with(routes, Arc::new(echo))
    }

    /// The same world twice: once in HTTP/1 and once in HTTP/2 on both sides of the proxy.
    pub(crate) fn both(routes: &Value, handler: &Arc<Handler>) -> [Self; 2] {
        [false, true].map(|is_two| Self::build(routes, handler.clone(), is_two))
    }

    pub(crate) fn with(routes: &Value, handler: Arc<Handler>) -> Self {
        Self::build(routes, handler, false)
    }

    pub(crate) fn build(routes: &Value, handler: Arc<Handler>, is_two: bool) -> Self {
        let (ca, upstream_ca) = (TestCa::new("bottle CA demo-abcde"), TestCa::new("some CA"));
        let dir = tempfile::tempdir().unwrap();
        fs::write(
            dir.path().join("mitmproxy-ca.pem"),
            format!("{}{}", ca.key_pem, ca.pem),
        )
        .unwrap();
        fs::write(dir.path().join("upstream-ca.pem"), &upstream_ca.pem).unwrap();
        fs::write(dir.path().join("policy.json"), policy(routes).to_string()).unwrap();
        let network = TestNetwork::default();
        let names = ["api.example.com", "other.example.com", "github.com"];
        let certificate = upstream_ca.server(&names);
        let (tls, seen) = if is_two {
            two::upstream(certificate, handler.clone())
        } else {
            upstream(Some(certificate), handler.clone())
        };
        let (plain, plain_seen) = upstream(None, handler);
        network.port(443, tls);
        network.port(80, plain);
        for name in names {
            network.name(name, &["93.184.216.34"]);
        }
        drop(plain_seen);
        let running = start(settings(dir.path()), Box::new(network.clone()), &slots).unwrap();
        let bound = running.bound();
        Self {
            dir,
            ca,
            upstream_ca,
            network,
            seen,
            bound,
            running: Some(running),
            is_two,
        }
    }

    /// Stops the proxy and starts it with the policy that is there now.
    pub(crate) fn restart(&mut self) {
        if let Some(running) = self.running.take() {
            running.stop();
        }
        let network = Box::new(self.network.clone());
        let running = start(settings(self.dir.path()), network, &slots).unwrap();
        self.bound = running.bound();
        self.running = Some(running);
    }

    /// A connection to the proxy port.
    pub(crate) fn proxy(&self) -> TcpStream {
        connect(self.bound.proxy)
    }

    /// Sends raw bytes to the proxy port and reads one answer.
    pub(crate) fn ask_proxy(&self, raw: &str) -> Message {
        let mut stream = self.proxy();
        stream.write_all(raw.as_bytes()).unwrap();
        read_message(&mut stream, true).expect("no answer")
    }

    /// A tunnel to `host:port`.
    pub(crate) fn open(&self, host: &str, port: u16) -> TcpStream {
        let mut stream = self.proxy();
        write!(
            stream,
            "CONNECT {host}:{port} HTTP/1.1\r\nhost: {host}:{port}\r\n\r\n"
        )
        .unwrap();
        let answer = read_message(&mut stream, false).expect("no answer to CONNECT");
        assert_eq!(answer.status(), 200, "{answer:?}");
        stream
    }

    /// The same with TLS inside.
    pub(crate) fn tunnel(&self, host: &str, port: u16) -> StreamOwned<ClientConnection, TcpStream> {
        self.tls(self.open(host, port), host)
    }

    /// A connection to the transparent port, TLS inside.
    pub(crate) fn transparent(&self, host: &str) -> StreamOwned<ClientConnection, TcpStream> {
        self.tls(connect(self.bound.https), host)
    }

    /// TLS as the agent does it, trusting the bottle's CA.
    pub(crate) fn tls(
        &self,
        stream: TcpStream,
        host: &str,
    ) -> StreamOwned<ClientConnection, TcpStream> {
        tls_with(&self.ca, stream, host)
    }

    /// One request through a new tunnel.
    pub(crate) fn request(&self, host: &str, raw: &str) -> Message {
        if self.is_two {
            return two::runtime().block_on(async {
                let stream = self.open(host, 443);
                let mut sender = two::connect(stream, self.ca.client(), host).await;
                two::ask(&mut sender, two::request(raw)).await
            });
        }
        let mut stream = self.tunnel(host, 443);
        ask(&mut stream, raw)
    }

    /// The records so far; waits until there are at least `count`.
    pub(crate) fn records(&self, count: usize) -> Vec<Value> {
        let path = self.dir.path().join("audit.jsonl");
        for _ in 0..400 {
            let text = fs::read_to_string(&path).unwrap_or_default();
            let records: Vec<Value> = text
                .lines()
                .filter_map(|line| serde_json::from_str(line).ok())
                .collect();
            if records.len() >= count {
                return records;
            }
            thread::sleep(Duration::from_millis(5));
        }
        panic!(
            "fewer than {count} records: {}",
            fs::read_to_string(&path).unwrap_or_default()
        );
    }

    /// What reached the upstream.
    pub(crate) fn seen(&self) -> Vec<Message> {
        self.seen.lock().unwrap().clone()
    }

    pub(crate) fn write_policy(&self, routes: &Value) {
        fs::write(
            self.dir.path().join("policy.json"),
            policy(routes).to_string(),
        )
        .unwrap();
    }
}

impl Drop for World {
    fn drop(&mut self) {
        if let Some(running) = self.running.take() {
            running.stop();
        }
    }
}

/// Settings that put everything into one folder.
pub(crate) fn settings(dir: &Path) -> Settings {
    Settings {
        config_dir: dir.to_owned(),
        audit_dir: dir.to_owned(),
        asking_dir: dir.to_owned(),
        audit_limits: None,
        status_socket: PathBuf::from(dir).join("status.sock"),
        upstream_proxy: None,
        ports: Ports {
            proxy: 0,
            https: 0,
            http: 0,
            dns: 0,
        },
        sockets: None,
    }
}

pub(crate) fn connect(address: SocketAddr) -> TcpStream {
    let stream = TcpStream::connect(address).unwrap();
    stream
        .set_read_timeout(Some(Duration::from_secs(20)))
        .unwrap();
    stream.set_nodelay(true).unwrap();
    stream
}

pub(crate) fn tls_with(
    ca: &TestCa,
    stream: TcpStream,
    host: &str,
) -> StreamOwned<ClientConnection, TcpStream> {
    let name = ServerName::try_from(host.to_owned()).unwrap();
    StreamOwned::new(
        ClientConnection::new(Arc::new(ca.client()), name).unwrap(),
        stream,
    )
}

/// Sends raw bytes and reads one answer.
pub(crate) fn ask(stream: &mut dyn Stream, raw: &str) -> Message {
    stream.write_all(raw.as_bytes()).unwrap();
    stream.flush().unwrap();
    read_message(stream, true).expect("no answer")
}

/// A GET with more headers.
pub(crate) fn get(host: &str, path: &str, headers: &str) -> String {
    format!("GET {path} HTTP/1.1\r\nhost: {host}\r\n{headers}\r\n")
}
