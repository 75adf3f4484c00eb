//! The isolation probe: what a program in the agent's place can really do, tried from there.
//!
//! `bottle-sidecar probe SPEC…` runs every probe at once and prints one JSON array in the order of the arguments.
//! `bottle-run` uses it before anything is let loose in a bottle, and the suites use it to see that a claim holds. It
//! trusts nothing of the image it runs in: one static binary, no shell, no name service.
//!
//! `reached` means that the way is open. Whoever asks wants proof that it is not, so a probe that could not be carried out
//! counts as open as well, and says `not tried` in its detail: a broken probe never passes for a closed door.

mod dns;
mod kernel;
mod limits;
mod net;
mod place;
mod spec;
mod tricks;

use std::io::{self, Read as _, Write as _};
use std::process::{Command, ExitCode, Stdio};
use std::sync::mpsc;
use std::thread;
use std::time::{Duration, Instant};

use serde_json::{Value, json};

use spec::{Probe, Request};

/// How long the answer of a thread is waited for beyond the probe's own limit. A thread that misses this hangs in the
/// kernel; the process ends without it.
const GRACE: Duration = Duration::from_millis(500);

/// What a probe found.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Outcome {
    reached: bool,
    detail: String,
}

impl Outcome {
    fn open(detail: impl Into<String>) -> Self {
        Self {
            reached: true,
            detail: detail.into(),
        }
    }

    fn closed(detail: impl Into<String>) -> Self {
        Self {
            reached: false,
            detail: detail.into(),
        }
    }

    /// Nothing is known, and so the worst is assumed.
    fn not_tried(why: impl std::fmt::Display) -> Self {
        Self::open(format!("not tried: {why}"))
    }

    /// A system call that failed. When it failed for want of memory or descriptors, it says nothing about the way.
    fn errno(error: &io::Error) -> Self {
        use nix::errno::Errno::{EMFILE, ENFILE, ENOBUFS, ENOMEM};
        let want = error.raw_os_error().map(nix::errno::Errno::from_raw);
        if want.is_some_and(|errno| [EMFILE, ENFILE, ENOBUFS, ENOMEM].contains(&errno)) {
            return Self::not_tried(describe(error));
        }
        Self::closed(describe(error))
    }
}

/// The moment after which a probe gives up.
#[derive(Clone, Copy, Debug)]
struct Deadline {
    started: Instant,
    limit: Duration,
}

impl Deadline {
    fn new(limit: Duration) -> Self {
        Self {
            started: Instant::now(),
            limit,
        }
    }

    /// What is left, or nothing. Never zero: the standard library takes a zero timeout for none at all.
    fn left(self) -> Option<Duration> {
        self.limit
            .checked_sub(self.started.elapsed())
            .filter(|left| !left.is_zero())
    }

    fn elapsed_ms(self) -> u128 {
        self.started.elapsed().as_millis()
    }

    fn missed(self) -> Outcome {
        Outcome::closed(format!("no answer in {} ms", self.limit.as_millis()))
    }
}

/// Runs `bottle-sidecar probe` with the arguments after that word.
///
/// The exit code says whether the probes ran, never what they found: 0, or 2 for an argument that is no probe.
pub(crate) fn run(args: &[String]) -> ExitCode {
    let request = match spec::parse(args) {
        Ok(request) => request,
        Err(message) => {
            // If stderr is closed, the exit code still says it.
            let _ = writeln!(
                io::stderr(),
                "bottle-sidecar probe: {message}\nhint: {}",
                spec::USAGE
            );
            return ExitCode::from(2);
        }
    };
    let mut text = report(&request).to_string();
    text.push('\n');
    let mut out = io::stdout().lock();
    match out.write_all(text.as_bytes()).and_then(|()| out.flush()) {
        Ok(()) => ExitCode::SUCCESS,
        // Whoever read us has gone, and knows why.
        Err(error) if error.kind() == io::ErrorKind::BrokenPipe => ExitCode::SUCCESS,
        Err(_) => ExitCode::FAILURE,
    }
}

fn report(request: &Request) -> Value {
    let outcomes = match request.probes.as_slice() {
        // The child of `in_a_child`: on the main thread, because what it tries is refused to processes with several.
        [(_, probe)] if request.alone => vec![probe.attempt(Deadline::new(request.limit))],
        probes => all_at_once(probes, request.limit),
    };
    let found = request.probes.iter().zip(outcomes);
    found
        .map(|((spec, _), outcome)| json!({"probe": spec, "reached": outcome.reached, "detail": outcome.detail}))
        .collect()
}

fn all_at_once(probes: &[(String, Probe)], limit: Duration) -> Vec<Outcome> {
    let deadline = Deadline::new(limit);
    let started: Vec<_> = probes
        .iter()
        .map(|(spec, probe)| {
            let (sender, receiver) = mpsc::channel();
            let (spec, probe) = (spec.clone(), probe.clone());
            let thread = thread::Builder::new().spawn(move || {
                let outcome = if probe.needs_a_process() {
                    in_a_child(&spec, &probe, deadline)
                } else {
                    probe.attempt(deadline)
                };
                // Nobody listens any more once the grace is over.
                let _ = sender.send(outcome);
            });
            thread.map(|_| receiver)
        })
        .collect();
    started
        .into_iter()
        .zip(probes)
        .map(|(receiver, (_, probe))| match receiver {
            Err(error) => Outcome::not_tried(format!("no thread: {}", describe(&error))),
            Ok(receiver) => {
                let patience = deadline.left().unwrap_or_default() + GRACE;
                receiver
                    .recv_timeout(patience)
                    .unwrap_or_else(|_| probe.silence(deadline))
            }
        })
        .collect()
}

/// Runs a probe in a process of its own: one that changes the process, is refused to threads, or may crash (a static
/// binary's name lookup loads whatever modules the image configures).
fn in_a_child(spec: &str, probe: &Probe, deadline: Deadline) -> Outcome {
    let limit = deadline
        .left()
        .unwrap_or(Duration::from_millis(1))
        .as_millis()
        .to_string();
    let child = Command::new("/proc/self/exe")
        .args(["probe", "--alone", "--timeout-ms", &limit, spec])
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn();
    let mut child = match child {
        Ok(child) => child,
        Err(error) => return Outcome::not_tried(format!("no process: {}", describe(&error))),
    };
    // Its answer is one short line, which the pipe holds: it can be read after the end.
    let status = loop {
        match child.try_wait() {
            Ok(Some(status)) if probe.was_stopped_by(status) => {
                return Outcome::closed(format!("stopped at the limit: {status}"));
            }
            Ok(Some(status)) => break status,
            Ok(None) if deadline.left().is_some() => thread::sleep(Duration::from_millis(1)),
            Ok(None) | Err(_) => {
                let _ = child.kill();
                let _ = child.wait();
                return probe.silence(deadline);
            }
        }
    };
    let mut text = String::new();
    if let Some(mut stdout) = child.stdout.take() {
        let _ = stdout.read_to_string(&mut text);
    }
    let answer: Option<Value> = serde_json::from_str(&text).ok();
    let field = |name: &str| {
        answer
            .as_ref()
            .and_then(|answer| answer.get(0)?.get(name).cloned())
    };
    match (field("reached"), field("detail")) {
        (Some(Value::Bool(reached)), Some(Value::String(detail))) => Outcome { reached, detail },
        _ => Outcome::not_tried(format!("the child ended with {status}")),
    }
}

/// `EPERM: Operation not permitted`; the name alone is what tests look for.
fn describe(error: &io::Error) -> String {
    match error.raw_os_error() {
        Some(number) => nix::errno::Errno::from_raw(number).to_string(),
        None => error.to_string(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn found(args: &[&str]) -> Value {
        let args: Vec<String> = args.iter().map(|&arg| arg.to_owned()).collect();
        report(&spec::parse(&args).expect("valid arguments"))
    }

    #[test]
    fn answers_come_in_the_order_of_the_arguments() {
        let answers = found(&["env:PATH", "family:unix", "env:NOT_SET_ANYWHERE"]);
        let probes: Vec<_> = (0..3)
            .map(|index| answers[index]["probe"].as_str().expect("text"))
            .collect();
        assert_eq!(probes, ["env:PATH", "family:unix", "env:NOT_SET_ANYWHERE"]);
        assert_eq!(answers[0]["reached"], true);
        assert_eq!(answers[1]["reached"], true);
        assert_eq!(answers[2]["reached"], false);
    }

    #[test]
    fn slow_probes_wait_side_by_side_and_not_for_ever() {
        // A bound socket that nobody reads: packets are taken and never answered.
        let silent = std::net::UdpSocket::bind("127.0.0.1:0").expect("binds");
        let spec = format!("udp:{}", silent.local_addr().expect("bound"));
        let begin = Instant::now();
        let answers = found(&["--timeout-ms", "1000", &spec, &spec, &spec, &spec]);
        assert!(
            begin.elapsed() < Duration::from_secs(3),
            "{:?}",
            begin.elapsed()
        );
        assert_eq!(answers[3]["detail"], "no answer in 1000 ms");
    }

    #[test]
    fn no_probe_is_an_empty_array() {
        assert_eq!(found(&[]), json!([]));
    }
}
