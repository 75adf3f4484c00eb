//! The socket that `bottle-sidecar health` asks. It is bound last, so an answer means that everything listens.

use std::io;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use serde_json::json;
use tokio::io::AsyncWriteExt;
use tokio::net::UnixListener;
use tokio::time::sleep;

use super::{Egress, MAX_CONNECTIONS};

/// Where it is unless told otherwise: the one place in the container that can be written.
pub(crate) const DEFAULT_SOCKET: &str = "/tmp/bottle-sidecar.sock";

/// The pause after a failed accept.
const BACK_OFF: Duration = Duration::from_millis(50);

/// Makes the socket; one that an earlier run left behind is replaced.
pub(crate) fn bind(path: &Path) -> io::Result<UnixListener> {
    remove(path);
    UnixListener::bind(path)
}

/// Takes the socket away; that there is none is fine.
pub(crate) fn remove(path: &Path) {
    let _ = std::fs::remove_file(path);
}

/// Tells everyone who connects that a sidecar with nothing more to say is ready.
pub(crate) async fn say_ready(listener: UnixListener) {
    loop {
        let Ok((mut stream, _)) = listener.accept().await else {
            sleep(BACK_OFF).await;
            continue;
        };
        let status = json!({"schema": "bottle.health/v1", "ready": true});
        let _ = stream.write_all(format!("{status}\n").as_bytes()).await;
    }
}

/// Tells everyone who connects how it is.
pub(crate) async fn serve(egress: Arc<Egress>, listener: UnixListener) {
    loop {
        let Ok((mut stream, _)) = listener.accept().await else {
            sleep(BACK_OFF).await;
            continue;
        };
        let policy = egress.policy();
        let status = json!({
            "schema": "bottle.health/v1",
            "ready": egress.audit.is_writable() && !*egress.draining.borrow(),
            "audit": egress.audit.is_writable(),
            "routes": policy.routes.len(),
            "connections": MAX_CONNECTIONS - egress.connections.available_permits(),
        });
        // One short line fits any socket's buffer, so nobody can make us wait.
        let _ = stream.write_all(format!("{status}\n").as_bytes()).await;
    }
}
