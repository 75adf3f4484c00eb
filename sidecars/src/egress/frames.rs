//! WebSocket frames (RFC 6455, section 5): where they begin and end, and what is in them.
//!
//! Nothing is collected: a chunk of the connection is taken apart into heads and pieces of payload, in order.

use std::ops::Range;

/// The longest head: two bytes, a length of eight, a mask of four.
const MAX_HEAD: usize = 14;

/// Not a frame that may be sent here.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct BadFrame;

/// What a piece of a connection is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    /// Part of a frame's head.
    Head,
    /// Part of the payload of a message.
    Data,
    /// Part of the payload of a ping, a pong or a close.
    Control,
}

/// A piece of a chunk.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Piece {
    pub(crate) kind: Kind,
    /// Where it is in the chunk.
    pub(crate) range: Range<usize>,
    /// What its bytes are masked with, the first with the first.
    pub(crate) mask: [u8; 4],
    /// What kind of frame it is in, as RFC 6455 numbers them.
    pub(crate) opcode: u8,
    /// Whether a frame begins with it.
    pub(crate) is_first: bool,
    /// Whether a message, or a control frame, ends with it.
    pub(crate) is_last: bool,
}

/// One direction of a WebSocket.
pub(crate) struct Frames {
    from_client: bool,
    head: [u8; MAX_HEAD],
    /// How much of a head is there; none inside a frame.
    filled: usize,
    frame: Option<Frame>,
}

struct Frame {
    left: u64,
    mask: [u8; 4],
    opcode: u8,
    is_begun: bool,
    is_final: bool,
}

impl Frame {
    fn kind(&self) -> Kind {
        if self.opcode & 0x8 != 0 {
            Kind::Control
        } else {
            Kind::Data
        }
    }
}

impl Frames {
    /// A client's frames are masked, a server's are not.
    pub(crate) fn new(from_client: bool) -> Self {
        Self {
            from_client,
            head: [0; MAX_HEAD],
            filled: 0,
            frame: None,
        }
    }

    /// Whether no frame is open: only here another one can be put in.
    pub(crate) fn is_between(&self) -> bool {
        self.frame.is_none() && self.filled == 0
    }

    /// The next piece of `chunk` from `at` on; none at its end.
    pub(crate) fn next(&mut self, chunk: &[u8], at: usize) -> Result<Option<Piece>, BadFrame> {
        if self.frame.is_none() {
            return self.read_head(chunk, at);
        }
        let Some(frame) = &mut self.frame else {
            return Ok(None);
        };
        let rest = chunk.len() - at;
        if rest == 0 && frame.left > 0 {
            return Ok(None);
        }
        let count = usize::try_from(frame.left).map_or(rest, |left| left.min(rest));
        let mask = frame.mask;
        frame.left -= count as u64;
        frame.mask.rotate_left(count % 4);
        let is_over = frame.left == 0;
        let piece = Piece {
            kind: frame.kind(),
            range: at..at + count,
            mask,
            opcode: frame.opcode,
            is_first: !std::mem::replace(&mut frame.is_begun, true),
            is_last: is_over && frame.is_final,
        };
        if is_over {
            self.frame = None;
        }
        Ok(Some(piece))
    }

    fn read_head(&mut self, chunk: &[u8], at: usize) -> Result<Option<Piece>, BadFrame> {
        let mut end = at;
        while end < chunk.len() {
            self.head[self.filled] = chunk[end];
            self.filled += 1;
            end += 1;
            if let Some(frame) = parse(&self.head[..self.filled], self.from_client)? {
                self.filled = 0;
                self.frame = Some(frame);
                break;
            }
        }
        let piece = Piece {
            kind: Kind::Head,
            range: at..end,
            mask: [0; 4],
            opcode: 0,
            is_first: false,
            is_last: false,
        };
        Ok((end > at).then_some(piece))
    }
}

/// Reads a head; none if it is not all there.
fn parse(head: &[u8], from_client: bool) -> Result<Option<Frame>, BadFrame> {
    let [first, second, rest @ ..] = head else {
        return Ok(None);
    };
    let (is_final, reserved, opcode) = (first & 0x80 != 0, first & 0x70, first & 0x0f);
    let (is_masked, short) = (second & 0x80 != 0, second & 0x7f);
    let is_control = opcode & 0x8 != 0;
    // No extension was agreed on, so nothing may use what is reserved for them.
    let known = matches!(opcode, 0..=2 | 8..=10) && reserved == 0;
    if !known || is_masked != from_client || (is_control && (!is_final || short > 125)) {
        return Err(BadFrame);
    }
    let (left, rest) = match short {
        126 => match rest.split_first_chunk::<2>() {
            Some((length, rest)) => (u64::from(u16::from_be_bytes(*length)), rest),
            None => return Ok(None),
        },
        127 => match rest.split_first_chunk::<8>() {
            Some((length, rest)) => (u64::from_be_bytes(*length), rest),
            None => return Ok(None),
        },
        short => (u64::from(short), rest),
    };
    if left > i64::MAX as u64 {
        return Err(BadFrame);
    }
    let mask = match (is_masked, rest.first_chunk::<4>()) {
        (true, None) => return Ok(None),
        (true, Some(mask)) => *mask,
        (false, _) => [0; 4],
    };
    Ok(Some(Frame {
        left,
        mask,
        opcode,
        is_begun: false,
        is_final,
    }))
}

/// Masks or unmasks.
pub(crate) fn apply(mask: [u8; 4], data: &mut [u8]) {
    if mask != [0; 4] {
        for (byte, key) in data.iter_mut().zip(mask.iter().cycle()) {
            *byte ^= key;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn frame(opcode: u8, is_final: bool, payload: &[u8], mask: [u8; 4]) -> Vec<u8> {
        let mut out = vec![opcode | u8::from(is_final) << 7];
        let masked = 0x80;
        match payload.len() {
            short @ 0..126 => out.push(masked | u8::try_from(short).unwrap()),
            long => {
                out.push(masked | 126);
                out.extend_from_slice(&u16::try_from(long).unwrap().to_be_bytes());
            }
        }
        out.extend_from_slice(&mask);
        let mut payload = payload.to_vec();
        apply(mask, &mut payload);
        out.extend_from_slice(&payload);
        out
    }

    fn heads(bytes: &[u8]) -> Result<(), BadFrame> {
        Frames::new(true).next(bytes, 0).map(|_| ())
    }

    #[test]
    fn what_is_no_frame() {
        assert_eq!(heads(&[0x81, 0x80, 1, 2, 3, 4]), Ok(()));
        for bad in [
            &[0x81, 0x00][..],
            &[0xc1, 0x80, 1, 2, 3, 4],
            &[0x83, 0x80, 1, 2, 3, 4],
            &[0x09, 0x80, 1, 2, 3, 4],
            &[0x89, 0xfe, 0, 126, 1, 2, 3, 4],
            &[0x82, 0xff, 255, 0, 0, 0, 0, 0, 0, 0, 1, 2, 3, 4],
            b"GET / HTTP/1.1\r\n",
        ] {
            assert_eq!(heads(bad), Err(BadFrame), "{bad:?}");
        }
        assert_eq!(
            Frames::new(false).next(&[0x81, 0x85, 1, 2, 3, 4], 0),
            Err(BadFrame)
        );
    }

    proptest! {
        /// However the stream is cut, the payloads come out whole and the messages end where they end.
        #[test]
        fn pieces_are_the_whole(
            messages in proptest::collection::vec((any::<[u8; 4]>(), proptest::collection::vec(any::<u8>(), 0..300)), 1..5),
            size in 1usize..50,
        ) {
            let mut stream = Vec::new();
            for (mask, payload) in &messages {
                let (first, second) = payload.split_at(payload.len() / 2);
                stream.extend(frame(2, false, first, *mask));
                stream.extend(frame(9, true, b"ping", *mask));
                stream.extend(frame(0, true, second, *mask));
            }
            let mut frames = Frames::new(true);
            let (mut data, mut control, mut ends, mut copied) = (Vec::new(), Vec::new(), Vec::new(), Vec::new());
            for chunk in stream.chunks(size) {
                let mut at = 0;
                while let Some(piece) = frames.next(chunk, at).unwrap() {
                    prop_assert_eq!(piece.range.start, at);
                    at = piece.range.end;
                    let mut bytes = chunk[piece.range].to_vec();
                    copied.extend_from_slice(&bytes);
                    apply(piece.mask, &mut bytes);
                    match piece.kind {
                        Kind::Head => {}
                        Kind::Control => control.extend(bytes),
                        Kind::Data => {
                            data.extend(bytes);
                            if piece.is_last {
                                ends.push(data.len());
                            }
                        }
                    }
                }
                prop_assert_eq!(at, chunk.len());
            }
            let whole: Vec<u8> = messages.iter().flat_map(|(_, payload)| payload.clone()).collect();
            prop_assert_eq!(data, whole);
            prop_assert_eq!(control, b"ping".repeat(messages.len()));
            prop_assert_eq!(ends.len(), messages.len());
            prop_assert_eq!(copied, stream);
        }
    }
}
