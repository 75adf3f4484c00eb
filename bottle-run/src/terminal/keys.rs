//! The keys that leave a session without ending it.

use bottle_plan::failure::{Failure, Result};

/// What comes when nothing else is said: the engine's own.
pub const USUAL: &str = "ctrl-p,ctrl-q";

/// What was typed, looked through for the keys.
#[derive(Debug)]
pub struct Keys {
    wanted: Vec<u8>,
    seen: usize,
    held: Vec<u8>,
}

/// What came of some bytes.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Typed {
    /// For the command.
    pub bytes: Vec<u8>,
    /// Whether the keys were typed; what came after them is not kept.
    pub detach: bool,
}

impl Keys {
    /// `ctrl-p,ctrl-q`: keys by name, one after the other; `none` for none at all.
    ///
    /// # Errors
    /// When a key has no such name.
    pub fn parse(text: &str) -> Result<Self> {
        let wanted = match text {
            "none" | "" => Vec::new(),
            _ => text.split(',').map(key).collect::<Result<_>>()?,
        };
        Ok(Self {
            wanted,
            seen: 0,
            held: Vec::new(),
        })
    }

    /// Looks through what was typed.
    pub fn feed(&mut self, bytes: &[u8]) -> Typed {
        let mut typed = Typed::default();
        if self.wanted.is_empty() {
            typed.bytes = bytes.to_vec();
            return typed;
        }
        let mut rest = bytes;
        while !rest.is_empty() {
            let (length, key) = next_key(rest);
            let (token, after) = rest.split_at(length);
            rest = after;
            match key {
                Key::Released => typed.bytes.extend_from_slice(token),
                Key::Byte(byte) => {
                    if byte != self.wanted[self.seen] {
                        typed.bytes.append(&mut self.held);
                        self.seen = 0;
                    }
                    if byte != self.wanted[self.seen] {
                        typed.bytes.extend_from_slice(token);
                        continue;
                    }
                    self.held.extend_from_slice(token);
                    self.seen += 1;
                    if self.seen == self.wanted.len() {
                        typed.detach = true;
                        return typed;
                    }
                }
                Key::Other => {
                    typed.bytes.append(&mut self.held);
                    self.seen = 0;
                    typed.bytes.extend_from_slice(token);
                }
            }
        }
        typed
    }

    /// Whether the first of the keys was typed and held back.
    #[must_use]
    pub fn waiting(&self) -> bool {
        !self.held.is_empty()
    }

    /// What was held back, when nothing followed: it was meant for the command.
    pub fn give_up(&mut self) -> Vec<u8> {
        self.seen = 0;
        std::mem::take(&mut self.held)
    }
}

fn key(name: &str) -> Result<u8> {
    let byte = match name.as_bytes() {
        [byte @ 0x21..=0x7e] => Some(*byte),
        [b'c', b't', b'r', b'l', b'-', byte] => match byte.to_ascii_uppercase() {
            upper @ (b'@'..=b'_') => Some(upper & 0x1f),
            _ => None,
        },
        _ => None,
    };
    byte.ok_or_else(|| {
        Failure::invalid(format!("`{name}` is not a key to leave a session by"))
            .hint("such as ctrl-p,ctrl-q or ctrl-], or none")
    })
}

enum Key {
    /// One that has a byte.
    Byte(u8),
    /// A key let go, which only some terminals say.
    Released,
    /// Something else.
    Other,
}

/// The key at the beginning of `bytes`, and how many bytes it is. Terminals that were asked to tell keys apart send
/// Ctrl-P as `CSI 112;5u` or `CSI 27;5;112~`.
fn next_key(bytes: &[u8]) -> (usize, Key) {
    let Some(sequence) = bytes.strip_prefix(b"\x1b[") else {
        return (1, Key::Byte(bytes[0]));
    };
    let Some(end) = sequence
        .iter()
        .position(|byte| (0x40..=0x7e).contains(byte))
    else {
        return (1, Key::Other);
    };
    let length = 2 + end + 1;
    let text = std::str::from_utf8(&sequence[..end]).unwrap_or_default();
    let fields: Vec<Vec<u32>> = text
        .split(';')
        .map(|field| {
            let parts = field.split(':');
            parts.map(|part| part.parse().unwrap_or(0)).collect()
        })
        .collect();
    let at = |field: usize, part: usize| fields.get(field).and_then(|f| f.get(part)).copied();
    let (code, modifiers, event) = match sequence[end] {
        b'u' => (at(0, 0), at(1, 0).unwrap_or(1), at(1, 1).unwrap_or(1)),
        b'~' if at(0, 0) == Some(27) => (at(2, 0), at(1, 0).unwrap_or(1), 1),
        _ => return (length, Key::Other),
    };
    if event == 3 {
        return (length, Key::Released);
    }
    // Ctrl alone, whatever Caps Lock and Num Lock are.
    let held = modifiers.saturating_sub(1) & 0b0011_1111;
    match code.and_then(|code| u8::try_from(code).ok()) {
        Some(code @ (b'@'..=b'_' | b'a'..=b'z')) if held == 0b100 => {
            (length, Key::Byte(code.to_ascii_uppercase() & 0x1f))
        }
        _ => (length, Key::Other),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn feed(keys: &mut Keys, bytes: &[u8]) -> (Vec<u8>, bool) {
        let typed = keys.feed(bytes);
        (typed.bytes, typed.detach)
    }

    #[test]
    fn only_both_keys_in_a_row_leave() {
        let mut keys = Keys::parse(USUAL).expect("keys");
        assert_eq!(feed(&mut keys, b"ab\x10"), (b"ab".to_vec(), false));
        assert!(keys.waiting());
        assert_eq!(feed(&mut keys, b"c"), (b"\x10c".to_vec(), false));
        assert_eq!(feed(&mut keys, b"\x10\x10"), (b"\x10".to_vec(), false));
        assert_eq!(feed(&mut keys, b"\x11rest"), (Vec::new(), true));
    }

    #[test]
    fn a_key_nobody_follows_up_goes_through() {
        let mut keys = Keys::parse(USUAL).expect("keys");
        assert_eq!(feed(&mut keys, b"\x10"), (Vec::new(), false));
        assert_eq!(keys.give_up(), b"\x10");
        assert_eq!(feed(&mut keys, b"\x11"), (b"\x11".to_vec(), false));
    }

    #[test]
    fn terminals_that_tell_keys_apart_are_understood() {
        let mut keys = Keys::parse(USUAL).expect("keys");
        assert_eq!(
            feed(&mut keys, b"\x1b[112;5u\x1b[112;5:3u\x1b[113;69u"),
            (b"\x1b[112;5:3u".to_vec(), true)
        );
        let mut keys = Keys::parse(USUAL).expect("keys");
        assert_eq!(
            feed(&mut keys, b"\x1b[27;5;112~\x1b[27;5;113~"),
            (Vec::new(), true)
        );
        let mut keys = Keys::parse(USUAL).expect("keys");
        assert_eq!(
            feed(&mut keys, b"\x1b[112;6u"),
            (b"\x1b[112;6u".to_vec(), false)
        );
    }

    #[test]
    fn keys_have_names() {
        assert!(Keys::parse("ctrl-],x").is_ok());
        assert!(Keys::parse("ctrl-").is_err() && Keys::parse("alt-x").is_err());
        let mut none = Keys::parse("none").expect("none");
        assert_eq!(feed(&mut none, b"\x10\x11"), (b"\x10\x11".to_vec(), false));
    }
}
