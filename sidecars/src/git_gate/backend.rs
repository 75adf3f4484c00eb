//! One request through `git http-backend`: its own process group, both directions streamed, a bounded buffer in between.

use std::io;
use std::process::Stdio;
use std::sync::Arc;
use std::time::Duration;

use hyper::body::{Body as _, Bytes, Incoming};
use hyper::header::{HeaderName, HeaderValue};
use hyper::{Response, StatusCode};
use tokio::io::{AsyncBufReadExt as _, AsyncReadExt as _, AsyncWriteExt as _, BufReader};
use tokio::process::{Child, ChildStdin, ChildStdout, Command};
use tokio::sync::mpsc::{Sender, channel};
use tokio::time::timeout;

use super::answer::Answer;
use super::git::{ENVIRONMENT, Group};
use super::hook::Push;
use super::repo::Repo;

/// What is read from git at once.
const CHUNK: usize = 128 * 1024;
/// How many of these may wait for the client.
const QUEUED: usize = 4;
/// The head of git's answer.
const MAX_HEAD: u64 = 16 * 1024;
/// How long git may take to begin an answer, a push with all its checks aside.
const PATIENCE: Duration = Duration::from_secs(10 * 60);

/// What git is asked.
pub(super) struct Call<'a> {
    pub(super) repo: &'a Repo,
    pub(super) method: &'static str,
    /// `info/refs`, `git-upload-pack` or `git-receive-pack`.
    pub(super) place: &'static str,
    /// `service=…`, or nothing.
    pub(super) query: &'static str,
    pub(super) content_type: Option<&'static str>,
    pub(super) is_gzip: bool,
    /// `Git-Protocol`, checked.
    pub(super) protocol: Option<String>,
    /// The number the hook of a push knows it by.
    pub(super) push: Option<u64>,
}

/// A git that answers.
pub(super) struct Running {
    child: Child,
    group: Group,
    stdin: ChildStdin,
    stdout: ChildStdout,
}

/// What became of a request.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Tally {
    /// Bytes from the agent.
    pub(super) from_agent: u64,
    /// Bytes to it.
    pub(super) to_agent: u64,
}

/// Starts git.
pub(super) fn start(call: &Call<'_>) -> io::Result<Running> {
    let repo = call.repo;
    let root = repo.path.parent().unwrap_or(&repo.path);
    let mut command = Command::new("git-http-backend");
    command
        .env_clear()
        .envs(ENVIRONMENT)
        .env("GIT_PROJECT_ROOT", root)
        .env("GIT_HTTP_EXPORT_ALL", "1")
        .env(
            "PATH_INFO",
            format!("/{}.git/{}", repo.rules.name, call.place),
        )
        .env("REQUEST_METHOD", call.method)
        .env("QUERY_STRING", call.query)
        // A single object this large is no work of an agent, and would have to fit into our memory.
        .env(
            "GIT_ALLOC_LIMIT",
            alloc_limit(repo, call.push.is_some()).to_string(),
        )
        .current_dir("/")
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::inherit())
        .process_group(0);
    if let Some(kind) = call.content_type {
        command.env("CONTENT_TYPE", kind);
    }
    if call.is_gzip {
        command.env("HTTP_CONTENT_ENCODING", "gzip");
    }
    if let Some(protocol) = &call.protocol {
        command.env("GIT_PROTOCOL", protocol);
    }
    if let Some(push) = call.push {
        command.env(super::hook::PUSH, push.to_string());
    }
    let mut child = command.spawn()?;
    let group = Group::of(child.id().unwrap_or_default());
    match (child.stdin.take(), child.stdout.take()) {
        (Some(stdin), Some(stdout)) => Ok(Running {
            child,
            group,
            stdin,
            stdout,
        }),
        _ => Err(io::Error::other("no pipes to git")),
    }
}

/// What one allocation of git may take.
fn alloc_limit(repo: &Repo, is_push: bool) -> u64 {
    const FETCH: u64 = 768 << 20;
    if is_push {
        repo.rules.push.max_bytes.clamp(32 << 20, 256 << 20)
    } else {
        FETCH
    }
}

impl Running {
    /// Sends the request on, reads the head of the answer and leaves the rest to a task of its own. `ended` is called when
    /// all is over, also when the client has gone away.
    ///
    /// A push goes on without its client (and is told that it is gone): what the upstream has taken must get into the
    /// mirror too.
    pub(super) async fn answer(
        mut self,
        body: Option<Incoming>,
        push: Option<Arc<Push>>,
        ended: impl FnOnce(Tally) + Send + 'static,
    ) -> io::Result<Response<Answer>> {
        let stdin = self.stdin;
        let feed = tokio::spawn(async move {
            match body {
                Some(body) => feed(body, stdin).await,
                None => 0,
            }
        });
        let mut stdout = BufReader::with_capacity(CHUNK, self.stdout);
        let is_push = push.is_some();
        let patience = if is_push {
            super::push::LIMIT
        } else {
            PATIENCE
        };
        let head = match timeout(patience, read_head(&mut stdout)).await {
            Ok(Ok(head)) => head,
            failed => {
                self.group.kill();
                let _ = self.child.wait().await;
                let from_agent = feed.await.unwrap_or_default();
                ended(Tally {
                    from_agent,
                    to_agent: 0,
                });
                return Err(match failed {
                    Ok(Err(error)) => error,
                    _ => io::Error::from(io::ErrorKind::TimedOut),
                });
            }
        };
        let (chunks, receiver) = channel(QUEUED);
        tokio::spawn(async move {
            let to_agent = pass_on(stdout, chunks, push.as_deref()).await;
            if !is_push {
                // Whoever hangs up in the middle leaves a git that would wait for ever.
                self.group.kill();
            }
            let _ = self.child.wait().await;
            let from_agent = feed.await.unwrap_or_default();
            ended(Tally {
                from_agent,
                to_agent,
            });
        });
        let mut response = Response::new(Answer::Stream(receiver));
        *response.status_mut() = head.status;
        for (name, value) in head.fields {
            response.headers_mut().append(name, value);
        }
        Ok(response)
    }
}

/// Writes the body into git; when either breaks off, git sees the end. Returns how much it was.
async fn feed(mut body: Incoming, mut stdin: ChildStdin) -> u64 {
    let mut sent = 0;
    loop {
        let frame =
            std::future::poll_fn(|context| std::pin::Pin::new(&mut body).poll_frame(context)).await;
        let Some(Ok(frame)) = frame else {
            return sent;
        };
        let Ok(data) = frame.into_data() else {
            continue;
        };
        if stdin.write_all(&data).await.is_err() {
            // Git has said why it does not want more; the client is told when it has sent all.
            return drain(body, sent).await;
        }
        sent += data.len() as u64;
    }
}

/// A client that is still sending does not read yet: closing now would lose it the reason. But not without end.
async fn drain(mut body: Incoming, mut sent: u64) -> u64 {
    const MOST: u64 = 1 << 30;
    let mut drained = 0;
    while drained < MOST {
        let frame =
            std::future::poll_fn(|context| std::pin::Pin::new(&mut body).poll_frame(context)).await;
        let Some(Ok(frame)) = frame else { break };
        if let Ok(data) = frame.into_data() {
            drained += data.len() as u64;
            sent += data.len() as u64;
        }
    }
    sent
}

/// Hands git's output on. Without a reader it still reads a push to its end.
async fn pass_on(
    mut stdout: BufReader<ChildStdout>,
    chunks: Sender<io::Result<Bytes>>,
    push: Option<&Push>,
) -> u64 {
    let mut sent = 0;
    let mut is_read = true;
    loop {
        let mut buffer = Vec::with_capacity(CHUNK);
        let read = tokio::select! {
            read = stdout.read_buf(&mut buffer) => read,
            () = chunks.closed(), if is_read => Ok(0),
        };
        if is_read && chunks.is_closed() {
            is_read = false;
            match push {
                Some(push) => push.hang_up(),
                None => return sent,
            }
            if buffer.is_empty() {
                continue;
            }
        }
        match read {
            Ok(0) => return sent,
            Ok(read) => {
                sent += read as u64;
                if is_read {
                    // A reader that has gone in this moment is noticed in the next round.
                    let _ = chunks.send(Ok(buffer.into())).await;
                }
            }
            Err(error) => {
                let _ = chunks.send(Err(error)).await;
                return sent;
            }
        }
    }
}

struct Head {
    status: StatusCode,
    fields: Vec<(HeaderName, HeaderValue)>,
}

/// The CGI head: fields until an empty line, the status among them.
async fn read_head(stdout: &mut BufReader<ChildStdout>) -> io::Result<Head> {
    let mut head = Head {
        status: StatusCode::OK,
        fields: Vec::new(),
    };
    let broken = || io::Error::new(io::ErrorKind::InvalidData, "git's answer has no head");
    let mut left = MAX_HEAD;
    loop {
        let mut line = Vec::new();
        let read = (&mut *stdout)
            .take(left)
            .read_until(b'\n', &mut line)
            .await?;
        left -= read as u64;
        let line = line.strip_suffix(b"\n").ok_or_else(broken)?;
        let line = line.strip_suffix(b"\r").unwrap_or(line);
        if line.is_empty() {
            return Ok(head);
        }
        let line = std::str::from_utf8(line).map_err(|_| broken())?;
        let (name, value) = line.split_once(':').ok_or_else(broken)?;
        let value = value.trim();
        if name.eq_ignore_ascii_case("status") {
            let code = value.split(' ').next().unwrap_or_default();
            head.status = code.parse().map_err(|_| broken())?;
        } else {
            let name = HeaderName::from_bytes(name.as_bytes()).map_err(|_| broken())?;
            let value = HeaderValue::from_str(value).map_err(|_| broken())?;
            head.fields.push((name, value));
        }
    }
}
