//! A test program whose cases share what is dear to make.
//!
//! libtest drops nothing that outlives a test, so bottles shared through a static would stay behind. Here the fixture is
//! made once, borrowed by every case, and dropped at the end, also after a failed case. The output and the arguments are
//! libtest's, as far as anybody uses them: names as filters, `--exact`, `--skip`, `--list`.

use std::io::Write as _;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::process::ExitCode;
use std::time::Instant;

/// One case: its name, and what it does with the fixture.
pub type Case<'a, F> = (&'a str, fn(&F));

/// Runs the cases that the command line asks for. `make` gives nothing when they cannot run here; it has said why.
pub fn run<F>(make: impl FnOnce() -> Option<F>, cases: &[Case<'_, F>]) -> ExitCode {
    let filter = Filter::from_args(std::env::args().skip(1));
    let cases: Vec<&Case<'_, F>> = cases
        .iter()
        .filter(|(name, _)| filter.takes(name))
        .collect();
    if filter.list {
        for (name, _) in &cases {
            say(&format!("{name}: test\n"));
        }
        return ExitCode::SUCCESS;
    }
    say(&format!("\nrunning {} tests\n", cases.len()));
    let started = Instant::now();
    let mut failed = Vec::new();
    let mut ignored = 0;
    if !cases.is_empty() {
        match make() {
            None => {
                for (name, _) in &cases {
                    say(&format!("test {name} ... ignored\n"));
                }
                ignored = cases.len();
            }
            Some(fixture) => {
                for (name, case) in &cases {
                    // A case only borrows the fixture, and what it broke is for the next one to find.
                    let passed = catch_unwind(AssertUnwindSafe(|| case(&fixture))).is_ok();
                    say(&format!(
                        "test {name} ... {}\n",
                        if passed { "ok" } else { "FAILED" }
                    ));
                    if !passed {
                        failed.push(*name);
                    }
                }
            }
        }
    }
    let passed = cases.len() - failed.len() - ignored;
    let verdict = if failed.is_empty() { "ok" } else { "FAILED" };
    if !failed.is_empty() {
        say(&format!("\nfailures:\n    {}\n", failed.join("\n    ")));
    }
    say(&format!(
        "\ntest result: {verdict}. {passed} passed; {} failed; {ignored} ignored; finished in {:.2}s\n\n",
        failed.len(),
        started.elapsed().as_secs_f64()
    ));
    ExitCode::from(u8::from(!failed.is_empty()) * 101)
}

fn say(text: &str) {
    let mut out = std::io::stdout().lock();
    let _ = out.write_all(text.as_bytes()).and_then(|()| out.flush());
}

#[derive(Debug, Default)]
struct Filter {
    wanted: Vec<String>,
    skipped: Vec<String>,
    exact: bool,
    list: bool,
}

impl Filter {
    fn from_args(args: impl Iterator<Item = String>) -> Self {
        let mut filter = Self::default();
        let mut args = args;
        while let Some(arg) = args.next() {
            match arg.as_str() {
                "--exact" => filter.exact = true,
                "--list" => filter.list = true,
                "--skip" => filter.skipped.extend(args.next()),
                // Their value is the next argument, and no filter.
                "--test-threads" | "--format" | "--color" | "--logfile" | "-Z" => drop(args.next()),
                flag if flag.starts_with('-') => {}
                _ => filter.wanted.push(arg),
            }
        }
        filter
    }

    fn takes(&self, name: &str) -> bool {
        let fits = |pattern: &String| {
            if self.exact {
                name == pattern
            } else {
                name.contains(pattern.as_str())
            }
        };
        (self.wanted.is_empty() || self.wanted.iter().any(fits)) && !self.skipped.iter().any(fits)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn filter(args: &[&str]) -> Filter {
        Filter::from_args(args.iter().map(|&arg| arg.to_owned()))
    }

    #[test]
    fn names_filter_as_in_libtest() {
        assert!(filter(&[]).takes("dns_is_closed"));
        assert!(filter(&["dns", "--nocapture"]).takes("dns_is_closed"));
        assert!(!filter(&["dns", "--exact"]).takes("dns_is_closed"));
        assert!(!filter(&["--skip", "dns"]).takes("dns_is_closed"));
        assert!(filter(&["--test-threads", "1"]).takes("dns_is_closed"));
    }
}
