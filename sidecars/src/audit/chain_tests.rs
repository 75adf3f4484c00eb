use bottle_plan::audit::{Record as Document, closed_file, hash, parse};

use super::super::record::Way;
use super::*;
use crate::reason::Reason;

fn records(ids: &[&str]) -> Vec<Record> {
    ids.iter()
        .map(|id| Record::new("demo".into(), (*id).into(), Way::Proxy))
        .collect()
}

fn note(dropped: Dropped) -> Record {
    let mut record = Record::note("demo".into(), "n".into(), Reason::AuditDropped);
    record.dropped = Some(dropped);
    record
}

fn append(chain: &mut Chain, ids: &[&str]) {
    let (lines, head) = chain.lines(&records(ids));
    chain.append(&lines, head).unwrap();
}

fn write(folder: &Path, ids: &[&str]) {
    append(
        &mut Chain::open(folder, AuditLimits::default()).unwrap(),
        ids,
    );
}

/// The records of all files; panics where the chain breaks.
fn check(folder: &Path) -> Vec<Document<'static>> {
    let mut names: Vec<_> = fs::read_dir(folder)
        .unwrap()
        .map(|entry| entry.unwrap().file_name().into_string().unwrap())
        .collect();
    // `audit-…` sorts before `audit.`.
    names.sort();
    let mut prev = None;
    let mut found = Vec::new();
    for name in names {
        let text = fs::read(folder.join(name)).unwrap();
        for line in text.split(|&b| b == b'\n').filter(|line| !line.is_empty()) {
            if let Some(record) = parse(line) {
                if let Some(prev) = prev {
                    assert_eq!(record.prev, prev, "{}", line.escape_ascii());
                }
                found.push(record);
            }
            prev = Some(hash(line));
        }
    }
    found
}

fn numbers(folder: &Path) -> Vec<u64> {
    check(folder).iter().map(|record| record.seq).collect()
}

fn cut(path: &Path, bytes: u64) {
    let file = OpenOptions::new().write(true).open(path).unwrap();
    file.set_len(file.metadata().unwrap().len() - bytes)
        .unwrap();
}

#[test]
fn goes_on_after_a_restart() {
    let dir = tempfile::tempdir().unwrap();
    write(dir.path(), &["a", "b"]);
    write(dir.path(), &["c"]);
    assert_eq!(numbers(dir.path()), [0, 1, 2]);
}

#[test]
fn goes_on_after_a_torn_line() {
    let dir = tempfile::tempdir().unwrap();
    write(dir.path(), &["a", "b"]);
    cut(&dir.path().join(CURRENT_FILE), 9);
    write(dir.path(), &["c"]);
    assert_eq!(numbers(dir.path()), [0, 1]);
}

/// After a loss of power the end of a file can be a stretch of zeros.
#[test]
fn goes_on_after_more_rubbish_than_a_line_can_be() {
    let dir = tempfile::tempdir().unwrap();
    write(dir.path(), &["a", "b"]);
    let mut file = OpenOptions::new()
        .append(true)
        .open(dir.path().join(CURRENT_FILE))
        .unwrap();
    file.write_all(&vec![0; 3 * audit::MAX_LINE]).unwrap();
    write(dir.path(), &["c"]);
    assert_eq!(numbers(dir.path()), [0, 1, 2]);
}

#[test]
fn a_failed_write_leaves_nothing_behind() {
    let dir = tempfile::tempdir().unwrap();
    let mut chain = Chain::open(dir.path(), AuditLimits::default()).unwrap();
    append(&mut chain, &["a"]);
    // What a full disk leaves: a part of a line, and an error.
    chain.file.write_all(b"{\"schema\":").unwrap();
    chain.torn = true;
    append(&mut chain, &["b"]);
    assert_eq!(numbers(dir.path()), [0, 1]);
    let text = fs::read_to_string(dir.path().join(CURRENT_FILE)).unwrap();
    assert_eq!(text.lines().count(), 2);
}

#[test]
fn full_files_are_closed_and_the_oldest_goes_with_a_word() {
    let dir = tempfile::tempdir().unwrap();
    let limits = AuditLimits {
        file_bytes: 1000,
        files: 3,
    };
    let mut chain = Chain::open(dir.path(), limits).unwrap();
    for _ in 0..12 {
        chain.make_room(note).unwrap();
        append(&mut chain, &["x"]);
    }
    drop(chain);
    // And it goes on where it was.
    let mut chain = Chain::open(dir.path(), limits).unwrap();
    chain.make_room(note).unwrap();
    append(&mut chain, &["y"]);

    let files = fs::read_dir(dir.path()).unwrap().count();
    assert_eq!(files, 3);
    assert!(!dir.path().join(closed_file(1)).exists());
    let records = check(dir.path());
    let first = &records[0];
    let words: Vec<_> = records
        .iter()
        .filter_map(|record| record.dropped.as_ref())
        .collect();
    assert!(
        words
            .iter()
            .any(|word| word.through + 1 == first.seq && word.hash == first.prev),
        "{words:?} {first:?}"
    );
    let numbers: Vec<u64> = records.iter().map(|record| record.seq).collect();
    let expected: Vec<u64> = (first.seq..first.seq + numbers.len() as u64).collect();
    assert_eq!(numbers, expected);
}

#[test]
fn a_crash_between_the_word_and_the_deed_is_harmless() {
    let dir = tempfile::tempdir().unwrap();
    let limits = AuditLimits {
        file_bytes: 500,
        files: 1,
    };
    let mut chain = Chain::open(dir.path(), limits).unwrap();
    append(&mut chain, &["a", "b"]);
    chain.close_file().unwrap();
    drop(chain);
    let mut chain = Chain::open(dir.path(), limits).unwrap();
    append(&mut chain, &["c"]);
    chain.make_room(note).unwrap();
    assert_eq!(numbers(dir.path()), [2, 3]);
}
