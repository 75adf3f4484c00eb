//! The agent's container, compared by what it is given.

use super::{Change, Changes, Effect};
use crate::explain;
use crate::plan::{EnvSource, EnvVar, Isolation, Plan, Source};

pub(super) fn changes(old: &Plan, new: &Plan) -> Vec<Change> {
    let parts = [
        environment(old, new),
        workspace(old, new),
        container(old, new),
        resources(old, new),
        sources(old, new),
    ];
    parts.into_iter().flatten().collect()
}

fn environment(old: &Plan, new: &Plan) -> Vec<Change> {
    let mut changes = Changes::of("env");
    let find = |plan: &Plan, name: &str| plan.agent.env.iter().find(|v| v.name == name).cloned();
    for variable in &new.agent.env {
        // It names the bottle, and no authority.
        if variable.name == "BOTTLE_SLUG" {
            continue;
        }
        match find(old, &variable.name) {
            None => changes.add(Effect::Gains, in_words(variable)),
            Some(known) if known.from == variable.from => {}
            Some(known) => {
                let text = format!(
                    "{}: {} -> {}",
                    variable.name,
                    source(&known),
                    source(variable)
                );
                // A value of the host where there was none is more than another literal.
                let shown =
                    |v: &EnvVar| matches!(v.from, EnvSource::Host(_) | EnvSource::Prompt(_));
                let effect = match (shown(&known), shown(variable)) {
                    (false, true) => Effect::Gains,
                    (true, false) => Effect::Loses,
                    _ => Effect::Changes,
                };
                changes.add(effect, text);
            }
        }
    }
    for variable in &old.agent.env {
        if find(new, &variable.name).is_none() {
            changes.add(Effect::Loses, in_words(variable));
        }
    }
    changes.list
}

fn in_words(variable: &EnvVar) -> String {
    format!(
        "{} in its environment ({})",
        variable.name,
        source(variable)
    )
}

/// Where a value comes from; never the value, and not the literal either.
fn source(variable: &EnvVar) -> String {
    match &variable.from {
        EnvSource::Literal(_) => "written in the manifest".to_owned(),
        EnvSource::Host(name) => format!("the value of ${name} on your host"),
        EnvSource::Prompt(_) => "asked for at the start".to_owned(),
        EnvSource::Placeholder(slot) => format!("a placeholder for {slot}"),
    }
}

fn workspace(old: &Plan, new: &Plan) -> Vec<Change> {
    let mut changes = Changes::of("workspace");
    let given = |plan: &Plan| -> Vec<String> {
        let from = plan.workspace.from.as_ref();
        from.map(|_| explain::workspace(plan)).into_iter().collect()
    };
    changes.sets(&given(old), &given(new));
    if changes.list.is_empty() && old.workspace.workdir != new.workspace.workdir {
        let text = format!(
            "the work folder: {} -> {}",
            old.workspace.workdir, new.workspace.workdir
        );
        changes.add(Effect::Changes, text);
    }
    changes.list
}

fn container(old: &Plan, new: &Plan) -> Vec<Change> {
    let mut changes = Changes::of("container");
    let (before, after) = (&old.agent, &new.agent);
    if before.image.reference != after.image.reference {
        let text = format!(
            "the image: {} -> {}",
            before.image.reference, after.image.reference
        );
        changes.add(Effect::Changes, text);
    }
    let capabilities = |plan: &Plan| -> Vec<String> {
        let names = plan.agent.hardening.cap_add.iter();
        names.map(|name| format!("the capability {name}")).collect()
    };
    changes.sets(&capabilities(old), &capabilities(new));
    match (before.hardening.read_only, after.hardening.read_only) {
        (true, false) => changes.add(Effect::Gains, "writing to its own root file system"),
        (false, true) => changes.add(Effect::Loses, "writing to its own root file system"),
        _ => {}
    }
    match (old.isolation, new.isolation) {
        (Isolation::Strict, Isolation::Network) => {
            changes.add(Effect::Gains, "a network (isolation: strict -> network)");
        }
        (Isolation::Network, Isolation::Strict) => {
            changes.add(Effect::Loses, "its network (isolation: network -> strict)");
        }
        _ => {}
    }
    changes.list
}

fn resources(old: &Plan, new: &Plan) -> Vec<Change> {
    let mut changes = Changes::of("resources");
    let (before, after) = (&old.agent.resources, &new.agent.resources);
    let mib = |bytes: u64| match bytes % (1 << 20) {
        0 => format!("{} MiB", bytes >> 20),
        _ => format!("{bytes} bytes"),
    };
    let cpus = |millis: u32| format!("{} cpus", f64::from(millis) / 1000.0);
    let disk = |bytes: Option<u64>| bytes.map_or_else(|| "unlimited".to_owned(), mib);
    let mut compare = |what: &str, more: bool, old: String, new: String| {
        if old != new {
            let effect = if more { Effect::Gains } else { Effect::Loses };
            changes.add(effect, format!("{what}: {old} -> {new}"));
        }
    };
    let more = after.memory > before.memory;
    compare("memory", more, mib(before.memory), mib(after.memory));
    let more = after.millicpus > before.millicpus;
    compare(
        "processors",
        more,
        cpus(before.millicpus),
        cpus(after.millicpus),
    );
    let more = after.pids > before.pids;
    compare(
        "processes",
        more,
        before.pids.to_string(),
        after.pids.to_string(),
    );
    let more = after.disk.unwrap_or(u64::MAX) > before.disk.unwrap_or(u64::MAX);
    compare("disk", more, disk(before.disk), disk(after.disk));
    changes.list
}

/// A file that went into the plan has another content: perhaps only a comment, perhaps a Dockerfile.
fn sources(old: &Plan, new: &Plan) -> Vec<Change> {
    let mut changes = Changes::of("source");
    let same = |one: &Source, two: &Source| one.role == two.role && one.name == two.name;
    let name = |source: &Source| match source.role.as_str() {
        "upstream_ca" => "egress.upstream_ca, whom destinations may be signed by,".to_owned(),
        role => format!("the {role} `{}`", source.name),
    };
    for source in &new.sources {
        match old.sources.iter().find(|known| same(known, source)) {
            None => changes.add(Effect::Changes, format!("{} is new", name(source))),
            Some(known) if known.sha256 != source.sha256 => {
                let name = name(source);
                let text = format!("the text of {}", name.trim_end_matches(','));
                changes.add(Effect::Changes, text);
            }
            Some(_) => {}
        }
    }
    for source in &old.sources {
        if !new.sources.iter().any(|other| same(source, other)) {
            changes.add(Effect::Changes, format!("{} is gone", name(source)));
        }
    }
    changes.list
}
