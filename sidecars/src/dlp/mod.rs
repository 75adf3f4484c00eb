//! What should not leave, or come in, although the policy allows the destination.
//!
//! Known secrets of the bottle are looked for by `needles` on every route. Here are the guesses: tokens of known
//! form (`patterns`), words too random to be words (`entropy`), and phrases in answers that speak to the agent
//! (`injection`); and, in answers to the bottle's own credential, tokens that were minted for it (`inbound`). All of it works on streams, and holds no more than a token is long.
//!
//! This is a net, not a proof: an agent that may write to a destination can always invent an encoding.

mod body;
mod checks;
mod detected;
mod entropy;
mod head;
mod inbound;
mod injection;
mod messages;
mod patterns;
mod rules;
mod scanner;

use std::sync::Arc;

pub(crate) use body::{BodyScan, Secrets};
pub(crate) use detected::{Found, Kind};
pub(crate) use head::check_head;
pub(crate) use inbound::{Inbound, is_text};
pub(crate) use messages::MessageScan;
pub(crate) use rules::Rules;
pub(crate) use scanner::holds_token;

impl Rules {
    /// What looks through the answer, if anything does.
    pub(crate) fn inbound(&self, found: &Arc<Found>) -> Option<Inbound> {
        Inbound::new(self, found)
    }

    /// Whether answers are looked through, so that they must come uncompressed.
    pub(crate) fn looks_in(&self) -> bool {
        self.inbound || self.minted.is_some()
    }
}
