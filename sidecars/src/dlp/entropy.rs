//! Words that are too random to be words.

/// Shorter runs say nothing: in fewer characters, text is as random as a key.
const MIN_RUN: usize = 40;
/// A run is judged by this much of it.
const MAX_RUN: usize = 128;
/// Bits a character. Random base64 of forty characters has about 4.9; hexadecimal digests, of which ordinary
/// traffic is full, have at most 4; identifiers and paths about as much.
const MIN_BITS: f64 = 4.6;

/// Goes through a stream byte by byte; keeps the beginning of the run it is in.
#[derive(Default)]
pub(super) struct Entropy {
    run: Vec<u8>,
    judged: bool,
}

impl Entropy {
    /// Whether a run that ended, or grew long enough, in `data` is random.
    pub(super) fn look(&mut self, data: &[u8], ended: bool) -> bool {
        let mut found = false;
        for &byte in data {
            if byte.is_ascii_alphanumeric() || b"+/=_-".contains(&byte) {
                if self.run.len() < MAX_RUN {
                    self.run.push(byte);
                } else if !self.judged {
                    found |= self.judge();
                }
            } else {
                found |= self.end();
            }
        }
        found | (ended && self.end())
    }

    fn end(&mut self) -> bool {
        let found = !self.judged && self.judge();
        self.run.clear();
        self.judged = false;
        found
    }

    fn judge(&mut self) -> bool {
        self.judged = true;
        self.run.len() >= MIN_RUN && bits(&self.run) >= MIN_BITS
    }
}

/// Shannon's entropy of the characters.
fn bits(text: &[u8]) -> f64 {
    let mut counts = [0_u32; 256];
    text.iter().for_each(|&b| counts[usize::from(b)] += 1);
    let total = f64::from(u32::try_from(text.len()).unwrap_or(u32::MAX));
    counts
        .iter()
        .filter(|&&count| count > 0)
        .map(|&count| f64::from(count) / total)
        .map(|share| -share * share.log2())
        .sum()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn look(text: &str) -> bool {
        let whole = Entropy::default().look(text.as_bytes(), true);
        let mut entropy = Entropy::default();
        let mut pieces = false;
        for byte in text.bytes() {
            pieces |= entropy.look(&[byte], false);
        }
        pieces |= entropy.look(b"", true);
        assert_eq!(whole, pieces);
        whole
    }

    #[test]
    fn random_text_is_told_from_words_and_digests() {
        assert!(look("key = u8Jx0Zq3Vt7Lw2Rb9Ym5Hc1Nd6Fk4Gs8Pa0Xe3Ti"));
        assert!(look(&format!(
            "{}\"",
            "u8Jx0Zq3Vt7Lw2Rb9Ym5Hc1Nd6Fk4Gs8Pa0Xe3Ti".repeat(9)
        )));
        for text in [
            "u8Jx0Zq3Vt7Lw2Rb9Ym5Hc1Nd6",
            "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855",
            "a-rather-long-slug-of-an-article-about-nothing-in-particular-2026",
            "/usr/share/doc/packages/something/else/entirely/README",
            &"A".repeat(4000),
        ] {
            assert!(!look(text), "{text}");
        }
    }
}
