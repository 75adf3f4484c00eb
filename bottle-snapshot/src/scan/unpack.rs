//! A look into compressed files: gzip, and zlib as git writes its loose objects.

use std::io::Write;

use flate2::write::{MultiGzDecoder, ZlibDecoder};

use crate::needles::{Found, Needles, Scanner};

/// No more of one file is unpacked: a few bytes can stand for terabytes.
const MAX_UNPACKED: u64 = 1 << 30;

/// Unpacks one file as it is read and searches what comes out.
pub(super) struct Unpacker<'a> {
    decoder: Decoder<'a>,
    broken: bool,
}

enum Decoder<'a> {
    Gzip(MultiGzDecoder<Sink<'a>>),
    Zlib(ZlibDecoder<Sink<'a>>),
}

struct Sink<'a> {
    scanner: Scanner<'a>,
    written: u64,
}

impl Write for Sink<'_> {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        self.written += bytes.len() as u64;
        if self.written > MAX_UNPACKED {
            return Err(std::io::Error::other("too much"));
        }
        self.scanner.feed(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}

impl<'a> Unpacker<'a> {
    /// An unpacker for a file that begins like this, if it looks compressed.
    pub(super) fn for_file(needles: &'a Needles, beginning: &[u8]) -> Option<Self> {
        let sink = || Sink {
            scanner: needles.scanner(),
            written: 0,
        };
        let decoder = match beginning {
            [0x1f, 0x8b, 8, ..] => Decoder::Gzip(MultiGzDecoder::new(sink())),
            // The two bytes are a number that 31 divides; other files begin so by chance and unpack to nothing.
            [0x78, second, ..] if (0x7800 + u16::from(*second)) % 31 == 0 => {
                Decoder::Zlib(ZlibDecoder::new(sink()))
            }
            _ => return None,
        };
        Some(Self {
            decoder,
            broken: false,
        })
    }

    /// The next bytes of the file.
    pub(super) fn feed(&mut self, bytes: &[u8]) {
        if self.broken {
            return;
        }
        let written = match &mut self.decoder {
            Decoder::Gzip(decoder) => decoder.write_all(bytes),
            Decoder::Zlib(decoder) => decoder.write_all(bytes),
        };
        self.broken = written.is_err();
    }

    /// What was found, once the file is at its end.
    pub(super) fn finish(mut self) -> Vec<Found> {
        let sink = match &mut self.decoder {
            Decoder::Gzip(decoder) => {
                let _ = decoder.try_finish();
                decoder.get_mut()
            }
            Decoder::Zlib(decoder) => {
                let _ = decoder.try_finish();
                decoder.get_mut()
            }
        };
        sink.scanner.take()
    }
}
