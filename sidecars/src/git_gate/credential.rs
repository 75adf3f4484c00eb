//! What git asks for the token of an HTTPS upstream: it is in this process's environment, never in an argument or a file.

use std::io::Write as _;
use std::process::ExitCode;

/// The variables of the git child that the helper reads.
pub(super) const USER: &str = "GIT_GATE_USER";
pub(super) const TOKEN: &str = "GIT_GATE_TOKEN";

/// Answers `get`; what git wants stored or erased is none of our business.
pub(crate) fn run(args: &[String]) -> ExitCode {
    if args.first().is_none_or(|action| action != "get") {
        return ExitCode::SUCCESS;
    }
    let (Ok(user), Ok(token)) = (std::env::var(USER), std::env::var(TOKEN)) else {
        return ExitCode::FAILURE;
    };
    let text = zeroize::Zeroizing::new(format!("username={user}\npassword={token}\n"));
    match std::io::stdout().write_all(text.as_bytes()) {
        Ok(()) => ExitCode::SUCCESS,
        Err(_) => ExitCode::FAILURE,
    }
}
