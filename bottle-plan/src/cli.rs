//! The command line of `bottle-plan`.

mod diff;
mod given;
mod learn;
mod replay;

use std::env;
use std::path::{Path, PathBuf};

use bottle_plan::failure::{Failure, PathContext, Result};
use bottle_plan::manifest::load::Places;
use bottle_plan::planner::{self, Request};
use bottle_plan::resume::Begin;
use bottle_plan::snapshot::Wanted;
use bottle_plan::{explain, granted, schema, shell, state, subnet, tool};
use clap::{Parser, Subcommand};
use clap_complete::ArgValueCandidates;

const EXAMPLES: &str = "\
Examples:
  bottle-plan demo | bottle-render | bottle-run up     start the agent `demo`
  bottle-plan demo --explain > /dev/null               read what it may do
  bottle-plan --manifest bottle.yaml --check           check one file, reserve nothing
  bottle-plan --resume demo-x7k2p | bottle-render | bottle-run up    go on from its newest snapshot
  bottle-plan --from demo-x7k2p@3 --slug demo-b        another bottle that begins there
  bottle-plan demo --slug demo | bottle-plan diff demo -     what a new start would change
  bottle-plan schema manifest > manifest.schema.json   for an editor";

const SCHEMA: &str = "\
Examples:
  bottle-plan schema bottle > bottle.schema.json        for an editor; also agent, manifest
  bottle-plan schema plan                               for whoever replaces a stage";

/// Resolve a manifest to a plan: one JSON document, everything decided and no secret in it.
#[derive(Parser, Debug)]
#[command(name = "bottle-plan", version, after_help = EXAMPLES)]
pub(crate) struct Cli {
    #[command(subcommand)]
    command: Option<Command>,

    /// The agent, or a bottle without one
    #[arg(add = ArgValueCandidates::new(shell::agents))]
    name: Option<String>,

    /// Read one self-contained file with `bottle:` and `agent:` instead
    #[arg(long, value_name = "FILE", conflicts_with = "name")]
    manifest: Option<PathBuf>,

    /// Use these bottles instead of the agent's own (may be repeated; later ones win)
    #[arg(long = "bottle", value_name = "NAME", add = ArgValueCandidates::new(shell::bottles))]
    bottles: Vec<String>,

    /// Name the bottle, instead of NAME and five random characters
    #[arg(long, value_name = "SLUG")]
    slug: Option<String>,

    /// Go on with a bottle: its name, its addresses, its newest snapshot (or N), the manifests as they are now
    #[arg(long, value_name = "SLUG[@N]", conflicts_with_all = ["slug", "from", "check"], add = slugs())]
    resume: Option<Wanted>,

    /// Begin another bottle from a snapshot of this one
    #[arg(long, value_name = "SLUG[@N]", conflicts_with = "check", add = slugs())]
    from: Option<Wanted>,

    /// The folder with bottles/, agents/ and state/
    #[arg(long, value_name = "DIR", env = "BOTTLE_HOME", global = true)]
    home: Option<PathBuf>,

    /// The folder whose .bottle/agents are used and that `from: cwd` means
    #[arg(long, value_name = "DIR")]
    cwd: Option<PathBuf>,

    /// Give the agent this folder to work on
    #[arg(long, value_name = "DIR")]
    workspace: Option<PathBuf>,

    /// The range of addresses bottles are cut from
    #[arg(long, value_name = "CIDR", env = "BOTTLE_SUBNETS", default_value = subnet::DEFAULT_BLOCK)]
    subnets: String,

    /// Say on stderr, in plain words, what the agent will be able to do
    #[arg(long)]
    explain: bool,

    /// Check the manifest only: print nothing on stdout, reserve nothing
    #[arg(long)]
    check: bool,

    #[command(flatten)]
    pub(crate) flags: shell::Flags,
}

#[derive(Subcommand, Debug)]
enum Command {
    /// Print the JSON Schema of a document
    #[command(after_help = SCHEMA)]
    Schema {
        /// manifest, bottle, agent, provider, plan, policy, gate, handle, audit, snapshot, diff, replay, request, answer, grant or supervise
        #[arg(default_value = "plan", add = ArgValueCandidates::new(shell::documents))]
        document: String,
    },
    /// Say in plain words what one plan allows that another does not
    Diff(diff::Diff),
    /// Propose the smallest rules under which a recorded run would have worked
    Learn(learn::Learn),
    /// Say which recorded requests another policy would decide differently
    Replay(replay::Replay),
    #[command(flatten)]
    Common(shell::Common),
}

fn slugs() -> ArgValueCandidates {
    ArgValueCandidates::new(shell::slugs)
}

pub(crate) fn run(cli: Cli) -> Result<u8> {
    if let Some(command) = &cli.command {
        return subcommand(&cli, command);
    }
    let typed = cli.name.clone();
    plan(cli).map_err(|failure| match typed.as_deref().and_then(meant) {
        // Whoever has no agent of that name may have meant a command.
        Some(hint) if failure.chain().starts_with("no agent and no bottle") => failure.hint(hint),
        _ => failure,
    })
}

/// What was meant by a name that is none, when it is nearly a command's, or that of another tool.
fn meant(name: &str) -> Option<String> {
    if name == "init" {
        return Some("bottle init writes a first manifest".to_owned());
    }
    let commands = shell::command::<Cli>();
    let near = commands
        .get_subcommands()
        .map(clap::Command::get_name)
        .find(|command| strsim::damerau_levenshtein(name, command) <= 2 && command.len() > 4)?;
    Some(format!("did you mean `bottle-plan {near}`?"))
}

fn plan(cli: Cli) -> Result<u8> {
    let (check, wants_explanation, quiet) = (cli.check, cli.explain, cli.flags.quiet);
    let request = request(cli)?;
    let planned = if check {
        planner::check(&request)?
    } else {
        planner::plan(&request)?
    };
    for warning in &planned.warnings {
        tool::say("bottle-plan", &format!("warning: {warning}"));
    }
    if wants_explanation {
        let explained = explain::explain(&planned.plan) + &granted::explain(&planned.plan.state);
        tool::say("bottle-plan", explained.trim_end());
    }
    if check {
        let (name, digest) = (&planned.plan.agent.name, &planned.plan.digest);
        if !quiet {
            tool::say("bottle-plan", &format!("ok: {name} ({digest})"));
        }
    } else {
        tool::emit(&state::to_json(&planned.plan)?)?;
    }
    Ok(0)
}

fn subcommand(cli: &Cli, command: &Command) -> Result<u8> {
    if let Some(name) = &cli.name {
        return Err(
            Failure::invalid(format!("`{name}` before a command means nothing"))
                .hint("bottle-plan schema DOCUMENT, bottle-plan diff OLD NEW"),
        );
    }
    match command {
        Command::Schema { document } => tool::emit(&schema::schema(document)?).map(|()| 0),
        Command::Diff(args) => diff::run(args, &home(cli)?, cli.flags.json, cli.flags.quiet),
        Command::Learn(args) => learn::run(args, &home(cli)?, cli.flags.json, cli.flags.quiet),
        Command::Replay(args) => replay::run(args, &home(cli)?, cli.flags.json, cli.flags.quiet),
        Command::Common(common) => common.run::<Cli>(),
    }
}

/// The plan must mean the same folder wherever it is read.
fn home(cli: &Cli) -> Result<PathBuf> {
    match (&cli.home, user_home()) {
        (Some(home), _) => Ok(state::real_path(home)),
        (None, Some(user)) => Ok(state::real_path(&user.join(".bottle"))),
        (None, None) => Err(Failure::invalid("neither HOME nor BOTTLE_HOME is set")
            .hint("give a folder with --home DIR")),
    }
}

fn user_home() -> Option<PathBuf> {
    let home = env::var_os("HOME").map(PathBuf::from);
    home.filter(|path| path.is_absolute())
}

fn request(cli: Cli) -> Result<Request> {
    let home = home(&cli)?;
    let cwd_given = cli.cwd.is_some();
    let cwd = match cli.cwd {
        Some(dir) => std::fs::canonicalize(&dir).at("enter", &dir)?,
        None => env::current_dir().at("read", Path::new("the current folder"))?,
    };
    let workspace = match cli.workspace {
        Some(dir) => Some(std::fs::canonicalize(&dir).at("read the workspace", &dir)?),
        None => None,
    };
    Ok(Request {
        places: Places { home, cwd },
        user_home: user_home(),
        name: cli.name,
        file: cli.manifest,
        bottles: cli.bottles,
        slug: cli.slug,
        workspace,
        cwd_given,
        begin: match (cli.resume, cli.from) {
            (Some(wanted), _) => Some(Begin::Resume(wanted)),
            (None, from) => from.map(Begin::Fork),
        },
        block: subnet::parse_block(&cli.subnets)?,
    })
}
