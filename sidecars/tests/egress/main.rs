//! The whole proxy on loopback: real sockets, real TLS on both sides, a network whose names the tests choose.
//!
//! The proxy runs in this process with every check in place; only the two things that need the outside world,
//! resolving a name and connecting to a checked address, are ours (see `world`).

// A test that cannot go on says so by panicking; clippy's exception for tests ends at their helpers.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod agreement;
mod audit;
mod credentials;
mod dlp;
mod dns;
mod h2;
mod lifecycle;
mod limits;
mod observe;
mod one;
mod policy;
mod revoked;
mod smuggling;
mod streams;
mod tunnels;
mod two;
mod upstream;
mod websocket;
mod world;
