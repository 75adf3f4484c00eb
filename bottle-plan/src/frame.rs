//! What passes between a terminal on the host and a session in a bottle: frames on a pipe, both ways.
//!
//! One byte says what it is, four say how long it is (big endian), then comes the payload. The side on the host takes
//! everything that comes out of a bottle for hostile: the length is bounded before anything is read.

use std::io::{self, Read, Write};

/// The longest payload of a frame, in bytes.
pub const MAX_PAYLOAD: usize = 64 << 10;

const DATA: u8 = b'd';
const SIZE: u8 = b's';
const EXIT: u8 = b'x';

/// One message.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Frame {
    /// Bytes of the terminal: keys in, output out. At most [`MAX_PAYLOAD`].
    Data(Vec<u8>),
    /// How large the terminal is; in only.
    Size {
        /// Lines.
        rows: u16,
        /// Characters in a line.
        columns: u16,
    },
    /// The command ended with this code, 128+N after signal N; out only, and the last frame.
    Exit(u8),
}

impl Frame {
    /// Writes the frame, whole.
    ///
    /// # Errors
    /// When the other end cannot be written to.
    pub fn write(&self, out: &mut impl Write) -> io::Result<()> {
        let (kind, payload) = match self {
            Self::Data(bytes) => (DATA, bytes.clone()),
            Self::Size { rows, columns } => {
                let [a, b] = rows.to_be_bytes();
                let [c, d] = columns.to_be_bytes();
                (SIZE, vec![a, b, c, d])
            }
            Self::Exit(code) => (EXIT, vec![*code]),
        };
        let length = u32::try_from(payload.len())
            .ok()
            .filter(|length| *length as usize <= MAX_PAYLOAD)
            .ok_or_else(|| broken("a frame is too long"))?;
        let mut bytes = Vec::with_capacity(5 + payload.len());
        bytes.push(kind);
        bytes.extend_from_slice(&length.to_be_bytes());
        bytes.extend_from_slice(&payload);
        out.write_all(&bytes)?;
        out.flush()
    }

    /// Reads the next frame; nothing when the stream ends between two.
    ///
    /// # Errors
    /// When the stream ends inside a frame, or holds something that is none.
    pub fn read(input: &mut impl Read) -> io::Result<Option<Self>> {
        let mut kind = [0];
        if input.read(&mut kind)? == 0 {
            return Ok(None);
        }
        let mut length = [0; 4];
        input.read_exact(&mut length)?;
        let length = u32::from_be_bytes(length) as usize;
        if length > MAX_PAYLOAD {
            return Err(broken("a frame is too long"));
        }
        let mut payload = vec![0; length];
        input.read_exact(&mut payload)?;
        match (kind[0], payload.as_slice()) {
            (DATA, _) => Ok(Some(Self::Data(payload))),
            (SIZE, &[a, b, c, d]) => Ok(Some(Self::Size {
                rows: u16::from_be_bytes([a, b]),
                columns: u16::from_be_bytes([c, d]),
            })),
            (EXIT, &[code]) => Ok(Some(Self::Exit(code))),
            _ => Err(broken("what came is no frame")),
        }
    }
}

fn broken(what: &str) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, what)
}

/// A name a session can have: `[a-z0-9][a-z0-9-]{0,39}`, as a bottle's.
#[must_use]
pub fn is_session_name(name: &str) -> bool {
    crate::slug::check(name).is_ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read_all(mut bytes: &[u8]) -> io::Result<Vec<Frame>> {
        let mut frames = Vec::new();
        while let Some(frame) = Frame::read(&mut bytes)? {
            frames.push(frame);
        }
        Ok(frames)
    }

    #[test]
    fn what_is_written_is_read() {
        let frames = vec![
            Frame::Size {
                rows: 24,
                columns: 300,
            },
            Frame::Data(vec![0, 255, b'\n']),
            Frame::Data(Vec::new()),
            Frame::Exit(137),
        ];
        let mut bytes = Vec::new();
        for frame in &frames {
            frame.write(&mut bytes).expect("a vector takes everything");
        }
        assert_eq!(read_all(&bytes).expect("reads"), frames);
        // Cut off anywhere else than between two frames, it is an error and not a shorter session.
        assert!(read_all(&bytes[..bytes.len() - 1]).is_err());
    }

    #[test]
    fn hostile_bytes_are_an_error_and_take_no_memory() {
        assert!(read_all(b"d\xff\xff\xff\xff").is_err());
        assert!(read_all(b"q\0\0\0\0").is_err());
        assert!(read_all(b"x\0\0\0\x02ab").is_err());
        assert!(read_all(b"s\0\0\0\x03abc").is_err());
    }
}
