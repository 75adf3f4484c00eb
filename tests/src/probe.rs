//! What the isolation probe found.

use serde_json::Value;

use crate::run::Call;
use crate::tools;

/// Where the probe is in every agent.
pub const IN_THE_AGENT: &str = "/usr/local/lib/bottle/bottle-sidecar";

/// The findings of one call, by probe.
#[derive(Clone, Debug)]
pub struct Findings(Vec<(String, bool, String)>);

impl Findings {
    /// Reads the probe's output.
    ///
    /// # Panics
    /// When it is something else.
    #[must_use]
    pub fn parse(output: &str) -> Self {
        let list: Value =
            serde_json::from_str(output).unwrap_or_else(|error| panic!("{error}: {output}"));
        let list = list.as_array().expect("the probe prints an array");
        let one = |finding: &Value| {
            let probe = finding["probe"].as_str()?.to_owned();
            Some((
                probe,
                finding["reached"].as_bool()?,
                finding["detail"].as_str()?.to_owned(),
            ))
        };
        Self(
            list.iter()
                .map(|finding| one(finding).expect("a finding has three fields"))
                .collect(),
        )
    }

    /// Runs the probes right here, on the host: the control that shows that there is something to be reached.
    ///
    /// # Panics
    /// When there is no probe, or it does not run.
    #[must_use]
    pub fn from_host(probes: &[String]) -> Self {
        let program = tools::sidecar().expect("need_engine looked for it");
        let call = Call::new(program)
            .args(["probe", "--timeout-ms", "1000"])
            .args(probes);
        Self::parse(&call.run().ok())
    }

    /// What one probe found.
    ///
    /// # Panics
    /// When it was not asked.
    #[must_use]
    pub fn of(&self, probe: &str) -> (bool, &str) {
        let found = self.0.iter().find(|(name, ..)| name == probe);
        let (_, reached, detail) =
            found.unwrap_or_else(|| panic!("nobody asked for {probe}: {self:?}"));
        (*reached, detail)
    }

    /// Every probe was made and found its way closed.
    ///
    /// # Panics
    /// When one is open; the message names all that are.
    pub fn assert_closed(&self) {
        assert!(!self.0.is_empty(), "no probe was made");
        // A refusal is an answer: somebody is there.
        let open = self
            .0
            .iter()
            .filter(|(_, reached, detail)| *reached || detail.starts_with("refused"));
        let open: Vec<_> = open.collect();
        assert!(open.is_empty(), "open: {open:?}");
    }

    /// Somebody is there and refused every probe: the address is right, and nothing listens.
    ///
    /// # Panics
    /// When one was not refused; the message names all that were not.
    pub fn assert_refused(&self) {
        assert!(!self.0.is_empty(), "no probe was made");
        let others = self
            .0
            .iter()
            .filter(|(_, _, detail)| !detail.starts_with("refused"));
        let others: Vec<_> = others.collect();
        assert!(others.is_empty(), "not refused: {others:?}");
    }

    /// Every probe got through.
    ///
    /// # Panics
    /// When one did not; the message names all that did not.
    pub fn assert_open(&self) {
        assert!(!self.0.is_empty(), "no probe was made");
        let closed: Vec<_> = self
            .0
            .iter()
            .filter(|(_, reached, detail)| !*reached || detail.starts_with("not tried"))
            .collect();
        assert!(closed.is_empty(), "closed: {closed:?}");
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn finding(reached: bool, detail: &str) -> Findings {
        let finding = serde_json::json!([{"probe": "p", "reached": reached, "detail": detail}]);
        Findings::parse(&finding.to_string())
    }

    #[test]
    fn silence_is_closed() {
        finding(false, "no answer in 300 ms").assert_closed();
        finding(true, "connected in 0 ms").assert_open();
        finding(false, "refused (ECONNREFUSED: Connection refused)").assert_refused();
    }

    #[test]
    #[should_panic(expected = "open: ")]
    fn a_refusal_is_not_closed() {
        finding(false, "refused (ECONNREFUSED: Connection refused)").assert_closed();
    }

    #[test]
    #[should_panic(expected = "open: ")]
    fn what_was_not_tried_is_not_closed() {
        finding(true, "not tried: no thread: EAGAIN").assert_closed();
    }

    #[test]
    #[should_panic(expected = "closed: ")]
    fn what_was_not_tried_is_not_open() {
        finding(true, "not tried: no thread: EAGAIN").assert_open();
    }

    #[test]
    #[should_panic(expected = "no probe was made")]
    fn no_probe_proves_nothing() {
        Findings::parse("[]").assert_closed();
    }
}
