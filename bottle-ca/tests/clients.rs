//! What other implementations make of the CA: OpenSSL, Python's ssl and rustls accept a leaf exactly when its names are
//! permitted. `Scope::permits` is held to the same table, so what `verify --host` says is what clients do.

// Helpers of a test are no `#[test]` for clippy.
#![allow(clippy::unwrap_used)]

mod common;

use std::fs;
use std::path::Path;
use std::process::Command;
use std::sync::Arc;

use common::{Leaf, Place, dns, email, have, ip, leaf, outcome};
use rcgen::{BasicConstraints, CertificateParams, IsCa, Issuer, KeyPair, KeyUsagePurpose, SanType};
use rustls::client::WebPkiServerVerifier;
use rustls::client::danger::ServerCertVerifier as _;
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, ServerName, UnixTime};

const HOSTS: &str = "api.example.com,*.example.org,localhost";

/// A leaf's names, the name the client asks for, and why it must refuse (OpenSSL's words), if it must.
struct Case {
    asked: &'static str,
    names: Vec<SanType>,
    refused: Option<&'static str>,
}

const PERMITTED: &str = "permitted subtree violation";
const EXCLUDED: &str = "excluded subtree violation";

fn cases() -> Vec<Case> {
    let case = |asked, names, refused| Case {
        asked,
        names,
        refused,
    };
    vec![
        case("api.example.com", vec![dns("api.example.com")], None),
        case("v1.api.example.com", vec![dns("v1.api.example.com")], None),
        case("x.example.org", vec![dns("x.example.org")], None),
        case("y.example.org", vec![dns("*.example.org")], None),
        case("evil.org", vec![dns("evil.org")], Some(PERMITTED)),
        case("example.com", vec![dns("example.com")], Some(PERMITTED)),
        case(
            "xapi.example.com",
            vec![dns("xapi.example.com")],
            Some(PERMITTED),
        ),
        case(
            "other.example.com",
            vec![dns("*.example.com")],
            Some(PERMITTED),
        ),
        // One name too many spoils the leaf for the others.
        case(
            "api.example.com",
            vec![dns("api.example.com"), dns("evil.org")],
            Some(PERMITTED),
        ),
        case("127.0.0.1", vec![ip("127.0.0.1")], Some(EXCLUDED)),
        case("::1", vec![ip("::1")], Some(EXCLUDED)),
        case(
            "api.example.com",
            vec![dns("api.example.com"), ip("192.0.2.1")],
            Some(EXCLUDED),
        ),
    ]
}

fn openssl(ca: &Place, leaf: &Leaf, asked: &str, more: &[&str]) -> (bool, String) {
    let kind = if asked.parse::<std::net::IpAddr>().is_ok() {
        "-verify_ip"
    } else {
        "-verify_hostname"
    };
    let mut command = Command::new("openssl");
    command
        .args([
            "verify",
            "-x509_strict",
            "-purpose",
            "sslserver",
            kind,
            asked,
        ])
        .args(more);
    outcome(command.arg("-CAfile").arg(ca.cert()).arg(&leaf.cert))
}

#[test]
fn openssl_accepts_exactly_the_permitted_names() {
    if !have("openssl") {
        return;
    }
    let place = Place::minted(HOSTS);
    for case in cases() {
        let leaf = leaf(&place.dir, place.root.path(), "a leaf", &case.names);
        let (accepted, text) = openssl(&place, &leaf, case.asked, &[]);
        assert_eq!(accepted, case.refused.is_none(), "{}: {text}", case.asked);
        assert!(
            text.contains(case.refused.unwrap_or("OK")),
            "{}: {text}",
            case.asked
        );
    }
}

#[test]
fn openssl_looks_for_it_where_we_say() {
    if !have("openssl") {
        return;
    }
    let place = Place::minted(HOSTS);
    let mut command = Command::new("openssl");
    command.args(["x509", "-noout", "-subject_hash", "-in"]);
    let (ok, text) = outcome(command.arg(place.cert()));
    assert!(ok, "{text}");
    let pem = std::fs::read_to_string(place.cert()).unwrap();
    assert_eq!(text.trim(), bottle_ca::subject_hash(&pem).unwrap());
}

/// Several kinds of text, capitals, blanks and a long value: what the hash is taken of is not what is written.
#[test]
fn openssl_hashes_other_names_alike() {
    if !have("openssl") {
        return;
    }
    let folder = tempfile::tempdir().unwrap();
    let (key, certificate) = (folder.path().join("key"), folder.path().join("cert"));
    let long = "Long ".repeat(12);
    for subject in [
        "/C=DE/O=Two  Blanks /CN=UPPER lower".to_owned(),
        format!("/O={}/OU=x+CN=y", long.trim()),
        "/emailAddress=Somebody@Example.COM/CN=a".to_owned(),
    ] {
        let mut make = Command::new("openssl");
        make.args([
            "req", "-x509", "-newkey", "ed25519", "-noenc", "-subj", &subject,
        ]);
        make.arg("-keyout").arg(&key).arg("-out").arg(&certificate);
        let (ok, text) = outcome(&mut make);
        assert!(ok, "{text}");
        let mut command = Command::new("openssl");
        command.args(["x509", "-noout", "-subject_hash", "-in"]);
        let (_, text) = outcome(command.arg(&certificate));
        let pem = std::fs::read_to_string(&certificate).unwrap();
        assert_eq!(
            text.trim(),
            bottle_ca::subject_hash(&pem).unwrap(),
            "{subject}"
        );
    }
}

#[test]
fn openssl_reads_what_we_report() {
    if !have("openssl") {
        return;
    }
    let place = Place::minted(HOSTS);
    let authority = bottle_ca::read(&place.dir).unwrap();
    let mut command = Command::new("openssl");
    command.args([
        "x509",
        "-noout",
        "-fingerprint",
        "-sha256",
        "-serial",
        "-ext",
        "nameConstraints",
        "-in",
    ]);
    let (ok, text) = outcome(command.arg(place.cert()));
    assert!(ok, "{text}");
    assert!(text.contains(&authority.fingerprint()), "{text}");
    assert!(
        text.contains(&format!("serial={}\n", authority.serial())),
        "{text}"
    );
    for line in [
        "critical",
        "DNS:api.example.com",
        "DNS:example.org",
        "email:invalid",
        "IP:0.0.0.0/0.0.0.0",
    ] {
        assert!(text.contains(line), "{line}: {text}");
    }
}

#[test]
fn openssl_refuses_mail_addresses_host_like_common_names_and_other_purposes() {
    if !have("openssl") {
        return;
    }
    let place = Place::minted(HOSTS);
    let root = place.root.path();
    let names = [dns("api.example.com"), email("admin@bank.example")];
    let (accepted, text) = openssl(
        &place,
        &leaf(&place.dir, root, "a leaf", &names),
        "api.example.com",
        &[],
    );
    assert!(!accepted && text.contains(PERMITTED), "{text}");

    // No subjectAltName: old software would look at the common name.
    let (accepted, text) = openssl(
        &place,
        &leaf(&place.dir, root, "evil.org", &[]),
        "evil.org",
        &[],
    );
    assert!(!accepted && text.contains(PERMITTED), "{text}");

    let good = leaf(&place.dir, root, "a leaf", &[dns("api.example.com")]);
    for purpose in ["sslclient", "smimesign"] {
        let (accepted, text) = openssl(&place, &good, "api.example.com", &["-purpose", purpose]);
        assert!(!accepted && text.contains("purpose"), "{purpose}: {text}");
    }
}

#[test]
fn openssl_refuses_a_ca_below_ours() {
    if !have("openssl") {
        return;
    }
    let place = Place::minted(HOSTS);
    let key = KeyPair::from_pem(&fs::read_to_string(place.key()).unwrap()).unwrap();
    let ours = Issuer::from_ca_cert_pem(&fs::read_to_string(place.cert()).unwrap(), key).unwrap();
    let mut params = CertificateParams::default();
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    params.key_usages = vec![KeyUsagePurpose::KeyCertSign];
    params.use_authority_key_identifier_extension = true;
    let below_key = KeyPair::generate().unwrap();
    let below = params.signed_by(&below_key, &ours).unwrap();
    let chain = place.root.path().join("below.pem");
    fs::write(&chain, below.pem()).unwrap();
    let issuer = Issuer::new(params, below_key);
    let leaf = common::sign(
        &issuer,
        place.root.path(),
        "a leaf",
        &[dns("api.example.com")],
    );
    let (accepted, text) = openssl(
        &place,
        &leaf,
        "api.example.com",
        &["-untrusted", chain.to_str().unwrap()],
    );
    assert!(
        !accepted && text.contains("path length constraint exceeded"),
        "{text}"
    );
}

#[test]
fn without_hosts_openssl_accepts_nothing() {
    if !have("openssl") {
        return;
    }
    let place = Place::new();
    let mut command = common::tool();
    command
        .args(["mint", "--dir"])
        .arg(&place.dir)
        .assert()
        .success();
    for (asked, name) in [
        ("api.example.com", dns("api.example.com")),
        ("10.0.0.1", ip("10.0.0.1")),
    ] {
        let leaf = leaf(&place.dir, place.root.path(), "a leaf", &[name]);
        assert!(!openssl(&place, &leaf, asked, &[]).0, "{asked}");
    }
}

#[test]
fn an_asked_for_address_is_accepted_and_its_neighbours_are_not() {
    if !have("openssl") {
        return;
    }
    let place = Place::new();
    place
        .mint("a.example")
        .args(["--addresses", "10.1.0.0/16"])
        .assert()
        .success();
    for (asked, expected) in [("10.1.2.3", true), ("10.2.0.0", false), ("::1", false)] {
        let leaf = leaf(&place.dir, place.root.path(), "a leaf", &[ip(asked)]);
        let (accepted, text) = openssl(&place, &leaf, asked, &[]);
        assert_eq!(accepted, expected, "{asked}: {text}");
        assert_eq!(
            rustls_accepts(&place.cert(), &leaf, asked).is_ok(),
            expected,
            "{asked}"
        );
        assert_eq!(
            bottle_ca::read(&place.dir).unwrap().scope().permits(asked),
            expected
        );
    }
}

/// A server and a strict client in one process, over a real socket.
const PYTHON: &str = r#"
import socket, ssl, sys, threading
ca, cert, key, name = sys.argv[1:]
server = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
server.load_cert_chain(cert, key)
listener = socket.create_server(("127.0.0.1", 0))
def serve():
    plain, _ = listener.accept()
    try:
        with server.wrap_socket(plain, server_side=True) as tls:
            tls.sendall(b"hello")
    except OSError:
        pass
threading.Thread(target=serve, daemon=True).start()
client = ssl.create_default_context(cafile=ca)
client.verify_flags |= ssl.VERIFY_X509_STRICT
try:
    with client.wrap_socket(socket.create_connection(listener.getsockname()), server_hostname=name) as tls:
        assert tls.recv(5) == b"hello"
        print("OK")
except ssl.SSLCertVerificationError as error:
    sys.exit(error.verify_message)
"#;

#[test]
fn pythons_strict_client_accepts_exactly_the_permitted_names() {
    if !have("python3") {
        return;
    }
    let place = Place::minted(HOSTS);
    for case in cases() {
        let leaf = leaf(&place.dir, place.root.path(), "a leaf", &case.names);
        let mut command = Command::new("python3");
        command
            .args(["-c", PYTHON])
            .arg(place.cert())
            .arg(&leaf.cert)
            .arg(&leaf.key)
            .arg(case.asked);
        let (accepted, text) = outcome(&mut command);
        assert_eq!(accepted, case.refused.is_none(), "{}: {text}", case.asked);
        assert!(
            text.contains(case.refused.unwrap_or("OK")),
            "{}: {text}",
            case.asked
        );
    }
}

fn rustls_accepts(ca: &Path, leaf: &Leaf, asked: &str) -> Result<(), rustls::Error> {
    let mut roots = rustls::RootCertStore::empty();
    roots
        .add(CertificateDer::from_pem_file(ca).unwrap())
        .unwrap();
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let verifier = WebPkiServerVerifier::builder_with_provider(Arc::new(roots), provider)
        .build()
        .unwrap();
    let asked = ServerName::try_from(asked).unwrap();
    verifier
        .verify_server_cert(leaf.der.der(), &[], &asked, &[], UnixTime::now())
        .map(drop)
}

#[test]
fn rustls_accepts_exactly_the_permitted_names() {
    let place = Place::minted(HOSTS);
    for case in cases() {
        let leaf = leaf(&place.dir, place.root.path(), "a leaf", &case.names);
        let result = rustls_accepts(&place.cert(), &leaf, case.asked);
        match case.refused {
            None => result.unwrap(),
            Some(_) => {
                let error = format!("{:?}", result.unwrap_err());
                assert!(
                    error.contains("NameConstraintViolation"),
                    "{}: {error}",
                    case.asked
                );
            }
        }
    }
}

#[test]
fn our_own_answer_is_that_of_the_clients() {
    let place = Place::minted(HOSTS);
    let authority = bottle_ca::read(&place.dir).unwrap();
    // The cases of one name: the others are about a leaf, not about a name.
    for case in cases().iter().filter(|case| case.names.len() == 1) {
        assert_eq!(
            authority.scope().permits(case.asked),
            case.refused.is_none(),
            "{}",
            case.asked
        );
    }
}
