//! What stands between the pieces of a value that somebody broke up: spaces and line ends, as they are and as JSON and
//! URLs write them. Folded base64 is the usual case.

/// More of it at once is the end of one thing and the beginning of another: what may belong together is held in memory.
const LONGEST: usize = 16;

/// Stands where a gap was too long. No value has one, and no form of one.
const BREAK: u8 = b'\n';

/// Whether a gap may begin with it: nearly everything is passed over by this alone.
fn may_begin(byte: u8) -> bool {
    matches!(byte, b' ' | b'\t'..=b'\r' | b'\\' | b'%')
}

/// Where from `from` on a gap may begin. All of a block is looked at before anything is decided, which the processor can do
/// at once; in large uploads that is most of the time.
fn next_begin(text: &[u8], from: usize) -> Option<usize> {
    let mut at = from;
    while let Some(block) = text[at..].first_chunk::<32>() {
        if block.iter().fold(false, |any, &byte| any | may_begin(byte)) {
            break;
        }
        at += block.len();
    }
    let next = text[at..].iter().position(|&byte| may_begin(byte))?;
    Some(at + next)
}

/// How long the gap is that `text` begins with; `0` when it begins with something else.
fn gap(text: &[u8]) -> usize {
    match text {
        [b' ' | b'\t'..=b'\r', ..] => 1,
        [b'\\', b'n' | b'r' | b't', ..] => 2,
        [b'%', b'2', b'0', ..] | [b'%', b'0', b'9' | b'a' | b'A' | b'd' | b'D', ..] => 3,
        _ => 0,
    }
}

/// How much of the end of `text` may become a gap with what comes next.
fn begun(text: &[u8]) -> usize {
    match text {
        [.., b'%', b'0' | b'2'] => 2,
        [.., b'\\' | b'%'] => 1,
        _ => 0,
    }
}

/// A text without its gaps.
pub(crate) struct Closed {
    pub(crate) text: Vec<u8>,
    /// So much of it is certain, whatever comes next.
    sure: usize,
    /// Where each of its pieces begins, in it and in the text it was made of.
    pieces: Vec<(usize, usize)>,
}

impl Closed {
    /// Nothing, when it is the text itself, or there is nothing but gaps.
    pub(crate) fn of(text: &[u8]) -> Option<Self> {
        let begun = begun(text);
        let mut closed = Vec::new();
        let mut places = Vec::new();
        let mut is_whole = begun == 0;
        pieces(text, |at, piece| {
            is_whole &= piece.len() == text.len();
            if !is_whole {
                closed.reserve(text.len() - at);
                places.push((closed.len(), at));
                closed.extend_from_slice(piece);
            }
        });
        if is_whole {
            return None;
        }
        Some(Self {
            sure: closed.len() - begun,
            text: closed,
            pieces: places,
        })
    }

    /// Where in the text it was made of the byte is that stands here.
    pub(crate) fn place_of(&self, place: usize) -> usize {
        let after = self.pieces.partition_point(|(begin, _)| *begin <= place);
        let (begin, at) = self.pieces[..after].last().copied().unwrap_or_default();
        at + place - begin
    }

    /// The part of it that is certain.
    pub(crate) fn sure(&self) -> &[u8] {
        &self.text[..self.sure]
    }
}

/// Everything between the gaps, with the place where it stands.
fn pieces(text: &[u8], mut take: impl FnMut(usize, &[u8])) {
    // Where the piece begins, how far it is known, and how long the gap is that ends there.
    let (mut start, mut at, mut run) = (0, 0, 0);
    while let Some(next) = next_begin(text, at) {
        let width = gap(&text[next..]);
        if next > at || width == 0 {
            run = 0;
        }
        at = next;
        if width == 0 {
            at += 1;
            continue;
        }
        if start < at {
            take(start, &text[start..at]);
        }
        if run <= LONGEST && run + width > LONGEST {
            take(at, &[BREAK]);
        }
        run += width;
        at += width;
        start = at;
    }
    if start < text.len() {
        take(start, &text[start..]);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn closed(text: &str) -> String {
        let closed = Closed::of(text.as_bytes()).map(|closed| closed.text);
        String::from_utf8(closed.unwrap_or_else(|| text.into())).unwrap()
    }

    #[test]
    fn gaps_are_closed() {
        assert_eq!(closed("a b\tc\r\n  d\x0be"), "abcde");
        assert_eq!(closed(r"a\nb\r\nc\td"), "abcd");
        assert_eq!(closed("a%20b%0Ac%0d%0ad%09e"), "abcde");
        assert_eq!(closed(r"a\\b\xc%41%2f%"), r"a\\b\xc%41%2f%");
        assert!(Closed::of(b"nothing-of-it").is_none());
    }

    #[test]
    fn what_is_far_apart_does_not_belong_together() {
        let near = format!("a{}b", " ".repeat(LONGEST));
        let far = format!("a{}b", " ".repeat(LONGEST + 40));
        assert_eq!((closed(&near), closed(&far)), ("ab".into(), "a\nb".into()));
    }

    #[test]
    fn a_gap_is_seen_wherever_it_stands() {
        for before in 0..100 {
            let text = format!("{}%20{}", "x".repeat(before), "y".repeat(70));
            let want = text.replace("%20", "");
            assert_eq!(closed(&text), want, "after {before}");
        }
    }

    #[test]
    fn an_end_may_become_a_gap() {
        for (text, sure) in [
            (r"a b\", 2),
            ("a b%0", 2),
            ("a b%", 2),
            ("a b%1", 4),
            (r"a \n", 1),
        ] {
            assert_eq!(
                Closed::of(text.as_bytes()).unwrap().sure().len(),
                sure,
                "{text}"
            );
        }
    }

    #[test]
    fn places_are_those_of_the_text() {
        let text = "a  b%20c\n";
        let closed = Closed::of(text.as_bytes()).unwrap();
        let places: Vec<usize> = (0..3).map(|place| closed.place_of(place)).collect();
        assert_eq!(places, [0, 3, 7]);
    }
}
