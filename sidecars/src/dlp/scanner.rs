//! Looking for tokens in a stream. Only bytes that may belong to one are held back, and never more than the longest
//! token can be.

use std::ops::Range;
use std::sync::{Arc, OnceLock};

use aho_corasick::{AhoCorasick, AhoCorasickKind, BuildError, Input, MatchKind};
use hyper::body::Bytes;

use super::entropy::Entropy;
use super::patterns::{self, Pattern, Verdict};
use super::rules::{Outcome, Rules};
use super::{Found, Kind};
use crate::reason::Reason;

/// What stands where a token stood. One byte for one byte, so that lengths announced earlier stay true.
const FILLER: u8 = b'*';
/// No prefix is longer; see the test.
const LONGEST_PREFIX: usize = 40;
/// How much a pattern wants to know of what came before it.
const BEFORE: usize = 3;

/// All the prefixes at once.
fn automaton() -> Result<&'static AhoCorasick, BuildError> {
    static AUTOMATON: OnceLock<AhoCorasick> = OnceLock::new();
    if let Some(automaton) = AUTOMATON.get() {
        return Ok(automaton);
    }
    // Few and distinct enough for the vectorised search, so the form only matters for the memory it takes.
    let built = AhoCorasick::builder()
        .kind(Some(AhoCorasickKind::ContiguousNFA))
        .match_kind(MatchKind::LeftmostLongest)
        .build(patterns::ALL.iter().map(|pattern| pattern.prefix))?;
    Ok(AUTOMATON.get_or_init(|| built))
}

/// Whether tokens can be looked for; asked when a policy is loaded.
pub(super) fn prepare() -> Result<(), BuildError> {
    automaton().map(|_| ())
}

/// What is in a piece of data.
struct Seen {
    tokens: Vec<(Range<usize>, &'static Pattern)>,
    /// From here on it must wait for what follows.
    wait: usize,
}

/// Looks through `data`; `before` is what came right before it.
fn search(before: &[u8], data: &[u8], ended: bool, is_answer: bool) -> Seen {
    let mut seen = Seen {
        tokens: Vec::new(),
        wait: data.len(),
    };
    // Loading a policy has seen to it that there is one.
    let Ok(automaton) = automaton() else {
        return seen;
    };
    let mut from = 0;
    while let Some(prefix) = automaton.find(Input::new(data).range(from..)) {
        let pattern = &patterns::ALL[prefix.pattern().as_usize()];
        let near = &data[prefix.start().saturating_sub(BEFORE)..prefix.start()];
        let near = [before, near].concat();
        let rest = &data[prefix.start()..];
        let verdict = if pattern.field.is_some() && !is_answer {
            Verdict::No
        } else if !ended && is_cut_off(rest) {
            // A longer prefix may become of it (`sk-ant-` of `sk-`), and what is not the one may be the other.
            Verdict::Unfinished
        } else {
            pattern.look(&near, rest, ended)
        };
        match verdict {
            Verdict::Token(length) => {
                from = prefix.start() + length;
                seen.tokens.push((prefix.start()..from, pattern));
            }
            Verdict::No => from = prefix.start() + 1,
            Verdict::Unfinished => {
                seen.wait = prefix.start();
                return seen;
            }
        }
    }
    if !ended {
        seen.wait = from.max(cut_off(data));
    }
    seen
}

/// Where a prefix might have begun that `data` cuts off; its length if there is no such place.
fn cut_off(data: &[u8]) -> usize {
    (data.len().saturating_sub(LONGEST_PREFIX - 1)..data.len())
        .find(|&at| is_cut_off(&data[at..]))
        .unwrap_or(data.len())
}

/// Whether it is the beginning of a prefix, and not all of it.
fn is_cut_off(tail: &[u8]) -> bool {
    patterns::ALL.iter().any(|pattern| {
        pattern.prefix.len() > tail.len() && pattern.prefix.as_bytes().starts_with(tail)
    })
}

/// Whether there is anything that looks like a token.
pub(crate) fn holds_token(data: &[u8]) -> bool {
    !search(b"", data, true, false).tokens.is_empty()
}

/// A stream that is being looked through.
pub(super) struct Scanner {
    rules: Arc<Rules>,
    found: Arc<Found>,
    /// Whether what is looked at is a copy: then nothing can be blacked out, and what would be is refused.
    sealed: bool,
    /// How much was blacked out.
    hits: u32,
    held: Vec<u8>,
    /// The end of what went on.
    before: Vec<u8>,
    entropy: Option<Entropy>,
}

impl Scanner {
    pub(super) fn new(rules: Arc<Rules>, found: Arc<Found>, sealed: bool) -> Self {
        Self {
            entropy: rules.entropy.then(Entropy::default),
            rules,
            found,
            sealed,
            hits: 0,
            held: Vec::new(),
            before: Vec::new(),
        }
    }

    /// How much was blacked out.
    pub(super) fn hits(&self) -> u32 {
        self.hits
    }

    /// What has been seen so far has nothing to do with what comes.
    pub(super) fn begin_again(&mut self) {
        self.held.clear();
        self.before.clear();
        self.entropy = self.rules.entropy.then(Entropy::default);
    }

    /// Takes the next piece; returns what may go on. `ended` says that this was the last one.
    pub(super) fn pass(&mut self, chunk: Bytes, ended: bool) -> Result<Bytes, Reason> {
        self.judge_randomness(&chunk, ended)?;
        if !self.rules.tokens {
            return Ok(chunk);
        }
        if self.held.is_empty() {
            let seen = search(&self.before, &chunk, ended, self.rules.is_answer);
            if seen.tokens.is_empty() && seen.wait == chunk.len() {
                self.remember(&chunk);
                return Ok(chunk);
            }
        }
        let mut data = std::mem::take(&mut self.held);
        data.extend_from_slice(&chunk);
        let seen = search(&self.before, &data, ended, self.rules.is_answer);
        self.held = data.split_off(seen.wait);
        // As it was: what is blacked out must not look like the end of a word to what comes next.
        self.remember(&data);
        for (range, pattern) in seen.tokens {
            if self.meet(pattern.kind, pattern.certain)? {
                self.black_out(&mut data[range], pattern);
            }
        }
        Ok(data.into())
    }

    /// Whether [`Self::whole`] could find anything: false for nearly everything, and that costs no copy.
    pub(super) fn is_curious(&self, data: &[u8]) -> bool {
        self.entropy.is_some() || automaton().is_ok_and(|automaton| automaton.is_match(data))
    }

    /// Looks at something whole, such as a header; says whether it was changed.
    pub(super) fn whole(&mut self, data: &mut [u8]) -> Result<bool, Reason> {
        self.judge_randomness(data, true)?;
        let mut changed = false;
        if self.rules.tokens {
            for (range, pattern) in search(b"", data, true, self.rules.is_answer).tokens {
                if self.meet(pattern.kind, pattern.certain)? {
                    self.black_out(&mut data[range], pattern);
                    changed = true;
                }
            }
        }
        Ok(changed)
    }

    /// Something was found: notes it, and says whether it is to be blacked out.
    fn meet(&self, kind: Kind, certain: bool) -> Result<bool, Reason> {
        self.found.add(kind);
        match self.rules.outcome(certain) {
            Outcome::Refuse(reason) => Err(reason),
            Outcome::BlackOut if self.sealed => Err(Reason::DlpMatch),
            Outcome::BlackOut => Ok(true),
            Outcome::LetGo => Ok(false),
        }
    }

    fn black_out(&mut self, token: &mut [u8], pattern: &Pattern) {
        self.hits = self.hits.saturating_add(1);
        token[pattern.field.unwrap_or(0)..].fill(FILLER);
    }

    fn judge_randomness(&mut self, data: &[u8], ended: bool) -> Result<(), Reason> {
        let Some(entropy) = &mut self.entropy else {
            return Ok(());
        };
        if entropy.look(data, ended) && self.meet(Kind::Entropy, false)? {
            // Where it begins may be gone already, so it cannot be blacked out.
            return Err(Reason::DlpMatch);
        }
        Ok(())
    }

    fn remember(&mut self, gone: &[u8]) {
        self.before
            .extend_from_slice(&gone[gone.len().saturating_sub(BEFORE)..]);
        let surplus = self.before.len().saturating_sub(BEFORE);
        self.before.drain(..surplus);
    }
}

#[cfg(test)]
#[path = "scanner_tests.rs"]
mod tests;
