//! `bottle-plan replay`.

use std::path::Path;

use bottle_plan::failure::{Failure, Kind, Result};
use bottle_plan::plan::{PLAN_SCHEMA, Plan};
use bottle_plan::policy::{POLICY_SCHEMA, Policy};
use bottle_plan::replay::{self, Asked};
use bottle_plan::state::{self, StateHome};
use bottle_plan::{recorded, shell, tool};
use clap::Args;
use clap_complete::ArgValueCandidates;

use super::given;

const EXAMPLES: &str = "\
Examples:
  bottle-plan demo --slug demo-x7k2p | bottle-plan replay demo-x7k2p --policy -
                                                    would the manifest as it is now change anything?
  bottle-plan replay demo-x7k2p --policy plan.json  the same with a plan, or a policy.json, in a file
  bottle-plan replay demo-x7k2p --policy other-1    with what another bottle was started with

Exit codes: 0 no request is decided differently, 1 some are, 2 or more: it could not be told";

/// Which run, and against what.
#[derive(Args, Debug)]
#[command(after_help = EXAMPLES)]
pub(crate) struct Replay {
    /// The bottle whose requests are asked about, running or stopped
    #[arg(add = ArgValueCandidates::new(shell::slugs))]
    slug: String,
    /// What decides: the file of a plan or policy, `-` for stdin, or the slug of a bottle that was started
    #[arg(long, value_name = "NEW")]
    policy: String,
}

/// As with `diff`, what goes wrong is never 1.
pub(crate) fn run(args: &Replay, home: &Path, as_json: bool, quiet: bool) -> Result<u8> {
    replayed(args, home, as_json, quiet).map_err(|failure| match failure.kind() {
        Kind::Failed => failure.with_kind(Kind::Invalid),
        _ => failure,
    })
}

fn replayed(args: &Replay, home: &Path, as_json: bool, quiet: bool) -> Result<u8> {
    let folder = recorded::folder(&StateHome::at(home), &args.slug)?;
    let policy = policy(&args.policy, home)?;
    let mut asked = Asked::default();
    let unreadable = recorded::each(&folder, |record| asked.see(&record))?;
    let replay = replay::replay(&args.slug, &asked, &policy)?;
    let text = if as_json {
        state::to_json(&replay)?
    } else {
        replay.lines()
    };
    tool::emit(&text)?;
    if !quiet {
        if unreadable > 0 {
            let text =
                format!("{unreadable} lines are no records; bottle-run audit verify says more");
            tool::say("bottle-plan", &text);
        }
        tool::say("bottle-plan", &replay.summary());
    }
    Ok(u8::from(!replay.flips.is_empty()))
}

/// What the given document enforces.
fn policy(name: &str, home: &Path) -> Result<Policy> {
    let (value, place) = given::document(name, home)?;
    let schema = value["schema"].as_str().unwrap_or_default();
    let policy = match schema {
        PLAN_SCHEMA => {
            state::document_from_value(value, PLAN_SCHEMA).map(|plan: Plan| plan.policy())
        }
        POLICY_SCHEMA => state::document_from_value(value, POLICY_SCHEMA),
        _ => Err(Failure::invalid("this is neither a plan nor a policy")
            .hint("bottle-plan NAME prints a plan")),
    };
    policy.map_err(|failure| failure.while_doing(format!("reading {place}")))
}
