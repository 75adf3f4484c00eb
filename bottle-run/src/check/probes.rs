//! Probes in the agent's container, and what their answers mean.

use bottle_plan::failure::{Failure, Result};
use serde::Deserialize;

use super::card::Line;
use crate::engine::Engine;
use crate::provision::HELPER;

/// As many run side by side: each takes a thread, and a bottle may have few.
const AT_ONCE: usize = 24;

/// What has to come of an attempt.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Expect {
    /// Nothing comes through, and nobody is there to refuse it.
    Silence,
    /// It does not work. Who says no does not matter.
    Closed,
    /// Our sidecar says no, and why.
    Denied,
    /// It works: what a bottle is for.
    Open,
}

impl Expect {
    const fn told(self) -> &'static str {
        match self {
            Self::Silence => "no answer, not even a refusal",
            Self::Closed => "not possible",
            Self::Denied => "refused by egress with a reason",
            Self::Open => "works",
        }
    }

    fn holds(self, finding: &Finding) -> bool {
        match self {
            Self::Open => finding.reached && !finding.detail.starts_with("not tried"),
            Self::Closed => !finding.reached,
            Self::Silence => !finding.reached && !finding.detail.starts_with("refused"),
            Self::Denied => !finding.reached && finding.detail.contains("x-bottle-reason: "),
        }
    }
}

/// One attempt.
#[derive(Clone, Debug)]
pub(super) struct Attempt {
    pub category: &'static str,
    pub name: String,
    pub tried: String,
    pub probe: String,
    pub expect: Expect,
}

impl Attempt {
    pub(super) fn new(
        category: &'static str,
        name: impl Into<String>,
        tried: impl Into<String>,
        probe: impl Into<String>,
        expect: Expect,
    ) -> Self {
        Self {
            category,
            name: name.into(),
            tried: tried.into(),
            probe: probe.into(),
            expect,
        }
    }
}

#[derive(Clone, Debug, Deserialize)]
pub(super) struct Finding {
    probe: String,
    pub reached: bool,
    #[serde(default)]
    pub detail: String,
}

/// Makes the attempts as the agent's user, side by side, and judges them.
pub(super) fn judge(
    engine: &Engine,
    container: &str,
    user: &str,
    attempts: &[Attempt],
) -> Result<Vec<Line>> {
    judge_in(engine, container, user, attempts.chunks(AT_ONCE), "500")
}

/// As [`judge`], one after the other: attempts that use something up.
pub(super) fn judge_alone(
    engine: &Engine,
    container: &str,
    user: &str,
    attempts: &[Attempt],
) -> Result<Vec<Line>> {
    judge_in(engine, container, user, attempts.chunks(1), "15000")
}

/// A group after the other, each attempt within so many milliseconds.
fn judge_in<'a>(
    engine: &Engine,
    container: &str,
    user: &str,
    groups: impl Iterator<Item = &'a [Attempt]>,
    millis: &str,
) -> Result<Vec<Line>> {
    let mut lines = Vec::new();
    for group in groups {
        let output = engine
            .call(["exec", &format!("--user={user}"), container])
            .args([HELPER, "probe", &format!("--timeout-ms={millis}")])
            .args(group.iter().map(|attempt| attempt.probe.as_str()))
            .run()
            .map_err(|failure| {
                failure.while_doing("probing from inside").hint(
                    "was the bottle started by another version? then take it down and up again",
                )
            })?;
        lines.extend(verdicts(group, &parse(&output.stdout)?));
    }
    Ok(lines)
}

pub(super) fn parse(bytes: &[u8]) -> Result<Vec<Finding>> {
    serde_json::from_slice(bytes)
        .map_err(|error| Failure::failed("cannot read what the probe found").because(error))
}

/// A probe that says nothing has not passed.
pub(super) fn verdicts(attempts: &[Attempt], findings: &[Finding]) -> Vec<Line> {
    let judged = attempts.iter().map(|attempt| {
        let found = findings.iter().find(|found| found.probe == attempt.probe);
        let (passed, seen) = match found {
            Some(finding) => (attempt.expect.holds(finding), finding.detail.clone()),
            None => (false, "the probe did not say".to_owned()),
        };
        Line::new(
            attempt.category,
            attempt.name.clone(),
            attempt.tried.clone(),
            attempt.expect.told(),
            passed,
            bottle_plan::failure::printable(&seen),
        )
    });
    judged.collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::check::card::Verdict;

    fn verdict(expect: Expect, reached: bool, detail: &str) -> Verdict {
        let attempt = Attempt::new("c", "n", "t", "p", expect);
        let finding = Finding {
            probe: "p".into(),
            reached,
            detail: detail.into(),
        };
        verdicts(&[attempt], &[finding])[0].verdict
    }

    #[test]
    fn what_was_not_tried_passes_for_nothing() {
        for expect in [
            Expect::Silence,
            Expect::Closed,
            Expect::Denied,
            Expect::Open,
        ] {
            assert_eq!(verdict(expect, true, "not tried: x"), Verdict::Fail);
            let none = verdicts(&[Attempt::new("c", "n", "t", "p", expect)], &[]);
            assert_eq!(none[0].verdict, Verdict::Fail);
        }
    }

    #[test]
    fn a_refusal_is_an_answer() {
        let refused = "refused (ECONNREFUSED)";
        assert_eq!(verdict(Expect::Silence, false, refused), Verdict::Fail);
        assert_eq!(verdict(Expect::Closed, false, refused), Verdict::Pass);
        assert_eq!(verdict(Expect::Denied, false, refused), Verdict::Fail);
        let reason = "HTTP/1.1 403; x-bottle-reason: ip_literal";
        assert_eq!(verdict(Expect::Denied, false, reason), Verdict::Pass);
    }
}
