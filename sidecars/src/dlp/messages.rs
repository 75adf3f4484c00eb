//! Messages of a WebSocket on their way out.

use std::sync::Arc;

use hyper::body::Bytes;

use super::scanner::Scanner;
use super::{Found, Rules};
use crate::reason::Reason;

/// Looks through the messages of one connection.
pub(crate) struct MessageScan {
    data: Scanner,
    control: Scanner,
}

impl MessageScan {
    /// What looks through them, if anything does.
    pub(crate) fn new(rules: &Arc<Rules>, found: &Arc<Found>) -> Option<Self> {
        let scanner = |sealed| Scanner::new(rules.clone(), found.clone(), sealed);
        rules.looks_out().then(|| Self {
            data: scanner(false),
            control: scanner(true),
        })
    }

    /// Takes the next piece of a message; returns what may go on.
    pub(crate) fn data(&mut self, piece: Bytes, is_last: bool) -> Result<Bytes, Reason> {
        let ready = self.data.pass(piece, is_last);
        if is_last {
            self.data.begin_again();
        }
        ready
    }

    /// Takes the next piece of a ping, a pong or a close. Nothing in one is worth blacking out.
    pub(crate) fn control(&mut self, piece: Bytes, is_last: bool) -> Result<(), Reason> {
        self.control.pass(piece, is_last).map(|_| ())
    }
}
