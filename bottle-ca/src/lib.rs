//! The certificate authority of one bottle: minted for it, limited to its policy, gone with it.
//!
//! The egress sidecar opens TLS in the middle, so the agent has to trust a CA whose key lies on this host.
//! What that key could do in the wrong hands decides the shape of everything here:
//!
//! * **One bottle, one key.** It is generated for the bottle, never copied to another, and ends after days.
//! * **The certificate itself says what it is good for** ([`Scope`]): critical name constraints permit the policy's
//!   hosts and nothing else, so a stolen key signs for no bank, whichever client is fooled.
//! * **The files are born safe** (`store`): the key with mode 0600 before its first byte, in a folder nobody else
//!   can write to, both files complete or neither there.
//! * **Nothing valid is replaced unasked** ([`ensure`]): a running sidecar and its agent would stop agreeing.
//! * **Nothing foreign is taken over** ([`read`]): a CA without exactly our constraints is an error, even if it works.
//!
//! Names and form of the files are mitmproxy's, so that it can stand in for the sidecar.

mod authority;
mod hashed;
mod plan;
mod scope;
mod store;

pub use authority::{Authority, mint, rfc3339};
pub use hashed::subject_hash;
pub use plan::{FILTER_HINT, fill, request_from_plan};
pub use scope::{Cidr, Scope};
pub use store::{CERT_FILE, KEY_FILE, Outcome, ensure, read};

use std::path::PathBuf;

/// Days a CA lasts when nobody says otherwise: longer than a bottle lives, shorter than it is forgotten.
pub const DEFAULT_DAYS: u32 = 30;

/// The most days one may ask for. A throw-away place has no use for more.
pub const MAX_DAYS: u32 = 365;

/// What to mint, and where.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Request {
    /// The folder of the two files; made with mode 0700 if it is not there.
    pub dir: PathBuf,
    /// The CA's common name, such as `bottle egress CA demo-x1y2z`; never a host name.
    pub common_name: String,
    /// The policy's hosts: exact names, or `*.` and a name.
    pub hosts: Vec<String>,
    /// Every other host too: for a bottle whose destinations are not known when it starts.
    pub any_host: bool,
    /// Addresses that may appear in a leaf. Normally none.
    pub addresses: Vec<Cidr>,
    /// How long it lasts, 1 to [`MAX_DAYS`].
    pub days: u32,
}
