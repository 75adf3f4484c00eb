//! `bottle-plan diff`.

use std::path::Path;

use bottle_plan::diff;
use bottle_plan::failure::{Failure, Kind, Result};
use bottle_plan::{shell, state, tool};
use clap::Args;
use clap_complete::ArgValueCandidates;

use super::given;

const EXAMPLES: &str = "\
Examples:
  bottle-plan demo --slug demo | bottle-plan diff demo -     what a new start would change
  bottle-plan diff demo-x7k2p demo-m3p9q                     two bottles, by slug
  bottle-plan diff approved.json plan.json                   two files
  bottle-plan --json diff approved.json plan.json            the same for a machine

Exit codes: 0 the same authority, 1 it differs, 2 or more: it could not be compared";

/// Which plans.
#[derive(Args, Debug)]
#[command(after_help = EXAMPLES)]
pub(crate) struct Diff {
    /// The plan to start from: a file, `-` for stdin, or the slug of a bottle that was started
    #[arg(add = ArgValueCandidates::new(shell::slugs))]
    old: String,
    /// The plan to compare it with
    #[arg(add = ArgValueCandidates::new(shell::slugs))]
    new: String,
}

/// 0 or 1, as `diff` does; what goes wrong is never 1, so that a script cannot take trouble for a difference.
pub(crate) fn run(args: &Diff, home: &Path, as_json: bool, quiet: bool) -> Result<u8> {
    compare(args, home, as_json, quiet).map_err(|failure| match failure.kind() {
        Kind::Failed => failure.with_kind(Kind::Invalid),
        _ => failure,
    })
}

fn compare(args: &Diff, home: &Path, as_json: bool, quiet: bool) -> Result<u8> {
    if args.old == "-" && args.new == "-" {
        return Err(
            Failure::invalid("only one of the two plans can be on stdin")
                .hint("bottle-plan NAME | bottle-plan diff FILE -"),
        );
    }
    let (old, new) = (given::plan(&args.old, home)?, given::plan(&args.new, home)?);
    let diff = diff::diff(&old, &new)?;
    let text = if as_json {
        state::to_json(&diff)?
    } else {
        diff.lines()
    };
    tool::emit(&text)?;
    if !as_json && !quiet && diff.same {
        tool::say(
            "bottle-plan",
            &format!("the same authority ({})", diff.new.digest),
        );
    }
    Ok(u8::from(!diff.same))
}
