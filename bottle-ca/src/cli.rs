//! The arguments, and nothing about what they do.

use std::path::PathBuf;

use bottle_ca::{Cidr, DEFAULT_DAYS};
use bottle_plan::failure::Failure;
use bottle_plan::shell;
use clap::{Args, Parser, Subcommand};

const EXAMPLES: &str = "\
Examples:
  bottle-plan demo | bottle-ca | bottle-render | bottle-run up
  bottle-plan demo --slug demo-1 | bottle-ca --renew | bottle-render | bottle-run up
  bottle-ca mint --dir ca --hosts api.example.com,*.example.org --name \"bottle egress CA demo\"
  bottle-ca show --dir ca
  bottle-ca verify --dir ca --host api.example.com

Exit codes: 0 done, 1 failed, 2 usage or invalid input, 3 refused, 4 not found,
            5 the CA that is there is for other names";

const MINT: &str = "\
Examples:
  bottle-ca mint --dir ca --hosts api.example.com,*.example.org
  bottle-ca mint --dir ca --hosts api.example.com --days 7 --renew";

const SHOW: &str = "\
Examples:
  bottle-ca show --dir ~/.bottle/state/demo/egress
  bottle-ca --json show --dir ca | jq .hosts";

const VERIFY: &str = "\
Examples:
  bottle-ca verify --dir ca
  bottle-ca verify --dir ca --host api.example.com";

/// Mint and read the certificate authority of one bottle
///
/// Without a subcommand, a filter: reads a plan on stdin, sees to it that the folder named at egress.ca.dir holds a CA for
/// the plan's hosts, and writes the plan with the CA's fingerprint and end to stdout. A valid CA is kept.
#[derive(Debug, Parser)]
#[command(name = "bottle-ca", version, after_help = EXAMPLES)]
pub(crate) struct Cli {
    #[command(subcommand)]
    pub(crate) command: Option<Command>,

    /// Replace the CA that is there
    #[arg(long)]
    pub(crate) renew: bool,

    #[command(flatten)]
    pub(crate) flags: shell::Flags,
}

#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// Make a CA from flags instead of a plan
    #[command(after_help = MINT)]
    Mint(Mint),
    /// Show what a CA is and may sign
    #[command(after_help = SHOW)]
    Show(Folder),
    /// Check that a CA is complete, consistent and valid now
    #[command(after_help = VERIFY)]
    Verify(Verify),
    #[command(flatten)]
    Common(shell::Common),
}

#[derive(Debug, Args)]
pub(crate) struct Folder {
    /// The folder of mitmproxy-ca.pem and mitmproxy-ca-cert.pem
    #[arg(long, value_name = "DIR")]
    pub(crate) dir: PathBuf,
}

#[derive(Debug, Args)]
pub(crate) struct Mint {
    #[command(flatten)]
    pub(crate) folder: Folder,

    /// What it may sign: names, or *. and a name; without it, nothing
    #[arg(long, value_name = "HOST,…", value_delimiter = ',')]
    pub(crate) hosts: Vec<String>,

    /// Addresses or networks it may sign
    #[arg(long, value_name = "CIDR,…", value_delimiter = ',', value_parser = parse_cidr)]
    pub(crate) addresses: Vec<Cidr>,

    /// Its common name
    #[arg(long, value_name = "NAME", default_value = "bottle egress CA")]
    pub(crate) name: String,

    /// How long it lasts
    #[arg(long, value_name = "N", default_value_t = DEFAULT_DAYS)]
    pub(crate) days: u32,

    /// Replace the CA that is there
    #[arg(long)]
    pub(crate) renew: bool,
}

#[derive(Debug, Args)]
pub(crate) struct Verify {
    #[command(flatten)]
    pub(crate) folder: Folder,

    /// Check too that a client would accept a leaf for this host or address
    #[arg(long, value_name = "HOST")]
    pub(crate) host: Option<String>,
}

fn parse_cidr(text: &str) -> Result<Cidr, String> {
    text.parse().map_err(|failure: Failure| failure.chain())
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
