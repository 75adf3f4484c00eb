//! Looking for needles in a stream without delaying it: only bytes that may be the beginning of one are held
//! back, so an event of a server-sent stream goes out the moment it came in.

use std::sync::Arc;

use hyper::body::Bytes;

use crate::needles::{Found, Needles};

/// A stream that is being looked through.
pub(crate) struct Stream {
    needles: Arc<Needles>,
    held: Vec<u8>,
    hits: u32,
}

impl Stream {
    pub(crate) fn new(needles: Arc<Needles>) -> Self {
        Self {
            needles,
            held: Vec::new(),
            hits: 0,
        }
    }

    /// How often something was blacked out.
    pub(crate) fn hits(&self) -> u32 {
        self.hits
    }

    /// Blacks out what is found; returns what may go on.
    pub(crate) fn redact(&mut self, chunk: Bytes) -> Bytes {
        let Some(mut data) = self.join(&chunk) else {
            return chunk;
        };
        self.hits = self.hits.saturating_add(self.needles.redact(&mut data));
        self.hold(data)
    }

    /// Stops at the first thing found that is not `allowed`; otherwise returns what may go on.
    pub(crate) fn inspect(
        &mut self,
        chunk: Bytes,
        allowed: impl Fn(Found) -> bool,
    ) -> Result<Bytes, Found> {
        let Some(data) = self.join(&chunk) else {
            return Ok(chunk);
        };
        if let Some((_, found)) = self.needles.find(&data).find(|(_, found)| !allowed(*found)) {
            return Err(found);
        }
        Ok(self.hold(data))
    }

    /// What is still held back when the stream ends: the beginning of a needle that never came.
    pub(crate) fn finish(&mut self) -> Bytes {
        std::mem::take(&mut self.held).into()
    }

    /// The held bytes and the new ones together; `None` when the chunk can go on as it is.
    fn join(&mut self, chunk: &Bytes) -> Option<Vec<u8>> {
        let untouched = self.held.is_empty()
            && self.needles.find(chunk).next().is_none()
            && self.needles.cut_off(chunk) == chunk.len();
        if untouched {
            return None;
        }
        let mut data = std::mem::take(&mut self.held);
        data.extend_from_slice(chunk);
        Some(data)
    }

    fn hold(&mut self, mut data: Vec<u8>) -> Bytes {
        self.held = data.split_off(self.needles.cut_off(&data));
        data.into()
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
        out.extend_from_slice(&stream.finish());
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
        assert_eq!(stream.finish(), "sk-test");
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

    proptest! {
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
