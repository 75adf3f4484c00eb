//! The command line of `bottle-plan`.

use std::env;
use std::path::{Path, PathBuf};

use bottle_plan::failure::{Failure, PathContext, Result};
use bottle_plan::manifest::load::Places;
use bottle_plan::planner::{self, Request};
use bottle_plan::{explain, granted, schema, state, subnet, tool};
use clap::{Parser, Subcommand};

const EXAMPLES: &str = "\
Examples:
  bottle-plan demo | bottle-render | bottle-run up     start the agent `demo`
  bottle-plan demo --explain > /dev/null               read what it may do
  bottle-plan --manifest bottle.yaml --check           check one file, reserve nothing
  bottle-plan schema manifest > manifest.schema.json   for an editor

Exit codes: 0 done, 1 failed, 2 usage or invalid input, 3 refused by policy, 4 not found, 5 conflict.";

/// Resolve a manifest to a plan: one JSON document with everything about one bottle, and no secret in it.
#[derive(Parser, Debug)]
#[command(name = "bottle-plan", version, after_help = EXAMPLES)]
pub(crate) struct Cli {
    #[command(subcommand)]
    command: Option<Command>,

    /// The agent, or a bottle without one
    name: Option<String>,

    /// Read one self-contained file with `bottle:` and `agent:` instead
    #[arg(long, value_name = "FILE", conflicts_with = "name")]
    manifest: Option<PathBuf>,

    /// Use these bottles instead of the agent's own (may be repeated; later ones win)
    #[arg(long = "bottle", value_name = "NAME")]
    bottles: Vec<String>,

    /// Name the bottle, instead of NAME and five random characters
    #[arg(long, value_name = "SLUG")]
    slug: Option<String>,

    /// The folder with bottles/, agents/ and state/
    #[arg(long, value_name = "DIR", env = "BOTTLE_HOME")]
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

    /// Print errors as JSON on stderr
    #[arg(long, global = true)]
    pub(crate) json: bool,
}

#[derive(Subcommand, Debug)]
enum Command {
    /// Print the JSON Schema of a document
    Schema {
        /// manifest, plan, policy, handle, audit, request, answer, grant, …
        #[arg(default_value = "plan")]
        document: String,
    },
}

pub(crate) fn run(cli: Cli) -> Result<u8> {
    if let Some(Command::Schema { document }) = &cli.command {
        if let Some(name) = &cli.name {
            return Err(
                Failure::invalid(format!("`{name}` before `schema` means nothing"))
                    .hint("bottle-plan schema DOCUMENT"),
            );
        }
        tool::emit(&schema::schema(document)?)?;
        return Ok(0);
    }
    let (check, wants_explanation) = (cli.check, cli.explain);
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
        tool::say("bottle-plan", &explained);
    }
    if check {
        tool::say(
            "bottle-plan",
            &format!("ok: {} ({})", planned.plan.agent.name, planned.plan.digest),
        );
    } else {
        tool::emit(&state::to_json(&planned.plan)?)?;
    }
    Ok(0)
}

fn request(cli: Cli) -> Result<Request> {
    let user_home = env::var_os("HOME")
        .map(PathBuf::from)
        .filter(|path| path.is_absolute());
    let cwd = match cli.cwd {
        Some(dir) => std::fs::canonicalize(&dir).at("enter", &dir)?,
        None => env::current_dir().at("read", Path::new("the current folder"))?,
    };
    let home = match (cli.home, &user_home) {
        (Some(home), _) => cwd_relative(&home)?,
        (None, Some(user)) => user.join(".bottle"),
        (None, None) => {
            return Err(Failure::invalid("neither HOME nor BOTTLE_HOME is set")
                .hint("give a folder with --home DIR"));
        }
    };
    let workspace = match cli.workspace {
        Some(dir) => Some(std::fs::canonicalize(&dir).at("read the workspace", &dir)?),
        None => None,
    };
    Ok(Request {
        places: Places { home, cwd },
        user_home,
        name: cli.name,
        file: cli.manifest,
        bottles: cli.bottles,
        slug: cli.slug,
        workspace,
        block: subnet::parse_block(&cli.subnets)?,
    })
}

/// The plan must mean the same folder wherever it is read.
fn cwd_relative(path: &Path) -> Result<PathBuf> {
    std::path::absolute(path).at("resolve", path)
}
