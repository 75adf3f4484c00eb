//! The command line of `bottle-run`.

mod ask;
mod audit;
mod check;
mod examples;
mod gc;
mod start;
mod work;

use std::path::PathBuf;

use bottle_plan::failure::Result;
use bottle_plan::{shell, state, tool};
use bottle_run::bottle::{self, Home, around_exec};
use bottle_run::engine::Engine;
use bottle_run::exec::{self, Stdin};
use bottle_run::terminal::keys;
use bottle_run::{down, list, logs, sessions};
use clap::{Parser, Subcommand};
use clap_complete::ArgValueCandidates;

const TOOL: &str = "bottle-run";

const EXAMPLES: &str = "\
Examples:
  bottle-plan demo | bottle-render | bottle-run up      start a bottle, print its handle
  bottle-run exec demo-x7k2p -- git log -1              run a command in it
  bottle-run attach demo-x7k2p                          work in it
  bottle-run diff demo-x7k2p                            see what the agent changed
  bottle-run pull demo-x7k2p                            have it as a branch of your repository
  bottle-run audit demo-x7k2p --denied                  see what it was not let do
  bottle-run list                                       see what there is
  bottle-run check                                      prove that bottles hold on this engine
  bottle-run down demo-x7k2p                            stop and remove it
  bottle-run gc                                         remove what a crash left
  bottle-plan demo | bottle-render | bottle-run run     all of it; only the audit and logs are kept

Exit codes: 0 done, 1 failed, 2 usage or invalid input, 3 refused by policy, 4 not found, 5 conflict
exec, attach and run: the command's own, and 125 for our own failure around it";

/// Start, enter and remove bottles.
#[derive(Parser, Debug)]
#[command(name = "bottle-run", version, after_help = EXAMPLES)]
pub(crate) struct Cli {
    #[command(subcommand)]
    command: Command,

    /// The folder with state/
    #[arg(long, value_name = "DIR", env = "BOTTLE_HOME", global = true)]
    home: Option<PathBuf>,

    #[command(flatten)]
    pub(crate) flags: shell::Flags,
}

#[derive(Subcommand, Debug)]
enum Command {
    /// Start the bottle on stdin; print its handle when its agent is ready
    #[command(after_help = examples::UP)]
    Up(start::Up),
    /// Start the bottle on stdin, run its command (or CMD), remove it again whatever happens
    #[command(after_help = examples::RUN)]
    Run(start::Run),
    /// Run a command in the agent's container
    #[command(after_help = examples::EXEC)]
    Exec {
        /// The bottle
        #[arg(add = ArgValueCandidates::new(shell::slugs))]
        slug: String,
        /// Leave our stdin alone
        #[arg(long, short = 'n')]
        no_stdin: bool,
        /// At a terminal, let everything through that the command prints: the clipboard, titles, files
        #[arg(long)]
        raw: bool,
        /// The command and its arguments
        #[arg(last = true, required = true, value_name = "CMD")]
        command: Vec<String>,
    },
    /// Run the bottle's own command on this terminal, or go back to it
    #[command(after_help = examples::ATTACH)]
    Attach {
        /// The bottle
        #[arg(add = ArgValueCandidates::new(shell::slugs))]
        slug: String,
        #[command(flatten)]
        task: start::Task,
        /// Which of several sessions; a new one runs the bottle's command once more
        #[arg(long, value_name = "NAME", default_value = sessions::USUAL)]
        session: String,
        /// The keys that leave it running, or none
        #[arg(long, value_name = "KEYS", env = "BOTTLE_DETACH_KEYS", default_value = keys::USUAL)]
        detach_keys: String,
        /// Let everything through that the command prints: the clipboard, titles, files
        #[arg(long)]
        raw: bool,
    },
    /// Show what the containers printed
    #[command(after_help = examples::LOGS)]
    Logs {
        /// The bottle
        #[arg(add = ArgValueCandidates::new(shell::slugs))]
        slug: String,
        /// Only this container
        #[arg(value_parser = ["agent", "egress", "git-gate", "supervise"])]
        role: Option<String>,
        /// Go on as more comes
        #[arg(long, short)]
        follow: bool,
        /// Only so many lines from the end
        #[arg(long, value_name = "N")]
        tail: Option<u32>,
        /// The bytes as they are; they may hold escape sequences
        #[arg(long)]
        raw: bool,
    },
    /// Show what a bottle did and tried, running or stopped
    Audit(audit::Args),
    /// Show what the agent changed
    #[command(after_help = examples::DIFF)]
    Diff(work::DiffArgs),
    /// Bring what the agent did into a branch of a repository here
    #[command(after_help = examples::PULL)]
    Pull(work::PullArgs),
    /// Finish or undo what a crash left: containers, networks, reservations, journals
    #[command(after_help = examples::GC)]
    Gc(gc::Args),
    /// Let a hostile program try to get out of a bottle; print a scorecard
    #[command(after_help = examples::CHECK)]
    Check(check::Args),
    #[command(after_help = examples::REQUESTS)]
    Requests(ask::Requests),
    #[command(after_help = examples::APPROVE)]
    Approve(ask::Approve),
    #[command(after_help = examples::DENY)]
    Deny(ask::Deny),
    #[command(after_help = examples::ANSWER)]
    Answer(ask::Answer),
    #[command(after_help = examples::GRANTS)]
    Grants(ask::Grants),
    #[command(after_help = examples::REVOKE)]
    Revoke(ask::Revoke),
    #[command(after_help = examples::PROMOTE)]
    Promote(ask::Promote),
    #[command(after_help = examples::WATCH)]
    Watch(ask::Watch),
    /// Show all bottles of this home
    #[command(alias = "ls")]
    #[command(after_help = examples::LIST)]
    List,
    /// Remove bottles: containers, networks, secrets; audit and logs stay
    #[command(after_help = examples::DOWN)]
    Down {
        /// The bottles; `-` reads a handle from stdin
        #[arg(required = true, add = ArgValueCandidates::new(shell::slugs))]
        slugs: Vec<String>,
        /// Remove the state folder too: audit, logs, reserved addresses
        #[arg(long)]
        purge: bool,
    },
    #[command(flatten)]
    Common(shell::Common),
}

pub(crate) fn run(cli: Cli) -> Result<u8> {
    let engine = Engine::from_env();
    let (quiet, ask) = (cli.flags.quiet, !cli.flags.no_input);
    let say = move |text: &str| {
        if !quiet {
            tool::say(TOOL, text);
        }
    };
    let home = || Home::find(cli.home.as_deref());
    match cli.command {
        Command::Up(args) => start::up(&engine, &args, quiet, ask, &say),
        Command::Run(args) => start::run(&engine, args, quiet, ask, &say),
        Command::Exec {
            slug,
            no_stdin,
            raw,
            command,
        } => {
            let plan = home()
                .and_then(|home| home.plan(&slug))
                .map_err(around_exec)?;
            bottle::check_running(&engine, &plan).map_err(around_exec)?;
            let stdin = if no_stdin {
                Stdin::Closed
            } else {
                Stdin::detect()
            };
            if stdin == Stdin::Terminal {
                return sessions::keyboard()
                    .and_then(|keyboard| sessions::once(&engine, &plan, &command, keyboard, raw))
                    .map_err(around_exec);
            }
            exec::replace_self(&engine, &plan, &command, stdin)
        }
        Command::Attach {
            slug,
            task,
            session,
            detach_keys,
            raw,
        } => {
            let plan = home()
                .and_then(|home| home.plan(&slug))
                .map_err(around_exec)?;
            bottle::check_running(&engine, &plan).map_err(around_exec)?;
            match task.command(&plan).map_err(around_exec)? {
                Some(command) => exec::replace_self(&engine, &plan, &command, Stdin::Closed),
                None if Stdin::detect() == Stdin::Terminal => {
                    let wanted = sessions::Attach {
                        name: &session,
                        command: &plan.agent.command,
                        detach_keys: Some(&detach_keys),
                        raw,
                    };
                    sessions::attach(&engine, &plan, &wanted, &say).map_err(around_exec)
                }
                None => exec::replace_self(&engine, &plan, &plan.agent.command, Stdin::Bytes),
            }
        }
        Command::Logs {
            slug,
            role,
            follow,
            tail,
            raw,
        } => {
            let request = logs::Request {
                slug: &slug,
                role: role.as_deref(),
                follow,
                tail,
                raw,
            };
            logs::logs(&engine, &home()?, &request).map(|()| 0)
        }
        Command::Audit(args) => audit::run(&home()?, &args, cli.flags.json, &say),
        Command::Diff(args) => work::diff(&engine, &home()?, &args, cli.flags.json, &say),
        Command::Pull(args) => work::pull(&engine, &home()?, args, cli.flags.json, &say),
        Command::Gc(args) => gc::run(&engine, &home()?, &args, cli.flags.json, &say),
        Command::Check(args) => check::run(&engine, &home()?, &args, cli.flags.json, &say),
        Command::Requests(args) => ask::requests(&home()?, &args, cli.flags.json),
        Command::Approve(args) => ask::approve(&home()?, &args, cli.flags.json, &say),
        Command::Deny(args) => ask::deny(&home()?, &args, cli.flags.json, &say),
        Command::Answer(args) => ask::answer(&home()?, &args, cli.flags.json, &say),
        Command::Grants(args) => ask::grants(&home()?, &args, cli.flags.json),
        Command::Revoke(args) => ask::revoke(&home()?, &args, cli.flags.json, &say),
        Command::Promote(args) => ask::promote(&home()?, &args, cli.flags.json, &say),
        Command::Watch(args) => ask::watch(&engine, &home()?, &args),
        Command::List => {
            let home = home()?;
            let mut list = list::list(&engine, &home)?;
            let text = if cli.flags.json {
                list::add_sessions(&engine, &home, &mut list);
                state::to_json(&list)?
            } else {
                list::table(&list)
            };
            tool::emit(&text).map(|()| 0)
        }
        Command::Common(common) => common.run::<Cli>(),
        Command::Down { slugs, purge } => {
            remove(&engine, &home()?, &slugs, purge, cli.flags.json, &say)
        }
    }
}

fn remove(
    engine: &Engine,
    home: &Home,
    slugs: &[String],
    purge: bool,
    as_json: bool,
    say: &dyn Fn(&str),
) -> Result<u8> {
    let mut failures = Vec::new();
    for given in slugs {
        let removed = bottle::slug_or_stdin(given).and_then(|slug| {
            let request = down::Request {
                home: &home.state,
                home_label: &home.label,
                slug: &slug,
                purge,
            };
            down::down(engine, &request, say)
        });
        match removed {
            Ok(removed) if as_json => tool::emit(&state::to_json(&removed)?)?,
            Ok(removed) if removed.nothing() => say(&format!("{} was not running", removed.slug)),
            Ok(removed) => say(&format!("{} is gone", removed.slug)),
            Err(failure) => failures.push(failure),
        }
    }
    // The last one decides the exit code, and is told as every failure is.
    let last = failures.pop();
    for failure in failures {
        tool::say(TOOL, &failure.chain());
    }
    last.map_or(Ok(0), Err)
}
