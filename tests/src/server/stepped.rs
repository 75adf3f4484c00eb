//! A stream of events of which each is sent only after the one before was acknowledged. A proxy that holds anything back
//! stops it for good, however fast or slow the machine is.

use std::collections::BTreeMap;
use std::io::{self, Write};
use std::sync::{Condvar, Mutex, PoisonError};
use std::time::{Duration, SystemTime};

use super::http::Request;

/// An event that nobody acknowledges in this time was not received.
const PATIENCE: Duration = Duration::from_secs(10);

static ACKNOWLEDGED: Mutex<BTreeMap<String, usize>> = Mutex::new(BTreeMap::new());
static CHANGED: Condvar = Condvar::new();

/// `/ack?id=ID`: one more event has arrived.
pub(super) fn acknowledge(request: &Request) {
    let mut counts = ACKNOWLEDGED.lock().unwrap_or_else(PoisonError::into_inner);
    *counts.entry(request.asked("id").to_owned()).or_default() += 1;
    CHANGED.notify_all();
}

/// `/stepped?id=ID&n=COUNT`: every event says its number and when it was sent, in microseconds of the machine's clock.
pub(super) fn stream(out: &mut impl Write, request: &Request) -> io::Result<()> {
    out.write_all(
        b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\ntransfer-encoding: chunked\r\n\r\n",
    )?;
    for number in 0..request.number("n", 3) {
        let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH);
        let event = format!(
            "data: {{\"number\":{number},\"sent_us\":{}}}\n\n",
            now.unwrap_or_default().as_micros()
        );
        write!(out, "{:x}\r\n{event}\r\n", event.len())?;
        out.flush()?;
        if !has_arrived(request.asked("id"), number + 1) {
            return Err(io::Error::other(format!("event {number} was held back")));
        }
    }
    out.write_all(b"0\r\n\r\n")?;
    out.flush()
}

fn has_arrived(id: &str, count: usize) -> bool {
    let counts = ACKNOWLEDGED.lock().unwrap_or_else(PoisonError::into_inner);
    let missing =
        |counts: &mut BTreeMap<String, usize>| counts.get(id).copied().unwrap_or(0) < count;
    let waited = CHANGED.wait_timeout_while(counts, PATIENCE, missing);
    let (_counts, result) = waited.unwrap_or_else(PoisonError::into_inner);
    !result.timed_out()
}
