//! A forge on loopback that speaks each dialect as documented, and goes wrong as it is told to.

use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::net::{TcpListener, TcpStream};
use std::sync::{Arc, Mutex, MutexGuard};
use std::thread;

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use serde_json::{Value, json};

/// Every test has the token in a variable that exists in each environment, and is no secret.
pub(crate) const TOKEN_ENV: &str = "CARGO_PKG_NAME";
const TOKEN: &str = env!("CARGO_PKG_NAME");

/// What goes wrong.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub(crate) enum Fault {
    #[default]
    None,
    /// 500, and nothing is done.
    Broken,
    /// The key is made, and nobody is told: what a kill -9 of the caller looks like from here as well.
    SilentCreate,
    /// 422: the key is in use.
    Collision,
    /// What is asked is done, and no answer comes, for longer than anybody waits.
    Hang,
    /// The key is made, and whoever asked for it is killed before the answer.
    Kill(u32),
}

#[derive(Default)]
struct State {
    keys: Vec<Value>,
    next: u64,
    fault: Fault,
    seen: Vec<String>,
}

/// A forge on loopback.
pub(crate) struct Stand {
    pub(crate) url: String,
    state: Arc<Mutex<State>>,
}

impl Stand {
    pub(crate) fn start() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
        let url = format!("http://{}", listener.local_addr().expect("an address"));
        let state = Arc::new(Mutex::new(State {
            next: 7,
            ..State::default()
        }));
        let shared = state.clone();
        thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                let shared = shared.clone();
                thread::spawn(move || serve(stream, &shared));
            }
        });
        Self { url, state }
    }

    pub(crate) fn set(&self, fault: Fault) {
        self.state.lock().expect("lock").fault = fault;
    }

    pub(crate) fn keys(&self) -> Vec<Value> {
        self.state.lock().expect("lock").keys.clone()
    }

    pub(crate) fn seen(&self) -> Vec<String> {
        self.state.lock().expect("lock").seen.clone()
    }
}

fn serve(stream: TcpStream, state: &Mutex<State>) {
    let mut reader = BufReader::new(stream.try_clone().expect("clone"));
    let mut stream = stream;
    loop {
        let mut first = String::new();
        if reader.read_line(&mut first).unwrap_or(0) == 0 {
            return;
        }
        let (mut length, mut authorised) = (0, false);
        loop {
            let mut line = String::new();
            reader.read_line(&mut line).expect("a head");
            let line = line.trim_end().to_owned();
            if line.is_empty() {
                break;
            }
            let (name, value) = line.split_once(": ").expect("a field");
            match name.to_ascii_lowercase().as_str() {
                "content-length" => length = value.parse().expect("a number"),
                "authorization" | "private-token" => authorised = value.ends_with(TOKEN),
                _ => {}
            }
        }
        let mut body = vec![0; length];
        reader.read_exact(&mut body).expect("a body");
        let words: Vec<&str> = first.split(' ').collect();
        let body: Value = serde_json::from_slice(&body).unwrap_or(Value::Null);
        let Some((status, answer)) = answer(state, words[0], words[1], &body, authorised) else {
            return;
        };
        let text = if answer.is_null() {
            String::new()
        } else {
            answer.to_string()
        };
        let head = format!(
            "HTTP/1.1 {status} X\r\ncontent-length: {}\r\n\r\n{text}",
            text.len()
        );
        if stream.write_all(head.as_bytes()).is_err() {
            return;
        }
    }
}

fn answer(
    state: &Mutex<State>,
    method: &str,
    url: &str,
    body: &Value,
    authorised: bool,
) -> Option<(u16, Value)> {
    let mut state = state.lock().expect("lock");
    state.seen.push(format!("{method} {url} {body}"));
    if !authorised {
        return Some((401, json!({"message": "who are you"})));
    }
    if state.fault == Fault::Broken {
        return Some((500, json!({"message": "try later"})));
    }
    let path = url.split('?').next().unwrap_or_default();
    match method {
        "POST" if state.fault == Fault::Collision => {
            Some((422, json!({"message": "key is already in use"})))
        }
        "POST" => {
            let id = state.next;
            state.next += 1;
            let mut key = body.clone();
            key["id"] = id.into();
            // Forges keep a comment of their own behind the data.
            key["key"] = format!("{} someone", body["key"].as_str().unwrap_or_default()).into();
            state.keys.push(key.clone());
            match state.fault {
                Fault::SilentCreate => None,
                Fault::Hang => hang(state),
                Fault::Kill(process) => {
                    let process = Pid::from_raw(i32::try_from(process).expect("a number"));
                    kill(process, Signal::SIGKILL).expect("it was alive");
                    None
                }
                _ => Some((201, key)),
            }
        }
        "GET" => {
            let page: usize = url
                .rsplit("page=")
                .next()
                .and_then(|n| n.parse().ok())
                .unwrap_or(1);
            let keys: Vec<Value> = state
                .keys
                .iter()
                .skip((page - 1) * 50)
                .take(50)
                .cloned()
                .collect();
            Some((200, keys.into()))
        }
        "DELETE" => {
            let id: u64 = path.rsplit('/').next()?.parse().ok()?;
            let before = state.keys.len();
            state.keys.retain(|key| key["id"] != id);
            if state.fault == Fault::Hang {
                return hang(state);
            }
            Some((
                if state.keys.len() < before { 204 } else { 404 },
                Value::Null,
            ))
        }
        _ => Some((405, Value::Null)),
    }
}

/// The connection stays open, and others are answered meanwhile.
fn hang(state: MutexGuard<'_, State>) -> Option<(u16, Value)> {
    drop(state);
    loop {
        thread::park();
    }
}
