//! Looking for needles in a stream without delaying it: only bytes that may be the beginning of one are held
//! back, so an event of a server-sent stream goes out the moment it came in.

use std::sync::Arc;

use hyper::body::Bytes;

use crate::gaps::Closed;
use crate::needles::{Found, Needles, black_out};

/// So many characters of a value, broken up, are held back until it shows whether the rest comes. Fewer are words.
const TELLING: usize = 4;

/// A stream that is being looked through, either to black out or to stop: never both.
pub(crate) struct Stream {
    needles: Arc<Needles>,
    /// As it came: what is complete in it may still be the beginning of something longer.
    held: Vec<u8>,
    /// So much of the beginning of what is held belongs to a needle that has gone on in part.
    covered: usize,
    /// So much of it has gone on: it is kept because a value that is broken up may have begun there.
    gone: usize,
    hits: u32,
}

impl Stream {
    pub(crate) fn new(needles: Arc<Needles>) -> Self {
        Self {
            needles,
            held: Vec::new(),
            covered: 0,
            gone: 0,
            hits: 0,
        }
    }

    /// How often something was blacked out.
    pub(crate) fn hits(&self) -> u32 {
        self.hits
    }

    /// Blacks out what is found; returns what may go on.
    pub(crate) fn redact(&mut self, chunk: Bytes) -> Bytes {
        let known = self.held.len();
        let Some(mut data) = self.join(&chunk) else {
            return chunk;
        };
        let begun = 0..std::mem::take(&mut self.covered);
        let found = self.needles.find(&data).map(|(range, _)| range);
        let spots: Vec<_> = std::iter::once(begun).chain(found).collect();
        // What ended in the held bytes was counted when it came.
        let new = spots.iter().filter(|spot| spot.end > known).count();
        self.hits = self
            .hits
            .saturating_add(u32::try_from(new).unwrap_or(u32::MAX));
        let cut = self.needles.cut_off(&data);
        self.held = data.split_off(cut);
        for spot in spots.iter().filter(|spot| spot.start <= cut) {
            black_out(&mut data[spot.start..spot.end.min(cut)]);
            self.covered = self.covered.max(spot.end.saturating_sub(cut));
        }
        data.into()
    }

    /// What is still held back when a stream ends in which things are blacked out.
    pub(crate) fn finish_redacted(&mut self) -> Bytes {
        let mut rest = std::mem::take(&mut self.held);
        // A needle that was waiting to become a longer one is one all the same.
        self.needles.redact(&mut rest);
        black_out(&mut rest[..std::mem::take(&mut self.covered)]);
        rest.into()
    }

    /// Stops at the first thing found that is not `allowed`, whole or broken up by gaps; otherwise returns what may go on.
    pub(crate) fn inspect(
        &mut self,
        chunk: Bytes,
        allowed: impl Fn(Found) -> bool,
    ) -> Result<Bytes, Found> {
        let joined = self.join(&chunk);
        let data = joined.as_deref().unwrap_or(&chunk);
        let closed = Closed::of(data);
        // What went on as it came holds nothing that is whole.
        let whole = joined.iter().flat_map(|data| self.needles.find(data));
        let broken = closed
            .iter()
            .flat_map(|closed| self.needles.find(&closed.text));
        if let Some((_, found)) = whole.chain(broken).find(|(_, found)| !allowed(*found)) {
            return Err(found);
        }
        let mut hold = joined
            .as_ref()
            .map_or(data.len(), |data| self.needles.cut_off(data));
        let mut keep = hold;
        if let Some(closed) = &closed {
            let sure = closed.sure();
            let begun = self.needles.cut_off(sure);
            if begun < sure.len() {
                keep = hold.min(closed.place_of(begun));
            }
            if sure.len() - begun >= TELLING {
                hold = keep;
            }
        }
        if joined.is_none() && keep == chunk.len() {
            return Ok(chunk);
        }
        let mut data = joined.unwrap_or_else(|| chunk.to_vec());
        let hold = hold.max(self.gone);
        let out = (self.gone > 0 || hold > keep).then(|| data[self.gone..hold].to_vec());
        self.held = data.split_off(keep);
        self.gone = hold - keep;
        Ok(out.unwrap_or(data).into())
    }

    /// What is still held back when a stream ends in which nothing was to be found: the beginning of a needle that
    /// never came.
    pub(crate) fn finish(&mut self) -> Bytes {
        let gone = std::mem::take(&mut self.gone);
        Bytes::from(std::mem::take(&mut self.held)).slice(gone..)
    }

    /// The held bytes and the new ones together; `None` when the chunk can go on as it is.
    fn join(&mut self, chunk: &Bytes) -> Option<Vec<u8>> {
        let untouched = self.held.is_empty()
            && !self.needles.are_in(chunk)
            && self.needles.cut_off(chunk) == chunk.len();
        if untouched {
            return None;
        }
        let mut data = std::mem::take(&mut self.held);
        data.extend_from_slice(chunk);
        Some(data)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const SECRET: &str = "sk-test-abcabcabd";

    fn stream() -> Stream {
        Stream::new(Arc::new(Needles::of_secret(SECRET.as_bytes()).unwrap()))
    }

    fn redact_in_pieces(text: &[u8], size: usize) -> Vec<u8> {
        let mut stream = stream();
        let mut out = Vec::new();
        for piece in text.chunks(size.max(1)) {
            out.extend_from_slice(&stream.redact(Bytes::copy_from_slice(piece)));
        }
        out.extend_from_slice(&stream.finish_redacted());
        out
    }

    #[test]
    fn harmless_bytes_are_not_delayed() {
        let mut stream = stream();
        assert_eq!(
            stream.redact(Bytes::from_static(b"data: hello\n\n")),
            "data: hello\n\n"
        );
        assert_eq!(stream.redact(Bytes::from_static(b"data: sk-te")), "data: ");
        assert_eq!(stream.redact(Bytes::from_static(b"ll\n\n")), "sk-tell\n\n");
        assert_eq!(stream.hits(), 0);
    }

    #[test]
    fn a_beginning_at_the_end_is_not_lost() {
        let mut stream = stream();
        assert_eq!(stream.redact(Bytes::from_static(b"sk-test")), "");
        assert_eq!(stream.finish_redacted(), "sk-test");
    }

    #[test]
    fn inspection_stops_before_the_secret_is_out() {
        let mut stream = stream();
        let out = stream
            .inspect(Bytes::from_static(b"x=sk-test-abc"), |_| false)
            .unwrap();
        assert_eq!(out, "x=");
        assert_eq!(
            stream.inspect(Bytes::from_static(b"abcabd&y"), |_| false),
            Err(Found::Secret)
        );
    }

    /// With such an end one form is the beginning of another, and which of them it is shows only later.
    #[test]
    fn forms_that_run_into_each_other_are_blacked_out_however_they_are_cut() {
        for secret in [r"sk-test-ends-in\", "sk-test-ends-in&", "sk-test-ends-in%"] {
            let needles = Arc::new(Needles::of_secret(secret.as_bytes()).unwrap());
            let escaped = secret
                .replace('\\', r"\\")
                .replace('&', "&amp;")
                .replace('%', "%25");
            let whole = format!("a{secret}{escaped}{secret}{secret}b{secret}");
            let inside = whole.len() - secret.len() - 2;
            let expected = format!("a{}b{}", "*".repeat(inside), "*".repeat(secret.len()));
            for size in 1..=whole.len() {
                let mut stream = Stream::new(needles.clone());
                let mut out = Vec::new();
                for piece in whole.as_bytes().chunks(size) {
                    out.extend_from_slice(&stream.redact(Bytes::copy_from_slice(piece)));
                }
                out.extend_from_slice(&stream.finish_redacted());
                assert_eq!(String::from_utf8(out).unwrap(), expected, "{size}");
            }
        }
    }

    #[test]
    fn a_sighting_is_counted_once() {
        let mut stream = stream();
        let hits = |stream: &mut Stream, text: &'static str| {
            stream.redact(Bytes::from_static(text.as_bytes()));
            stream.hits()
        };
        assert_eq!(hits(&mut stream, "x sk-test-abcabcabd"), 1);
        assert_eq!(hits(&mut stream, " and nothing more"), 1);
        assert_eq!(hits(&mut stream, " sk-test-abcabcab"), 1);
        assert_eq!(hits(&mut stream, "d sk-test-abcabcabd"), 3);
    }

    /// Sends a text in pieces of this size; what went on, and whether all of it did.
    fn inspected(text: &[u8], size: usize) -> (Vec<u8>, bool) {
        let mut stream = stream();
        let mut out = Vec::new();
        for piece in text.chunks(size) {
            match stream.inspect(Bytes::copy_from_slice(piece), |_| false) {
                Ok(piece) => out.extend_from_slice(&piece),
                Err(_) => return (out, false),
            }
        }
        out.extend_from_slice(&stream.finish());
        (out, true)
    }

    #[test]
    fn what_is_broken_up_is_stopped_too() {
        let folded: Vec<String> = SECRET.chars().map(String::from).collect();
        for gap in [" ", "\n", "\r\n    ", r"\n", r"\r\n", "%0A", "%20", "\t"] {
            let text = format!("it is {}", folded.join(gap));
            for size in 1..=text.len() {
                let (out, all) = inspected(text.as_bytes(), size);
                assert!(!all, "{gap:?} in pieces of {size}");
                assert!(
                    out.len() <= "it is ".len() + 3 * (1 + gap.len()),
                    "{gap:?}, {size}: {out:?}"
                );
            }
        }
    }

    #[test]
    fn a_line_that_ends_as_a_value_begins_is_not_delayed() {
        let mut stream = stream();
        let mut pass =
            |text: &'static str| stream.inspect(Bytes::from_static(text.as_bytes()), |_| false);
        assert_eq!(pass("as\n").unwrap(), "as\n");
        assert_eq!(pass("k-\n").unwrap(), "k-\n");
        // By now it may be one.
        assert_eq!(pass("test\n").unwrap(), "");
        assert_eq!(pass("is over\n").unwrap(), "test\nis over\n");
        assert_eq!(pass("s\nk\n").unwrap(), "s\nk\n");
        assert_eq!(pass("-test-abcabcabd"), Err(Found::Secret));
    }

    proptest! {
        #[test]
        fn what_holds_nothing_leaves_as_it_came(text in "[a-ckst \\\\n%02-]{0,80}", size in 1usize..20) {
            let (out, all) = inspected(text.as_bytes(), size);
            prop_assert!(!all || out == text.as_bytes());
            let closed = Closed::of(text.as_bytes()).map_or(text.clone().into_bytes(), |closed| closed.text);
            let holds = closed.windows(SECRET.len()).any(|w| w == SECRET.as_bytes());
            prop_assert!(!holds || !all);
        }

        #[test]
        fn never_lets_the_secret_through(before in "[a-cks-]{0,20}", after in "[a-cks-]{0,20}", size in 1usize..20) {
            let text = format!("{before}{SECRET}{after}");
            let out = redact_in_pieces(text.as_bytes(), size);
            prop_assert_eq!(out.len(), text.len());
            prop_assert!(!out.windows(SECRET.len()).any(|w| w == SECRET.as_bytes()));
        }

        #[test]
        fn changes_nothing_else(text in "[a-ck-]{0,60}", size in 1usize..20) {
            prop_assert_eq!(redact_in_pieces(text.as_bytes(), size), text.as_bytes());
        }
    }
}
