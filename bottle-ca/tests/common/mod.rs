//! What the suites share: the tool in a clean environment, a folder, leaves signed from the files, and the one way to skip.

// Each suite is a crate of its own and uses a part of this.
#![allow(dead_code)]

use std::fs;
use std::io::Write as _;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::process::Command;

use assert_cmd::cargo::cargo_bin;
use rcgen::{
    CertificateParams, DistinguishedName, DnType, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair,
    KeyUsagePurpose, SanType,
};
use tempfile::TempDir;
use time::{Duration, OffsetDateTime};

pub(crate) const KEY: &str = "mitmproxy-ca.pem";
pub(crate) const CERT: &str = "mitmproxy-ca-cert.pem";

/// Says loudly that a test proved nothing. Not through `eprintln!`, which the test harness swallows.
pub(crate) fn skip(reason: &str) {
    let test = std::thread::current();
    let name = test.name().unwrap_or("a test").to_owned();
    let _ = writeln!(std::io::stderr(), "SKIPPED: {name}: {reason}");
}

/// Whether `program` can be run here; says so if not.
pub(crate) fn have(program: &str) -> bool {
    let found = std::env::split_paths(&std::env::var_os("PATH").unwrap_or_default())
        .any(|folder| folder.join(program).is_file());
    if !found {
        skip(&format!("there is no {program} on this machine"));
    }
    found
}

pub(crate) fn binary() -> PathBuf {
    cargo_bin!("bottle-ca").to_owned()
}

/// The tool, without the environment of whoever runs the tests.
pub(crate) fn tool() -> assert_cmd::Command {
    let mut command = assert_cmd::Command::new(binary());
    command.env_clear();
    command
}

/// A folder, and in it a place for a CA that is not there yet.
pub(crate) struct Place {
    pub(crate) root: TempDir,
    pub(crate) dir: PathBuf,
}

impl Place {
    pub(crate) fn new() -> Self {
        let root = tempfile::tempdir().unwrap();
        let dir = root.path().join("egress");
        Self { root, dir }
    }

    /// With a CA for `hosts`, made by the tool.
    pub(crate) fn minted(hosts: &str) -> Self {
        let place = Self::new();
        place.mint(hosts).assert().success().stdout("");
        place
    }

    pub(crate) fn mint(&self, hosts: &str) -> assert_cmd::Command {
        let mut command = tool();
        command
            .args(["mint", "--hosts", hosts, "--dir"])
            .arg(&self.dir);
        command
    }

    pub(crate) fn key(&self) -> PathBuf {
        self.dir.join(KEY)
    }

    pub(crate) fn cert(&self) -> PathBuf {
        self.dir.join(CERT)
    }

    /// Every name in the folder, sorted.
    pub(crate) fn names(&self) -> Vec<String> {
        names(&self.dir)
    }

    pub(crate) fn contents(&self) -> (String, String) {
        (
            fs::read_to_string(self.key()).unwrap(),
            fs::read_to_string(self.cert()).unwrap(),
        )
    }
}

pub(crate) fn names(dir: &Path) -> Vec<String> {
    let mut names: Vec<_> = fs::read_dir(dir)
        .unwrap()
        .map(|entry| entry.unwrap().file_name().into_string().unwrap())
        .collect();
    names.sort();
    names
}

pub(crate) fn mode(path: &Path) -> u32 {
    fs::symlink_metadata(path).unwrap().permissions().mode() & 0o7777
}

pub(crate) fn set_mode(path: &Path, mode: u32) {
    fs::set_permissions(path, fs::Permissions::from_mode(mode)).unwrap();
}

/// A server certificate.
pub(crate) struct Leaf {
    pub(crate) der: rcgen::Certificate,
    pub(crate) cert: PathBuf,
    pub(crate) key: PathBuf,
}

pub(crate) fn dns(name: &str) -> SanType {
    SanType::DnsName(name.try_into().unwrap())
}

pub(crate) fn ip(address: &str) -> SanType {
    SanType::IpAddress(address.parse().unwrap())
}

pub(crate) fn email(address: &str) -> SanType {
    SanType::Rfc822Name(address.try_into().unwrap())
}

/// A leaf signed with nothing but the two files, as a proxy or a thief would.
pub(crate) fn leaf(ca: &Path, into: &Path, common_name: &str, names: &[SanType]) -> Leaf {
    let key = KeyPair::from_pem(&fs::read_to_string(ca.join(KEY)).unwrap()).unwrap();
    let issuer =
        Issuer::from_ca_cert_pem(&fs::read_to_string(ca.join(CERT)).unwrap(), key).unwrap();
    sign(&issuer, into, common_name, names)
}

pub(crate) fn sign(
    issuer: &Issuer<'_, KeyPair>,
    into: &Path,
    common_name: &str,
    names: &[SanType],
) -> Leaf {
    let mut params = CertificateParams::default();
    params.distinguished_name = DistinguishedName::new();
    params
        .distinguished_name
        .push(DnType::CommonName, common_name);
    params.not_before = OffsetDateTime::now_utc() - Duration::minutes(5);
    params.not_after = params.not_before + Duration::days(1);
    params.is_ca = IsCa::ExplicitNoCa;
    params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
    params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth];
    params.use_authority_key_identifier_extension = true;
    params.subject_alt_names = names.to_vec();
    let key = KeyPair::generate().unwrap();
    let der = params.signed_by(&key, issuer).unwrap();
    let (cert_path, key_path) = (into.join("leaf.pem"), into.join("leaf.key"));
    fs::write(&cert_path, der.pem()).unwrap();
    fs::write(&key_path, key.serialize_pem()).unwrap();
    Leaf {
        der,
        cert: cert_path,
        key: key_path,
    }
}

/// Runs to the end: success, and stdout and stderr together.
pub(crate) fn outcome(command: &mut Command) -> (bool, String) {
    let output = command.output().unwrap();
    let text = [output.stdout, output.stderr].concat();
    (
        output.status.success(),
        String::from_utf8_lossy(&text).into_owned(),
    )
}
