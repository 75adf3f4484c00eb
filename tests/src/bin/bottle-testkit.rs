//! The Internet of the engine suites, and the client for it; see `bottle_tests::server` and `bottle_tests::client`.

use std::io::Write as _;
use std::process::ExitCode;

fn main() -> ExitCode {
    let args: Vec<String> = std::env::args().skip(1).collect();
    let result = match args.split_first() {
        Some((command, [])) if command == "serve" => match bottle_tests::server::serve_from_env() {
            Ok(never) => match never {},
            Err(error) => Err(error),
        },
        Some((command, rest)) if command == "fetch" => bottle_tests::client::fetch(rest)
            .and_then(|answer| writeln!(std::io::stdout(), "{answer}")),
        _ => {
            eprintln!("bottle-testkit: the commands are `serve` and `fetch`");
            return ExitCode::from(2);
        }
    };
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("bottle-testkit: {error}");
            ExitCode::FAILURE
        }
    }
}
