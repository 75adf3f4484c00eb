//! What is done around a bottle: to its networks and addresses, by other programs of its host, and with what it leaves
//! behind. A name has the number of its row in docs/attacks.md.

// The lint knows tests by their attribute, and helpers have none.
#![allow(clippy::expect_used, clippy::panic)]

mod house_proxy;
mod limits;
mod networks;
mod profiles;
mod resume;
mod sidecar;

const TOKEN: &str = "tok-around-2f1c8d3b7a6e5f4049382716";

const PLAIN: &str = "\
image: debian:trixie-slim
resources: {memory: 128m, cpus: 1, pids: 64}
egress: {routes: [{host: api.example.com}]}
";
