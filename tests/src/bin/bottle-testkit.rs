//! The Internet of the engine suites, the clients for it, and the load of `scripts/bench`; see `bottle_tests::server`,
//! `bottle_tests::client`, `bottle_tests::raw` and `bottle_tests::load`.

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
        Some((command, [])) if command == "raw" => bottle_tests::raw::raw()
            .and_then(|outcomes| serde_json::to_string(&outcomes).map_err(std::io::Error::other))
            .and_then(|outcomes| writeln!(std::io::stdout(), "{outcomes}")),
        Some((command, rest)) if command == "load" => bottle_tests::load::load(rest)
            .and_then(|report| writeln!(std::io::stdout(), "{report}")),
        _ => {
            eprintln!("bottle-testkit: the commands are `serve`, `fetch`, `raw` and `load`");
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
