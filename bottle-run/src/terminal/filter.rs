//! What a bottle prints on the terminal, without the sequences that reach beyond the window it is shown in.
//!
//! A terminal obeys what is printed on it: it writes the clipboard, reports its title as if it had been typed, reads
//! files of the host for pictures, starts programs (ConEmu). So: what is known to draw, to move or to ask for what an
//! attacker does not choose passes, everything else is left out. docs/pipeline.md has the table.

use std::collections::BTreeSet;

/// Longer ones are left out; a line of colours for every character stays below.
const LONGEST_CSI: usize = 256;
const LONGEST_OSC: usize = 4096;
const LONGEST_TITLE: usize = 200;

/// Deeper stacks of keyboard modes are nobody's; bounds what `restore` undoes.
const DEEPEST_STACK: usize = 16;

const ESC: u8 = 0x1b;
const BEL: u8 = 0x07;
const CAN: u8 = 0x18;
const SUB: u8 = 0x1a;

/// A filter in the middle of a stream.
#[derive(Debug, Default)]
pub struct Filter {
    state: State,
    held: Vec<u8>,
    changed: Changed,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum State {
    #[default]
    Text,
    /// Inside a character of several bytes, of which so many are missing.
    Character(u8),
    Escape,
    Csi,
    /// A CSI that is not wanted, up to its end.
    CsiIgnored,
    Osc,
    /// ESC inside an OSC.
    OscEscape,
    /// DCS, SOS, PM, APC, and an OSC that is too long: nothing of it is wanted.
    Ignored,
    IgnoredEscape,
}

/// What the command did to the terminal and has not undone.
#[derive(Debug, Default)]
struct Changed {
    on: BTreeSet<u16>,
    off: BTreeSet<u16>,
    keyboard_stack: usize,
    other_keys: bool,
    keypad: bool,
    region: bool,
    cursor_shape: bool,
}

impl Filter {
    /// Appends to `out` what of `bytes` may be printed.
    pub fn pass(&mut self, bytes: &[u8], out: &mut Vec<u8>) {
        for byte in bytes {
            self.byte(*byte, out);
        }
    }

    /// What brings the terminal back when the command that changed it does not: the screen, the cursor, the mouse, the
    /// keyboard.
    #[must_use]
    pub fn restore(&self) -> Vec<u8> {
        let changed = &self.changed;
        let mut out = Vec::new();
        for mode in changed.on.iter().rev() {
            out.extend_from_slice(format!("\x1b[?{mode}l").as_bytes());
        }
        for mode in &changed.off {
            out.extend_from_slice(format!("\x1b[?{mode}h").as_bytes());
        }
        if changed.keyboard_stack > 0 {
            out.extend_from_slice(format!("\x1b[<{}u", changed.keyboard_stack).as_bytes());
        }
        let undo: [(bool, &[u8]); 4] = [
            (changed.other_keys, b"\x1b[>4;0m"),
            (changed.keypad, b"\x1b>"),
            // Setting the region moves the cursor.
            (changed.region, b"\x1b7\x1b[r\x1b8"),
            (changed.cursor_shape, b"\x1b[0 q"),
        ];
        for (needed, bytes) in undo {
            if needed {
                out.extend_from_slice(bytes);
            }
        }
        out.extend_from_slice(b"\x0f\x1b(B\x1b[0m");
        out
    }

    fn byte(&mut self, byte: u8, out: &mut Vec<u8>) {
        match self.state {
            State::Text => self.text(byte, out),
            State::Character(missing) => self.character(byte, missing, out),
            State::Escape => self.escape(byte, out),
            State::Csi | State::CsiIgnored => self.csi(byte, out),
            State::Osc => match byte {
                ESC => self.state = State::OscEscape,
                BEL => self.end_osc(&[BEL], out),
                CAN | SUB => self.become_text(),
                _ if self.held.len() >= LONGEST_OSC => self.enter(State::Ignored),
                _ => self.held.push(byte),
            },
            State::OscEscape if byte == b'\\' => self.end_osc(b"\x1b\\", out),
            State::Ignored => match byte {
                ESC => self.state = State::IgnoredEscape,
                CAN | SUB => self.become_text(),
                _ => {}
            },
            State::IgnoredEscape if byte == b'\\' => self.become_text(),
            // The ESC ended the string, as it does in terminals, and begins something else.
            State::OscEscape | State::IgnoredEscape => {
                self.enter(State::Escape);
                self.escape(byte, out);
            }
        }
    }

    fn enter(&mut self, state: State) {
        self.held.clear();
        self.state = state;
    }

    fn become_text(&mut self) {
        self.enter(State::Text);
    }

    fn text(&mut self, byte: u8, out: &mut Vec<u8>) {
        match byte {
            ESC => self.enter(State::Escape),
            // Bell, backspace, tab, the line feeds, carriage return, and the two character sets. ENQ makes some
            // terminals type an answer.
            0x07..=0x0f | 0x20..=0x7e => out.push(byte),
            0xc2..=0xdf => self.begin_character(byte, 1),
            0xe0..=0xef => self.begin_character(byte, 2),
            0xf0..=0xf4 => self.begin_character(byte, 3),
            0x80.. => push_replacement(out),
            _ => {}
        }
    }

    fn begin_character(&mut self, byte: u8, missing: u8) {
        self.enter(State::Character(missing));
        self.held.push(byte);
    }

    fn character(&mut self, byte: u8, missing: u8, out: &mut Vec<u8>) {
        if !(0x80..=0xbf).contains(&byte) {
            push_replacement(out);
            self.become_text();
            return self.text(byte, out);
        }
        self.held.push(byte);
        if missing > 1 {
            self.state = State::Character(missing - 1);
            return;
        }
        match std::str::from_utf8(&self.held) {
            // U+0080 to U+009F are ESC and another character in one: U+009B is a CSI.
            Ok(text) if text.chars().any(char::is_control) => {}
            Ok(text) => out.extend_from_slice(text.as_bytes()),
            Err(_) => push_replacement(out),
        }
        self.become_text();
    }

    fn escape(&mut self, byte: u8, out: &mut Vec<u8>) {
        match (self.held.as_slice(), byte) {
            (_, ESC) => self.enter(State::Escape),
            ([], b'[') => self.enter(State::Csi),
            ([], b']') => self.enter(State::Osc),
            ([], b'P' | b'X' | b'^' | b'_') => self.enter(State::Ignored),
            ([], 0x20..=0x2f) => self.held.push(byte),
            ([], b'7' | b'8' | b'=' | b'>' | b'D' | b'E' | b'H' | b'M' | b'N' | b'O' | b'Z') => {
                match byte {
                    b'=' => self.changed.keypad = true,
                    b'>' => self.changed.keypad = false,
                    _ => {}
                }
                self.emit(&[byte], out);
            }
            ([], b'c') => {
                self.changed = Changed::default();
                self.emit(b"c", out);
            }
            // Character sets, and the size of a line. Not `%`: it would end UTF-8, and bytes would be controls again.
            ([b'(' | b')' | b'*' | b'+' | b'-' | b'.' | b'/'], 0x30..=0x7e)
            | ([b'#'], b'3'..=b'6' | b'8') => {
                let both = [self.held[0], byte];
                self.emit(&both, out);
            }
            _ => {
                self.become_text();
                if byte < 0x20 {
                    self.text(byte, out);
                }
            }
        }
    }

    fn emit(&mut self, rest: &[u8], out: &mut Vec<u8>) {
        out.push(ESC);
        out.extend_from_slice(rest);
        self.become_text();
    }

    fn csi(&mut self, byte: u8, out: &mut Vec<u8>) {
        match byte {
            0x20..=0x3f if self.held.len() >= LONGEST_CSI => self.enter(State::CsiIgnored),
            0x20..=0x3f => self.held.push(byte),
            0x40..=0x7e => {
                let sequence = std::mem::take(&mut self.held);
                let wanted = self.state == State::Csi;
                self.become_text();
                if wanted && Csi::parse(&sequence, byte).is_some_and(|csi| csi.is_harmless()) {
                    if let Some(csi) = Csi::parse(&sequence, byte) {
                        self.changed.note(&csi);
                    }
                    out.extend_from_slice(b"\x1b[");
                    out.extend_from_slice(&sequence);
                    out.push(byte);
                }
            }
            ESC => self.enter(State::Escape),
            _ => {
                self.become_text();
                self.text(byte, out);
            }
        }
    }

    fn end_osc(&mut self, end: &[u8], out: &mut Vec<u8>) {
        let held = std::mem::take(&mut self.held);
        self.become_text();
        if let Some(text) = harmless_osc(&String::from_utf8_lossy(&held)) {
            out.extend_from_slice(b"\x1b]");
            out.extend_from_slice(text.as_bytes());
            out.extend_from_slice(end);
        }
    }
}

fn push_replacement(out: &mut Vec<u8>) {
    out.extend_from_slice("\u{fffd}".as_bytes());
}

/// A control sequence, taken apart.
struct Csi {
    marker: Option<u8>,
    numbers: Vec<u16>,
    between: Vec<u8>,
    last: u8,
}

impl Csi {
    fn parse(sequence: &[u8], last: u8) -> Option<Self> {
        let split = sequence.iter().position(|byte| *byte < 0x30);
        let (params, between) = sequence.split_at(split.unwrap_or(sequence.len()));
        if between.iter().any(|byte| *byte >= 0x30) {
            return None;
        }
        let (marker, numbers) = match params.split_first() {
            Some((marker @ b'<'..=b'?', rest)) => (Some(*marker), rest),
            _ => (None, params),
        };
        let numbers = std::str::from_utf8(numbers).ok()?;
        Some(Self {
            marker,
            numbers: numbers
                .split([';', ':'])
                .map(|number| number.parse().unwrap_or(0))
                .collect(),
            between: between.to_vec(),
            last,
        })
    }

    fn is_harmless(&self) -> bool {
        match (self.marker, self.between.as_slice(), self.last) {
            // Size of the window in three units, and the stack of titles. Not what reports a title (20, 21), moves or
            // hides the window.
            (None, [], b't') => matches!(self.numbers[0], 14 | 16 | 18 | 22 | 23),
            // Insert, and new lines. Not 2: it locks the keyboard.
            (None, [], b'h' | b'l') => self.numbers.iter().all(|mode| matches!(mode, 4 | 20)),
            (Some(b'?'), [], b'h' | b'l') => true,
            // Drawing, moving, colours, and questions whose answers nobody but the terminal chooses. Not `i`: it prints.
            (
                None,
                [],
                b'@'..=b'M'
                | b'P'
                | b'S'
                | b'T'
                | b'X'
                | b'Z'
                | b'`'
                | b'a'..=b'g'
                | b'm'
                | b'n'
                | b'r'
                | b's'
                | b'u',
            ) => true,
            (Some(b'?'), [], b'J' | b'K' | b'n' | b's' | b'r' | b'u') => true,
            (Some(b'>'), [], b'c' | b'm' | b'n' | b'q' | b'u') => true,
            (Some(b'=' | b'<'), [], b'u') | (Some(b'='), [], b'c') => true,
            // Cursor shape, soft reset, and whether a mode is known. Not `*y`: it tells what stands on the screen.
            (None, b" ", b'q') | (None, b"!", b'p') | (None | Some(b'?'), b"$", b'p') => true,
            _ => false,
        }
    }
}

impl Changed {
    fn note(&mut self, csi: &Csi) {
        match (csi.marker, csi.between.as_slice(), csi.last) {
            (Some(b'?'), [], b'h') => csi.numbers.iter().for_each(|mode| self.mode(*mode, true)),
            (Some(b'?'), [], b'l') => csi.numbers.iter().for_each(|mode| self.mode(*mode, false)),
            (Some(b'>'), [], b'u') => {
                self.keyboard_stack = (self.keyboard_stack + 1).min(DEEPEST_STACK);
            }
            (Some(b'<'), [], b'u') => {
                let count = usize::from(csi.numbers[0].max(1));
                self.keyboard_stack = self.keyboard_stack.saturating_sub(count);
            }
            (Some(b'>'), [], b'm') => self.other_keys = csi.numbers.get(1).is_some_and(|n| *n > 0),
            (None, [], b'r') => self.region = csi.numbers.iter().any(|number| *number > 0),
            (None, b" ", b'q') => self.cursor_shape = csi.numbers[0] > 0,
            (None, b"!", b'p') => *self = Self::default(),
            _ => {}
        }
    }

    /// Auto-wrap and the cursor are on in a terminal nobody touched; all others are off.
    fn mode(&mut self, mode: u16, on: bool) {
        let usually_on = matches!(mode, 7 | 25);
        let set = if usually_on {
            &mut self.off
        } else {
            &mut self.on
        };
        if on == usually_on {
            set.remove(&mode);
        } else if set.len() < 64 {
            set.insert(mode);
        }
    }
}

/// The text of an operating system command that may pass, made so where it can be.
fn harmless_osc(text: &str) -> Option<String> {
    let (number, rest) = text.split_once(';').unwrap_or((text, ""));
    let simple = |text: &str, more: &str| {
        text.len() <= 256
            && text
                .chars()
                .all(|c| c.is_ascii_alphanumeric() || more.contains(c))
    };
    match number {
        // The title. Its text is shown by the window manager, so it is kept short and plain.
        "0" | "1" | "2" => {
            let title = rest.chars().filter(|c| !c.is_control());
            let title: String = title.take(LONGEST_TITLE).collect();
            Some(format!("{number};{title}"))
        }
        // Colours: set, asked for, and put back.
        "4" | "10" | "11" | "12" | "17" | "19" | "104" | "110" | "111" | "112" | "117" | "119" => {
            simple(rest, ":;/?#").then(|| text.to_owned())
        }
        // Links, to the web only: `file:` and others start programs of the host.
        "8" => {
            let (params, link) = rest.split_once(';')?;
            let web =
                link.is_empty() || link.starts_with("https://") || link.starts_with("http://");
            let plain = !link.chars().any(|c| c.is_control() || c.is_whitespace());
            (web && plain && simple(params, ":=_-.")).then(|| text.to_owned())
        }
        // Progress, and a notice in words. What else begins with a digit is ConEmu's, which runs programs.
        "9" => {
            let progress = rest.starts_with("4;") && simple(rest, ";");
            let words = !rest.starts_with(|c: char| c.is_ascii_digit())
                && rest.len() <= 256
                && !rest.chars().any(char::is_control);
            (progress || words).then(|| text.to_owned())
        }
        // Where prompts and commands begin.
        "133" => simple(rest, ";=_").then(|| text.to_owned()),
        _ => None,
    }
}

#[cfg(test)]
#[path = "filter_tests.rs"]
mod tests;
