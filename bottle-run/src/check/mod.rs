//! Check: a hostile program in the agent's place tries to get out of the real bottle, and a scorecard says what came of it.
//!
//! Nobody else is contacted. What stands for the Internet is a container made for the check on a bridge of its own; what
//! stands for the host is a listener on the host's addresses on bridges that are the bottle's or the check's. Controls
//! show first that both can be reached by whoever is not shut in: a broken probe must not pass for a closed door.

mod attempts;
mod card;
mod configured;
mod host;
mod inside;
mod outside;
mod own;
mod probes;
mod proxy;
mod secrets;

use bottle_plan::failure::{Failure, Result};
use bottle_plan::handle::Containers;
use bottle_plan::plan::Plan;
use bottle_plan::state::StateHome;

use crate::bottle::{self, Home};
use crate::engine::Engine;
use crate::images::{self, SidecarBinary};
use crate::lock::BottleLock;

pub use card::{CHECK_SCHEMA, Card, Line, Verdict, table};
pub use own::{Made, own_bottle, read_plan};

use attempts::World;
use outside::Outside;

/// How far a check may go.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Depth {
    /// Somebody works in the bottle: nothing is used up, and nothing joins its networks.
    Beside,
    /// Nobody works in it: limits are run into as well.
    Alone,
    /// It was made for the check, and there is a destination it may reach.
    Made,
}

/// Checks a bottle that runs.
///
/// # Errors
/// Not found, when it does not run; conflict, when somebody works on it; failed, when the check itself could not be made.
pub fn running(engine: &Engine, home: &Home, slug: &str, say: &dyn Fn(&str)) -> Result<Card> {
    let plan = home.plan(slug)?;
    bottle::check_running(engine, &plan)?;
    // Nobody removes it while it is looked at; the agent goes on.
    let _lock = BottleLock::wait(&plan.state, slug, || {
        say("waiting for another bottle-run to finish");
    })?;
    // Whoever had the lock may have started it anew, from another plan.
    let plan = home.plan(slug)?;
    bottle::check_running(engine, &plan)?;
    score(engine, &home.state, &plan, Depth::Beside)
}

/// Makes all attempts. The caller holds the bottle's lock.
///
/// # Errors
/// When the check itself could not be made: what was found is in the card, and never an error.
pub fn score(engine: &Engine, home: &StateHome, plan: &Plan, depth: Depth) -> Result<Card> {
    let binary = SidecarBinary::find()?;
    let image = images::ensure_static(engine, &plan.sidecar.image, &binary)?;
    let names = Containers::of(plan);
    let head = card::Head::ask(engine, &names)?;
    let outside = Outside::start(engine, home, plan, &image)
        .map_err(|failure| failure.while_doing("making an outside for the check"))?;
    let tried = attempts::all(&World {
        engine,
        home,
        plan,
        names: &names,
        outside: &outside,
        depth,
        gvisor: head.runtime.starts_with(crate::gvisor::RUNTIME),
    });
    let mut lines = tried?;
    lines.extend(configured::all(engine, plan, &names)?);
    lines.extend(secrets::all(engine, plan, &names, depth)?);
    // A check that leaves its own outside behind has not passed.
    outside.remove()?;
    Ok(Card::of(plan, head, lines))
}

/// A failure that names what is open, when something is.
///
/// # Errors
/// Refused, with the failed lines.
pub fn demand(card: &Card) -> Result<()> {
    let open: Vec<String> = card.failed().map(Line::told).collect();
    if open.is_empty() {
        return Ok(());
    }
    Err(
        Failure::refused(format!("the bottle is not closed: {}", open.join("; ")))
            .hint("bottle-run check shows all that was tried; docs/reliability.md says what each line means"),
    )
}
