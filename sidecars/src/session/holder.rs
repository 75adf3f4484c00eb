//! The holder: one command on one pseudo terminal, and the terminals that look at it.

use std::fs::File;
use std::io::{self, Read as _, Write};
use std::net::Shutdown;
use std::os::unix::net::{UnixListener, UnixStream};
use std::process::Child;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc::{self, Receiver, Sender};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::Duration;

use bottle_plan::frame::Frame;

use super::names::Place;
use super::pty::{self, Pty};
use super::relay;

/// A terminal that takes nothing for so long is let go; the command must not stand still for it.
const PATIENCE: Duration = Duration::from_secs(20);

/// How long the command starts without knowing the terminal's size.
const FIRST_SIZE: Duration = Duration::from_secs(5);

/// What the command printed at its end is read for so long; a child of its own may keep the terminal for ever.
const LAST_WORDS: Duration = Duration::from_millis(300);

/// The size until one is known.
const USUAL: (u16, u16) = (24, 80);

/// Holds a session until its command ends.
pub(super) fn hold(name: &str, command: &[String]) -> io::Result<()> {
    // The end of the call that started us is not ours.
    rustix::process::setsid()?;
    let place = Place::of(name)?;
    let listener = UnixListener::bind(place.socket())?;
    let session = Session::new(Some((place.clone(), command.to_vec())))?;
    session.note();
    writeln!(io::stdout(), "ready")?;
    let accepting = Arc::clone(&session);
    thread::spawn(move || {
        for stream in listener.incoming().flatten() {
            let _ = accepting.join(stream);
        }
    });
    let ended = session.run(command);
    place.remove();
    session.end(ended?);
    Ok(())
}

/// Runs one command on a terminal of its own, connected to stdin and stdout, and ends with either.
pub(super) fn once(command: &[String]) -> io::Result<()> {
    let session = Session::new(None)?;
    let (near, far) = UnixStream::pair()?;
    session.join(far)?;
    let mut keys = near.try_clone()?;
    thread::spawn(move || {
        let _ = relay::pass(&mut io::stdin(), &mut keys);
        // With our end of the terminal the command gets its SIGHUP.
        std::process::exit(0);
    });
    let mut output = near;
    let mut stdout = relay::unbuffered_stdout()?;
    let printing = thread::spawn(move || relay::pass(&mut output, &mut stdout));
    let code = session.run(command)?;
    session.end(code);
    let _ = printing.join();
    Ok(())
}

struct Session {
    pty: Pty,
    clients: Mutex<Vec<(u64, UnixStream)>>,
    next_client: AtomicU64,
    sized: Mutex<Option<Sender<()>>>,
    first_size: Mutex<Option<Receiver<()>>>,
    noted: Option<(Place, Vec<String>)>,
}

impl Session {
    fn new(noted: Option<(Place, Vec<String>)>) -> io::Result<Arc<Self>> {
        let pty = Pty::open()?;
        pty.resize(USUAL.0, USUAL.1)?;
        let (sized, first_size) = mpsc::channel();
        Ok(Arc::new(Self {
            pty,
            clients: Mutex::new(Vec::new()),
            next_client: AtomicU64::new(0),
            sized: Mutex::new(Some(sized)),
            first_size: Mutex::new(Some(first_size)),
            noted,
        }))
    }

    /// Runs the command to its end and returns its code. It starts when a terminal has said how large it is.
    fn run(self: &Arc<Self>, command: &[String]) -> io::Result<u8> {
        if let Some(size) = locked(&self.first_size).take() {
            let _ = size.recv_timeout(FIRST_SIZE);
        }
        let mut child: Child = self.pty.start(command)?;
        let (done, all_read) = mpsc::channel();
        let mut output = self.pty.file()?;
        let session = Arc::clone(self);
        thread::spawn(move || {
            session.pass_on(&mut output);
            let _ = done.send(());
        });
        let status = child.wait()?;
        let _ = all_read.recv_timeout(LAST_WORDS);
        Ok(pty::code(status))
    }

    fn pass_on(&self, output: &mut File) {
        let mut buffer = vec![0; 16 << 10];
        loop {
            match output.read(&mut buffer) {
                Ok(count) if count > 0 => self.send(&Frame::Data(buffer[..count].to_vec())),
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                // EIO: the last process on the terminal is gone.
                _ => return,
            }
        }
    }

    fn send(&self, frame: &Frame) {
        let mut clients = locked(&self.clients);
        let before = clients.len();
        clients.retain_mut(|(_, stream)| {
            let taken = frame.write(stream).is_ok();
            if !taken {
                let _ = stream.shutdown(Shutdown::Both);
            }
            taken
        });
        let now = clients.len();
        drop(clients);
        if now != before {
            self.note();
        }
    }

    fn end(&self, code: u8) {
        self.send(&Frame::Exit(code));
        for (_, stream) in locked(&self.clients).drain(..) {
            let _ = stream.shutdown(Shutdown::Both);
        }
    }

    /// One more terminal.
    fn join(self: &Arc<Self>, stream: UnixStream) -> io::Result<()> {
        stream.set_write_timeout(Some(PATIENCE))?;
        let id = self.next_client.fetch_add(1, Ordering::Relaxed);
        let mut keys = stream.try_clone()?;
        locked(&self.clients).push((id, stream));
        self.note();
        let session = Arc::clone(self);
        thread::spawn(move || {
            let _ = session.obey(&mut keys);
            locked(&session.clients).retain(|(other, _)| *other != id);
            session.note();
        });
        Ok(())
    }

    fn obey(&self, keys: &mut UnixStream) -> io::Result<()> {
        let mut terminal = self.pty.file()?;
        let mut first = true;
        while let Some(frame) = Frame::read(keys)? {
            match frame {
                Frame::Data(bytes) => terminal.write_all(&bytes)?,
                Frame::Size { rows, columns } => {
                    // A terminal that has just come sees nothing of what was printed: another size, if only for a
                    // moment, makes programs draw their screen again.
                    let running = locked(&self.sized).take().is_none();
                    if std::mem::take(&mut first) && running {
                        self.pty.resize(rows, columns.saturating_sub(1).max(1))?;
                        thread::sleep(Duration::from_millis(20));
                    }
                    self.pty.resize(rows, columns)?;
                }
                Frame::Exit(_) => return Ok(()),
            }
        }
        Ok(())
    }

    fn note(&self) {
        if let Some((place, command)) = &self.noted {
            let clients = locked(&self.clients).len();
            let _ = place.note(command, clients);
        }
    }
}

/// What is behind these locks is in order between any two statements.
fn locked<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
