//! The load generator of `scripts/bench`: HTTPS requests over many connections, directly or through a proxy that is asked
//! with CONNECT, which wrk cannot do.
//!
//! A connection is a thread that sends a request, reads the answer to its last byte and sends the next: closed loop, no
//! pipelining. Nothing but the proxy under test may make one run differ from another, so TLS sessions are not resumed,
//! names are looked up once, and an answer other than 200 is an error and not a fast request.

mod connection;
mod http;
mod options;
mod tally;

use std::io;
use std::sync::{Barrier, OnceLock};
use std::thread;
use std::time::{Duration, Instant};

use serde_json::Value;

use connection::{Connection, Dialer};
use options::Options;
use tally::Tally;

/// Between two attempts after an error: a proxy that is down must not turn the generator into a busy loop.
const PAUSE: Duration = Duration::from_millis(10);

/// There may be hundreds of threads, and none of them goes deep.
const STACK: usize = 256 << 10;

/// Makes load as the arguments say, and says what came of it.
///
/// # Errors
/// When the arguments make no sense, or the name or the CA cannot be used. What goes wrong with a request is counted.
pub fn load(args: &[String]) -> io::Result<Value> {
    let options = Options::parse(args)?;
    let dialer = Dialer::new(&options)?;
    let start = Start {
        everyone: Barrier::new(options.connections),
        at: OnceLock::new(),
    };
    let tallies = thread::scope(|scope| {
        let worker = || work(&options, &dialer, &start);
        let workers = (0..options.connections)
            .map(|_| {
                thread::Builder::new()
                    .stack_size(STACK)
                    .spawn_scoped(scope, worker)
            })
            .collect::<io::Result<Vec<_>>>()?;
        let ended = workers.into_iter().map(|worker| {
            worker
                .join()
                .map_err(|_| io::Error::other("a worker panicked"))
        });
        ended.collect::<io::Result<Vec<Tally>>>()
    })?;
    Ok(Tally::sum(tallies).report())
}

/// The moment that all workers count from.
struct Start {
    everyone: Barrier,
    at: OnceLock<Instant>,
}

impl Start {
    fn wait(&self) -> Instant {
        self.everyone.wait();
        *self.at.get_or_init(Instant::now)
    }
}

/// One connection's worth of load. A request counts that is begun between the warm-up and the end; it may end later, so
/// that a long transfer counts as a whole or not at all.
fn work(options: &Options, dialer: &Dialer, start: &Start) -> Tally {
    let mut tally = Tally::default();
    let mut connection = None;
    if !options.new_connections {
        // The handshakes of so many at once are another measurement.
        connection = tally.keep(dialer.dial());
    }
    let counts_from = start.wait() + options.warm_up;
    let ends = counts_from + options.duration;
    tally.counts_from = Some(counts_from);
    loop {
        let begun = Instant::now();
        if begun >= ends {
            return tally;
        }
        if options.new_connections {
            connection = None;
        }
        let dialled = connection.is_none();
        match exchange(dialer, options.upload, &mut connection) {
            Ok(bytes) => tally.success(begun, bytes, dialled),
            Err(error) => {
                connection = None;
                tally.failure(&error);
                thread::sleep(PAUSE);
            }
        }
    }
}

/// A request and its answer, over the connection that is there or a new one; how many bytes of bodies they were.
fn exchange(dialer: &Dialer, upload: u64, kept: &mut Option<Connection>) -> io::Result<u64> {
    let connection = match kept {
        Some(connection) => connection,
        None => kept.insert(dialer.dial()?),
    };
    let answer = connection.exchange(&dialer.request, upload)?;
    if answer.status != 200 {
        return Err(io::Error::other(format!("the answer is {}", answer.status)));
    }
    if answer.closes {
        *kept = None;
    }
    Ok(answer.bytes + upload)
}
