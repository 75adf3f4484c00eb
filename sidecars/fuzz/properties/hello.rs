use bottle_plan::host::Host;
use tokio::io::AsyncReadExt;

use super::egress_hello::read;
use super::fixture::{Dripping, at_once};
use crate::reason::Reason;

/// The first bytes of a connection that should be TLS: the first says how they are cut, the rest is what comes.
pub fn hello(data: &[u8]) {
    let [first, stream @ ..] = data else {
        return;
    };
    let size = usize::from(*first).max(1);
    let name = named(stream, 0, usize::MAX);
    assert_eq!(name, named(stream, 0, size));
    // Part of it may have been read before anybody asked.
    assert_eq!(name, named(stream, size.min(stream.len()), size));
    if stream.first().is_some_and(|&kind| kind != 0x16) {
        assert_eq!(name, Err(Reason::NotTls));
    }
}

fn named(stream: &[u8], before: usize, size: usize) -> Result<Option<Host>, Reason> {
    let (read_before, rest) = stream.split_at(before);
    let mut hello = at_once(read(Dripping { rest, size }, read_before))?;
    if let Some(name) = &hello.name {
        assert_eq!(Host::parse(name.as_str()).as_ref(), Ok(name));
        // What is decided on is what stands there, for the destination reads it too.
        let is_there = |window: &[u8]| window.eq_ignore_ascii_case(name.as_str().as_bytes());
        assert!(stream.windows(name.as_str().len()).any(is_there));
    }
    let mut replayed = Vec::new();
    let read = at_once(hello.stream.read_to_end(&mut replayed));
    assert_eq!(read.ok(), Some(stream.len()));
    assert_eq!(
        replayed, stream,
        "who takes over sees it from its beginning"
    );
    Ok(hello.name)
}
