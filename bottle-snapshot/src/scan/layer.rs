//! A layer, or a whole file system, as a tar stream: every byte of it is searched, headers and padding too.

use std::cell::RefCell;
use std::io::{self, BufReader, Read};
use std::rc::Rc;

use bottle_plan::failure::{Failure, Result};
use sha2::{Digest as _, Sha256};

use super::unpack::Unpacker;
use super::{BUFFER, Report};
use crate::needles::{Found, Needles, Scanner};

/// What a stream was.
#[derive(Debug)]
pub struct Layer {
    /// `sha256:…` over all of it.
    pub digest: String,
    /// What was seen.
    pub report: Report,
}

/// Searches a tar stream to its end, at constant memory.
///
/// # Errors
/// When it cannot be read or is not a tar.
pub fn search(needles: &Needles, stream: impl Read, place: &str) -> Result<Layer> {
    let watch = Rc::new(RefCell::new(Watch {
        scanner: needles.scanner(),
        hash: Sha256::new(),
        bytes: 0,
    }));
    let watched = Watched {
        stream,
        watch: Rc::clone(&watch),
    };
    let mut archive = tar::Archive::new(BufReader::with_capacity(BUFFER, watched));
    let mut report = Report::default();
    let mut pending = Vec::new();
    let mut buffer = vec![0; BUFFER];
    let broken =
        |error: io::Error| Failure::failed(format!("{place} cannot be read")).because(error);
    for entry in archive.entries().map_err(broken)? {
        let mut entry = entry.map_err(broken)?;
        let name = shown_name(needles, &entry.path_bytes());
        let start = entry.raw_file_position();
        let (length, unpacked) = read(needles, &mut entry, &mut buffer).map_err(broken)?;
        if let Some(found) = unpacked {
            report.unpacked += 1;
            report.note(&found, place, &format!("{name}, unpacked"), 0);
        }
        // The stream is read ahead of the entries: what was found behind this one is the next one's.
        pending.extend(watch.borrow_mut().scanner.take());
        let end = start + length;
        pending.retain(|one: &Found| {
            if one.offset < start {
                let header = format!("the name or attributes of {name}");
                report.note(&[*one], place, &header, one.offset);
            } else if one.offset < end {
                report.note(&[*one], place, &name, start);
            }
            one.offset >= end
        });
    }
    // What stands behind the end of a tar is part of the layer too.
    io::copy(&mut archive.into_inner(), &mut io::sink()).map_err(broken)?;
    let mut watch = watch.borrow_mut();
    pending.extend(watch.scanner.take());
    report.note(&pending, place, "what is behind the last file", 0);
    report.bytes = watch.bytes;
    let digest = std::mem::take(&mut watch.hash).finalize();
    Ok(Layer {
        digest: format!("sha256:{digest:x}"),
        report,
    })
}

/// One file to its end: its length, and what was found in it unpacked.
fn read(
    needles: &Needles,
    entry: &mut impl Read,
    buffer: &mut [u8],
) -> io::Result<(u64, Option<Vec<Found>>)> {
    let mut unpacker: Option<Unpacker<'_>> = None;
    let mut length = 0;
    loop {
        let count = entry.read(buffer)?;
        if count == 0 {
            return Ok((length, unpacker.map(Unpacker::finish)));
        }
        if length == 0 {
            unpacker = Unpacker::for_file(needles, &buffer[..count]);
        }
        if let Some(unpacker) = &mut unpacker {
            unpacker.feed(&buffer[..count]);
        }
        length += count as u64;
    }
}

/// A file's name for a message; not told when it holds a value itself.
pub(super) fn shown_name(needles: &Needles, name: &[u8]) -> String {
    if needles.find(name).is_empty() {
        String::from_utf8_lossy(name).into_owned()
    } else {
        "a file whose name holds it".to_owned()
    }
}

/// What is known of a stream so far.
struct Watch<'a> {
    scanner: Scanner<'a>,
    hash: Sha256,
    bytes: u64,
}

/// Hands a stream on, and searches and hashes what passes.
struct Watched<'a, R> {
    stream: R,
    watch: Rc<RefCell<Watch<'a>>>,
}

impl<R: Read> Read for Watched<'_, R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let count = self.stream.read(buffer)?;
        let mut watch = self.watch.borrow_mut();
        watch.scanner.feed(&buffer[..count]);
        watch.hash.update(&buffer[..count]);
        watch.bytes += count as u64;
        Ok(count)
    }
}
