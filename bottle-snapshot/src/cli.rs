//! The command line of `bottle-snapshot`.

use std::path::PathBuf;

use bottle_plan::failure::{Failure, Result};
use bottle_plan::{state, tool};
use bottle_run::bottle::{Home, slug_or_stdin};
use bottle_run::engine::Engine;
use bottle_run::interrupt;
use bottle_snapshot::commit;
use bottle_snapshot::values::Choice;
use clap::{Args, Parser, Subcommand};

const TOOL: &str = "bottle-snapshot";

const EXAMPLES: &str = "\
Examples:
  bottle-snapshot commit demo-x7k2p -m 'tests pass'     freeze a running bottle
  bottle-plan --resume demo-x7k2p | bottle-render | bottle-run up      go on from it
  bottle-plan --from demo-x7k2p@1 --slug demo-b | bottle-render | bottle-run up      another one from it

Exit codes: 0 done, 1 failed, 2 usage or invalid input, 3 refused: a secret is inside, 4 not found, 5 conflict.";

/// Freeze bottles into images that provably hold no secret, and move them.
#[derive(Parser, Debug)]
#[command(name = "bottle-snapshot", version, after_help = EXAMPLES)]
pub(crate) struct Cli {
    #[command(subcommand)]
    command: Command,

    /// The folder with state/
    #[arg(long, value_name = "DIR", env = "BOTTLE_HOME", global = true)]
    home: Option<PathBuf>,

    /// Machine-readable: results as JSON on stdout, errors as JSON on stderr
    #[arg(long, global = true)]
    pub(crate) json: bool,

    /// Say nothing but errors
    #[arg(long, short, global = true)]
    quiet: bool,
}

#[derive(Subcommand, Debug)]
enum Command {
    /// Freeze a bottle, prove that no secret is inside, and print the snapshot
    Commit(Commit),
}

#[derive(Args, Debug)]
struct Commit {
    /// The bottle; `-` reads a handle from stdin
    slug: Option<String>,
    /// Say something about it
    #[arg(long, short, value_name = "TEXT")]
    message: Option<String>,
    /// Make all layers one: what was deleted is gone for good
    #[arg(long)]
    squash: bool,
    /// Let the agent go on meanwhile; files it is writing may be in it by half
    #[arg(long)]
    no_pause: bool,
    #[command(flatten)]
    values: Values,
}

/// What the user says about the values that are looked for.
#[derive(Args, Debug)]
struct Values {
    /// Go on without values that are not to be had any more; the proof says so
    #[arg(long)]
    allow_missing: bool,
    /// This variable of the agent is no secret (may be repeated)
    #[arg(long, value_name = "NAME")]
    not_secret: Vec<String>,
}

impl Values {
    fn choice(self) -> Choice {
        Choice {
            allow_missing: self.allow_missing,
            not_secret: self.not_secret,
        }
    }
}

pub(crate) fn run(cli: Cli) -> Result<u8> {
    let engine = Engine::from_env();
    let home = Home::find(cli.home.as_deref())?;
    let quiet = cli.quiet;
    let say = move |text: &str| {
        if !quiet {
            tool::say(TOOL, text);
        }
    };
    match cli.command {
        Command::Commit(args) => {
            let slug = slug(args.slug.as_deref())?;
            interrupt::watch()?;
            let request = commit::Request {
                home: &home,
                slug: &slug,
                message: args.message,
                squash: args.squash,
                no_pause: args.no_pause,
                choice: args.values.choice(),
            };
            let snapshot = commit::commit(&engine, &request, &say)?;
            say(&format!("frozen as {}", snapshot.tag));
            tool::emit(&state::to_json(&snapshot)?).map(|()| 0)
        }
    }
}

fn slug(given: Option<&str>) -> Result<String> {
    match given {
        Some(given) => slug_or_stdin(given),
        None => Err(Failure::invalid("no bottle is named")),
    }
}
