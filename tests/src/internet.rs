//! An Internet of a test's own: one container on a network of its own that answers for every host it is told to.

use std::net::{Ipv4Addr, TcpStream};
use std::path::Path;
use std::process::Command;

use rcgen::{BasicConstraints, CertificateParams, DnType, IsCa, Issuer, KeyPair, KeyUsagePurpose};
use serde_json::Value;
use sha2::{Digest as _, Sha256};

use crate::engine::{docker, docker_lines, sweep, wait_for};
use crate::probe::Findings;
use crate::run::{Call, Done};
use crate::{Home, tools};

/// The block the test networks are cut from; bottles have another.
const BLOCK: [u8; 2] = [10, 214];

/// Where the client is in an [`agent_image`].
pub const CLIENT: &str = "/usr/local/bin/bottle-testkit";

/// The container and its network; both are gone when this is.
#[derive(Debug)]
pub struct Internet {
    name: String,
    label: String,
    ca_pem: String,
    /// Its address on its own network.
    pub address: Ipv4Addr,
    /// The host's address on its network.
    pub gateway: Ipv4Addr,
}

impl Internet {
    /// Starts one that speaks for `hosts`: its TLS certificate names them, and its resolver answers for them with its own
    /// address and for nothing else.
    ///
    /// # Panics
    /// When the engine does not do what it is asked.
    #[must_use]
    pub fn start(home: &Home, hosts: &[&str]) -> Self {
        Self::start_in(home, hosts, &image())
    }

    /// The same in an image that has more than the test kit (at [`CLIENT`]): git, a package registry's files, a program.
    /// `/served` is its own.
    ///
    /// # Panics
    /// When the engine does not do what it is asked.
    #[must_use]
    pub fn start_in(home: &Home, hosts: &[&str], image: &str) -> Self {
        let name = home.slug("internet");
        let label = format!("bottle.test={name}");
        let (address, gateway) = make_network(&name, &label);
        let pki = Pki::make(hosts);
        let internet = Self {
            name,
            label,
            ca_pem: pki.ca_pem.clone(),
            address,
            gateway,
        };
        let network = [
            format!("--network={}", internet.name),
            format!("--ip={address}"),
        ];
        internet.run(&network, &pki, hosts, image);
        wait_for("the test Internet", || {
            TcpStream::connect((address, 80)).is_ok()
        });
        internet
    }

    /// One that is on no bridge: this host routes to it, as to the real one. None, when only root could make the link.
    ///
    /// # Panics
    /// When the engine does not do what it is asked.
    #[must_use]
    pub fn start_beyond(home: &Home, hosts: &[&str]) -> Option<Self> {
        let name = home.slug("beyond");
        let digest = Sha256::digest(&name);
        // A /30 of the range for measuring networks, which nobody has at home.
        let at = |offset: u8| Ipv4Addr::new(198, 18, digest[0], digest[1] & !3 | offset);
        let pki = Pki::make(hosts);
        let internet = Self {
            label: format!("bottle.test={name}"),
            ca_pem: pki.ca_pem.clone(),
            address: at(2),
            gateway: at(1),
            name,
        };
        internet.run(&["--network=none".to_owned()], &pki, hosts, &image());
        let format = "--format={{.State.Pid}}";
        let pid = docker(["inspect", format, &internet.name]).ok();
        let link = format!("bt{}", &hex(&digest[..5]));
        let far = format!("{link}x");
        let (near_address, far_address) = (format!("{}/30", at(1)), format!("{}/30", at(2)));
        let gateway = at(1).to_string();
        let inside = ["nsenter", "--net", "--target", pid.trim(), "ip"];
        let outside = ["ip"];
        let steps: [(&[&str], &[&str]); 7] = [
            (
                &outside,
                &["link", "add", &link, "type", "veth", "peer", "name", &far],
            ),
            (&outside, &["link", "set", &far, "netns", pid.trim()]),
            (&outside, &["address", "add", &near_address, "dev", &link]),
            (&outside, &["link", "set", &link, "up"]),
            (&inside, &["address", "add", &far_address, "dev", &far]),
            (&inside, &["link", "set", &far, "up"]),
            (&inside, &["route", "add", "default", "via", &gateway]),
        ];
        let made = steps.iter().all(|(program, args)| {
            let call = Call::new(program[0]).args(program[1..].iter().chain(*args).copied());
            call.run().status.success()
        });
        if !made {
            return None;
        }
        wait_for("what is beyond", || {
            TcpStream::connect((internet.address, 80)).is_ok()
        });
        Some(internet)
    }

    /// Starts the container, on this network.
    fn run(&self, network: &[String], pki: &Pki, hosts: &[&str], image: &str) {
        let mut args: Vec<String> = [
            "run",
            "--detach",
            "--read-only",
            "--cap-drop=ALL",
            "--user=65532:65532",
            "--tmpfs=/served:mode=1777",
        ]
        .map(str::to_owned)
        .into();
        args.extend([
            "--sysctl=net.ipv4.ip_unprivileged_port_start=0".to_owned(),
            "--security-opt=no-new-privileges".to_owned(),
        ]);
        args.extend([
            format!("--name={}", self.name),
            format!("--label={}", self.label),
        ]);
        args.extend(network.iter().cloned());
        args.push(format!("--env=TESTKIT_CERT={}", pki.leaf_pem));
        args.push(format!("--env=TESTKIT_KEY={}", pki.key_pem));
        args.push(format!("--env=TESTKIT_NAMES={}", hosts.join(",")));
        args.push(format!("--env=TESTKIT_ADDRESS={}", self.address));
        if image != self::image() {
            args.push(format!("--entrypoint={CLIENT}"));
        }
        args.extend([image.to_owned(), "serve".to_owned()]);
        let _ = docker(args).ok();
    }

    /// The root its certificate comes from, PEM: what a route's bottle has to trust.
    #[must_use]
    pub fn ca_pem(&self) -> &str {
        &self.ca_pem
    }

    /// Joins the egress network of a bottle under the names it speaks for. The engine's resolver then answers for them
    /// there, so the sidecar finds us without any change to it.
    ///
    /// # Panics
    /// When the network is not there.
    pub fn join(&self, network: &str, names: &[&str]) {
        let mut args = vec!["network".to_owned(), "connect".to_owned()];
        args.extend(names.iter().map(|name| format!("--alias={name}")));
        args.extend([network.to_owned(), self.name.clone()]);
        let _ = docker(args).ok();
    }

    /// Leaves it again, so that it can be removed.
    pub fn leave(&self, network: &str) {
        // It may be gone already, and with it the connection.
        let _ = docker(["network", "disconnect", "--force", network, &self.name]);
    }

    /// Its address on a network it joined.
    ///
    /// # Panics
    /// When it is not on it.
    #[must_use]
    pub fn address_on(&self, network: &str) -> Ipv4Addr {
        let format = format!("{{{{(index .NetworkSettings.Networks \"{network}\").IPAddress}}}}");
        let text = docker(["inspect", "--format", &format, &self.name]).ok();
        text.trim().parse().expect("an address on that network")
    }

    /// Runs probes beside it, in an ordinary container on its network: the control that shows what a container reaches
    /// that is not a bottle's agent.
    ///
    /// # Panics
    /// When the probe does not run.
    #[must_use]
    pub fn probe_beside(&self, probes: &[String]) -> Findings {
        self.probe_on(&self.name, probes)
    }

    /// The same on another network.
    ///
    /// # Panics
    /// When the probe does not run.
    #[must_use]
    pub fn probe_on(&self, network: &str, probes: &[String]) -> Findings {
        let program = tools::sidecar().expect("need_engine looked for it");
        let mount = format!(
            "--mount=type=bind,readonly,source={},target=/probe",
            program.display()
        );
        let network = format!("--network={network}");
        let label = format!("--label={}", self.label);
        let args = [
            "run",
            "--rm",
            &network,
            &label,
            &mount,
            "--entrypoint=/probe",
        ]
        .map(str::to_owned);
        let more = [image(), "probe".to_owned(), "--timeout-ms=1000".to_owned()];
        Findings::parse(&docker(args.into_iter().chain(more).chain(probes.iter().cloned())).ok())
    }

    /// Runs a command in it; it must have one for that.
    #[must_use]
    pub fn exec(&self, command: &[&str]) -> Done {
        docker(["exec", &self.name].iter().chain(command).copied())
    }

    /// Starts a program in it that goes on.
    ///
    /// # Panics
    /// When it does not start.
    pub fn spawn(&self, command: &[&str]) {
        let done = docker(
            ["exec", "--detach", &self.name]
                .iter()
                .chain(command)
                .copied(),
        );
        let _ = done.ok();
    }

    /// Everything it saw, oldest first: connections, requests, DNS questions.
    #[must_use]
    pub fn events(&self) -> Vec<Value> {
        let log = docker_lines(["logs", &self.name]);
        log.iter()
            .filter_map(|line| serde_json::from_str(line).ok())
            .collect()
    }

    /// What it saw of one kind: `connection`, `request` or `question`.
    #[must_use]
    pub fn events_of(&self, kind: &str) -> Vec<Value> {
        let mut events = self.events();
        events.retain(|event| event["event"] == kind);
        events
    }
}

impl Drop for Internet {
    fn drop(&mut self) {
        sweep(&self.label);
    }
}

/// A network on a /28 that the engine lets us have, and its second and first address: every test home starts at another
/// place, and goes on until one is free.
///
/// # Panics
/// When there is none.
#[must_use]
pub fn make_network(name: &str, label: &str) -> (Ipv4Addr, Ipv4Addr) {
    let digest = Sha256::digest(name);
    let first = u16::from_be_bytes([digest[0], digest[1]]);
    for step in 0..64u16 {
        let [high, low] = (first.wrapping_add(step) << 4).to_be_bytes();
        let at = |offset: u8| Ipv4Addr::new(BLOCK[0], BLOCK[1], high, low | offset);
        let subnet = format!("--subnet={}/28", at(0));
        let gateway = format!("--gateway={}", at(1));
        let made = docker([
            "network", "create", "--label", label, &subnet, &gateway, name,
        ]);
        if made.status.success() {
            return (at(2), at(1));
        }
        assert!(
            made.stderr.contains("overlap"),
            "cannot make a network: {}",
            made.stderr
        );
    }
    panic!("no free range in {BLOCK:?}/16");
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

/// The image with the test kit, made of the static program alone and kept for the next test.
fn image() -> String {
    let program = tools::testkit().expect("need_engine looked for it");
    let bytes = std::fs::read(&program).expect("the test kit can be read");
    let tag = format!("bottle-testkit:{}", hex(&Sha256::digest(&bytes)[..6]));
    if docker(["image", "inspect", &tag]).status.success() {
        return tag;
    }
    let archive = archive(&program);
    let import = [
        "import",
        "--change",
        "ENTRYPOINT [\"/bottle-testkit\"]",
        "--change",
        "LABEL bottle.test=1",
        "-",
        &tag,
    ];
    let _ = Call::new("docker").args(import).stdin(archive).run().ok();
    tag
}

/// An image for agents that can speak HTTP and TLS: `base` and the test kit as its client. Made without a build, because a
/// build asks a registry about its base.
///
/// # Panics
/// When the engine does not do what it is asked.
#[must_use]
pub fn agent_image(base: &str) -> String {
    let kit = image();
    let digest = hex(&Sha256::digest(base)[..4]);
    let tag = kit.replace("bottle-testkit:", "bottle-testkit-agent:") + "-" + &digest;
    if docker(["image", "inspect", &tag]).status.success() {
        return tag;
    }
    let program = tools::testkit().expect("need_engine looked for it");
    let container = docker(["create", base]).ok().trim().to_owned();
    let target = format!("{container}:{CLIENT}");
    let copied = docker(["cp".as_ref(), program.as_os_str(), target.as_ref()]);
    let made = docker([
        "commit",
        "--change",
        "LABEL bottle.test=1",
        &container,
        &tag,
    ]);
    let removed = docker(["rm", "--force", &container]);
    for done in [copied, made, removed] {
        let _ = done.ok();
    }
    tag
}

fn archive(program: &Path) -> Vec<u8> {
    let folder = program.parent().expect("a program is in a folder");
    let name = program.file_name().expect("a program has a name");
    // In the image it always has the same name, whatever file was given.
    let tar = Command::new("tar")
        .args([
            "--create",
            "--file=-",
            "--mode=0755",
            "--owner=0",
            "--group=0",
            "--transform=s,.*,bottle-testkit,",
        ])
        .arg("--directory")
        .arg(folder)
        .arg("--")
        .arg(name)
        .output()
        .expect("tar is there");
    assert!(
        tar.status.success(),
        "{}",
        String::from_utf8_lossy(&tar.stderr)
    );
    tar.stdout
}

/// A root and one certificate below it.
struct Pki {
    ca_pem: String,
    leaf_pem: String,
    key_pem: String,
}

impl Pki {
    fn make(hosts: &[&str]) -> Self {
        let mut params = CertificateParams::default();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        params.key_usages = vec![KeyUsagePurpose::KeyCertSign];
        params
            .distinguished_name
            .push(DnType::CommonName, "bottle test upstream CA");
        let ca_key = KeyPair::generate().expect("a key");
        let ca_pem = params.self_signed(&ca_key).expect("a certificate").pem();
        let issuer = Issuer::new(params, ca_key);
        let names: Vec<String> = hosts.iter().map(|&host| host.to_owned()).collect();
        let leaf = CertificateParams::new(names).expect("the hosts are names");
        let key = KeyPair::generate().expect("a key");
        let leaf_pem = leaf.signed_by(&key, &issuer).expect("a certificate").pem();
        Self {
            ca_pem,
            leaf_pem,
            key_pem: key.serialize_pem(),
        }
    }
}
