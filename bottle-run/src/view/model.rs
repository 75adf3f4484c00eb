//! What is known of all bottles, read from their state folders.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::{Read as _, Seek as _, SeekFrom};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::Path;

use bottle_plan::audit::{self, CURRENT_FILE, Decision, Left, Record};
use bottle_plan::state::StateHome;

use crate::ask::{self, Asked, GrantEntry, escaped};
use crate::list::Status;

/// So much of the end of an audit is looked at.
const TAIL: u64 = 128 * 1024;
/// Lines of traffic that are kept.
const LINES: usize = 200;

/// What is on the screen.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) enum Page {
    /// Everything.
    #[default]
    All,
    /// One request.
    Request,
    /// One request, and whether it is to be approved.
    Approve { uses: Option<u64> },
    /// One request, and whether it is to be refused.
    Deny,
    /// A difference: what a request would change, or what an agent has.
    Diff,
}

/// Everything there is to show.
#[derive(Debug, Default)]
pub(super) struct Model {
    pub(super) page: Page,
    pub(super) requests: Vec<Asked>,
    pub(super) grants: Vec<GrantEntry>,
    pub(super) bottles: Vec<Bottle>,
    pub(super) traffic: Vec<Line>,
    /// The request the keys are for.
    pub(super) chosen: usize,
    /// The request that was opened, as it was then.
    pub(super) opened: Option<Asked>,
    /// The difference that was opened: of what, its lines, and how many of them are above the screen.
    pub(super) diff: (String, Vec<String>, usize),
    /// The bottle whose work is to be fetched.
    pub(super) wanted: Option<String>,
    /// What the last key did.
    pub(super) said: String,
    states: BTreeMap<String, Status>,
}

/// One bottle.
#[derive(Debug)]
pub(super) struct Bottle {
    pub(super) slug: String,
    pub(super) state: String,
    pub(super) allowed: u64,
    pub(super) denied: u64,
    pub(super) left: Option<Left>,
}

/// One line of traffic.
#[derive(Debug)]
pub(super) struct Line {
    pub(super) time: String,
    pub(super) slug: String,
    pub(super) text: String,
}

impl Model {
    pub(super) fn set_states(&mut self, states: Vec<(String, Status)>) {
        self.states = states.into_iter().collect();
    }

    /// Reads everything anew; the choice stays with its request.
    pub(super) fn read(&mut self, home: &StateHome) {
        let chosen = self
            .requests
            .get(self.chosen)
            .map(|asked| asked.request.id.clone());
        self.requests = ask::requests(home, false);
        let same = chosen.and_then(|id| {
            self.requests
                .iter()
                .position(|asked| asked.request.id == id)
        });
        self.chosen = same
            .unwrap_or(self.chosen)
            .min(self.requests.len().saturating_sub(1));
        self.grants = ask::grants(home, false);
        self.bottles.clear();
        self.traffic.clear();
        for metadata in home.bottles() {
            let Ok(folder) = home.folder(&metadata.slug) else {
                continue;
            };
            let records = tail(&folder.join("audit").join(CURRENT_FILE));
            self.bottles.push(self.bottle(&metadata.slug, &records));
            self.traffic
                .extend(records.iter().map(|record| line(&metadata.slug, record)));
        }
        self.traffic.sort_by(|a, b| a.time.cmp(&b.time));
        let too_many = self.traffic.len().saturating_sub(LINES);
        self.traffic.drain(..too_many);
    }

    fn bottle(&self, slug: &str, records: &[Record<'_>]) -> Bottle {
        let count = |wanted: fn(Decision) -> bool| {
            let records = records.iter().filter(|record| wanted(record.decision));
            // The file may say anything; a sum must not end the program.
            records.fold(0, |sum: u64, record| sum.saturating_add(record.count))
        };
        let state = self.states.get(slug);
        Bottle {
            slug: slug.to_owned(),
            state: state.map_or_else(
                || "?".to_owned(),
                |state| format!("{state:?}").to_lowercase(),
            ),
            allowed: count(|decision| decision == Decision::Allow),
            denied: count(|decision| decision == Decision::Deny),
            left: records.iter().rev().find_map(|record| record.left),
        }
    }

    /// Shows a difference.
    pub(super) fn show_diff(&mut self, of: String, lines: Vec<String>) {
        self.diff = (of, lines, 0);
        self.page = Page::Diff;
    }

    pub(super) fn scroll_by(&mut self, by: isize) {
        let last = self.diff.1.len().saturating_sub(1);
        self.diff.2 = self.diff.2.saturating_add_signed(by).min(last);
    }

    /// The bottle of the chosen request; without one the first that there is.
    pub(super) fn chosen_bottle(&self) -> Option<String> {
        let asks = self.opened.as_ref().filter(|_| self.page == Page::Request);
        let asks = asks.or_else(|| self.requests.get(self.chosen));
        let asks = asks.map(|asked| asked.slug.clone());
        asks.or_else(|| self.bottles.first().map(|bottle| bottle.slug.clone()))
    }

    pub(super) fn move_by(&mut self, by: isize) {
        let last = self.requests.len().saturating_sub(1);
        self.chosen = self.chosen.saturating_add_signed(by).min(last);
    }

    /// Opens the chosen request on a page of its own; what is opened already stays.
    pub(super) fn open(&mut self, page: Page) {
        if self.page == Page::All {
            self.opened = self.requests.get(self.chosen).cloned();
        }
        self.said.clear();
        if self.opened.is_some() {
            self.page = page;
        }
    }
}

fn line(slug: &str, record: &Record<'_>) -> Line {
    let part = |text: &Option<std::borrow::Cow<'_, str>>| escaped(text.as_deref().unwrap_or(""));
    let time = record.time.get(11..19).unwrap_or("");
    Line {
        time: escaped(time),
        slug: slug.to_owned(),
        text: format!(
            "{:5} {} {}{} {}",
            record.decision,
            part(&record.method),
            part(&record.host),
            part(&record.path),
            match record.decision {
                Decision::Allow => String::new(),
                _ => escaped(&record.reason),
            }
        ),
    }
}

/// The records at the end of a file that a sidecar writes.
fn tail(path: &Path) -> Vec<Record<'static>> {
    let flags = nix::libc::O_NOFOLLOW | nix::libc::O_NONBLOCK;
    let Ok(mut file) = File::options().read(true).custom_flags(flags).open(path) else {
        return Vec::new();
    };
    let end = file.seek(SeekFrom::End(0)).unwrap_or(0);
    let mut bytes = Vec::new();
    let read = file
        .seek(SeekFrom::Start(end.saturating_sub(TAIL)))
        .and_then(|_| file.take(TAIL).read_to_end(&mut bytes));
    if read.is_err() {
        return Vec::new();
    }
    bytes
        .split(|&byte| byte == b'\n')
        .filter_map(audit::parse)
        .collect()
}
