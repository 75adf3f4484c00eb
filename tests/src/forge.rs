//! A forge of a test's own: the deploy-key requests of Gitea, GitHub and GitLab as each documents them, on loopback. Its
//! keys open what they would open there: an [`Upstream`](crate::Upstream) lets them in, and nothing else.

use std::io::{BufReader, Write as _};
use std::net::{TcpListener, TcpStream};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread;

use serde_json::{Value, json};

/// A deploy key, as the forge has it.
#[derive(Clone, Debug)]
pub struct DeployKey {
    /// Its number.
    pub id: u64,
    /// `gitea`, `github` or `gitlab`.
    pub dialect: String,
    /// The repository, `owner/name`.
    pub repo: String,
    /// Its title.
    pub title: String,
    /// Type and data.
    pub public: String,
    /// Whether it may push.
    pub may_push: bool,
    /// The day it ends on; only GitLab keeps one.
    pub expires: Option<String>,
}

impl DeployKey {
    /// Its line in sshd's list of keys: for one repository, and for pushes only where it says so.
    fn line(&self) -> String {
        let what = if self.may_push { "push" } else { "read" };
        let (repo, public) = (&self.repo, &self.public);
        format!("restrict,command=\"/srv/deploy-shell {repo} {what}\" {public}\n")
    }
}

/// One dialect's requests of one method, or all of one dialect.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Broken {
    /// The dialect.
    pub dialect: &'static str,
    /// The method; every one where it is empty.
    pub method: &'static str,
}

impl Broken {
    fn is(self, dialect: &str, asked: &Asked) -> bool {
        self.dialect == dialect && (self.method.is_empty() || self.method == asked.method)
    }
}

#[derive(Debug, Default)]
struct State {
    keys: Vec<DeployKey>,
    made: u64,
    broken: Option<Broken>,
    held: Option<Broken>,
    holding: usize,
    seen: Vec<String>,
}

/// The forge, for the life of the test.
pub struct Forge {
    address: String,
    server: Arc<Server>,
}

impl Forge {
    /// Starts one without keys. It knows whoever has the token; `publish` gets sshd's list of keys after each change, before
    /// the change is answered.
    ///
    /// # Panics
    /// When no port can be had.
    #[must_use]
    pub fn start(token: &str, publish: impl Fn(&str) + Send + Sync + 'static) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
        let address = format!("http://{}", listener.local_addr().expect("bound"));
        let server = Arc::new(Server {
            token: token.to_owned(),
            state: Mutex::default(),
            let_go: Condvar::new(),
            publish: Box::new(publish),
        });
        let serving = Arc::clone(&server);
        thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                let server = Arc::clone(&serving);
                // How a client breaks off is its own affair.
                thread::spawn(move || drop(server.attend(stream)));
            }
        });
        Self { address, server }
    }

    /// The base of its API in a dialect.
    #[must_use]
    pub fn api(&self, dialect: &str) -> String {
        format!("{}/{dialect}", self.address)
    }

    /// The keys it has.
    #[must_use]
    pub fn keys(&self) -> Vec<DeployKey> {
        self.server.state().keys.clone()
    }

    /// Every request, `METHOD PATH`.
    #[must_use]
    pub fn seen(&self) -> Vec<String> {
        self.server.state().seen.clone()
    }

    /// Answers these with 500, and does not do what they ask for.
    pub fn set(&self, broken: Option<Broken>) {
        self.server.state().broken = broken;
    }

    /// Does what these ask for, and keeps the answer until it is told otherwise.
    pub fn hold(&self, held: Option<Broken>) {
        self.server.state().held = held;
        self.server.let_go.notify_all();
    }

    /// How many answers it keeps at this moment.
    #[must_use]
    pub fn holding(&self) -> usize {
        self.server.state().holding
    }

    /// Forgets the keys of a repository, as a person does it on the forge's pages.
    pub fn forget(&self, repo: &str) {
        let mut state = self.server.state();
        state.keys.retain(|key| key.repo != repo);
        self.server.publish(&state);
    }
}

struct Server {
    token: String,
    state: Mutex<State>,
    let_go: Condvar,
    publish: Box<dyn Fn(&str) + Send + Sync>,
}

/// A request, as far as an answer depends on it.
struct Asked {
    method: String,
    path: String,
    credential: Option<(String, String)>,
    body: Value,
}

impl Server {
    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn attend(&self, mut stream: TcpStream) -> std::io::Result<()> {
        let mut reader = BufReader::new(stream.try_clone()?);
        while let Some(asked) = read(&mut reader)? {
            let (status, answer) = self.answer(&asked);
            self.keep(&asked);
            let text = if answer.is_null() {
                String::new()
            } else {
                answer.to_string()
            };
            // A 204 has no body, and no length of one.
            let length = if status == 204 {
                String::new()
            } else {
                format!("content-length: {}\r\n", text.len())
            };
            stream.write_all(format!("HTTP/1.1 {status} X\r\n{length}\r\n{text}").as_bytes())?;
        }
        Ok(())
    }

    fn answer(&self, asked: &Asked) -> (u16, Value) {
        let mut state = self.state();
        state.seen.push(format!("{} {}", asked.method, asked.path));
        let (path, query) = asked.path.split_once('?').unwrap_or((&asked.path, ""));
        let Some((dialect, repo, id)) = place(path) else {
            return (404, json!({"message": "Not Found"}));
        };
        let (name, value) = match dialect {
            "gitlab" => ("private-token", self.token.clone()),
            "github" => ("authorization", format!("Bearer {}", self.token)),
            _ => ("authorization", format!("token {}", self.token)),
        };
        if asked.credential != Some((name.to_owned(), value)) {
            return (401, json!({"message": "Unauthorized"}));
        }
        if state.broken.is_some_and(|broken| broken.is(dialect, asked)) {
            return (500, json!({"message": "try later"}));
        }
        let there = |key: &DeployKey| key.dialect == dialect && key.repo == repo;
        match (asked.method.as_str(), id) {
            ("POST", None) => {
                state.made += 1;
                let Some(key) = created(&asked.body, state.made, dialect, &repo) else {
                    return (422, json!({"message": "Validation Failed"}));
                };
                if state.keys.iter().any(|other| other.public == key.public) {
                    return (422, json!({"message": "key is already in use"}));
                }
                let shown = shown(&key);
                state.keys.push(key);
                self.publish(&state);
                (201, shown)
            }
            ("GET", None) => {
                let page = |name: &str| {
                    let pair = query.split('&').find_map(|pair| pair.strip_prefix(name));
                    pair.and_then(|value| value.parse().ok()).unwrap_or(1_usize)
                };
                let size = page(if dialect == "gitea" {
                    "limit="
                } else {
                    "per_page="
                });
                let keys = state.keys.iter().filter(|key| there(key));
                let keys = keys.skip((page("page=") - 1) * size).take(size);
                (200, keys.map(shown).collect())
            }
            ("DELETE", Some(id)) => {
                let before = state.keys.len();
                state.keys.retain(|key| !(there(key) && key.id == id));
                if state.keys.len() == before {
                    return (404, json!({"message": "Not Found"}));
                }
                self.publish(&state);
                (204, Value::Null)
            }
            _ => (405, Value::Null),
        }
    }

    /// Waits as long as answers like this one are held.
    fn keep(&self, asked: &Asked) {
        let mut state = self.state();
        let dialect = asked.path.split('/').nth(1).unwrap_or_default();
        while state.held.is_some_and(|held| held.is(dialect, asked)) {
            state.holding += 1;
            state = self
                .let_go
                .wait(state)
                .unwrap_or_else(PoisonError::into_inner);
            state.holding -= 1;
        }
    }

    fn publish(&self, state: &State) {
        let lines: String = state.keys.iter().map(DeployKey::line).collect();
        (self.publish)(&lines);
    }
}

/// `/DIALECT/repos/OWNER/NAME/keys[/ID]`, and GitLab's `/gitlab/projects/OWNER%2FNAME/deploy_keys[/ID]`.
fn place(path: &str) -> Option<(&str, String, Option<u64>)> {
    let words: Vec<&str> = path.strip_prefix('/')?.split('/').collect();
    let (dialect, repo, rest) = match words.as_slice() {
        ["gitlab", "projects", repo, "deploy_keys", rest @ ..] => {
            ("gitlab", repo.replace("%2F", "/"), rest)
        }
        [
            dialect @ ("gitea" | "github"),
            "repos",
            owner,
            name,
            "keys",
            rest @ ..,
        ] => (*dialect, format!("{owner}/{name}"), rest),
        _ => return None,
    };
    match rest {
        [] => Some((dialect, repo, None)),
        [id] => Some((dialect, repo, Some(id.parse().ok()?))),
        _ => None,
    }
}

fn created(body: &Value, id: u64, dialect: &str, repo: &str) -> Option<DeployKey> {
    let public = body["key"].as_str()?;
    // By default a key reads at GitLab, and pushes at the others.
    let may_push = if dialect == "gitlab" {
        body["can_push"].as_bool().unwrap_or(false)
    } else {
        !body["read_only"].as_bool().unwrap_or(false)
    };
    Some(DeployKey {
        id,
        dialect: dialect.to_owned(),
        repo: repo.to_owned(),
        title: body["title"].as_str()?.to_owned(),
        public: public
            .split_whitespace()
            .take(2)
            .collect::<Vec<_>>()
            .join(" "),
        may_push,
        expires: body["expires_at"].as_str().map(str::to_owned),
    })
}

fn shown(key: &DeployKey) -> Value {
    let mut shown = json!({"id": key.id, "title": key.title, "key": key.public});
    if key.dialect == "gitlab" {
        shown["can_push"] = key.may_push.into();
        shown["expires_at"] = key.expires.clone().into();
    } else {
        shown["read_only"] = (!key.may_push).into();
    }
    shown
}

/// The next request; nothing at the end.
fn read(reader: &mut impl std::io::BufRead) -> std::io::Result<Option<Asked>> {
    let mut first = String::new();
    if reader.read_line(&mut first)? == 0 {
        return Ok(None);
    }
    let (mut length, mut credential) = (0, None);
    loop {
        let mut line = String::new();
        reader.read_line(&mut line)?;
        let Some((name, value)) = line.trim_end().split_once(": ") else {
            break;
        };
        match name.to_ascii_lowercase().as_str() {
            "content-length" => length = value.parse().unwrap_or(0),
            name @ ("authorization" | "private-token") => {
                credential = Some((name.to_owned(), value.to_owned()));
            }
            _ => {}
        }
    }
    let mut body = vec![0; length];
    reader.read_exact(&mut body)?;
    let mut words = first.split(' ').map(str::to_owned);
    Ok(Some(Asked {
        method: words.next().unwrap_or_default(),
        path: words.next().unwrap_or_default(),
        credential,
        body: serde_json::from_slice(&body).unwrap_or(Value::Null),
    }))
}
