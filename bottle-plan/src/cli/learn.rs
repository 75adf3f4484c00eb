//! `bottle-plan learn`.

use std::path::Path;

use bottle_plan::failure::{Failure, Result};
use bottle_plan::learn::Learned;
use bottle_plan::state::{self, StateHome};
use bottle_plan::{recorded, shell, tool};
use clap::Args;
use clap_complete::ArgValueCandidates;

const TOOL: &str = "bottle-plan";

const EXAMPLES: &str = "\
Examples:
  bottle-plan learn demo-x7k2p                 what it asked for in egress.mode: observe, as rules
  bottle-plan learn demo-x7k2p --denied        and what it was refused for want of a rule
  bottle-plan learn demo-x7k2p > rules.yaml    a piece of a bottle's manifest, to be read before it is used";

/// Which run.
#[derive(Args, Debug)]
#[command(after_help = EXAMPLES)]
pub(crate) struct Learn {
    /// The bottle, running or stopped
    #[arg(add = ArgValueCandidates::new(shell::slugs))]
    slug: String,
    /// Learn from requests that were refused for want of a rule, too
    #[arg(long)]
    denied: bool,
}

pub(crate) fn run(args: &Learn, home: &Path, as_json: bool, quiet: bool) -> Result<u8> {
    let folder = recorded::folder(&StateHome::at(home), &args.slug)?;
    let mut learned = Learned::new(args.denied);
    let unreadable = recorded::each(&folder, |record| learned.see(&record))?;
    if !quiet {
        for note in notes(&learned, unreadable) {
            tool::say(TOOL, &note);
        }
    }
    if learned.is_empty() {
        return Err(nothing(args));
    }
    let text = if as_json {
        state::to_json(&learned.document())?
    } else {
        learned.fragment()
    };
    tool::emit(&text).map(|()| 0)
}

fn notes(learned: &Learned, unreadable: u64) -> Vec<String> {
    let mut notes = learned.notes();
    if unreadable > 0 {
        notes.push(format!(
            "{unreadable} lines are no records; bottle-run audit verify says more"
        ));
    }
    notes
}

fn nothing(args: &Learn) -> Failure {
    let slug = &args.slug;
    let failure = Failure::not_found(format!(
        "`{slug}` recorded nothing that a rule could be learnt from"
    ));
    if args.denied {
        failure.hint(format!("bottle-run audit {slug} shows what it recorded"))
    } else {
        failure.hint(format!(
            "run it once with egress.mode: observe, or learn from refusals: bottle-plan learn {slug} --denied"
        ))
    }
}
