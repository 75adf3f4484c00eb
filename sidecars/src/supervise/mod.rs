//! The supervise sidecar: where the agent asks and hears what was decided.
//!
//! It decides nothing and holds no secret. It writes requests into one folder; what is answered and granted is
//! written by the operator's tools into folders it can only read. So whoever takes it over can ask, and that the
//! agent can do anyway.
//!
//! * `http`: who may talk to it, and the plain way of asking
//! * `mcp`: the same as an MCP server
//! * `input`: from what the agent wrote to a request
//! * `desk`: requests on file, how many there may be, and waiting for the answer

mod desk;
mod http;
mod input;
mod mcp;

use std::fmt::Display;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use bottle_plan::strict::socket;
use bottle_plan::supervise::{SUPERVISE_SCHEMA, Settings};
use tokio::runtime::Builder;
use tokio::signal::unix::{SignalKind, signal};

use crate::egress::status;
use crate::listener::Side;
use crate::program::say;
pub(crate) use desk::{Desk, Refusal};

/// Where everything is.
pub(crate) struct Places {
    /// Holds `supervise.json`.
    pub(crate) config_dir: PathBuf,
    /// Holds `requests/`, which is written to, and `answers/`, `grants/` and `denials/`, which are read.
    pub(crate) asking_dir: PathBuf,
    /// The socket that `health` asks.
    pub(crate) status_socket: PathBuf,
    /// The folder of the socket that takes the port's place for an agent without a network.
    pub(crate) sockets: Option<PathBuf>,
}

/// Serves until SIGTERM or SIGINT.
///
/// # Errors
/// What is missing or cannot be used.
pub(crate) fn run(places: &Places) -> Result<(), String> {
    let settings = read_settings(&places.config_dir)?;
    let runtime = Builder::new_current_thread()
        .enable_all()
        .build()
        .map_err(told("runtime"))?;
    runtime.block_on(async {
        let mut terminate = signal(SignalKind::terminate()).map_err(told("signal handler"))?;
        let mut interrupt = signal(SignalKind::interrupt()).map_err(told("signal handler"))?;
        let side = Side {
            address: settings.listen,
            sockets: places.sockets.clone(),
        };
        let place = side.told(socket::ASK, settings.port);
        let listener = side
            .listen(socket::ASK, settings.port)
            .await
            .map_err(told(format!("listener on {place}")))?;
        let desk = Desk::open(settings, &places.asking_dir)?;
        let ready = status::bind(&places.status_socket).map_err(told("status socket"))?;
        tokio::spawn(status::say_ready(ready));
        say!("supervise listens on {place}");
        tokio::select! {
            () = http::serve(listener, Arc::new(desk)) => {}
            _ = terminate.recv() => {}
            _ = interrupt.recv() => {}
        }
        status::remove(&places.status_socket);
        Ok(())
    })
}

fn read_settings(folder: &Path) -> Result<Settings, String> {
    let path = folder.join("supervise.json");
    let bytes = std::fs::read(&path).map_err(told(path.display()))?;
    let settings: Settings =
        serde_json::from_slice(&bytes).map_err(|error| format!("{}: {error}", path.display()))?;
    if settings.schema != SUPERVISE_SCHEMA {
        return Err(format!(
            "{}: the schema is not {SUPERVISE_SCHEMA}",
            path.display()
        ));
    }
    Ok(settings)
}

fn told(what: impl Display) -> impl FnOnce(io::Error) -> String {
    move |error| format!("{what}: {error}")
}
