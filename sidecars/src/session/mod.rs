//! `bottle-sidecar session`: a terminal inside the agent's container that outlives the one on the host.
//!
//! A *holder* owns the pseudo terminal and runs the command on it. It listens on a socket in the container's memory;
//! whoever connects sees what the command prints and types into it. A *relay* is what `bottle-run attach` starts: it
//! passes frames between its own stdin and stdout and that socket, and knows nothing else. When the terminal on the host
//! goes away so does the relay, and the holder does not mind.
//!
//! All of it runs as the agent's user, so nothing of it is trusted by the host: see `bottle-run`'s `terminal` module.

mod holder;
mod names;
mod pty;
mod relay;

use std::io::{self, Write as _};
use std::process::ExitCode;

const USAGE: &str = "usage: session attach NAME -- CMD… | session once -- CMD… | session list";

/// Runs a subcommand; `hold` and `child` are what `attach` and `hold` start.
pub(crate) fn run(args: &[String]) -> ExitCode {
    let words: Vec<&str> = args.iter().map(String::as_str).collect();
    let done = match words.as_slice() {
        ["attach", name, "--", _, ..] => relay::attach(name, &args[3..]),
        ["hold", name, "--", _, ..] => holder::hold(name, &args[3..]),
        ["once", "--", _, ..] => holder::once(&args[2..]),
        ["child", terminal, "--", program, ..] => {
            return pty::become_child(terminal, program, &args[4..]);
        }
        ["list"] => names::print(),
        _ => Err(io::Error::new(io::ErrorKind::InvalidInput, USAGE)),
    };
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            let _ = writeln!(io::stderr(), "bottle: session: {error}");
            ExitCode::FAILURE
        }
    }
}
