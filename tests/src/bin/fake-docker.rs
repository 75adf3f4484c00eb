//! An engine's command line that follows a script; see `bottle_tests::fake`.
//!
//! The script is `$FAKE_DOCKER_SCRIPT`, or the file beside the program that ends in `.json`; the log beside it ends in
//! `.log`.

use std::collections::BTreeMap;
use std::fs::{self, OpenOptions};
use std::io::{self, IsTerminal as _, Read as _, Write as _};
use std::os::unix::process::CommandExt as _;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode};
use std::time::Duration;

use bottle_tests::fake::{Logged, Rule, Script};
use nix::sys::signal::{Signal, kill};
use nix::unistd::getppid;

fn main() -> ExitCode {
    match play() {
        Ok(code) => ExitCode::from(code),
        Err(error) => {
            eprintln!("fake-docker: {error}");
            ExitCode::from(120)
        }
    }
}

fn play() -> io::Result<u8> {
    let mut words = std::env::args_os();
    let program = PathBuf::from(words.next().unwrap_or_default());
    let args: Vec<String> = words
        .map(|word| word.to_string_lossy().into_owned())
        .collect();
    let path = std::env::var_os("FAKE_DOCKER_SCRIPT")
        .map_or_else(|| program.with_extension("json"), PathBuf::from);
    let script: Script = serde_json::from_slice(&fs::read(&path)?)?;

    let log = path.with_extension("log");
    let number = call_number(&log, &script, &args)?;
    let rule = script.rules.iter().find(|rule| fits(rule, &args, number));
    if let Some(signal) = rule.and_then(|rule| rule.kill_parent) {
        kill(getppid(), Signal::try_from(signal)?)?;
    }
    match (rule, &script.real) {
        (Some(rule), Some(real)) if rule.pass_on => Err(Command::new(real).args(&args).exec()),
        (Some(rule), _) => answer(rule),
        (None, Some(real)) => Err(Command::new(real).args(&args).exec()),
        (None, None) => Ok(0),
    }
}

/// Writes the call down and says the how manieth it is. The lock makes that hold for calls side by side.
fn call_number(log: &Path, script: &Script, args: &[String]) -> io::Result<usize> {
    let mut stdin = Vec::new();
    // The real engine is to read it itself.
    if script.real.is_none() && !io::stdin().is_terminal() {
        io::stdin().read_to_end(&mut stdin)?;
    }
    let mut file = OpenOptions::new()
        .read(true)
        .append(true)
        .create(true)
        .open(log)?;
    file.lock()?;
    let mut before = String::new();
    file.read_to_string(&mut before)?;
    let value = |name: &String| Some((name.clone(), std::env::var(name).ok()?));
    let call = Logged {
        args: args.to_vec(),
        stdin: String::from_utf8_lossy(&stdin).into_owned(),
        env: script
            .env
            .iter()
            .filter_map(value)
            .collect::<BTreeMap<_, _>>(),
        env_names: std::env::vars_os()
            .map(|(name, _)| name.to_string_lossy().into_owned())
            .collect(),
    };
    writeln!(file, "{}", serde_json::to_string(&call)?)?;
    Ok(before.lines().count() + 1)
}

fn fits(rule: &Rule, args: &[String], number: usize) -> bool {
    let mut rest = args.iter();
    rule.call.is_none_or(|call| call as usize == number)
        && rule.args.iter().all(|wanted| rest.any(|arg| arg == wanted))
}

fn answer(rule: &Rule) -> io::Result<u8> {
    io::stdout().write_all(rule.stdout.as_bytes())?;
    io::stderr().write_all(rule.stderr.as_bytes())?;
    if rule.hang {
        loop {
            std::thread::sleep(Duration::from_secs(60));
        }
    }
    Ok(rule.exit)
}
