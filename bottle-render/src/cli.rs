//! The arguments, and nothing about what they do.

use bottle_plan::shell;
use clap::{Parser, Subcommand, ValueEnum};

const EXAMPLES: &str = "\
Examples:
  bottle-plan demo | bottle-ca | bottle-render | bottle-run up
  bottle-plan demo --slug demo-1 | bottle-render > docker-compose.yml
  bottle-plan demo | bottle-render --standalone | docker compose -f - config
  bottle-plan demo | bottle-render --format json | jq .services.agent

Exit codes: 0 done, 1 failed, 2 usage or invalid input, 3 the plan asks for what no bottle gets";

/// Write the Compose file of a plan
///
/// Reads a plan (JSON) on stdin and writes the Compose file to stdout. The same plan gives the same bytes. The plan itself
/// rides along in the top-level key x-bottle.
#[derive(Debug, Parser)]
#[command(name = "bottle-render", version, after_help = EXAMPLES)]
pub(crate) struct Cli {
    #[command(subcommand)]
    pub(crate) command: Option<Command>,

    /// How the Compose file is written
    #[arg(long, value_enum, default_value_t = Format::Yaml)]
    pub(crate) format: Format,

    /// Define the networks in the file, for use without bottle-run
    #[arg(long)]
    pub(crate) standalone: bool,

    #[command(flatten)]
    pub(crate) flags: shell::Flags,
}

#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    #[command(flatten)]
    Common(shell::Common),
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum Format {
    Yaml,
    Json,
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory as _;

    use super::*;

    #[test]
    fn the_definition_is_sound() {
        Cli::command().debug_assert();
    }
}
