//! This terminal, connected to a command in a bottle.
//!
//! The engine's own `exec --tty` hands the terminal whatever the agent prints and ends the command with the terminal.
//! Here the pseudo terminal is inside the bottle, held by our helper, and frames come through a pipe: what is printed
//! goes through a filter on this side, where the agent cannot reach, and a session goes on when this side is gone.

mod filter;
pub mod keys;

use std::fs::File;
use std::io::{self, BufReader, Read, Write};
use std::os::fd::AsFd as _;
use std::os::unix::process::{CommandExt as _, ExitStatusExt as _};
use std::process::{Child, ChildStdin, Command, Stdio};
use std::sync::atomic::{AtomicBool, AtomicI32, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use bottle_plan::failure::{Failure, Result, printable};
use bottle_plan::frame::Frame;
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::termios::{OptionalActions, Termios, tcgetattr, tcgetwinsize, tcsetattr};
use signal_hook::consts::{SIGHUP, SIGINT, SIGTERM, SIGWINCH};
use signal_hook::iterator::Signals;

pub use filter::Filter;
use keys::Keys;

/// How long the first of the keys is held back for the second.
const BETWEEN_KEYS: Duration = Duration::from_millis(700);

/// How often the keyboard is left to see whether the command has ended.
const BREATH: Duration = Duration::from_millis(100);

/// How long the engine's client may take to end after the command did.
const LAST_WORDS: Duration = Duration::from_secs(2);

/// The most of what the engine's client complains about that is kept.
const COMPLAINT: u64 = 4096;

/// How it ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Ended {
    /// The command did, with this code.
    Code(u8),
    /// The keys to leave were typed; the command goes on.
    Detached,
    /// This signal came to us.
    Signal(u8),
}

/// What is asked for.
#[derive(Debug)]
pub struct Options {
    /// The keys that leave.
    pub keys: Keys,
    /// Whether everything the command prints reaches the terminal.
    pub raw: bool,
}

/// Connects `keyboard` and stdout to what `client`, a call of the engine, starts: our helper inside, which speaks in
/// frames.
///
/// # Errors
/// When the client cannot be started, or ends without having said how the command did.
pub fn connect(mut client: Command, keyboard: File, options: Options) -> Result<Ended> {
    client
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        // Signals of the terminal are ours to act on.
        .process_group(0);
    let cannot = |error| Failure::failed("cannot run the engine's client").because(error);
    let mut screen = Screen::take(keyboard, options.raw)
        .map_err(|error| Failure::failed("cannot use the terminal").because(error))?;
    let keyboard = screen.keyboard()?;
    let mut child = client.spawn().map_err(cannot)?;
    let complaint = child.stderr.take().map(|pipe| {
        thread::spawn(move || {
            let mut text = Vec::new();
            let _ = pipe.take(COMPLAINT).read_to_end(&mut text);
            String::from_utf8_lossy(&text).trim().to_owned()
        })
    });
    let output = child.stdout.take().map(BufReader::new);
    let Some((input, output)) = child.stdin.take().zip(output) else {
        return Err(Failure::failed("the engine's client has no pipes"));
    };
    let link = Arc::new(Link::new(child, input));
    link.clone().watch_signals()?;
    let typing = thread::spawn({
        let link = link.clone();
        move || link.pass_keys(&keyboard, options.keys)
    });
    let ended = screen.show(output);
    link.over.store(true, Ordering::Relaxed);
    let status = link.stop();
    let _ = typing.join();
    let clean = ended.as_ref().is_ok_and(|code| code.is_some());
    screen.give_back(!clean);
    match (ended, link.signal.load(Ordering::Relaxed)) {
        (Ok(Some(code)), _) => Ok(Ended::Code(code)),
        _ if link.detached.load(Ordering::Relaxed) => Ok(Ended::Detached),
        (_, signal @ 1..=127) => Ok(Ended::Signal(u8::try_from(signal).unwrap_or(1))),
        (ended, _) => {
            let said = complaint.and_then(|thread| thread.join().ok());
            Err(lost(ended.err(), status, &said.unwrap_or_default()))
        }
    }
}

fn lost(error: Option<io::Error>, status: Option<i32>, said: &str) -> Failure {
    let mut message = "the terminal in the bottle is gone".to_owned();
    if let Some(code) = status {
        message.push_str(&format!(" (the engine's client ended with {code})"));
    }
    if !said.is_empty() {
        message.push_str(&format!(": {}", printable(said)));
    }
    let failure =
        Failure::failed(message).hint("bottle-run list shows whether the bottle still runs");
    match error {
        Some(error) => failure.because(error),
        None => failure,
    }
}

/// The way to the helper, shared by the threads that write to it.
struct Link {
    child: Mutex<Child>,
    input: Mutex<Option<ChildStdin>>,
    over: AtomicBool,
    detached: AtomicBool,
    signal: AtomicI32,
}

impl Link {
    fn new(child: Child, input: ChildStdin) -> Self {
        Self {
            child: Mutex::new(child),
            input: Mutex::new(Some(input)),
            over: AtomicBool::new(false),
            detached: AtomicBool::new(false),
            signal: AtomicI32::new(0),
        }
    }

    fn send(&self, frame: &Frame) {
        let mut input = self.input.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(pipe) = input.as_mut()
            && frame.write(pipe).is_err()
        {
            *input = None;
        }
    }

    fn send_size(&self) {
        if let Ok(size) = tcgetwinsize(io::stdout()) {
            self.send(&Frame::Size {
                rows: known_or(size.ws_row, 24),
                columns: known_or(size.ws_col, 80),
            });
        }
    }

    /// Ends the engine's client; the helper inside sees the end of its stdin.
    fn stop(&self) -> Option<i32> {
        // Whoever holds it is writing to a client that does not read; that ends with the client.
        if let Ok(mut input) = self.input.try_lock() {
            *input = None;
        }
        let mut child = self.child.lock().unwrap_or_else(PoisonError::into_inner);
        // When the command has ended the client ends by itself, unless what is inside does not mean it to.
        let patience = if self.over.load(Ordering::Relaxed) {
            LAST_WORDS
        } else {
            Duration::ZERO
        };
        let asked = Instant::now();
        while asked.elapsed() < patience && matches!(child.try_wait(), Ok(None)) {
            thread::sleep(Duration::from_millis(2));
        }
        let _ = child.kill();
        let status = child.wait().ok()?;
        status
            .code()
            .or_else(|| status.signal().map(|number| 128 + number))
    }

    fn leave(&self) {
        self.detached.store(true, Ordering::Relaxed);
        self.stop();
    }

    fn watch_signals(self: Arc<Self>) -> Result<()> {
        let mut signals = Signals::new([SIGWINCH, SIGHUP, SIGINT, SIGTERM])
            .map_err(|error| Failure::failed("cannot watch signals").because(error))?;
        self.send_size();
        thread::spawn(move || {
            for signal in signals.forever() {
                if signal == SIGWINCH {
                    self.send_size();
                } else {
                    self.signal.store(signal, Ordering::Relaxed);
                    self.stop();
                }
            }
        });
        Ok(())
    }

    fn pass_keys(&self, keyboard: &File, mut keys: Keys) {
        let mut buffer = [0; 4096];
        while !self.over.load(Ordering::Relaxed) {
            let patience = if keys.waiting() { BETWEEN_KEYS } else { BREATH };
            match ready(keyboard, patience) {
                Ok(true) => {}
                Ok(false) => {
                    if keys.waiting() {
                        self.send(&Frame::Data(keys.give_up()));
                    }
                    continue;
                }
                Err(_) => return,
            }
            let mut keyboard = keyboard;
            let Ok(count @ 1..) = keyboard.read(&mut buffer) else {
                // The terminal is gone; SIGHUP says the rest.
                return;
            };
            let typed = keys.feed(&buffer[..count]);
            if !typed.bytes.is_empty() {
                self.send(&Frame::Data(typed.bytes));
            }
            if typed.detach {
                return self.leave();
            }
        }
    }
}

/// A terminal may not know its size; 0 is none.
const fn known_or(size: u16, usual: u16) -> u16 {
    if size == 0 { usual } else { size }
}

fn ready(file: &File, patience: Duration) -> io::Result<bool> {
    let mut wanted = [PollFd::new(file, PollFlags::IN)];
    let patience = Timespec::try_from(patience).map_err(io::Error::other)?;
    match poll(&mut wanted, Some(&patience)) {
        Err(rustix::io::Errno::INTR) => Ok(false),
        other => Ok(other? > 0),
    }
}

/// The terminal in raw mode, and what was printed on it.
struct Screen {
    keyboard: File,
    before: Termios,
    filter: Filter,
    raw: bool,
}

impl Screen {
    fn take(keyboard: File, raw: bool) -> io::Result<Self> {
        let before = tcgetattr(&keyboard)?;
        let mut modes = before.clone();
        modes.make_raw();
        tcsetattr(&keyboard, OptionalActions::Now, &modes)?;
        Ok(Self {
            keyboard,
            before,
            filter: Filter::default(),
            raw,
        })
    }

    fn keyboard(&self) -> Result<File> {
        let copy = self.keyboard.as_fd().try_clone_to_owned();
        copy.map(File::from)
            .map_err(|error| Failure::failed("cannot read the terminal").because(error))
    }

    /// Prints what comes, up to the end of the command (its code) or of the stream.
    fn show(&mut self, mut output: impl Read) -> io::Result<Option<u8>> {
        let mut out = io::stdout().lock();
        let mut shown = Vec::new();
        while let Some(frame) = Frame::read(&mut output)? {
            match frame {
                Frame::Exit(code) => return Ok(Some(code)),
                Frame::Size { .. } => {}
                Frame::Data(bytes) => {
                    shown.clear();
                    self.filter.pass(&bytes, &mut shown);
                    out.write_all(if self.raw { &bytes } else { &shown })?;
                    out.flush()?;
                }
            }
        }
        Ok(None)
    }

    /// The terminal as it was; what the command did to it is undone when it had no time to.
    fn give_back(self, undo: bool) {
        if undo {
            let mut out = io::stdout().lock();
            let undo = [self.filter.restore().as_slice(), b"\r\n"].concat();
            let _ = out.write_all(&undo).and_then(|()| out.flush());
        }
    }
}

impl Drop for Screen {
    fn drop(&mut self) {
        let _ = tcsetattr(&self.keyboard, OptionalActions::Now, &self.before);
    }
}
