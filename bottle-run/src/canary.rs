//! The canary: before a bottle is handed over, a probe inside the agent's own container tries to get out.
//!
//! The host side is a listener of ours on the bottle's own bridge, so that "cannot reach the host" is measured against
//! something that answers. A control that must succeed keeps a broken probe from passing.

use std::net::TcpListener;

use bottle_plan::failure::{Failure, Result};
use bottle_plan::plan::Plan;
use serde::Deserialize;

use crate::engine::Engine;
use crate::provision::HELPER;

/// A name nobody has; a question for it that leaves the bottle would be a leak all the same.
const NOBODY: &str = "canary.bottle.invalid";

/// A refusal is an answer: something that should not be there is there, and only the port was closed.
const REFUSED: &str = "refused";

/// Nobody but egress says this.
const SAID_BY_EGRESS: &str = "x-bottle-reason: ";

#[derive(Debug, Deserialize)]
struct Finding {
    probe: String,
    reached: bool,
    #[serde(default)]
    detail: String,
}

/// Proves from inside that the agent can reach the egress sidecar and nothing else.
///
/// # Errors
/// Refused, with what was reached, when the bottle is not closed; failed when the probe could not run.
pub fn run(engine: &Engine, plan: &Plan, container: &str) -> Result<()> {
    let networks = &plan.networks;
    // On an engine in a virtual machine the gateway is not ours to listen on; the probes then aim at closed ports.
    let listener = TcpListener::bind((networks.egress.gateway, 0)).ok();
    let port = listener
        .as_ref()
        .and_then(|l| l.local_addr().ok())
        .map_or(80, |address| address.port());
    let egress = plan.seen_by_agent().egress;
    // Without a network it is the forwarder that takes the connection, and only what egress says proves that it is there:
    // whatever the policy, it refuses an address.
    let (control, resolver) = match plan.is_strict() {
        true => (format!("http:{egress}:3128:{egress}:443"), "127.0.0.1"),
        false => (format!("tcp:{egress}:3128"), "127.0.0.11"),
    };
    let mut must_fail = vec![
        format!("tcp:{}:{port}", networks.internal.gateway),
        format!("tcp:{}:{port}", networks.egress.gateway),
        format!("icmp:{}", networks.internal.gateway),
        format!("dns:{resolver}:{NOBODY}"),
        format!("dnstcp:{resolver}:{NOBODY}"),
        "ipv6".to_owned(),
        "raw".to_owned(),
        "caps".to_owned(),
        "family:vsock".to_owned(),
        "family:packet".to_owned(),
        "iouring".to_owned(),
    ];
    if plan.is_strict() {
        must_fail.push("interfaces".to_owned());
    }
    let granted = !plan.agent.hardening.cap_add.is_empty();
    let must_fail: Vec<&String> = must_fail
        .iter()
        .filter(|probe| !(granted && *probe == "caps"))
        .collect();
    let output = engine
        .call([
            "exec",
            &format!("--user={}", plan.agent.user),
            container,
            HELPER,
            "probe",
            "--timeout-ms=250",
        ])
        .arg(&control)
        .args(must_fail.iter().map(|probe| probe.as_str()))
        .run()
        .map_err(|failure| failure.while_doing("probing the bottle from inside"))?;
    let findings: Vec<Finding> = serde_json::from_slice(&output.stdout)
        .map_err(|error| Failure::failed("cannot read what the probe found").because(error))?;
    judge(&findings, &control, &must_fail)
}

fn judge(findings: &[Finding], control: &str, must_fail: &[&String]) -> Result<()> {
    let found = |probe: &str| findings.iter().find(|finding| finding.probe == probe);
    match found(control) {
        Some(finding) if finding.reached || finding.detail.contains(SAID_BY_EGRESS) => {}
        finding => {
            let detail = finding.map_or("no answer", |finding| finding.detail.as_str());
            return Err(Failure::failed(format!(
                "the agent cannot reach its egress sidecar: {control}: {detail}"
            )));
        }
    }
    let mut open = Vec::new();
    for probe in must_fail {
        match found(probe) {
            Some(finding) if !finding.reached && !answered(finding) => {}
            Some(finding) => open.push(format!("{probe} ({})", finding.detail)),
            None => open.push(format!("{probe} (the probe did not say)")),
        }
    }
    if open.is_empty() {
        return Ok(());
    }
    Err(Failure::refused(format!(
        "the bottle is not closed: from inside it reached {}",
        open.join(", ")
    ))
    .hint("nothing ran in it; docs/limits.md lists engines that cannot be made safe"))
}

/// Whether somebody is there who said no. On its own loopback that is the container itself: under gVisor the engine's
/// resolver is not at 127.0.0.11.
fn answered(finding: &Finding) -> bool {
    let own = finding.probe.starts_with("dns:127.") || finding.probe.starts_with("dnstcp:127.");
    finding.detail.starts_with(REFUSED) && !own
}

#[cfg(test)]
mod tests {
    use super::*;

    fn finding(probe: &str, reached: bool) -> Finding {
        Finding {
            probe: probe.into(),
            reached,
            detail: "test".into(),
        }
    }

    #[test]
    fn a_probe_that_says_nothing_is_not_a_pass() {
        let (gate, caps) = ("tcp:1".to_owned(), "caps".to_owned());
        let must_fail = [&gate, &caps];
        let control = finding("c", true);
        judge(
            &[control, finding("tcp:1", false), finding("caps", false)],
            "c",
            &must_fail,
        )
        .expect("closed");
        for bad in [
            vec![finding("c", true), finding("tcp:1", false)],
            vec![
                finding("c", true),
                Finding {
                    detail: "refused in 1 ms".into(),
                    ..finding("tcp:1", false)
                },
                finding("caps", false),
            ],
            vec![
                finding("c", true),
                finding("tcp:1", true),
                finding("caps", false),
            ],
            vec![
                finding("c", false),
                finding("tcp:1", false),
                finding("caps", false),
            ],
            vec![],
        ] {
            judge(&bad, "c", &must_fail).expect_err("not closed");
        }
    }
}
