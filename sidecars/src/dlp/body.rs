//! The body of a request: as it goes by, or, if it is compressed, as it is unpacked for us on the side.

use std::io::{self, Write};
use std::sync::Arc;

use flate2::write::{MultiGzDecoder, ZlibDecoder};
use hyper::HeaderMap;
use hyper::body::Bytes;
use hyper::header::CONTENT_ENCODING;

use super::scanner::Scanner;
use super::{Found, Kind, Rules};
use crate::reason::Reason;

/// How many times its size a body may have unpacked. What is worse is made to be.
const MAX_RATIO: u64 = 100;
/// Small bodies may be a bit worse.
const SLACK: u64 = 1 << 20;

/// Looks for the bottle's own secrets in what was unpacked.
pub(crate) type Secrets = Box<dyn FnMut(Bytes) -> Result<(), Reason> + Send>;

/// A body that is being looked through.
pub(crate) enum BodyScan {
    /// As it is.
    Plain(Box<PlainScan>),
    /// A copy of it.
    Packed(Box<Packed>),
}

/// Keeps the scanner's type in this module.
pub(crate) struct PlainScan(Scanner);

impl BodyScan {
    /// What looks through a body with this head, if anything does. `secrets` is only asked when there is need.
    pub(crate) fn new(
        rules: &Arc<Rules>,
        found: &Arc<Found>,
        headers: &HeaderMap,
        secrets: impl FnOnce() -> Option<Secrets>,
    ) -> Result<Option<Self>, Reason> {
        let scanner = |sealed| Scanner::new(rules.clone(), found.clone(), sealed);
        let packing = match coding(headers) {
            Coding::Plain => {
                let plain = || Self::Plain(Box::new(PlainScan(scanner(false))));
                return Ok(rules.looks_out().then(plain));
            }
            Coding::Gzip => Packing::Gzip,
            Coding::Deflate => Packing::Deflate,
            Coding::Unknown if rules.explicit => return Err(Reason::DlpEncoded),
            Coding::Unknown => {
                found.add(Kind::NotScanned);
                return Ok(None);
            }
        };
        let secrets = secrets();
        if secrets.is_none() && !rules.looks_out() {
            return Ok(None);
        }
        let looker = Looker {
            scanner: rules.looks_out().then(|| scanner(true)),
            secrets,
            packed: 0,
            unpacked: 0,
            refused: None,
        };
        Ok(Some(Self::Packed(Box::new(match packing {
            Packing::Gzip => Packed::Gzip(MultiGzDecoder::new(looker)),
            Packing::Deflate => Packed::Deflate(ZlibDecoder::new(looker)),
        }))))
    }

    /// Takes the next piece; returns what may go on.
    pub(crate) fn pass(&mut self, chunk: Bytes) -> Result<Bytes, Reason> {
        match self {
            Self::Plain(plain) => plain.0.pass(chunk, false),
            Self::Packed(packed) => packed.look(&chunk).map(|()| chunk),
        }
    }

    /// Takes the last piece, which may be empty.
    pub(crate) fn finish(mut self, rest: Bytes) -> Result<Bytes, Reason> {
        match &mut self {
            Self::Plain(plain) => plain.0.pass(rest, true),
            Self::Packed(packed) => {
                packed.look(&rest)?;
                packed.finish().map(|()| rest)
            }
        }
    }
}

enum Coding {
    Plain,
    Gzip,
    Deflate,
    Unknown,
}

enum Packing {
    Gzip,
    Deflate,
}

fn coding(headers: &HeaderMap) -> Coding {
    let mut named = headers.get_all(CONTENT_ENCODING).iter();
    let (first, second) = (named.next(), named.next());
    let is = |name: &str| {
        first.is_some_and(|coding| coding.as_bytes().eq_ignore_ascii_case(name.as_bytes()))
    };
    match first {
        _ if second.is_some() => Coding::Unknown,
        None => Coding::Plain,
        Some(_) if is("identity") => Coding::Plain,
        Some(_) if is("gzip") || is("x-gzip") => Coding::Gzip,
        Some(_) if is("deflate") => Coding::Deflate,
        Some(_) => Coding::Unknown,
    }
}

/// Unpacks what goes by.
pub(crate) enum Packed {
    Gzip(MultiGzDecoder<Looker>),
    Deflate(ZlibDecoder<Looker>),
}

impl Packed {
    fn looker(&mut self) -> &mut Looker {
        match self {
            Self::Gzip(decoder) => decoder.get_mut(),
            Self::Deflate(decoder) => decoder.get_mut(),
        }
    }

    fn look(&mut self, chunk: &[u8]) -> Result<(), Reason> {
        self.looker().packed += chunk.len() as u64;
        let done = match self {
            // What a decoder has unpacked it hands on with the next piece; flushing makes that this one.
            Self::Gzip(decoder) => decoder.write_all(chunk).and_then(|()| decoder.flush()),
            Self::Deflate(decoder) => decoder.write_all(chunk).and_then(|()| decoder.flush()),
        };
        self.reason(done)
    }

    fn finish(&mut self) -> Result<(), Reason> {
        let done = match self {
            Self::Gzip(decoder) => decoder.try_finish(),
            Self::Deflate(decoder) => decoder.try_finish(),
        };
        self.reason(done)?;
        self.looker().finish()
    }

    /// Why it went wrong: what was found, or that it is not what it says.
    fn reason(&mut self, done: io::Result<()>) -> Result<(), Reason> {
        done.map_err(|_| self.looker().refused.unwrap_or(Reason::DlpEncoded))
    }
}

/// Where unpacked bytes end up. It keeps none of them.
pub(crate) struct Looker {
    scanner: Option<Scanner>,
    secrets: Option<Secrets>,
    packed: u64,
    unpacked: u64,
    refused: Option<Reason>,
}

impl Looker {
    fn look(&mut self, piece: &[u8]) -> Result<(), Reason> {
        self.unpacked += piece.len() as u64;
        if self.unpacked > self.packed.saturating_mul(MAX_RATIO).saturating_add(SLACK) {
            return Err(Reason::DlpEncoded);
        }
        let piece = Bytes::copy_from_slice(piece);
        if let Some(secrets) = &mut self.secrets {
            secrets(piece.clone())?;
        }
        if let Some(scanner) = &mut self.scanner {
            scanner.pass(piece, false)?;
        }
        Ok(())
    }

    fn finish(&mut self) -> Result<(), Reason> {
        match &mut self.scanner {
            Some(scanner) => scanner.pass(Bytes::new(), true).map(|_| ()),
            None => Ok(()),
        }
    }
}

impl Write for Looker {
    fn write(&mut self, piece: &[u8]) -> io::Result<usize> {
        self.look(piece).map_err(|reason| {
            self.refused = Some(reason);
            io::Error::other(reason.code())
        })?;
        Ok(piece.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

#[cfg(test)]
#[path = "body_tests.rs"]
mod tests;
