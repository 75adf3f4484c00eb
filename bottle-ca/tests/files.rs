//! The two files: their modes, when they are kept, and what is done about a hostile or broken folder.

// Helpers of a test are no `#[test]` for clippy.
#![allow(clippy::unwrap_used)]

mod common;

use std::fs;
use std::os::unix::fs::{chown, symlink};
use std::path::Path;
use std::process::Command;

use bottle_ca::{Outcome, Request, ensure, read};
use common::{CERT, KEY, Place, binary, have, mode, names, outcome, set_mode, skip, tool};
use predicates::str::contains;
use time::{Duration, OffsetDateTime};

fn request(dir: &Path) -> Request {
    Request {
        dir: dir.to_owned(),
        common_name: "bottle egress CA demo".to_owned(),
        hosts: vec!["api.example.com".to_owned()],
        any_host: false,
        addresses: Vec::new(),
        days: 30,
    }
}

fn root() -> bool {
    nix::unistd::geteuid().is_root()
}

/// `ensure` fails, names `reason`, offers a way out, and changes nothing.
fn assert_refused(place: &Place, code: u8, reason: &str) {
    let before = names(&place.dir);
    let failure = ensure(&request(&place.dir), false, OffsetDateTime::now_utc()).unwrap_err();
    assert!(failure.chain().contains(reason), "{}", failure.chain());
    assert_eq!(failure.kind().code(), code, "{}", failure.chain());
    assert!(failure.hint_text().is_some());
    assert_eq!(names(&place.dir), before);
}

fn minted() -> Place {
    let place = Place::new();
    let (_, outcome) = ensure(&request(&place.dir), false, OffsetDateTime::now_utc()).unwrap();
    assert_eq!(outcome, Outcome::Minted);
    place
}

#[test]
fn files_have_their_modes_whatever_the_umask() {
    for umask in ["000", "022", "077"] {
        let place = Place::new();
        let script = format!("umask {umask}; exec \"$0\" mint --hosts a.example --dir \"$1\"");
        let (ok, text) = outcome(
            Command::new("sh")
                .args(["-c", &script])
                .arg(binary())
                .arg(&place.dir),
        );
        assert!(ok, "{text}");
        assert_eq!(mode(&place.dir), 0o700);
        assert_eq!(mode(&place.key()), 0o600);
        assert_eq!(mode(&place.cert()), 0o644);
        assert_eq!(place.names(), [CERT, KEY]);
    }
}

#[test]
fn the_key_file_is_key_then_certificate_and_the_other_the_certificate_alone() {
    let (key, cert) = Place::minted("a.example").contents();
    assert!(key.starts_with("-----BEGIN PRIVATE KEY-----\n"));
    assert!(key.ends_with(&cert) && cert.starts_with("-----BEGIN CERTIFICATE-----\n"));
    assert_eq!(key.matches("-----BEGIN").count(), 2);
    assert_eq!(cert.matches("-----BEGIN").count(), 1);
    assert!(key.lines().all(|line| line.len() <= 64));
}

#[test]
fn a_second_run_keeps_what_is_there() {
    let place = minted();
    let before = place.contents();
    let mut reordered = request(&place.dir);
    reordered.hosts = vec!["API.example.com".to_owned(), "*.api.example.com".to_owned()];
    reordered.days = 1;
    for request in [request(&place.dir), reordered] {
        let (authority, outcome) = ensure(&request, false, OffsetDateTime::now_utc()).unwrap();
        assert_eq!(outcome, Outcome::Kept);
        assert_eq!(authority.cert_pem(), before.1);
    }
    assert_eq!(place.contents(), before);
}

#[test]
fn renew_replaces_a_valid_ca_and_makes_a_missing_one() {
    let place = minted();
    let before = place.contents();
    let now = OffsetDateTime::now_utc();
    assert_eq!(
        ensure(&request(&place.dir), true, now).unwrap().1,
        Outcome::Renewed
    );
    let after = place.contents();
    assert!(before.0 != after.0 && before.1 != after.1);
    assert_eq!((mode(&place.key()), mode(&place.cert())), (0o600, 0o644));
    assert_eq!(
        ensure(&request(&Place::new().dir), true, now).unwrap().1,
        Outcome::Minted
    );
}

#[test]
fn an_expired_or_not_yet_valid_ca_is_not_replaced_silently() {
    let place = minted();
    for (shift, reason) in [(31, "expired"), (-1, "not valid before")] {
        let then = OffsetDateTime::now_utc() + Duration::days(shift);
        let failure = ensure(&request(&place.dir), false, then).unwrap_err();
        assert!(failure.chain().contains(reason), "{}", failure.chain());
        assert_eq!(failure.kind().code(), 1);
        assert!(failure.hint_text().unwrap().contains("--renew"));
    }
    let later = OffsetDateTime::now_utc() + Duration::days(31);
    let (authority, outcome) = ensure(&request(&place.dir), true, later).unwrap();
    assert_eq!(outcome, Outcome::Renewed);
    assert!(authority.not_after() > later);
}

#[test]
fn another_policy_or_another_bottle_is_a_conflict_that_names_the_difference() {
    let place = minted();
    let before = place.contents();
    place
        .mint("api.example.com,new.example.com")
        .args(["--name", "bottle egress CA demo"])
        .assert()
        .code(5)
        .stdout("")
        .stderr(contains("lacks new.example.com and has nothing too many"));
    place
        .mint("api.example.com")
        .assert()
        .code(5)
        .stderr(contains("belongs to `bottle egress CA demo`"));
    place
        .mint("api.example.com")
        .args(["--name", "bottle egress CA demo", "--addresses", "10.0.0.1"])
        .assert()
        .code(5);
    assert_eq!(place.contents(), before);
}

#[test]
fn half_a_pair_is_an_error_until_renewed() {
    for (gone, reason) in [
        (KEY, "mitmproxy-ca.pem is not"),
        (CERT, "mitmproxy-ca-cert.pem is not"),
    ] {
        let place = minted();
        fs::remove_file(place.dir.join(gone)).unwrap();
        assert_refused(&place, 1, reason);
        tool()
            .args(["show", "--dir"])
            .arg(&place.dir)
            .assert()
            .code(1)
            .stderr(contains(reason));
        let (_, outcome) = ensure(&request(&place.dir), true, OffsetDateTime::now_utc()).unwrap();
        assert_eq!(outcome, Outcome::Renewed);
        assert_eq!(place.names(), [CERT, KEY]);
    }
}

#[test]
fn files_of_two_cas_are_an_error() {
    let (place, other) = (minted(), minted());
    fs::copy(other.cert(), place.cert()).unwrap();
    assert_refused(&place, 1, "two different certificates");

    // The certificate of one with the key of the other, in both files.
    let place = minted();
    let (key_file, _) = place.contents();
    let (_, other_cert) = other.contents();
    let key = &key_file[..key_file.find("-----BEGIN CERTIFICATE").unwrap()];
    fs::write(place.key(), format!("{key}{other_cert}")).unwrap();
    fs::write(place.cert(), other_cert).unwrap();
    assert_refused(&place, 1, "does not belong to the certificate");
}

#[test]
fn files_with_more_less_or_other_content_are_an_error() {
    let (key_file, cert) = minted().contents();
    let at = key_file.find("-----BEGIN CERTIFICATE").unwrap();
    let swapped = format!("{}{}", &key_file[at..], &key_file[..at]);
    let old_form = key_file.replace("PRIVATE KEY", "RSA PRIVATE KEY");
    let two = format!("{cert}{cert}");
    for (name, content) in [
        (KEY, ""),
        (KEY, cert.as_str()),
        (KEY, &key_file[..at]),
        (KEY, &swapped),
        (KEY, &old_form),
        (KEY, "\0\u{ff}"),
        (KEY, &key_file[..100]),
        (CERT, ""),
        (CERT, &key_file),
        (CERT, &two),
        (CERT, "-----BEGIN CERTIFICATE-----\n!"),
    ] {
        let place = minted();
        fs::write(place.dir.join(name), content).unwrap();
        assert!(read(&place.dir).is_err(), "{name}: {content:?}");
        assert_refused(&place, 1, "cannot be used");
    }
}

#[test]
fn a_ca_without_our_constraints_is_not_taken_over() {
    let place = minted();
    let key = rcgen::KeyPair::generate().unwrap();
    let mut params = rcgen::CertificateParams::default();
    params.is_ca = rcgen::IsCa::Ca(rcgen::BasicConstraints::Constrained(0));
    let cert = params.self_signed(&key).unwrap().pem();
    fs::write(place.key(), format!("{}{cert}", key.serialize_pem())).unwrap();
    fs::write(place.cert(), cert).unwrap();
    assert_refused(&place, 1, "not one that bottle-ca makes");
}

#[test]
fn a_key_that_others_can_read_is_refused() {
    let place = minted();
    for bits in [0o640, 0o604, 0o660] {
        set_mode(&place.key(), bits);
        assert_refused(&place, 3, "no secret any more");
    }
}

#[test]
fn planted_links_pipes_and_folders_are_neither_read_nor_written_through() {
    let place = minted();
    let elsewhere = place.root.path().join("elsewhere");
    fs::rename(place.key(), &elsewhere).unwrap();
    symlink(&elsewhere, place.key()).unwrap();
    assert_refused(&place, 1, "cannot open");
    let secret = fs::read(&elsewhere).unwrap();
    ensure(&request(&place.dir), true, OffsetDateTime::now_utc()).unwrap();
    assert!(fs::symlink_metadata(place.key()).unwrap().is_file());
    assert_eq!(fs::read(&elsewhere).unwrap(), secret);

    fs::remove_file(place.cert()).unwrap();
    nix::unistd::mkfifo(
        &place.cert(),
        nix::sys::stat::Mode::from_bits_truncate(0o644),
    )
    .unwrap();
    assert_refused(&place, 1, "is not a file of ours");
}

#[test]
fn a_folder_that_is_a_link_is_refused_with_and_without_a_slash() {
    let place = minted();
    let link = place.root.path().join("link");
    symlink(&place.dir, &link).unwrap();
    let dangling = place.root.path().join("dangling");
    symlink(place.root.path().join("nowhere"), &dangling).unwrap();
    for path in [link.clone(), link.join(""), link.join("."), dangling] {
        let failure = ensure(&request(&path), false, OffsetDateTime::now_utc()).unwrap_err();
        assert_eq!(failure.kind().code(), 3, "{}", failure.chain());
        assert_eq!(read(&path).unwrap_err().kind().code(), 3);
    }
    assert!(!place.root.path().join("nowhere").exists());
}

#[test]
fn a_folder_others_can_write_to_is_refused() {
    for bits in [0o777, 0o1777, 0o770, 0o702] {
        let place = Place::new();
        fs::create_dir(&place.dir).unwrap();
        set_mode(&place.dir, bits);
        assert_refused(&place, 3, "can be written to by others");
        place
            .mint("a.example")
            .assert()
            .code(3)
            .stderr(contains("hint: chmod go-w"));
        assert!(place.names().is_empty());
    }
}

#[test]
fn a_folder_of_another_user_is_refused() {
    if !root() {
        return skip("only root can give a folder away");
    }
    let place = Place::new();
    fs::create_dir(&place.dir).unwrap();
    set_mode(&place.dir, 0o755);
    chown(&place.dir, Some(65534), None).unwrap();
    assert_refused(&place, 3, "belongs to user 65534");
}

#[test]
fn a_read_only_folder_is_left_as_it_was() {
    let place = Place::new();
    fs::create_dir(&place.dir).unwrap();
    set_mode(&place.dir, 0o500);
    let mut command = if root() {
        // Modes do not bind root: run as nobody, in a folder of nobody's.
        if !have("setpriv") {
            return;
        }
        set_mode(place.root.path(), 0o755);
        chown(&place.dir, Some(65534), Some(65534)).unwrap();
        let mut command = Command::new("setpriv");
        command
            .args(["--reuid=65534", "--regid=65534", "--clear-groups"])
            .arg(binary());
        command
    } else {
        Command::new(binary())
    };
    let output = command
        .args(["mint", "--hosts", "a.example", "--dir"])
        .arg(&place.dir)
        .output()
        .unwrap();
    let text = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(1), "{text}");
    assert!(
        text.contains("cannot create") && output.stdout.is_empty(),
        "{text}"
    );
    assert!(place.names().is_empty());
}

#[test]
fn if_the_second_file_cannot_be_placed_the_first_is_taken_back() {
    let place = Place::new();
    fs::create_dir(&place.dir).unwrap();
    set_mode(&place.dir, 0o700);
    // A folder in the certificate's place: the last step fails, even for root.
    fs::create_dir(place.cert()).unwrap();
    assert!(ensure(&request(&place.dir), true, OffsetDateTime::now_utc()).is_err());
    assert_eq!(place.names(), [CERT]);
}

#[test]
fn what_a_killed_run_left_is_swept_up() {
    let place = Place::new();
    fs::create_dir(&place.dir).unwrap();
    set_mode(&place.dir, 0o700);
    fs::write(place.dir.join(format!(".{KEY}.new")), "half a key").unwrap();
    symlink("/etc/passwd", place.dir.join(format!(".{CERT}.new"))).unwrap();
    ensure(&request(&place.dir), false, OffsetDateTime::now_utc()).unwrap();
    assert_eq!(place.names(), [CERT, KEY]);
}

#[test]
fn of_many_at_once_one_mints_and_the_others_keep_it() {
    let place = Place::new();
    fs::create_dir(&place.dir).unwrap();
    set_mode(&place.dir, 0o700);
    let runs: Vec<_> = std::thread::scope(|scope| {
        let run = || ensure(&request(&place.dir), false, OffsetDateTime::now_utc()).unwrap();
        let threads: Vec<_> = (0..8).map(|_| scope.spawn(run)).collect();
        threads
            .into_iter()
            .map(|thread| thread.join().unwrap())
            .collect()
    });
    assert_eq!(
        runs.iter()
            .filter(|(_, outcome)| *outcome == Outcome::Minted)
            .count(),
        1
    );
    assert_eq!(
        runs.iter()
            .filter(|(_, outcome)| *outcome == Outcome::Kept)
            .count(),
        7
    );
    assert!(
        runs.iter()
            .all(|(authority, _)| authority.fingerprint() == runs[0].0.fingerprint())
    );
}
