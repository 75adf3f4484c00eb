//! gitleaks over everything that is new. It gets plain files: no repository, so that neither attributes, nor ignore files,
//! nor the rules for merges decide what it looks at.

use std::fs;
use std::io::{self, Write as _};
use std::os::unix::process::CommandExt as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use serde::Deserialize;

use super::git::{ENVIRONMENT, finish};

/// What lies in the scratch folder at once.
const BATCH_BYTES: usize = 48 << 20;
const BATCH_FILES: usize = 4000;

/// How long one batch may take.
const LIMIT: Duration = Duration::from_secs(300);

/// How gitleaks says that it found something; 1 is also what it says when it fails.
const FOUND: i32 = 42;

/// Empty lines before the data of a file. gitleaks skips what looks like an archive or a program, and knows them by their
/// first bytes, a tar by those after 257, a disk image by those after 32769. Nothing of the data may be that near.
const BEFORE: usize = 512;
const BEFORE_LONG: usize = 40_000;
/// Longer data would reach to the place of a disk image's with fewer lines before it.
const LONG: usize = 32_000;

/// In a file of an agent, this would make gitleaks look away.
const LOOK_AWAY: &[u8] = b"gitleaks:allow";

/// Something that was found.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Leak {
    /// gitleaks's name of the rule.
    pub(super) rule: String,
    /// Where, in the words the file was given with.
    pub(super) place: String,
    /// The line in it.
    pub(super) line: u64,
}

/// Collects what is to be looked at, and looks at it when there is enough.
pub(super) struct Scanner {
    folder: PathBuf,
    /// Of each file what it is reported as, and how many lines are before its first.
    places: Vec<(String, usize)>,
    bytes: usize,
    leaks: Vec<Leak>,
}

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Finding {
    #[serde(rename = "RuleID")]
    rule_id: String,
    #[serde(default)]
    file: String,
    #[serde(default)]
    start_line: u64,
}

impl Scanner {
    pub(super) fn new(scratch: &Path) -> io::Result<Self> {
        static NEXT: AtomicU64 = AtomicU64::new(0);
        let number = NEXT.fetch_add(1, Ordering::Relaxed);
        let folder = scratch.join(format!("scan-{number}"));
        let _ = fs::remove_dir_all(&folder);
        fs::create_dir(&folder)?;
        Ok(Self {
            folder,
            places: Vec::new(),
            bytes: 0,
            leaks: Vec::new(),
        })
    }

    /// Takes one piece; `place` is what a finding in it is reported as.
    pub(super) fn add(&mut self, place: &str, data: &[u8]) -> io::Result<()> {
        let before = if data.len() < LONG {
            BEFORE
        } else {
            BEFORE_LONG
        };
        let size = before + data.len();
        if self.bytes + size > BATCH_BYTES || self.places.len() >= BATCH_FILES {
            self.look()?;
        }
        let mut file = fs::File::create(self.folder.join(self.places.len().to_string()))?;
        file.write_all(&[b'\n'; BEFORE_LONG][..before])?;
        file.write_all(&awake(data))?;
        self.places.push((place.to_owned(), before));
        self.bytes += size;
        Ok(())
    }

    /// Looks at what is left and says what was found in all.
    pub(super) fn end(mut self) -> io::Result<Vec<Leak>> {
        self.look()?;
        Ok(std::mem::take(&mut self.leaks))
    }

    fn look(&mut self) -> io::Result<()> {
        if self.places.is_empty() {
            return Ok(());
        }
        let report = self.folder.with_extension("json");
        let mut command = Command::new("gitleaks");
        command
            .env_clear()
            .envs(ENVIRONMENT)
            .args([
                "detect",
                "--no-git",
                "--no-banner",
                "--redact",
                "--log-level=error",
            ])
            .args(["--config=/etc/gitleaks.toml", "--report-format=json"])
            .arg(format!("--exit-code={FOUND}"))
            .arg(format!("--report-path={}", report.display()))
            .arg(format!("--source={}", self.folder.display()))
            .current_dir("/")
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::piped())
            .process_group(0);
        let done = finish(&mut command, Vec::new(), LIMIT, &mut |_| {})?;
        match done.status.code() {
            Some(0) => {}
            Some(FOUND) => self.note(&report)?,
            _ => {
                return Err(io::Error::other(format!(
                    "gitleaks ended with {}",
                    done.status
                )));
            }
        }
        let _ = fs::remove_file(report);
        fs::remove_dir_all(&self.folder)?;
        fs::create_dir(&self.folder)?;
        self.places.clear();
        self.bytes = 0;
        Ok(())
    }

    fn note(&mut self, report: &Path) -> io::Result<()> {
        let findings: Vec<Finding> = serde_json::from_slice(&fs::read(report)?)?;
        if findings.is_empty() {
            return Err(io::Error::other(
                "gitleaks found something and does not say what",
            ));
        }
        for finding in findings {
            let number: Option<usize> = finding
                .file
                .rsplit('/')
                .next()
                .and_then(|name| name.parse().ok());
            let place = number.and_then(|number| self.places.get(number));
            let (place, before) = place.cloned().unwrap_or_default();
            self.leaks.push(Leak {
                rule: finding.rule_id,
                place,
                line: finding.start_line.saturating_sub(before as u64),
            });
        }
        Ok(())
    }
}

impl Drop for Scanner {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.folder);
        let _ = fs::remove_file(self.folder.with_extension("json"));
    }
}

/// The same without the words that make gitleaks look away.
fn awake(data: &[u8]) -> std::borrow::Cow<'_, [u8]> {
    let is_there = |at: usize| data[at..].starts_with(LOOK_AWAY);
    let spots: Vec<usize> = (0..data.len().saturating_sub(LOOK_AWAY.len() - 1))
        .filter(|at| data[*at] == LOOK_AWAY[0] && is_there(*at))
        .collect();
    if spots.is_empty() {
        return data.into();
    }
    let mut copy = data.to_vec();
    for at in spots {
        copy[at..at + LOOK_AWAY.len()].fill(b' ');
    }
    copy.into()
}

#[cfg(test)]
mod tests {
    use super::awake;

    #[test]
    fn nothing_makes_gitleaks_look_away() {
        assert_eq!(
            &*awake(b"k = 1 # gitleaks:allow\n"),
            b"k = 1 #               \n"
        );
        assert_eq!(&*awake(b"gitleaks"), b"gitleaks");
        assert_eq!(&*awake(b""), b"");
    }
}
