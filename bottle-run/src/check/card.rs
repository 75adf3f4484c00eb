//! The scorecard: one line for each thing that was tried.

use std::fmt::Write as _;

use bottle_plan::failure::{Failure, Result, printable};
use bottle_plan::handle::Containers;
use bottle_plan::plan::Plan;
use serde::Serialize;
use serde_json::Value;

use crate::engine::Engine;

/// The schema tag of [`Card`].
pub const CHECK_SCHEMA: &str = "bottle.check/v1";

/// What a check found.
#[derive(Clone, Debug, Serialize)]
pub struct Card {
    /// Always [`CHECK_SCHEMA`].
    pub schema: &'static str,
    /// The bottle.
    pub slug: String,
    /// Digest of its plan.
    pub plan_digest: String,
    /// What it runs on.
    pub on: Head,
    /// Lines that passed.
    pub passed: usize,
    /// Lines that failed: what is open.
    pub failed: usize,
    /// Lines that do not apply here; each says why.
    pub not_applicable: usize,
    /// What was tried, in order.
    pub lines: Vec<Line>,
}

/// Engine, kernel and runtime.
#[derive(Clone, Debug, Serialize)]
pub struct Head {
    /// Version of the engine.
    pub engine: String,
    /// Version of its client.
    pub client: String,
    /// The engine's kernel.
    pub kernel: String,
    /// Its system and processor.
    pub system: String,
    /// The runtime of the agent's container, with its version where the engine knows it.
    pub runtime: String,
    /// `1` or `2`.
    pub cgroup: String,
    /// The engine's own security options.
    pub security: Vec<String>,
}

/// One thing that was tried.
#[derive(Clone, Debug, Serialize)]
pub struct Line {
    /// What it belongs to: `host`, `dns`, `kernel`, ….
    pub category: &'static str,
    /// Its name; the same in every card.
    pub name: String,
    /// What was tried.
    pub tried: String,
    /// What had to come of it.
    pub expected: &'static str,
    /// What came of it; for a line that does not apply, the reason.
    pub seen: String,
    /// The verdict.
    pub verdict: Verdict,
}

/// How a line ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Verdict {
    /// As expected.
    Pass,
    /// Not as expected.
    Fail,
    /// Could not be tried here.
    NotApplicable,
}

impl Line {
    /// A line that was tried.
    #[must_use]
    pub fn new(
        category: &'static str,
        name: impl Into<String>,
        tried: impl Into<String>,
        expected: &'static str,
        passed: bool,
        seen: impl Into<String>,
    ) -> Self {
        Self {
            category,
            name: name.into(),
            tried: tried.into(),
            expected,
            seen: seen.into(),
            verdict: if passed { Verdict::Pass } else { Verdict::Fail },
        }
    }

    /// A line that could not be tried, and why.
    #[must_use]
    pub fn not_applicable(
        category: &'static str,
        name: impl Into<String>,
        tried: impl Into<String>,
        why: impl Into<String>,
    ) -> Self {
        Self {
            category,
            name: name.into(),
            tried: tried.into(),
            expected: "-",
            seen: why.into(),
            verdict: Verdict::NotApplicable,
        }
    }

    /// The line in a sentence.
    #[must_use]
    pub fn told(&self) -> String {
        format!(
            "{}/{}: {}: {}",
            self.category, self.name, self.tried, self.seen
        )
    }
}

impl Card {
    pub(super) fn of(plan: &Plan, on: Head, lines: Vec<Line>) -> Self {
        let lines = sorted(lines);
        let count = |verdict| lines.iter().filter(|line| line.verdict == verdict).count();
        Self {
            schema: CHECK_SCHEMA,
            slug: plan.slug.clone(),
            plan_digest: plan.digest.clone(),
            on,
            passed: count(Verdict::Pass),
            failed: count(Verdict::Fail),
            not_applicable: count(Verdict::NotApplicable),
            lines,
        }
    }

    /// The lines that failed.
    pub fn failed(&self) -> impl Iterator<Item = &Line> {
        self.lines
            .iter()
            .filter(|line| line.verdict == Verdict::Fail)
    }
}

/// Lines of a category together, in the order in which categories first come.
fn sorted(mut lines: Vec<Line>) -> Vec<Line> {
    let mut order: Vec<&str> = Vec::new();
    for line in &lines {
        if !order.contains(&line.category) {
            order.push(line.category);
        }
    }
    lines.sort_by_key(|line| order.iter().position(|category| *category == line.category));
    lines
}

impl Head {
    pub(super) fn ask(engine: &Engine, names: &Containers) -> Result<Self> {
        let version = json(engine, &["version", "--format={{json .}}"])?;
        let info = json(engine, &["info", "--format={{json .}}"])?;
        let host = host_config(engine, &names.agent)?;
        let text = |value: &Value, pointer: &str| {
            let found = value.pointer(pointer).and_then(Value::as_str);
            printable(found.unwrap_or("unknown"))
        };
        let runtime = text(&host, "/Runtime");
        Ok(Self {
            engine: text(&version, "/Server/Version"),
            client: text(&version, "/Client/Version"),
            kernel: text(&info, "/KernelVersion"),
            system: format!(
                "{}, {}",
                text(&info, "/OperatingSystem"),
                text(&info, "/Architecture")
            ),
            runtime: match component(&version, &runtime) {
                Some(number) => format!("{runtime} {}", printable(&number)),
                None => runtime,
            },
            cgroup: text(&info, "/CgroupVersion"),
            security: info["SecurityOptions"]
                .as_array()
                .into_iter()
                .flatten()
                .filter_map(|option| option.as_str().map(printable))
                .collect(),
        })
    }
}

/// The version of one of the engine's components.
fn component(version: &Value, name: &str) -> Option<String> {
    let components = version.pointer("/Server/Components")?.as_array()?;
    let found = components.iter().find(|c| c["Name"] == name)?;
    Some(found["Version"].as_str()?.to_owned())
}

/// What a call prints, as JSON.
pub(super) fn json(engine: &Engine, args: &[&str]) -> Result<Value> {
    let output = engine.call(args.iter().copied()).run()?;
    serde_json::from_slice(&output.stdout).map_err(|error| {
        Failure::failed(format!("cannot read what docker {} says", args[0])).because(error)
    })
}

/// What the engine was told of a container.
pub(super) fn host_config(engine: &Engine, container: &str) -> Result<Value> {
    let format = "--format={{json .HostConfig}}";
    json(engine, &["container", "inspect", format, "--", container])
}

/// The card for a person.
#[must_use]
pub fn table(card: &Card) -> String {
    let on = &card.on;
    let mut text = format!(
        "bottle   {} ({})\nengine   {}, client {}\nkernel   {}, {}\nruntime  {}, cgroup v{}\n",
        card.slug,
        card.plan_digest,
        on.engine,
        on.client,
        on.kernel,
        on.system,
        on.runtime,
        on.cgroup
    );
    let width = card.lines.iter().map(|line| line.name.len()).max();
    let width = width.unwrap_or(0);
    let mut category = "";
    for line in &card.lines {
        if line.category != category {
            category = line.category;
            let _ = writeln!(text, "\n{category}");
        }
        let mark = match line.verdict {
            Verdict::Pass => "pass",
            Verdict::Fail => "FAIL",
            Verdict::NotApplicable => "n.a.",
        };
        let name = &line.name;
        let _ = match line.verdict {
            Verdict::Fail => writeln!(
                text,
                "  {mark}  {name:width$}  {}\n        {:width$}  expected: {}\n        {:width$}  seen:     {}",
                line.tried, "", line.expected, "", line.seen
            ),
            _ => writeln!(
                text,
                "  {mark}  {name:width$}  {} → {}",
                line.tried, line.seen
            ),
        };
    }
    let _ = writeln!(
        text,
        "\n{} passed, {} failed, {} not applicable",
        card.passed, card.failed, card.not_applicable
    );
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_failed_line_says_what_was_expected() {
        let lines = vec![
            Line::new("dns", "name", "asked", "no answer", false, "NOERROR"),
            Line::not_applicable("dns", "other", "asked", "there is no resolver"),
        ];
        let card = Card {
            schema: CHECK_SCHEMA,
            slug: "s".into(),
            plan_digest: "sha256:x".into(),
            on: Head {
                engine: "1".into(),
                client: "1".into(),
                kernel: "1".into(),
                system: "x".into(),
                runtime: "runc".into(),
                cgroup: "2".into(),
                security: vec![],
            },
            passed: 0,
            failed: 1,
            not_applicable: 1,
            lines,
        };
        let text = table(&card);
        assert!(text.contains("FAIL  name   asked"), "{text}");
        assert!(text.contains("expected: no answer"), "{text}");
        assert!(
            text.contains("n.a.  other  asked → there is no resolver"),
            "{text}"
        );
        assert!(
            text.ends_with("0 passed, 1 failed, 1 not applicable\n"),
            "{text}"
        );
        assert_eq!(card.failed().count(), 1);
    }
}
