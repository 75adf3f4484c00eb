//! `bottle-run audit` on folders made by hand: no engine, no bottle.

// A test that cannot go on says so by panicking; clippy's exception for tests ends at their helpers.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod home;

use std::fs;
use std::io::{BufRead as _, BufReader};
use std::path::Path;
use std::process::{Command, Stdio};

use bottle_plan::audit::{CURRENT_FILE, Dropped, Record, closed_file};
use serde_json::Value;

use home::{Home, SLUG, closing, denied, record};

fn cut(path: &Path, bytes: u64) {
    let file = fs::OpenOptions::new().write(true).open(path).unwrap();
    file.set_len(file.metadata().unwrap().len() - bytes)
        .unwrap();
}

#[test]
fn an_untouched_chain_is_intact() {
    let home = Home::usual();
    home.finds(&[]);
    let (_, _, value) = home.verify();
    assert_eq!(value["records"], 6);
    assert_eq!(value["head"], home.head.prev.as_str());
    assert_eq!(value["notes"], serde_json::json!([]));
    let text = home.stdout(&["verify", SLUG]);
    assert!(
        text.starts_with("demo-abcde: intact, 6 records (0 to 5) in 1 file\n"),
        "{text}"
    );
}

#[test]
fn a_changed_line_is_tampering() {
    let home = Home::usual();
    home.edit(CURRENT_FILE, |lines| {
        lines[3] = lines[3].replace("evil.test", "good.test");
    });
    home.finds(&["tampering audit.jsonl:5"]);
    home.edit(CURRENT_FILE, |lines| lines[3] = "not a record".into());
    home.finds(&["tampering audit.jsonl:5"]);
}

#[test]
fn numbers_at_their_end_do_not_end_the_check() {
    let mut home = Home::new();
    home.head.seq = u64::MAX;
    home.append(CURRENT_FILE, [record("a.test")]);
    home.edit(CURRENT_FILE, |lines| lines.push("not a record".into()));
    home.append(CURRENT_FILE, [record("b.test")]);
    let (code, findings, _) = home.verify();
    assert_eq!(code, 1);
    assert!(
        findings.contains(&"tampering audit.jsonl:3".to_owned()),
        "{findings:?}"
    );
}

#[test]
fn a_removed_line_is_a_gap() {
    let home = Home::usual();
    home.edit(CURRENT_FILE, |lines| drop(lines.drain(2..4)));
    home.finds(&["gap audit.jsonl:3"]);
    let (_, _, value) = home.verify();
    assert_eq!(
        value["findings"][0]["message"],
        "records 2 to 3 are missing before this line"
    );
}

#[test]
fn a_cut_off_end_is_truncation() {
    let home = Home::usual();
    cut(&home.file(CURRENT_FILE), 20);
    home.finds(&["truncation audit.jsonl:6"]);
    // Whole lines: only somebody who kept the hash can know.
    home.edit(CURRENT_FILE, |lines| lines.truncate(4));
    home.finds(&[]);
    let (_, _, value) = home.verify();
    assert!(
        value["notes"][0]
            .as_str()
            .unwrap()
            .contains("the end is open")
    );
    let head = &home.head.prev;
    let output = home.run(&["verify", SLUG, "--head", head]);
    assert_eq!(output.status.code(), Some(1));
    assert!(String::from_utf8_lossy(&output.stdout).contains("truncation"));
}

#[test]
fn the_hash_that_down_kept_shows_a_cut_off_end_by_itself() {
    let home = Home::usual();
    let metadata = serde_json::json!({
        "schema": "bottle.metadata/v1",
        "slug": SLUG,
        "name": "web",
        "subnet": "10.213.0.0/27",
        "created_at": "2026-11-23T12:00:00Z",
        "audit_head": home.head.prev,
    });
    let path = home.file(CURRENT_FILE).with_file_name("../metadata.json");
    std::fs::write(path, metadata.to_string()).unwrap();
    home.finds(&[]);
    home.edit(CURRENT_FILE, |lines| lines.truncate(4));
    let output = home.run(&["verify", SLUG]);
    assert_eq!(output.status.code(), Some(1));
    assert!(String::from_utf8_lossy(&output.stdout).contains("truncation"));
}

#[test]
fn a_kept_hash_is_found_again() {
    let mut home = Home::usual();
    let kept = home.head.prev.clone();
    home.append(CURRENT_FILE, [record("later.test")]);
    let output = home.run(&["verify", SLUG, "--head", &kept]);
    assert_eq!(output.status.code(), Some(0), "{output:?}");
}

#[test]
fn a_missing_beginning_is_truncation_unless_it_was_announced() {
    let mut home = Home::new();
    home.append(&closed_file(1), [record("a.test"), record("b.test")]);
    let announced = Dropped {
        through: home.head.seq - 1,
        hash: home.head.prev.clone(),
    };
    home.append(CURRENT_FILE, [record("c.test"), closing()]);
    fs::remove_file(home.file(&closed_file(1))).unwrap();
    home.finds(&["truncation audit.jsonl:1"]);

    let note = Record {
        reason: "audit_dropped".into(),
        dropped: Some(announced),
        ..closing()
    };
    home.append(CURRENT_FILE, [note, closing()]);
    home.finds(&[]);
    let (_, _, value) = home.verify();
    assert!(
        value["notes"][0]
            .as_str()
            .unwrap()
            .contains("records 0 to 1 are gone")
    );
}

#[test]
fn swapped_and_missing_files_are_seen() {
    let mut home = Home::new();
    for number in 1..=3 {
        home.append(&closed_file(number), [record("a.test"), record("b.test")]);
    }
    home.append(CURRENT_FILE, [closing()]);
    home.finds(&[]);
    let (one, two) = (home.file(&closed_file(1)), home.file(&closed_file(2)));
    let kept = home.file("kept");
    fs::rename(&one, &kept).unwrap();
    fs::rename(&two, &one).unwrap();
    fs::rename(&kept, &two).unwrap();
    let (code, findings, _) = home.verify();
    assert_eq!(code, 1);
    assert!(
        findings.contains(&"tampering audit-000002.jsonl:1".to_owned()),
        "{findings:?}"
    );
    fs::rename(&two, &kept).unwrap();
    fs::rename(&one, &two).unwrap();
    fs::rename(&kept, &one).unwrap();
    fs::remove_file(&two).unwrap();
    home.finds(&["gap audit-000003.jsonl:1"]);
}

#[test]
fn a_torn_line_with_the_chain_going_on_behind_it_is_a_note() {
    let mut home = Home::usual();
    let torn = b"{\"schema\":\"bottle.au";
    let mut text = fs::read(home.file(CURRENT_FILE)).unwrap();
    text.extend_from_slice(torn);
    text.push(b'\n');
    fs::write(home.file(CURRENT_FILE), text).unwrap();
    home.finds(&["truncation audit.jsonl:7"]);
    home.head.pass_torn(torn);
    home.append(CURRENT_FILE, [record("a.test"), closing()]);
    home.finds(&[]);
    let (_, _, value) = home.verify();
    assert!(
        value["notes"][0]
            .as_str()
            .unwrap()
            .starts_with("audit.jsonl:7 was cut off by a crash")
    );
}

#[test]
fn hostile_bytes_are_reported_and_never_printed() {
    let home = Home::usual();
    let mut text = fs::read(home.file(CURRENT_FILE)).unwrap();
    text.extend_from_slice(b"\x1b]52;c;aGk=\x07\xff\xfe\0\n");
    text.extend_from_slice(&vec![b'x'; 2 << 20]);
    text.extend_from_slice(b"\n");
    fs::write(home.file(CURRENT_FILE), text).unwrap();
    for args in [
        &["verify", SLUG][..],
        &[SLUG],
        &[SLUG, "--json"],
        &[SLUG, "--summary"],
    ] {
        let output = home.run(args);
        let shown = [output.stdout, output.stderr].concat();
        let harmless = |b: &u8| (b' '..=b'~').contains(b) || *b == b'\n';
        assert!(
            shown.iter().all(harmless),
            "{args:?} {}",
            shown.escape_ascii()
        );
        assert!(shown.len() < 10_000);
    }
    let (code, findings, _) = home.verify();
    assert_eq!(code, 1);
    assert!(
        findings
            .iter()
            .any(|finding| finding.starts_with("tampering")),
        "{findings:?}"
    );
}

#[test]
fn links_and_pipes_are_not_followed() {
    let home = Home::new();
    std::os::unix::fs::symlink("/etc/passwd", home.file(CURRENT_FILE)).unwrap();
    let output = home.run(&[SLUG]);
    assert!(
        !output.status.success() && output.stdout.is_empty(),
        "{output:?}"
    );
    fs::remove_file(home.file(CURRENT_FILE)).unwrap();
    make_pipe(&home.file(CURRENT_FILE));
    assert!(!home.run(&[SLUG]).status.success());
    assert_eq!(home.verify().0, 1);
}

fn make_pipe(path: &Path) {
    assert!(Command::new("mkfifo").arg(path).status().unwrap().success());
}

#[test]
fn records_are_shown_for_people_and_for_machines() {
    let home = Home::usual();
    let text = home.stdout(&[SLUG]);
    assert_eq!(text.lines().count(), 6);
    assert!(
        text.starts_with(
            "2026-11-23T16:00:00.042Z  allow  GET a.test/v1  allowed 200  demo.yaml:7\n"
        ),
        "{text}"
    );
    let text = home.stdout(&[SLUG, "--denied"]);
    assert_eq!(text.lines().count(), 2);
    assert!(text.contains("deny   GET evil.test/v1  host_not_allowed 403"));

    let raw = fs::read_to_string(home.file(CURRENT_FILE)).unwrap();
    assert_eq!(home.stdout(&[SLUG, "--json"]), raw);
    assert_eq!(
        home.stdout(&[SLUG, "--since", "2026-11-23T16:00:00Z"])
            .lines()
            .count(),
        6
    );
    assert_eq!(home.stdout(&[SLUG, "--since", "2026-11-23T16:00:01Z"]), "");
}

#[test]
fn a_summary_counts_what_each_record_stands_for() {
    let mut home = Home::usual();
    let flood = Record {
        count: 1000,
        dlp: vec!["token_patterns/jwt".into()],
        ..denied("evil.test")
    };
    home.append(CURRENT_FILE, [flood]);
    let value: Value = serde_json::from_str(&home.stdout(&[SLUG, "--summary", "--json"])).unwrap();
    assert_eq!(value["schema"], "bottle.audit-summary/v1");
    assert_eq!(
        (&value["requests"], &value["bytes_in"]),
        (&1005.into(), &30.into())
    );
    let group = &value["groups"][0];
    assert_eq!(
        (&group["host"], &group["requests"]),
        (&"evil.test".into(), &1002.into())
    );
    assert_eq!(group["dlp"]["token_patterns/jwt"], 1000);
    let table = home.stdout(&[SLUG, "--summary"]);
    assert!(
        table
            .lines()
            .nth(1)
            .unwrap()
            .trim_start()
            .starts_with("1002  deny"),
        "{table}"
    );
}

#[test]
fn following_goes_on_in_the_next_file() {
    let mut home = Home::new();
    home.append(CURRENT_FILE, [record("one.test")]);
    let mut child = home
        .command(&[SLUG, "--follow"])
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
    let mut next = || lines.next().unwrap().unwrap();
    assert!(next().contains("one.test"));
    home.append(CURRENT_FILE, [record("two.test")]);
    assert!(next().contains("two.test"));
    home.append(CURRENT_FILE, [record("three.test")]);
    fs::rename(home.file(CURRENT_FILE), home.file(&closed_file(1))).unwrap();
    home.append(CURRENT_FILE, [record("four.test")]);
    assert!(next().contains("three.test"));
    assert!(next().contains("four.test"));
    child.kill().unwrap();
    child.wait().unwrap();
}

#[test]
fn what_is_not_there_is_said() {
    let home = Home::usual();
    let output = home.run(&["no-such-bottle"]);
    assert_eq!(output.status.code(), Some(4));
    assert_eq!(home.run(&[SLUG, "--since", "soon"]).status.code(), Some(2));
    assert_eq!(home.run(&[]).status.code(), Some(2));
    assert_eq!(home.run(&["verify"]).status.code(), Some(2));
}
