//! `bottle-run gc`.

use bottle_plan::failure::{Failure, Result};
use bottle_plan::{state, tool};
use bottle_run::bottle::Home;
use bottle_run::engine::Engine;
use bottle_run::{gc, interrupt};

#[derive(clap::Args, Debug)]
pub(crate) struct Args {
    /// Say what would be removed; remove nothing
    #[arg(long)]
    dry_run: bool,
}

pub(crate) fn run(
    engine: &Engine,
    home: &Home,
    args: &Args,
    as_json: bool,
    say: &dyn Fn(&str),
) -> Result<u8> {
    interrupt::watch()?;
    let collected = gc::collect(engine, home, args.dry_run)?;
    if !args.dry_run {
        gc::drop_reservations(&home.state)?;
    }
    if as_json {
        tool::emit(&state::to_json(&collected)?)?;
    } else {
        tool::emit(&gc::table(&collected))?;
        if collected.removed.is_empty() && collected.failed.is_empty() {
            say("nothing to collect");
        }
    }
    let failed = collected.failed.iter();
    let told: Vec<String> = failed
        .map(|failed| format!("{}: {}", failed.slug, failed.error))
        .collect();
    if told.is_empty() {
        return Ok(0);
    }
    Err(Failure::failed(told.join("; and "))
        .hint("what is left is tried again by the next bottle-run gc"))
}
