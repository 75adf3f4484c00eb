//! `bottle-run check`.

use std::path::PathBuf;

use bottle_plan::failure::Result;
use bottle_plan::{shell, state, tool};
use bottle_run::bottle::{self, Home};
use bottle_run::check::{self, Made};
use bottle_run::engine::Engine;
use bottle_run::interrupt;
use clap_complete::ArgValueCandidates;

#[derive(clap::Args, Debug)]
pub(crate) struct Args {
    /// The bottle; without one, a bottle is made for the check and removed after it. `-` reads a handle from stdin
    #[arg(conflicts_with = "plan", add = ArgValueCandidates::new(shell::slugs))]
    slug: Option<String>,
    /// Make the bottle of this plan for the check
    #[arg(long, value_name = "FILE")]
    plan: Option<PathBuf>,
}

/// Prints the card. 0 when nothing failed, 3 when something is open.
pub(crate) fn run(
    engine: &Engine,
    home: &Home,
    args: &Args,
    as_json: bool,
    say: &dyn Fn(&str),
) -> Result<u8> {
    interrupt::watch()?;
    let card = match (&args.slug, &args.plan) {
        (Some(slug), _) => check::running(engine, home, &bottle::slug_or_stdin(slug)?, say)?,
        (None, Some(path)) => {
            let plan = check::read_plan(path)?;
            check::own_bottle(engine, home, &Made::Planned(Box::new(plan)), say)?
        }
        (None, None) => check::own_bottle(engine, home, &Made::BuiltIn, say)?,
    };
    let text = if as_json {
        state::to_json(&card)?
    } else {
        check::table(&card)
    };
    tool::emit(&text)?;
    check::demand(&card).map(|()| 0)
}
