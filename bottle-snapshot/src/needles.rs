//! Looking for many byte strings in a stream, across the borders of its pieces.

use aho_corasick::{AhoCorasick, MatchKind};
use bottle_plan::failure::{Failure, Result};
use bottle_plan::forms::{self, Kind};
use bottle_plan::snapshot::ProvenValue;
use zeroize::Zeroizing;

use crate::values::{Value, Writing};

/// Programs break base64 into lines of 64 or 76 characters. One break hits only one of two pieces of this length that
/// stand beside each other, so of a long form two such pieces are looked for instead.
const PIECE: usize = 32;

/// A piece that is shorter could be there by chance.
const SHORTEST_PIECE: usize = 16;

/// Enough to show what is wrong; a layer full of a secret must not fill the memory.
const MAX_FOUND: usize = 64;

/// The bytes of one.
type Pattern = Zeroizing<Vec<u8>>;

/// What is looked for.
#[derive(Debug)]
pub struct Needles {
    automaton: Option<AhoCorasick>,
    /// Of each pattern: the value it stands for, and how it is written.
    owners: Vec<(usize, Kind)>,
    longest: usize,
    values: Vec<ProvenValue>,
}

/// A value that was found.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Found {
    /// Its number among the values.
    pub value: usize,
    /// How it is written there.
    pub form: Kind,
    /// Where it begins in the stream.
    pub offset: u64,
}

impl Needles {
    /// The automaton for all forms of all values.
    ///
    /// # Errors
    /// When there are more than an automaton can hold.
    pub fn new(values: &[Value]) -> Result<Self> {
        let mut patterns: Vec<(Pattern, (usize, Kind))> = Vec::new();
        for (number, value) in values.iter().enumerate() {
            match value.writing {
                Writing::Exact => patterns.push((value.bytes.clone(), (number, Kind::Raw))),
                Writing::AnyForm => {
                    for form in forms::of(&value.bytes) {
                        let pieces = pieces(&form);
                        patterns.extend(pieces.into_iter().map(|p| (p, (number, form.kind))));
                    }
                }
            }
        }
        // The stable sort keeps the plainest form of what two forms have in common.
        patterns.sort_by(|(a, _), (b, _)| a.cmp(b));
        patterns.dedup_by(|(a, _), (b, _)| a == b);
        let automaton = AhoCorasick::builder()
            .match_kind(MatchKind::LeftmostFirst)
            .build(patterns.iter().map(|(bytes, _)| bytes.as_slice()))
            .map_err(|error| Failure::failed("there are too many secrets").because(error))?;
        Ok(Self {
            automaton: (!patterns.is_empty()).then_some(automaton),
            longest: patterns
                .iter()
                .map(|(bytes, _)| bytes.len())
                .max()
                .unwrap_or(0),
            owners: patterns.into_iter().map(|(_, owner)| owner).collect(),
            values: values.iter().map(Value::named).collect(),
        })
    }

    /// The values that are looked for, by name.
    #[must_use]
    pub fn values(&self) -> &[ProvenValue] {
        &self.values
    }

    /// How many byte strings are looked for.
    #[must_use]
    pub fn patterns(&self) -> u64 {
        self.owners.len() as u64
    }

    /// A search through one stream.
    #[must_use]
    pub fn scanner(&self) -> Scanner<'_> {
        Scanner {
            needles: self,
            carried: Zeroizing::new(Vec::new()),
            offset: 0,
            found: Vec::new(),
        }
    }

    /// Everything in a text that is in memory whole.
    #[must_use]
    pub fn find(&self, bytes: &[u8]) -> Vec<Found> {
        let mut scanner = self.scanner();
        scanner.feed(bytes);
        scanner.take()
    }
}

fn pieces(form: &forms::Form) -> Vec<Pattern> {
    let length = (form.bytes.len() / 2).min(PIECE);
    if form.kind != Kind::Base64 || length < SHORTEST_PIECE {
        return vec![form.bytes.clone()];
    }
    // From the end: keys and tokens of a kind begin alike.
    let end = form.bytes.len();
    let piece = |to: usize| Zeroizing::new(form.bytes[to - length..to].to_vec());
    vec![piece(end - length), piece(end)]
}

/// A search through a stream that comes in pieces.
#[derive(Debug)]
pub struct Scanner<'a> {
    needles: &'a Needles,
    /// The end of what came, in which something may begin.
    carried: Zeroizing<Vec<u8>>,
    /// How much came.
    offset: u64,
    found: Vec<Found>,
}

impl Scanner<'_> {
    /// The next piece.
    pub fn feed(&mut self, bytes: &[u8]) {
        let before = self.offset;
        self.offset += bytes.len() as u64;
        let reach = self.needles.longest.saturating_sub(1);
        let Some(automaton) = &self.needles.automaton else {
            return;
        };
        if !self.carried.is_empty() {
            let border = self.carried.len();
            let head = &bytes[..bytes.len().min(reach)];
            self.carried.extend_from_slice(head);
            for one in automaton.find_iter(self.carried.as_slice()) {
                if one.start() < border && one.end() > border && self.found.len() < MAX_FOUND {
                    let (value, form) = self.needles.owners[one.pattern().as_usize()];
                    let offset = before - (border - one.start()) as u64;
                    self.found.push(Found {
                        value,
                        form,
                        offset,
                    });
                }
            }
            self.carried.truncate(border);
        }
        for one in automaton.find_iter(bytes) {
            if self.found.len() >= MAX_FOUND {
                break;
            }
            let (value, form) = self.needles.owners[one.pattern().as_usize()];
            let offset = before + one.start() as u64;
            self.found.push(Found {
                value,
                form,
                offset,
            });
        }
        self.carry(bytes, reach);
    }

    fn carry(&mut self, bytes: &[u8], reach: usize) {
        if bytes.len() >= reach {
            self.carried.clear();
            self.carried
                .extend_from_slice(&bytes[bytes.len() - reach..]);
            return;
        }
        let keep = (reach - bytes.len()).min(self.carried.len());
        let drop = self.carried.len() - keep;
        self.carried.drain(..drop);
        self.carried.extend_from_slice(bytes);
    }

    /// What was found since this was last asked.
    pub fn take(&mut self) -> Vec<Found> {
        std::mem::take(&mut self.found)
    }

    /// Whether something was found that nobody took yet.
    #[must_use]
    pub fn has_found(&self) -> bool {
        !self.found.is_empty()
    }
}

#[cfg(test)]
mod tests {
    use base64::Engine as _;
    use base64::engine::general_purpose::STANDARD;
    use bottle_plan::snapshot::ValueKind;
    use proptest::prelude::*;

    use super::*;

    const SECRET: &str = "sk-test-4b5c6d7e8f90a1b2c3d4e5f60718293a4b5c";

    fn needles(value: &str) -> Needles {
        let value = Value::new("TOKEN", ValueKind::Token, value.as_bytes());
        Needles::new(&[value]).expect("builds")
    }

    #[test]
    fn every_form_is_found_where_it_is() {
        let needles = needles(SECRET);
        for form in forms::of(SECRET.as_bytes()) {
            let text = [b"xx".as_slice(), &form.bytes, b"yy"].concat();
            let found = needles.find(&text);
            assert_eq!(found.first().map(|f| f.offset), Some(2), "{:?}", form.kind);
        }
        assert_eq!(needles.find(b"nothing of the kind"), []);
        assert_eq!(Needles::new(&[]).expect("builds").find(b"anything"), []);
    }

    proptest! {
        #[test]
        fn no_border_hides_anything(cuts in prop::collection::vec(1usize..9, 1..40), at in 0usize..40) {
            let text = [vec![b'.'; at], SECRET.as_bytes().to_vec(), vec![b'.'; 50]].concat();
            let needles = needles(SECRET);
            let mut scanner = needles.scanner();
            let mut rest = text.as_slice();
            for cut in cuts {
                let (piece, more) = rest.split_at(cut.min(rest.len()));
                scanner.feed(piece);
                rest = more;
            }
            scanner.feed(rest);
            let found = scanner.take();
            prop_assert_eq!(found.len(), 1);
            prop_assert_eq!(found[0].offset, at as u64);
        }

        /// As `base64` and OpenSSL print it: in lines.
        #[test]
        fn line_breaks_in_base64_hide_nothing(before in ".{0,120}", width in prop::sample::select(vec![64usize, 70, 76])) {
            let encoded = STANDARD.encode(format!("{before}{SECRET} and more of the file"));
            let lines: Vec<&str> = encoded.as_bytes().chunks(width).map(|line| std::str::from_utf8(line).expect("ASCII")).collect();
            prop_assert!(!needles(SECRET).find(lines.join("\n").as_bytes()).is_empty());
        }
    }
}
