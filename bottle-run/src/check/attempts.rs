//! All that is tried from inside.

use bottle_plan::failure::Result;
use bottle_plan::handle::Containers;
use bottle_plan::plan::Plan;
use bottle_plan::state::StateHome;

use super::card::{Line, Verdict};
use super::host::Host;
use super::inside::NOBODY;
use super::outside::Outside;
use super::probes::{self, Attempt, Expect};
use super::{Depth, inside, proxy};
use crate::containers::{self, Labels};
use crate::engine::Engine;

/// More memory than this is not taken only to see whether there is a limit.
const MOST_TAKEN: u64 = 1 << 30;

/// A bottle, and what is around it.
pub(super) struct World<'a> {
    pub engine: &'a Engine,
    pub home: &'a StateHome,
    pub plan: &'a Plan,
    pub names: &'a Containers,
    pub outside: &'a Outside<'a>,
    pub depth: Depth,
    /// The agent's kernel is gVisor.
    pub gvisor: bool,
}

impl World<'_> {
    pub(super) fn judge(&self, attempts: &[Attempt]) -> Result<Vec<Line>> {
        let user = &self.plan.agent.user;
        let mut lines = probes::judge(self.engine, &self.names.agent, user, attempts)?;
        if self.plan.is_strict() {
            for (line, attempt) in lines.iter_mut().zip(attempts) {
                // It was tried all the same: what gets through is open, whatever the interfaces say.
                if is_by_network(&attempt.probe) && line.verdict == Verdict::Pass {
                    let why = format!("no interface ({})", line.seen);
                    let (name, tried) = (line.name.clone(), line.tried.clone());
                    *line = Line::not_applicable(line.category, name, tried, why);
                }
            }
        }
        Ok(lines)
    }
}

/// Makes them all.
pub(super) fn all(world: &World<'_>) -> Result<Vec<Line>> {
    let networks = &world.plan.networks;
    let host = Host::listen(&[
        networks.internal.gateway,
        networks.egress.gateway,
        world.outside.gateway,
    ]);
    let mut lines = controls(world, &host)?;
    let (seen_outside, seen_host) = (world.outside.contacts()?.len(), host.contacts());
    let groups = [
        inside::interfaces(world),
        inside::towards_the_host(world, &host),
        inside::towards_the_outside(world),
        inside::by_name(world),
        inside::in_the_kernel(world),
        inside::in_its_place(world),
        proxy::policy(world),
    ];
    for group in groups {
        let (of_gvisor, group) = group
            .into_iter()
            .partition::<Vec<_>, _>(|attempt| world.gvisor && is_gvisors_own(&attempt.probe));
        lines.extend(world.judge(&group)?);
        lines.extend(of_gvisor.into_iter().map(|attempt| {
            let why = "gVisor's own kernel answers, in a process without privileges; nothing of it is the host's";
            Line::not_applicable(attempt.category, attempt.name, attempt.tried, why)
        }));
    }
    lines.extend(other_bottles(world)?);
    lines.push(nothing_arrived(world, &host, seen_outside, seen_host)?);
    lines.extend(proxy::on_the_outer_side(world, &host));
    lines.extend(limits(world)?);
    lines.extend(proxy::with_a_destination(world)?);
    Ok(lines)
}

/// Whether a probe goes to an address that is not the container's own.
fn is_by_network(probe: &str) -> bool {
    let (way, to) = probe.split_once(':').unwrap_or((probe, ""));
    ["tcp", "udp", "icmp", "dns", "dnstcp"].contains(&way) && !to.starts_with("127.")
}

/// What gVisor offers by itself: namespaces and system calls of its own kernel, its own devices, and the engine's files as
/// mounts. What of the host is mounted is compared with the plan all the same.
fn is_gvisors_own(probe: &str) -> bool {
    probe.starts_with("syscall:") || ["unshare", "mounts", "devices"].contains(&probe)
}

/// What must work, or the rest would prove nothing.
fn controls(world: &World<'_>, host: &Host) -> Result<Vec<Line>> {
    let outside = world.outside.address;
    let open = |name: &str, tried: &str, probe: String| {
        Attempt::new("control", name, tried, probe, Expect::Open)
    };
    let mut beside = vec![
        open(
            "outside-tcp",
            "the outside, from a container beside it",
            format!("tcp:{outside}:7777"),
        ),
        open(
            "outside-udp",
            "the same by UDP",
            format!("udp:{outside}:7777"),
        ),
        open(
            "outside-dns",
            "its name service",
            format!("dns:{outside}:{NOBODY}"),
        ),
        open(
            "outside-icmp",
            "its answer to a ping",
            format!("icmp:{outside}"),
        ),
        open(
            "kernel-probe",
            "a raw socket where the engine's defaults allow it",
            "raw".to_owned(),
        ),
    ];
    let mut lines = Vec::new();
    match host
        .listening
        .iter()
        .find(|(ip, _)| *ip == world.outside.gateway)
    {
        Some((ip, port)) => {
            beside.push(open(
                "host-tcp",
                "the host, from a container beside the outside",
                format!("tcp:{ip}:{port}"),
            ));
            beside.push(open(
                "host-udp",
                "the same by UDP",
                format!("udp:{ip}:{port}"),
            ));
        }
        None => lines.push(Line::not_applicable(
            "control",
            "host-tcp",
            "the host, from a container beside the outside",
            "the engine's bridges are on another machine; what follows is aimed at closed ports",
        )),
    }
    let asked: Vec<String> = beside.iter().map(|attempt| attempt.probe.clone()).collect();
    let found = probes::parse(&world.outside.probe_beside(&asked)?)?;
    lines.extend(probes::verdicts(&beside, &found));
    let egress = world.plan.seen_by_agent().egress;
    let tried = "the egress sidecar, from inside";
    // Without a network somebody takes the connection in any case; that it was egress shows in what it says, and an
    // address it refuses whatever the policy.
    let control = if world.plan.is_strict() {
        let probe = format!("http:{egress}:3128:{egress}:443");
        Attempt::new("control", "egress", tried, probe, Expect::Denied)
    } else {
        open("egress", tried, format!("tcp:{egress}:3128"))
    };
    lines.extend(world.judge(&[
        control,
        open(
            "kernel-unix",
            "a socket every program needs",
            "family:unix".to_owned(),
        ),
    ])?);
    Ok(lines)
}

/// A neighbour, if there is one: the outside is one too, but has no sidecar.
fn other_bottles(world: &World<'_>) -> Result<Vec<Line>> {
    let tried = "the sidecar and the agent of another bottle";
    let label = world
        .plan
        .labels
        .get("bottle.home")
        .map_or("", String::as_str);
    let running = containers::list(world.engine, &Labels::of_home(label))?;
    let neighbour = running
        .iter()
        .filter(|found| found.state == "running" && found.role() == "egress")
        .map(containers::Container::slug)
        .find(|slug| *slug != world.plan.slug);
    let networks = neighbour.and_then(|slug| {
        let metadata = world.home.metadata(slug).ok().flatten()?;
        let range = metadata.subnet.parse().ok()?;
        Some(bottle_plan::subnet::networks("bottle", range))
    });
    let Some(networks) = networks else {
        let why = "no other bottle of this home runs";
        return Ok(vec![Line::not_applicable(
            "bottles",
            "neighbour",
            tried,
            why,
        )]);
    };
    let silent =
        |name: &str, probe: String| Attempt::new("bottles", name, tried, probe, Expect::Silence);
    let addresses = &networks.addresses;
    world.judge(&[
        silent("neighbour-egress", format!("tcp:{}:3128", addresses.egress)),
        silent("neighbour-dns", format!("udp:{}:53", addresses.egress)),
        silent("neighbour-agent", format!("icmp:{}", addresses.agent)),
        silent(
            "neighbour-gateway",
            format!("tcp:{}:80", networks.egress.gateway),
        ),
    ])
}

/// One-way traffic has no answer: it shows where it arrives.
fn nothing_arrived(
    world: &World<'_>,
    host: &Host,
    seen_outside: usize,
    seen_host: usize,
) -> Result<Line> {
    let contacts = world.outside.contacts()?;
    let outside: Vec<String> = contacts.into_iter().skip(seen_outside).collect();
    let host = host.contacts() - seen_host;
    let seen = match (outside.as_slice(), host) {
        ([], 0) => "nothing".to_owned(),
        (outside, host) => format!("{host} at the host, outside: {}", outside.join(", ")),
    };
    Ok(Line::new(
        "outside",
        "arrivals",
        "all of the above, as its targets saw it",
        "nothing arrived",
        seen == "nothing",
        seen,
    ))
}

fn limits(world: &World<'_>) -> Result<Vec<Line>> {
    let resources = &world.plan.agent.resources;
    let (threads, memory) = ("more threads than its limit", "more memory than its limit");
    let files = Attempt::new(
        "limits",
        "files",
        "more open files than its limit, and a higher limit",
        "files:65536",
        Expect::Closed,
    );
    let mut attempts = vec![files];
    let mut lines = Vec::new();
    let why_not = match (world.depth, world.gvisor) {
        (Depth::Beside, _) => Some("somebody works in this bottle and would notice"),
        (_, true) => Some("under gVisor whoever runs into it stops the whole sandbox"),
        _ => None,
    };
    if let Some(why) = why_not {
        lines.push(Line::not_applicable("limits", "threads", threads, why));
        lines.push(Line::not_applicable("limits", "memory", memory, why));
    } else {
        let most = u64::from(resources.pids) + 16;
        attempts.push(Attempt::new(
            "limits",
            "threads",
            threads,
            format!("threads:{most}"),
            Expect::Closed,
        ));
        if resources.memory > MOST_TAKEN {
            let why = format!(
                "it is {} MiB, which is not taken from this host only to see",
                resources.memory >> 20
            );
            lines.push(Line::not_applicable("limits", "memory", memory, why));
        } else {
            let mebibytes = (resources.memory >> 20) + 32;
            attempts.push(Attempt::new(
                "limits",
                "memory",
                memory,
                format!("memory:{mebibytes}"),
                Expect::Closed,
            ));
        }
    }
    let user = &world.plan.agent.user;
    let mut tried = probes::judge_alone(world.engine, &world.names.agent, user, &attempts)?;
    tried.extend(lines);
    Ok(tried)
}
