//! The outside: a container of the check's own on a network of its own.

use std::net::Ipv4Addr;
use std::thread;
use std::time::{Duration, Instant};

use bottle_plan::failure::{Failure, Result};
use bottle_plan::plan::{Network, Plan};
use bottle_plan::state::StateHome;
use bottle_plan::{planner, subnet};

use crate::containers::CHECK_LABEL;
use crate::engine::Engine;

/// It listens within milliseconds of its start.
const PATIENCE: Duration = Duration::from_secs(15);

/// How many ranges are tried before the engine is believed that there is none.
const TRIES: u32 = 8;

/// The container and its network. Both are removed when this goes, whatever ended the check.
#[derive(Debug)]
pub(super) struct Outside<'a> {
    engine: &'a Engine,
    name: String,
    image: String,
    labels: [String; 2],
    /// Its address.
    pub address: Ipv4Addr,
    /// The host's address on its network.
    pub gateway: Ipv4Addr,
    gone: bool,
}

impl<'a> Outside<'a> {
    pub(super) fn start(
        engine: &'a Engine,
        home: &StateHome,
        plan: &Plan,
        image: &str,
    ) -> Result<Self> {
        let name = format!("{}-outside", plan.project);
        let home_label = plan.labels.get("bottle.home").cloned().unwrap_or_default();
        let mut outside = Self {
            engine,
            image: image.to_owned(),
            labels: [
                format!("--label=bottle.home={home_label}"),
                format!("--label={CHECK_LABEL}={}", plan.slug),
            ],
            name,
            address: Ipv4Addr::UNSPECIFIED,
            gateway: Ipv4Addr::UNSPECIFIED,
            gone: false,
        };
        // What a killed check of this bottle left has the same names.
        outside.clear()?;
        let network = outside.make_network(home)?;
        outside.gateway = network.gateway;
        outside.address = Ipv4Addr::from(u32::from(network.gateway) + 1);
        outside.run()?;
        Ok(outside)
    }

    fn make_network(&self, home: &StateHome) -> Result<Network> {
        let block = std::env::var("BOTTLE_SUBNETS").ok();
        let block = subnet::parse_block(block.as_deref().unwrap_or(subnet::DEFAULT_BLOCK))?;
        let taken = planner::taken(home);
        let mut last = None;
        for attempt in 0..TRIES {
            let range = subnet::choose(block, &format!("{}-{attempt}", self.name), &taken)?;
            let network = subnet::networks(&self.name, range).egress;
            let made = self
                .engine
                .call(["network", "create", "--driver=bridge"])
                .args([
                    format!("--subnet={}", network.subnet),
                    format!("--gateway={}", network.gateway),
                ])
                .args(&self.labels)
                .args(["--", &self.name])
                .run();
            match made {
                Ok(_) => return Ok(network),
                Err(failure) if failure.chain().contains("overlap") => last = Some(failure),
                Err(failure) => return Err(failure),
            }
        }
        Err(last.unwrap_or_else(|| Failure::failed("no range is free")))
    }

    fn run(&self) -> Result<()> {
        self.engine
            .call(["run", "--detach", "--pull=never", "--read-only"])
            .args(["--cap-drop=ALL", "--security-opt=no-new-privileges"])
            .args(["--user=65532:65532", "--memory=64m", "--pids-limit=128"])
            .args([
                "--log-driver=json-file",
                "--sysctl=net.ipv4.ip_unprivileged_port_start=0",
            ])
            .args(&self.labels)
            .args([
                format!("--name={}", self.name),
                format!("--network={}", self.name),
            ])
            .args([format!("--ip={}", self.address), self.image.clone()])
            .arg("outside")
            .run()?;
        let started = Instant::now();
        while !self.log()?.lines().any(|line| line == "ready") {
            if started.elapsed() > PATIENCE {
                return Err(Failure::failed("the outside of the check does not listen"));
            }
            thread::sleep(Duration::from_millis(20));
        }
        Ok(())
    }

    fn log(&self) -> Result<String> {
        let output = self.engine.call(["logs", "--", &self.name]).run()?;
        Ok(output.text())
    }

    /// How often somebody came who is neither the host nor on its own network.
    pub(super) fn contacts(&self) -> Result<Vec<String>> {
        let own = u32::from(self.gateway) & !0xf;
        let is_own = |line: &&str| {
            let ip = line.rsplit(' ').next().and_then(|ip| ip.parse().ok());
            ip.is_some_and(|ip: Ipv4Addr| u32::from(ip) & !0xf == own)
        };
        let log = self.log()?;
        let contacts = log.lines().filter(|line| line.contains(' '));
        Ok(contacts
            .filter(|line| !is_own(line))
            .map(str::to_owned)
            .collect())
    }

    /// Runs probes beside it, in a container nobody shut in: root, with what the engine grants by itself.
    pub(super) fn probe_beside(&self, probes: &[String]) -> Result<Vec<u8>> {
        let probed = self
            .engine
            .call(["run", "--rm", "--pull=never", "--user=0:0"])
            .args(&self.labels)
            .arg(format!("--network={}", self.name))
            .args([&self.image, "probe", "--timeout-ms=1500"])
            .args(probes)
            .run();
        probed.map(|output| output.stdout)
    }

    /// Joins a network under a name, as a destination there.
    pub(super) fn join(&self, network: &str, name: &str) -> Result<()> {
        self.engine
            .call([
                "network",
                "connect",
                &format!("--alias={name}"),
                "--",
                network,
            ])
            .arg(&self.name)
            .run()
            .map(drop)
    }

    /// Removes container and network.
    pub(super) fn remove(mut self) -> Result<()> {
        self.gone = true;
        self.clear()
    }

    fn clear(&self) -> Result<()> {
        clear(self.engine, &self.name)
    }
}

impl Drop for Outside<'_> {
    fn drop(&mut self) {
        if !self.gone {
            // The failure that ended the check is the one to tell; `gc` finds what this leaves.
            let _ = self.clear();
        }
    }
}

/// Removes a container and a network of this name, and whatever else is on that network of the check's.
fn clear(engine: &Engine, name: &str) -> Result<()> {
    let removed = engine
        .call(["rm", "--force", "--volumes", "--", name])
        .output()?;
    let gone = |stderr: &str| {
        ["No such container", "No such network", "not found"]
            .iter()
            .any(|text| stderr.contains(text))
    };
    if !removed.status.success() && !gone(&removed.stderr) {
        return Err(crate::engine::failure_of("docker rm", &removed));
    }
    let removed = engine.call(["network", "rm", "--", name]).output()?;
    if !removed.status.success() && !gone(&removed.stderr) {
        return Err(crate::engine::failure_of("docker network rm", &removed));
    }
    Ok(())
}
