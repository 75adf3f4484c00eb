//! What gVisor needs beyond its name.
//!
//! The engine's resolver lives behind rules of the host's kernel that gVisor's own network stack does not have: nobody is at
//! 127.0.0.11. So the agent asks the egress sidecar itself, which is whom that resolver would have asked, and finds the
//! sidecars' names in its hosts file.

use std::path::{Path, PathBuf};

use bottle_plan::failure::Result;
use bottle_plan::plan::Plan;
use bottle_plan::state;
use serde_json::{Map, Value, json};

/// Its name in the engine.
pub const RUNTIME: &str = "runsc";

/// The file in the state folder, and its place in the container.
pub const RESOLVER: &str = "resolv.conf";
const RESOLVER_PLACE: &str = "/etc/resolv.conf";

/// What is laid over the agent's service. The file it mounts is written here.
///
/// # Errors
/// When that file cannot be written.
pub fn agent(plan: &Plan) -> Result<Map<String, Value>> {
    let path = file(plan);
    let text = format!(
        "nameserver {}\noptions ndots:0 timeout:1 attempts:1\n",
        plan.networks.addresses.egress
    );
    // The agent's user reads it; the folder around it is 0700.
    state::write_atomic(&path, text.as_bytes(), 0o644)?;
    let volume = json!({
        "type": "bind", "source": path.to_string_lossy().replace('$', "$$"), "target": RESOLVER_PLACE,
        "read_only": true, "bind": {"create_host_path": false},
    });
    Ok(Map::from_iter([
        ("extra_hosts".to_owned(), json!(plan.sidecar_hosts())),
        ("volumes".to_owned(), json!([volume])),
    ]))
}

/// Whether a mount is that of the resolver's file, which the agent cannot write to.
#[must_use]
pub fn is_resolver(plan: &Plan, source: &str, destination: &str, writable: bool) -> bool {
    !writable && destination == RESOLVER_PLACE && Path::new(source) == file(plan)
}

fn file(plan: &Plan) -> PathBuf {
    plan.state.join(RESOLVER)
}
