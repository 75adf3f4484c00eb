//! `isolation: strict`: the agent's container has no network. Its sidecars are sockets in a folder it can only look into,
//! and a forwarder of ours listens on its loopback where programs expect them.

use std::net::Ipv4Addr;

use crate::failure::{Failure, Result};
use crate::git::GATE_PORT;
use crate::plan::{Isolation, Plan, Runtime};

/// The folder in the bottle's state, with a folder for each sidecar.
pub const SOCKETS: &str = "sockets";

/// Where a sidecar finds its own.
pub const IN_A_SIDECAR: &str = "/var/lib/bottle/sockets";

/// Where the agent finds them all: in memory, so that no image keeps the place.
pub const IN_THE_AGENT: &str = "/run/bottle-sockets";

/// Where the forwarder says that it listens.
pub const FORWARDER_STATUS: &str = "/run/bottle/forward.sock";

/// All the addresses there are in the agent's container.
pub const LOOPBACK: Ipv4Addr = Ipv4Addr::LOCALHOST;

/// The names of the sockets.
pub mod socket {
    /// egress: the explicit proxy.
    pub const PROXY: &str = "proxy";
    /// egress: TLS of programs that know no proxy.
    pub const HTTPS: &str = "https";
    /// egress: HTTP of such programs.
    pub const HTTP: &str = "http";
    /// egress: DNS as over TCP.
    pub const DNS: &str = "dns";
    /// git-gate.
    pub const GIT: &str = "git";
    /// supervise.
    pub const ASK: &str = "ask";
}

/// What the forwarder of `plan` is told: for each port the socket that answers there.
#[must_use]
pub fn doors(plan: &Plan) -> Vec<String> {
    let mut doors = vec![
        format!("--tcp=3128=egress/{}", socket::PROXY),
        format!("--tcp=443=egress/{}", socket::HTTPS),
        format!("--tcp=80=egress/{}", socket::HTTP),
        format!("--dns=53=egress/{}", socket::DNS),
    ];
    if plan.git_gate.is_some() {
        doors.push(format!("--tcp={GATE_PORT}=git-gate/{}", socket::GIT));
    }
    if let Some(supervise) = &plan.supervise {
        doors.push(format!(
            "--tcp={}=supervise/{}",
            supervise.port,
            socket::ASK
        ));
    }
    doors
}

/// Checks that the runtime lets a container connect to a socket outside of it.
///
/// # Errors
/// Invalid, when a kernel of the agent's own is asked for: a socket of the host's kernel is none of it.
pub fn check(isolation: Isolation, runtime: Runtime) -> Result<()> {
    let name = match runtime {
        Runtime::Runsc => "runsc",
        Runtime::Kata => "kata",
        Runtime::Auto | Runtime::Runc => return Ok(()),
    };
    if isolation == Isolation::Network {
        return Ok(());
    }
    Err(Failure::invalid(format!(
        "isolation `strict` does not go with runtime `{name}`: its kernel has no way to the sidecars' sockets"
    ))
    .hint("take one of the two out of the manifest"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_runtime_that_shares_the_hosts_kernel_reaches_a_socket() {
        for (runtime, goes) in [
            (Runtime::Auto, true),
            (Runtime::Runc, true),
            (Runtime::Runsc, false),
            (Runtime::Kata, false),
        ] {
            assert_eq!(
                check(Isolation::Strict, runtime).is_ok(),
                goes,
                "{runtime:?}"
            );
            assert!(check(Isolation::Network, runtime).is_ok(), "{runtime:?}");
        }
    }
}
