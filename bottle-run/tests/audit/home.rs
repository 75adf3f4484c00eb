//! A state home with the audit of one bottle, made by hand.

use std::fs;
use std::io::Write as _;
use std::path::PathBuf;
use std::process::{Command, Output, Stdio};

use bottle_plan::audit::{AUDIT_SCHEMA, CURRENT_FILE, Decision, Head, Record, Way};
use serde_json::Value;
use tempfile::TempDir;

pub(crate) const SLUG: &str = "demo-abcde";

/// A home with one bottle's audit.
pub(crate) struct Home {
    pub(crate) dir: TempDir,
    audit: PathBuf,
    pub(crate) head: Head,
}

pub(crate) fn record(host: &str) -> Record<'static> {
    Record {
        schema: AUDIT_SCHEMA.into(),
        time: "2026-11-23T16:00:00.042Z".into(),
        seq: 0,
        id: "1-0".into(),
        bottle: SLUG.into(),
        way: Way::Proxy,
        method: Some("GET".into()),
        host: Some(host.to_owned().into()),
        port: Some(443),
        path: Some("/v1".into()),
        decision: Decision::Allow,
        reason: "allowed".into(),
        rule: Some("demo.yaml:7".into()),
        status: Some(200),
        bytes_in: 10,
        bytes_out: 1,
        ms: 5,
        slot: None,
        dlp: Vec::new(),
        left: None,
        count: 1,
        dropped: None,
        prev: "".into(),
    }
}

pub(crate) fn denied(host: &str) -> Record<'static> {
    Record {
        decision: Decision::Deny,
        reason: "host_not_allowed".into(),
        rule: None,
        status: Some(403),
        bytes_in: 0,
        bytes_out: 0,
        ..record(host)
    }
}

pub(crate) fn closing() -> Record<'static> {
    Record {
        decision: Decision::Note,
        reason: "audit_closed".into(),
        way: Way::Audit,
        method: None,
        host: None,
        port: None,
        path: None,
        ..record("")
    }
}

impl Home {
    pub(crate) fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let audit = dir.path().join("state").join(SLUG).join("audit");
        fs::create_dir_all(&audit).unwrap();
        Self {
            dir,
            audit,
            head: Head::default(),
        }
    }

    /// The usual: five records and a clean end.
    pub(crate) fn usual() -> Self {
        let mut home = Self::new();
        let mut records: Vec<_> = ["a.test", "b.test", "c.test"].map(record).into();
        records.extend([denied("evil.test"), denied("evil.test"), closing()]);
        home.append(CURRENT_FILE, records);
        home
    }

    pub(crate) fn file(&self, name: &str) -> PathBuf {
        self.audit.join(name)
    }

    pub(crate) fn append(
        &mut self,
        name: &str,
        records: impl IntoIterator<Item = Record<'static>>,
    ) {
        let mut file = fs::OpenOptions::new()
            .create(true)
            .append(true)
            .open(self.file(name))
            .unwrap();
        for record in records {
            let record = Record {
                seq: self.head.seq,
                prev: self.head.prev.clone().into(),
                ..record
            };
            let line = serde_json::to_vec(&record).unwrap();
            self.head.pass(&line);
            file.write_all(&line).unwrap();
            file.write_all(b"\n").unwrap();
        }
    }

    /// Changes the lines of a file.
    pub(crate) fn edit(&self, name: &str, change: impl FnOnce(&mut Vec<String>)) {
        let text = fs::read_to_string(self.file(name)).unwrap();
        let mut lines: Vec<String> = text.lines().map(Into::into).collect();
        change(&mut lines);
        fs::write(self.file(name), lines.join("\n") + "\n").unwrap();
    }

    pub(crate) fn command(&self, args: &[&str]) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_bottle-run"));
        command
            .arg("audit")
            .args(args)
            .env("BOTTLE_HOME", self.dir.path())
            .stdin(Stdio::null());
        command
    }

    pub(crate) fn run(&self, args: &[&str]) -> Output {
        self.command(args).output().unwrap()
    }

    pub(crate) fn stdout(&self, args: &[&str]) -> String {
        let output = self.run(args);
        assert!(output.status.success(), "{output:?}");
        String::from_utf8(output.stdout).unwrap()
    }

    /// The exit code, and the findings as `kind file:line`.
    pub(crate) fn verify(&self) -> (i32, Vec<String>, Value) {
        let output = self.run(&["verify", SLUG, "--json"]);
        let value: Value = serde_json::from_slice(&output.stdout).unwrap();
        let findings = value["findings"].as_array().unwrap().iter().map(|f| {
            let kind = f["kind"].as_str().unwrap();
            format!("{kind} {}:{}", f["file"].as_str().unwrap(), f["line"])
        });
        let findings = findings.collect();
        (output.status.code().unwrap(), findings, value)
    }

    #[track_caller]
    pub(crate) fn finds(&self, expected: &[&str]) {
        let (code, findings, value) = self.verify();
        assert_eq!(findings, expected, "{value:#}");
        assert_eq!(code, i32::from(!expected.is_empty()));
        assert_eq!(value["intact"], expected.is_empty());
    }
}
