//! Start, serve, drain.

use std::collections::BTreeMap;
use std::fs;
use std::io;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use bottle_plan::git::{GATE_SCHEMA, Gate as Document};
use bottle_plan::policy::OnFull;
use bottle_plan::strict::socket;
use serde_json::json;
use tokio::io::AsyncWriteExt as _;
use tokio::net::UnixListener;
use tokio::runtime::Builder;
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::{Semaphore, watch};
use tokio::time::{sleep, timeout};

use super::asking::{self, Asking};
use super::hook::{self, Pushes};
use super::repo::Repo;
use super::secrets::Secrets;
use super::{Settings, StartError, fetch, mirror, server};
use crate::audit::Audit;
use crate::listener::Side;
use crate::program::say;

/// Clients at once. Each has a git or two behind it, and all of them share the container's memory.
const MAX_CONNECTIONS: usize = 32;

/// How long what is under way may still take when it is told to end: `down` kills it after 5 s, and by then the record
/// must be written.
const GRACE: Duration = Duration::from_secs(4);

/// What all requests share.
pub(super) struct Gate {
    pub(super) repos: BTreeMap<String, Arc<Repo>>,
    pub(super) audit: Audit,
    pub(super) secrets: Secrets,
    pub(super) pushes: Pushes,
    /// The way to the operator, in a bottle that has one.
    pub(super) asking: Option<Asking>,
    pub(super) scratch: std::path::PathBuf,
    pub(super) connections: Arc<Semaphore>,
    /// True once the gate is going down.
    pub(super) draining: watch::Sender<bool>,
    /// One scan at a time: the scratch space is small.
    pub(super) scans: Semaphore,
}

/// Runs until SIGTERM or SIGINT.
pub(crate) fn run(settings: &Settings) -> Result<(), StartError> {
    let system = |what: &str| {
        let what = what.to_owned();
        move |error| StartError::System { what, error }
    };
    let runtime = Builder::new_current_thread()
        .enable_all()
        .build()
        .map_err(system("runtime"))?;
    let document = read(&settings.config_dir)?;
    let repos = repositories(settings, &document)?;
    let (audit, writer) = Audit::open(
        &settings.audit_dir,
        (settings.audit_limits, OnFull::Deny),
        document.bottle.as_str().into(),
        None,
    )
    .map_err(|error| StartError::File {
        path: settings.audit_dir.clone(),
        error,
    })?;
    audit.set_log(document.log);
    let secrets = Secrets::from_env(&document).map_err(|problem| StartError::Config {
        path: settings.config_dir.join("gate.json"),
        problem,
    })?;
    let asking =
        Asking::open(&document, &settings.asking_dir, &settings.audit_dir).map_err(|problem| {
            StartError::Config {
                path: settings.config_dir.join("gate.json"),
                problem,
            }
        })?;
    let gate = Arc::new(Gate {
        repos,
        audit,
        secrets,
        pushes: Pushes::default(),
        asking,
        scratch: settings.scratch.clone(),
        connections: Arc::new(Semaphore::new(MAX_CONNECTIONS)),
        draining: watch::Sender::new(false),
        scans: Semaphore::new(1),
    });
    let side = Side {
        address: document.listen,
        sockets: settings.sockets.clone(),
    };
    runtime.block_on(serve(&gate, &side, settings.port, &settings.status_socket))?;
    let _ = fs::remove_file(&settings.status_socket);
    // Whatever is still open is dropped here, and its records are sent.
    runtime.shutdown_timeout(Duration::from_secs(1));
    drop(gate);
    writer.finish();
    Ok(())
}

async fn serve(gate: &Arc<Gate>, side: &Side, port: u16, status: &Path) -> Result<(), StartError> {
    let system = |what: String| move |error| StartError::System { what, error };
    let listen = |kind| signal(kind).map_err(system("signal handler".into()));
    let mut terminate = listen(SignalKind::terminate())?;
    let mut interrupt = listen(SignalKind::interrupt())?;
    let hooks = hook::bind().map_err(system("the hook's socket".into()))?;
    let place = side.told(socket::GIT, port);
    let listener = side
        .listen(socket::GIT, port)
        .await
        .map_err(system(format!("listener on {place}")))?;
    tokio::spawn(hook::serve(gate.clone(), hooks));
    tokio::spawn(server::serve(gate.clone(), listener));
    tokio::spawn(look_for_grants(gate.clone()));
    // Before the first clone asks for it, so that it does not have to wait for the whole of a large repository.
    for repo in gate.repos.values().cloned() {
        tokio::spawn(async move {
            if let Err(why) = fetch::refresh(&repo).await {
                say!("{}: {why}", repo.rules.name);
            }
        });
    }
    // Last: whoever sees this socket may rely on all the others.
    let _ = fs::remove_file(status);
    let status_socket = UnixListener::bind(status).map_err(|error| StartError::File {
        path: status.to_owned(),
        error,
    })?;
    tokio::spawn(tell_status(gate.clone(), status_socket));
    say!("git-gate listens on {place}");
    tokio::select! {
        _ = terminate.recv() => {}
        _ = interrupt.recv() => {}
    }
    gate.draining.send_replace(true);
    let all = u32::try_from(MAX_CONNECTIONS).unwrap_or(u32::MAX);
    // Holding every place means that no connection is left.
    let _ = timeout(GRACE, gate.connections.acquire_many(all)).await;
    Ok(())
}

/// So that what was granted or taken back is in force, and said to be, also when nobody pushes.
async fn look_for_grants(gate: Arc<Gate>) {
    while let Some(asking) = &gate.asking {
        asking.look(&gate).await;
        sleep(asking::LOOK).await;
    }
}

async fn tell_status(gate: Arc<Gate>, listener: UnixListener) {
    loop {
        let Ok((mut stream, _)) = listener.accept().await else {
            sleep(Duration::from_millis(50)).await;
            continue;
        };
        let status = json!({
            "schema": "bottle.health/v1",
            "ready": gate.audit.is_writable() && !*gate.draining.borrow(),
            "audit": gate.audit.is_writable(),
            "repos": gate.repos.len(),
            "connections": MAX_CONNECTIONS - gate.connections.available_permits(),
        });
        let _ = stream.write_all(format!("{status}\n").as_bytes()).await;
    }
}

fn read(config_dir: &Path) -> Result<Document, StartError> {
    let path = config_dir.join("gate.json");
    let bytes = match fs::read(&path) {
        Ok(bytes) => bytes,
        Err(error) => return Err(StartError::File { path, error }),
    };
    let document: Document = match serde_json::from_slice(&bytes) {
        Ok(document) => document,
        Err(error) => {
            let problem = error.to_string();
            return Err(StartError::Config { path, problem });
        }
    };
    if document.schema != GATE_SCHEMA {
        let problem = format!("the schema is `{}` and not {GATE_SCHEMA}", document.schema);
        return Err(StartError::Config { path, problem });
    }
    Ok(document)
}

fn repositories(
    settings: &Settings,
    document: &Document,
) -> Result<BTreeMap<String, Arc<Repo>>, StartError> {
    let mut repos = BTreeMap::new();
    for rules in &document.repos {
        let repo = Repo::new(rules.clone(), &settings.mirrors, &settings.config_dir).map_err(
            |problem| StartError::Config {
                path: settings.config_dir.join("gate.json"),
                problem,
            },
        )?;
        mirror::clear(&repo).map_err(|error| StartError::File {
            path: repo.path.clone(),
            error,
        })?;
        repos.insert(rules.name.clone(), Arc::new(repo));
    }
    // Without the hook a push would go into the mirror unchecked.
    let hook = Path::new("/hooks/pre-receive");
    if !hook.is_file() {
        return Err(StartError::File {
            path: hook.to_owned(),
            error: io::ErrorKind::NotFound.into(),
        });
    }
    Ok(repos)
}
