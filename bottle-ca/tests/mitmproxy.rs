//! mitmproxy itself takes the files as its own and serves a client through them.

// Helpers of a test are no `#[test]` for clippy.
#![allow(clippy::unwrap_used)]

mod common;

use std::fs;
use std::io::{BufRead as _, BufReader};
use std::net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use common::{Place, dns, have, ip, outcome, sign, skip};
use rcgen::{BasicConstraints, CertificateParams, IsCa, Issuer, KeyPair, KeyUsagePurpose};

/// One HTTPS server; its port is the first line of its output.
const UPSTREAM: &str = r#"
import http.server, ssl, sys
class Hello(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        self.send_response(200); self.end_headers(); self.wfile.write(b"from upstream")
server = http.server.HTTPServer(("127.0.0.1", 0), Hello)
context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
context.load_cert_chain(sys.argv[1], sys.argv[2])
server.socket = context.wrap_socket(server.socket, server_side=True)
print(server.server_port, flush=True)
server.serve_forever()
"#;

/// A strict client behind a proxy.
const CLIENT: &str = r#"
import http.client, ssl, sys
ca, proxy, host, port = sys.argv[1:]
context = ssl.create_default_context(cafile=ca)
context.verify_flags |= ssl.VERIFY_X509_STRICT
connection = http.client.HTTPSConnection("127.0.0.1", int(proxy), context=context, timeout=20)
connection.set_tunnel(host, int(port))
connection.request("GET", "/")
print(connection.getresponse().read().decode())
"#;

/// Ended with the test, however it ends.
struct Process(Child);

impl Drop for Process {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// mitmdump from a virtual environment that stays in `target/`, made at the first run.
fn mitmdump() -> Option<PathBuf> {
    let venv = Path::new(env!("CARGO_TARGET_TMPDIR"))
        .parent()?
        .join("test-tools/mitmproxy");
    let program = venv.join("bin/mitmdump");
    if program.exists() {
        return Some(program);
    }
    if !have("python3") {
        return None;
    }
    let (ok, text) = outcome(Command::new("python3").args(["-m", "venv"]).arg(&venv));
    if !ok {
        skip(&format!("python3 -m venv failed: {text}"));
        return None;
    }
    let mut pip = Command::new(venv.join("bin/pip"));
    let (ok, text) = outcome(pip.args([
        "install",
        "--quiet",
        "--disable-pip-version-check",
        "mitmproxy",
    ]));
    if !ok {
        skip(&format!(
            "pip cannot install mitmproxy: {}",
            text.lines().last().unwrap_or("it said nothing")
        ));
        return None;
    }
    Some(program)
}

fn free_port() -> u16 {
    TcpListener::bind((Ipv4Addr::LOCALHOST, 0))
        .unwrap()
        .local_addr()
        .unwrap()
        .port()
}

fn wait_for(port: u16) {
    let address = SocketAddr::from((Ipv4Addr::LOCALHOST, port));
    let deadline = Instant::now() + Duration::from_secs(60);
    while TcpStream::connect_timeout(&address, Duration::from_secs(1)).is_err() {
        assert!(Instant::now() < deadline, "nothing listens on {port}");
        std::thread::sleep(Duration::from_millis(50));
    }
}

/// A server whose certificate, from a CA of its own, has more names than the policy: as that of most real sites.
fn upstream(root: &Path) -> (Process, String, PathBuf) {
    let mut params = CertificateParams::default();
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    params.key_usages = vec![KeyUsagePurpose::KeyCertSign];
    let key = KeyPair::generate().unwrap();
    let ca = root.join("upstream-ca.pem");
    fs::write(&ca, params.self_signed(&key).unwrap().pem()).unwrap();
    let leaf = sign(
        &Issuer::new(params, key),
        root,
        "upstream",
        &[dns("localhost"), dns("other.example"), ip("127.0.0.1")],
    );
    let mut child = Command::new("python3")
        .args(["-c", UPSTREAM])
        .args([&leaf.cert, &leaf.key])
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    let mut port = String::new();
    BufReader::new(child.stdout.take().unwrap())
        .read_line(&mut port)
        .unwrap();
    (Process(child), port.trim().to_owned(), ca)
}

#[test]
fn mitmproxy_takes_our_files_as_its_own() {
    let Some(mitmdump) = mitmdump() else { return };
    let place = Place::minted("localhost");
    let before = place.contents();
    let root = place.root.path();
    let (_upstream, upstream_port, upstream_ca) = upstream(root);

    let proxy = |upstream_cert: bool| {
        let port = free_port();
        let log = fs::File::create(root.join("mitmdump.log")).unwrap();
        let child = Command::new(&mitmdump)
            .arg("--set")
            .arg(format!("confdir={}", place.dir.display()))
            .args([
                "--listen-host",
                "127.0.0.1",
                "--listen-port",
                &port.to_string(),
            ])
            .args(["--set", &format!("upstream_cert={upstream_cert}")])
            .arg("--set")
            .arg(format!(
                "ssl_verify_upstream_trusted_ca={}",
                upstream_ca.display()
            ))
            .stdout(log)
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        let process = Process(child);
        wait_for(port);
        (process, port.to_string())
    };
    let fetch = |proxy: &str, host: &str| {
        let mut client = Command::new("python3");
        client
            .args(["-c", CLIENT])
            .arg(place.cert())
            .args([proxy, host, &upstream_port]);
        outcome(&mut client)
    };

    let (process, port) = proxy(false);
    let (ok, text) = fetch(&port, "localhost");
    let log = || fs::read_to_string(root.join("mitmdump.log")).unwrap();
    assert!(ok && text.contains("from upstream"), "{text}\n{}", log());
    // It would intercept the address as well, but no client believes it.
    let (ok, text) = fetch(&port, "127.0.0.1");
    assert!(
        !ok && text.contains("excluded subtree violation"),
        "{text}\n{}",
        log()
    );
    drop(process);

    // By default it copies all names of the server's certificate into its own: docs/ca.md says why that cannot work.
    let (_process, port) = proxy(true);
    let (ok, text) = fetch(&port, "localhost");
    assert!(
        !ok && text.contains("subtree violation"),
        "{text}\n{}",
        log()
    );

    assert_eq!(place.contents(), before, "mitmproxy wrote its own CA");
}
