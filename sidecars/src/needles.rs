//! Finding secrets in what passes by, in every form a server or an agent would plausibly write them.
//!
//! This is a net, not a proof: an agent that may write to a destination can always invent an encoding.
//! What it stops is the echo, the log line, the accident, and the lazy attack.

use std::ops::Range;

use aho_corasick::{AhoCorasick, AhoCorasickKind, BuildError, MatchKind, packed};
pub(crate) use bottle_plan::forms::MIN_LENGTH;
use zeroize::Zeroizing;

use crate::credential::Credential;
use crate::gaps::Closed;

/// What stands where a secret stood. One byte for one byte, so that lengths announced earlier stay true.
const FILLER: u8 = b'*';

/// What was found.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Found {
    /// A credential's value.
    Secret,
    /// The placeholder with this number; see [`Needles::placeholder`].
    Placeholder(usize),
}

/// A set of byte strings to look for.
///
/// Lives as long as its policy; the automaton's own tables are not wiped when it goes.
pub(crate) struct Needles {
    automaton: Option<AhoCorasick>,
    sieve: Option<Sieve>,
    patterns: Vec<(Zeroizing<Vec<u8>>, Found)>,
    placeholders: Vec<Box<str>>,
    /// Bytes some pattern begins with: lets the search for a cut-off beginning skip nearly everything.
    first: Box<[bool; 256]>,
    longest: usize,
    /// Whether every pattern with white space in it is there without as well.
    is_closed: bool,
}

impl Needles {
    /// All secrets and placeholders of a bottle: for what leaves.
    pub(crate) fn of_bottle<'a>(
        credentials: impl Iterator<Item = &'a Credential>,
    ) -> Result<Self, BuildError> {
        let mut patterns = Vec::new();
        let mut placeholders: Vec<Box<str>> = Vec::new();
        for credential in credentials {
            if let Some(secret) = credential.secret() {
                patterns.extend(forms(secret).into_iter().map(|form| (form, Found::Secret)));
            }
            let Some(placeholder) = credential.placeholder() else {
                continue;
            };
            if placeholder.len() >= MIN_LENGTH
                && !placeholders.iter().any(|known| **known == *placeholder)
            {
                let found = Found::Placeholder(placeholders.len());
                patterns.extend(
                    forms(placeholder.as_bytes())
                        .into_iter()
                        .map(|form| (form, found)),
                );
                placeholders.push(placeholder.into());
            }
        }
        // A value with spaces of its own has none where the gaps of a text are closed.
        let closed: Vec<_> = patterns
            .iter()
            .filter_map(|(form, found)| Some((Zeroizing::new(Closed::of(form)?.text), *found)))
            .collect();
        let is_closed = closed.iter().all(|(form, _)| form.len() >= MIN_LENGTH);
        let long = |(form, _): &(Zeroizing<Vec<u8>>, Found)| form.len() >= MIN_LENGTH;
        patterns.extend(closed.into_iter().filter(long));
        let needles = Self::new(patterns, placeholders)?;
        Ok(Self {
            is_closed,
            ..needles
        })
    }

    /// Plain values, in every form: for what must not leave at all.
    #[cfg(feature = "services")]
    pub(crate) fn of_values<'a>(
        values: impl Iterator<Item = &'a [u8]>,
    ) -> Result<Self, BuildError> {
        let all = values.flat_map(forms).map(|form| (form, Found::Secret));
        Self::new(all.collect(), Vec::new())
    }

    /// One secret: for the answers of the route it is used on.
    pub(crate) fn of_secret(secret: &[u8]) -> Result<Self, BuildError> {
        Self::new(
            forms(secret)
                .into_iter()
                .map(|form| (form, Found::Secret))
                .collect(),
            Vec::new(),
        )
    }

    fn new(
        mut patterns: Vec<(Zeroizing<Vec<u8>>, Found)>,
        placeholders: Vec<Box<str>>,
    ) -> Result<Self, BuildError> {
        patterns.sort_by(|(a, _), (b, _)| a.cmp(b));
        patterns.dedup_by(|(a, _), (b, _)| a == b);
        let mut first = Box::new([false; 256]);
        for (pattern, _) in &patterns {
            first[usize::from(pattern[0])] = true;
        }
        // The contiguous form is a fraction of a DFA's size, and a handful of secrets must fit in a few MB.
        let automaton = AhoCorasick::builder()
            .kind(Some(AhoCorasickKind::ContiguousNFA))
            // The only kind that reports matches which overlap.
            .match_kind(MatchKind::Standard)
            .build(patterns.iter().map(|(pattern, _)| pattern.as_slice()))?;
        Ok(Self {
            automaton: (!patterns.is_empty()).then_some(automaton),
            sieve: Sieve::new(patterns.iter().map(|(pattern, _)| pattern.as_slice())),
            longest: patterns
                .iter()
                .map(|(pattern, _)| pattern.len())
                .max()
                .unwrap_or(0),
            patterns,
            placeholders,
            first,
            is_closed: false,
        })
    }

    /// Whether there is nothing to look for.
    pub(crate) fn is_empty(&self) -> bool {
        self.automaton.is_none()
    }

    /// The placeholder behind [`Found::Placeholder`].
    pub(crate) fn placeholder(&self, number: usize) -> Option<&str> {
        self.placeholders.get(number).map(AsRef::as_ref)
    }

    /// Whether anything is found at all: asked of everything that goes by, and the answer is nearly always no.
    pub(crate) fn are_in(&self, haystack: &[u8]) -> bool {
        self.automaton
            .as_ref()
            .is_some_and(|automaton| self.may_be_in(haystack) && automaton.is_match(haystack))
    }

    /// False only when nothing is found for certain.
    fn may_be_in(&self, haystack: &[u8]) -> bool {
        haystack.len() < SIEVED
            || self
                .sieve
                .as_ref()
                .is_none_or(|sieve| sieve.may_hold(haystack))
    }

    /// Everything found, in the order of the ends. One form may be the beginning of another, or begin inside it,
    /// so matches overlap.
    pub(crate) fn find<'a>(
        &'a self,
        haystack: &'a [u8],
    ) -> impl Iterator<Item = (Range<usize>, Found)> + 'a {
        let matches = self
            .automaton
            .iter()
            .filter(move |_| self.may_be_in(haystack))
            .flat_map(move |automaton| automaton.find_overlapping_iter(haystack));
        matches.map(|m| (m.range(), self.patterns[m.pattern().as_usize()].1))
    }

    /// The first thing found in a text that may not be there, as it is written or broken up by gaps.
    pub(crate) fn stray(&self, text: &[u8], may_hold: impl Fn(Found) -> bool) -> Option<Found> {
        if text.len() < MIN_LENGTH {
            return None;
        }
        let first = |text: &[u8]| {
            let mut found = self.find(text).map(|(_, found)| found);
            found.find(|found| !may_hold(*found))
        };
        let Some(closed) = Closed::of(text) else {
            return first(text);
        };
        // Where the gaps are white space alone, whatever was whole is whole without it. With other gaps the end of a
        // value and the beginning of what follows may be one.
        let is_blank = self.is_closed && !text.iter().any(|b| b"\\%".contains(b));
        first(&closed.text).or_else(|| if is_blank { None } else { first(text) })
    }

    /// Blacks out every byte of everything found; says whether there was anything.
    pub(crate) fn redact(&self, data: &mut [u8]) -> bool {
        let spots: Vec<_> = self.find(data).map(|(range, _)| range).collect();
        for spot in &spots {
            black_out(&mut data[spot.clone()]);
        }
        !spots.is_empty()
    }

    /// Where a pattern might have begun that `haystack` cuts off; its length if there is no such place.
    pub(crate) fn cut_off(&self, haystack: &[u8]) -> usize {
        let from = haystack
            .len()
            .saturating_sub(self.longest.saturating_sub(1));
        let begins = |at: usize| {
            let tail = &haystack[at..];
            self.first[usize::from(tail[0])]
                && self
                    .patterns
                    .iter()
                    .any(|(pattern, _)| pattern.len() > tail.len() && pattern.starts_with(tail))
        };
        (from..haystack.len())
            .find(|&at| begins(at))
            .unwrap_or(haystack.len())
    }
}

/// Shorter ones cost the automaton less than the sieve's start.
const SIEVED: usize = 64;

/// So much of a pattern's beginning is in the sieve: most forms of a token begin alike, and are one there.
const BEGINNING: usize = 16;

/// The most beginnings for one pass. With more the vectorised search slows down, and with more than 64 it refuses.
const ONE_PASS: usize = 32;

/// Says of nearly everything that goes by, many bytes at a time, that no pattern even begins in it. The automaton takes
/// them one by one, and is then not asked.
struct Sieve(Vec<packed::Searcher>);

impl Sieve {
    /// `None` where the processor has no instructions for it.
    fn new<'a>(patterns: impl Iterator<Item = &'a [u8]>) -> Option<Self> {
        let mut beginnings: Vec<&[u8]> = patterns
            .map(|pattern| &pattern[..pattern.len().min(BEGINNING)])
            .collect();
        beginnings.sort_unstable();
        beginnings.dedup();
        let passes = beginnings.chunks(ONE_PASS);
        passes
            .map(packed::Searcher::new)
            .collect::<Option<_>>()
            .map(Self)
    }

    fn may_hold(&self, haystack: &[u8]) -> bool {
        self.0.iter().any(|pass| pass.find(haystack).is_some())
    }
}

/// Leaves nothing of these bytes but how many they were.
pub(crate) fn black_out(data: &mut [u8]) {
    data.fill(FILLER);
}

/// The forms of a value, without the kinds of writing they are.
fn forms(value: &[u8]) -> Vec<Zeroizing<Vec<u8>>> {
    let forms = bottle_plan::forms::of(value);
    forms.into_iter().map(|form| form.bytes).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use base64::Engine as _;
    use base64::alphabet::{STANDARD, URL_SAFE};
    use base64::engine::general_purpose::{GeneralPurpose, NO_PAD};
    use proptest::prelude::*;

    const SECRET: &[u8] = b"sk-test/\"4b5+c6d7\\e8==";

    /// The needles of a bottle whose only credential is this.
    fn bottle(secret: &str) -> Needles {
        let auth = serde_json::from_str(
            r#"{"scheme": "bearer", "header": "authorization", "slot": "EGRESS_TOKEN_0"}"#,
        );
        let slots = |_: &str| Some(Zeroizing::new(secret.as_bytes().to_vec()));
        let credential = Credential::new(&auth.unwrap(), &slots).unwrap();
        Needles::of_bottle(std::iter::once(&credential)).unwrap()
    }

    fn first(needles: &Needles, haystack: &[u8]) -> Option<Found> {
        needles.find(haystack).next().map(|(_, found)| found)
    }

    #[test]
    fn the_sieve_lets_every_form_through_wherever_it_is() {
        let values: Vec<Vec<u8>> = (0..20)
            .map(|n| format!("{n:02}-token/\"{n}+c6d7\\\\e8==").into_bytes())
            .collect();
        let needles = Needles::of_values(values.iter().map(Vec::as_slice)).unwrap();
        let sieve = needles.sieve.as_ref().expect("this processor has one");
        assert!(sieve.0.len() > 1, "more than one pass");
        let filling = [b'.'; 3 * SIEVED];
        assert!(!sieve.may_hold(&filling));
        for form in values.iter().flat_map(|value| forms(value)) {
            for at in [0, 1, SIEVED - 1, filling.len()] {
                let mut haystack = filling.to_vec();
                haystack.splice(at..at, form.iter().copied());
                assert!(needles.are_in(&haystack), "{} at {at}", form.escape_ascii());
                assert!(first(&needles, &haystack).is_some());
            }
        }
    }

    #[test]
    fn finds_every_form() {
        let needles = Needles::of_secret(SECRET).unwrap();
        for form in forms(SECRET) {
            let haystack = [b"before ".as_slice(), &form, b" after"].concat();
            assert_eq!(
                first(&needles, &haystack),
                Some(Found::Secret),
                "{}",
                form.escape_ascii()
            );
        }
        assert_eq!(first(&needles, b"nothing of the kind"), None);
    }

    #[test]
    fn all_of_what_overlaps_is_blacked_out() {
        for secret in [r"sk-test-ends-in\", "sk-test-ends-in&", "sk-test-ends-in%"] {
            let needles = Needles::of_secret(secret.as_bytes()).unwrap();
            for form in forms(secret.as_bytes()) {
                for other in forms(secret.as_bytes()) {
                    let mut text = [&**form, &**other].concat();
                    assert!(needles.redact(&mut text));
                    assert_eq!(text, b"*".repeat(form.len() + other.len()));
                }
            }
        }
    }

    #[test]
    fn nothing_to_look_for_finds_nothing() {
        let needles = Needles::of_bottle(std::iter::empty()).unwrap();
        assert!(needles.is_empty());
        assert_eq!(first(&needles, b"anything"), None);
        assert_eq!(needles.cut_off(b"anything"), 8);
    }

    #[test]
    fn a_cut_off_beginning_is_where_it_begins() {
        let needles = Needles::of_secret(b"abcdefgh12").unwrap();
        assert_eq!(needles.cut_off(b"xxabcdefgh1"), 2);
        assert_eq!(needles.cut_off(b"xxa"), 2);
        assert_eq!(needles.cut_off(b"xx!"), 3);
        assert_eq!(needles.cut_off(b""), 0);
    }

    /// What the two searches find that one of them stands for.
    fn stray_in_both(needles: &Needles, text: &[u8]) -> bool {
        let closed = Closed::of(text);
        needles.are_in(text) || closed.is_some_and(|closed| needles.are_in(&closed.text))
    }

    #[test]
    fn a_text_with_gaps_is_searched_whole_and_closed() {
        for secret in [
            "sk-te st-4b5 c6d7",
            "n-token-0123456789",
            "a b c d e",
            "20token%-0123456",
        ] {
            let needles = bottle(secret);
            for text in [
                format!("it is {secret} and more"),
                format!("x {}", secret.replace(' ', "")),
                format!("a {}", secret.split("").collect::<Vec<_>>().join(" ")),
                // An end that becomes a gap with what follows, and a beginning with what stands before it.
                format!(r"a b \{secret}"),
                format!("a b %{secret}20"),
                format!("a b {secret}%20"),
            ] {
                let found = needles.stray(text.as_bytes(), |_| false);
                assert_eq!(
                    found.is_some(),
                    stray_in_both(&needles, text.as_bytes()),
                    "{text}"
                );
                assert!(found.is_some() || secret == "a b c d e", "{text}");
            }
            assert_eq!(needles.stray(b"nothing of the kind in it", |_| false), None);
            assert_eq!(needles.stray(secret.as_bytes(), |_| true), None);
        }
    }

    proptest! {
        #[test]
        fn one_search_finds_what_two_find(text in r"[abcd 20n\\%\t]{0,60}") {
            for secret in ["abcd abcd", "n20abcdd", "a b c d a b", "dd  bbaaccd"] {
                let needles = bottle(secret);
                let found = needles.stray(text.as_bytes(), |_| false);
                prop_assert_eq!(found.is_some(), stray_in_both(&needles, text.as_bytes()));
                let inside = format!("{}{secret}{text}", &text[..text.len() / 2]);
                let found = needles.stray(inside.as_bytes(), |_| false);
                prop_assert_eq!(found.is_some(), stray_in_both(&needles, inside.as_bytes()));
            }
        }

        /// Whatever stands around it, base64 of a text that holds the secret is recognised.
        #[test]
        fn finds_base64_in_any_alignment(before in ".{0,7}", after in ".{0,7}") {
            let needles = Needles::of_secret(SECRET).unwrap();
            let text = [before.as_bytes(), SECRET, after.as_bytes()].concat();
            for alphabet in [&STANDARD, &URL_SAFE] {
                let encoded = GeneralPurpose::new(alphabet, NO_PAD).encode(&text);
                prop_assert_eq!(first(&needles, encoded.as_bytes()), Some(Found::Secret));
            }
        }
    }
}
