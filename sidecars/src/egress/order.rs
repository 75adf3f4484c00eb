//! What makes a WebSocket's frames into messages: their order, their size, and that text is text.

use super::frames::Piece;

/// The largest message; in frames, it may come in any number of them.
pub(crate) const MAX_MESSAGE: u64 = 16 * 1024 * 1024;

/// Opcodes of frames that begin or go on with a message.
const CONTINUATION: u8 = 0;
const TEXT: u8 = 1;

/// What is wrong with a message.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Disorder {
    /// A message begins inside another one, or goes on that never began.
    Sequence,
    TooLarge,
    /// Text that is not UTF-8.
    NotText,
}

/// The messages of one direction.
#[derive(Default)]
pub(crate) struct Order {
    /// The message that is open, and whether it is text.
    open: Option<bool>,
    size: u64,
    /// The beginning of a character whose end has not come yet.
    character: Vec<u8>,
}

impl Order {
    /// Takes the next piece of a message; `plain` is what is in it, without the mask.
    pub(crate) fn take(&mut self, piece: &Piece, plain: &[u8]) -> Result<(), Disorder> {
        if piece.is_first {
            let begins = piece.opcode != CONTINUATION;
            if begins == self.open.is_some() {
                return Err(Disorder::Sequence);
            }
            if begins {
                self.open = Some(piece.opcode == TEXT);
                self.size = 0;
            }
        }
        self.size += plain.len() as u64;
        if self.size > MAX_MESSAGE {
            return Err(Disorder::TooLarge);
        }
        if self.open == Some(true) && !self.is_text(plain, piece.is_last) {
            return Err(Disorder::NotText);
        }
        if piece.is_last {
            self.open = None;
        }
        Ok(())
    }

    fn is_text(&mut self, plain: &[u8], is_last: bool) -> bool {
        let mut rest = plain;
        // A character that was cut has at most three bytes to come.
        while !self.character.is_empty() {
            let [first, tail @ ..] = rest else {
                return !is_last;
            };
            self.character.push(*first);
            rest = tail;
            match std::str::from_utf8(&self.character) {
                Ok(_) => self.character.clear(),
                Err(error) if error.error_len().is_none() => {}
                Err(_) => return false,
            }
        }
        match std::str::from_utf8(rest) {
            Ok(_) => true,
            Err(error) if error.error_len().is_none() => {
                self.character
                    .extend_from_slice(&rest[error.valid_up_to()..]);
                !is_last
            }
            Err(_) => false,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::egress::frames::Kind;

    fn run(frames: &[(u8, bool, &[u8])], size: usize) -> Result<(), Disorder> {
        let mut order = Order::default();
        for (opcode, is_final, payload) in frames {
            let mut pieces: Vec<&[u8]> = payload.chunks(size).collect();
            if pieces.is_empty() {
                pieces.push(b"");
            }
            let count = pieces.len();
            for (number, plain) in pieces.into_iter().enumerate() {
                let piece = Piece {
                    kind: Kind::Data,
                    range: 0..plain.len(),
                    mask: [0; 4],
                    opcode: *opcode,
                    is_first: number == 0,
                    is_last: *is_final && number + 1 == count,
                };
                order.take(&piece, plain)?;
            }
        }
        Ok(())
    }

    #[test]
    fn frames_make_messages() {
        let (head, tail) = "grüß 🍾".as_bytes().split_at(3);
        for size in 1..12 {
            for good in [
                &[(1, false, head), (0, true, tail), (2, true, b"\xff\xfe")][..],
                &[
                    (1, true, b""),
                    (1, false, b""),
                    (0, false, b""),
                    (0, true, b""),
                ],
                &[(2, true, head), (1, true, "🍾".as_bytes())],
            ] {
                assert_eq!(run(good, size), Ok(()), "{good:?}");
            }
            for (bad, disorder) in [
                (&[(0, true, &b"x"[..])][..], Disorder::Sequence),
                (&[(1, false, b"x"), (1, true, b"x")], Disorder::Sequence),
                (&[(1, true, b"x"), (0, true, b"x")], Disorder::Sequence),
                (&[(1, true, head)], Disorder::NotText),
                (&[(1, false, head), (0, true, b"x")], Disorder::NotText),
                (&[(1, true, b"a\xffb")], Disorder::NotText),
                (&[(1, true, b"\xed\xa0\x80")], Disorder::NotText),
            ] {
                assert_eq!(run(bad, size), Err(disorder), "{bad:?}");
            }
        }
    }

    #[test]
    fn a_message_has_a_size_and_the_next_one_too() {
        let half = vec![b'x'; 8 << 20];
        let (one, more): (&[u8], &[u8]) = (&half, b"x");
        assert_eq!(
            run(&[(2, false, one), (0, true, one), (2, true, one)], 1 << 20),
            Ok(())
        );
        let large = [(2, false, one), (0, false, one), (0, true, more)];
        assert_eq!(run(&large, 1 << 20), Err(Disorder::TooLarge));
    }
}
