//! What the command lines of all tools have in common: flags, exit codes in each help, completions, man pages.

use std::ffi::OsStr;
use std::path::{Path, PathBuf};
use std::{env, fs};

use clap::builder::Resettable;
use clap::{Args, Command, CommandFactory, Parser, Subcommand};
use clap_complete::env::Shells;
use clap_complete::{CompleteEnv, CompletionCandidate};

use crate::failure::{Failure, PathContext as _, Result};
use crate::manifest::load::{self, Places};
use crate::schema;
use crate::state::StateHome;
use crate::tool;

/// The shells there are completions for.
const SHELLS: [&str; 3] = ["bash", "zsh", "fish"];

/// Set by the completion script when the shell asks what could come next.
const VARIABLE: &str = "BOTTLE_COMPLETE";

/// The flags of every tool.
#[derive(Args, Clone, Copy, Debug)]
pub struct Flags {
    /// Machine-readable: results as JSON on stdout, errors as JSON on stderr
    #[arg(long, global = true)]
    pub json: bool,

    /// Say nothing but warnings and errors
    #[arg(long, short, global = true)]
    pub quiet: bool,

    /// Never ask: what would be asked for is an error
    #[arg(long, global = true)]
    pub no_input: bool,
}

/// The commands of every tool.
#[derive(Debug, Subcommand)]
pub enum Common {
    /// Print the completions of a shell
    Completions {
        /// bash, zsh or fish
        #[arg(value_parser = SHELLS)]
        shell: String,
    },
    /// Write the man pages into a folder
    #[command(hide = true)]
    Man {
        /// The folder
        folder: PathBuf,
    },
}

impl Common {
    /// Does it, for the tool that `Cli` is the command line of.
    ///
    /// # Errors
    /// When there are none for that shell, or the product cannot be written.
    pub fn run<Cli: CommandFactory>(&self) -> Result<u8> {
        let command = command::<Cli>();
        match self {
            Self::Completions { shell } => tool::emit(&completions(shell, command.get_name())?)?,
            Self::Man { folder } => write_man_pages(command, folder)?,
        }
        Ok(0)
    }
}

/// What the help of a command says that does not say it in its own words.
const EXIT_CODES: &str = "Exit codes: 0 done, 1 failed, 2 usage or invalid input, 3 refused by policy, 4 not found, 5 conflict";

/// The command line of a tool, every command of which says its exit codes.
#[must_use]
pub fn command<Cli: CommandFactory>() -> Command {
    let command = Cli::command();
    let examples = completion_examples(command.get_name());
    let command = without_empty_variables(command);
    with_exit_codes(command.mut_subcommand("completions", |command| command.after_help(examples)))
}

/// A variable that is set to nothing is one that is not set, as `HOME` and what the engine reads are.
fn without_empty_variables(command: Command) -> Command {
    command.mut_args(|arg| {
        let is_empty = |name: &OsStr| env::var_os(name).is_some_and(|value| value.is_empty());
        if arg.get_env().is_some_and(is_empty) {
            arg.env(Resettable::Reset)
        } else {
            arg
        }
    })
}

fn completion_examples(tool: &str) -> String {
    format!(
        "Examples:
  source <({tool} completions bash)                                   now
  {tool} completions bash > ~/.local/share/bash-completion/completions/{tool}
  {tool} completions zsh > ~/.zfunc/_{tool}             where ~/.zfunc is in fpath
  {tool} completions fish > ~/.config/fish/completions/{tool}.fish"
    )
}

fn with_exit_codes(command: Command) -> Command {
    let said = command.get_after_help().map(ToString::to_string);
    let said = said.unwrap_or_default();
    let command = if said.contains("Exit codes: ") {
        command
    } else {
        command.after_help(format!("{said}\n\n{EXIT_CODES}"))
    };
    command.mut_subcommands(with_exit_codes)
}

/// What was typed.
///
/// # Errors
/// Also when it was help or the version that was asked for: see [`tool::not_parsed`].
pub fn parse<Cli: Parser>() -> Result<Cli, clap::Error> {
    let mut command = command::<Cli>();
    let mut typed = command.try_get_matches_from_mut(env::args_os())?;
    Cli::from_arg_matches_mut(&mut typed).map_err(|error| error.format(&mut command))
}

/// When it is a shell that asks what could come next, answers it and ends the program. The first thing in `main`.
pub fn answer<Cli: CommandFactory>() {
    CompleteEnv::with_factory(command::<Cli>)
        .var(VARIABLE)
        .complete();
}

/// The script that makes `shell` ask `tool`, which then answers with the bottles and agents there are at that moment.
fn completions(shell: &str, tool: &str) -> Result<String> {
    let shells = Shells::builtins();
    let known = shells.completer(shell).filter(|_| SHELLS.contains(&shell));
    let Some(completer) = known else {
        return Err(
            Failure::invalid(format!("there are no completions for `{shell}`"))
                .hint(format!("one of {}", SHELLS.join(", "))),
        );
    };
    let mut script = Vec::new();
    completer
        .write_registration(VARIABLE, tool, tool, tool, &mut script)
        .map_err(|error| Failure::failed("cannot write the script").because(error))?;
    String::from_utf8(script)
        .map_err(|error| Failure::failed("the script is not text").because(error))
}

/// Writes a man page for the tool and each of its commands into `folder`: `TOOL.1`, `TOOL-COMMAND.1`.
fn write_man_pages(command: Command, folder: &Path) -> Result<()> {
    fs::create_dir_all(folder).at("create", folder)?;
    clap_mangen::generate_to(command.disable_help_subcommand(true), folder)
        .at("write man pages to", folder)
}

/// The slugs of this home's bottles.
#[must_use]
pub fn slugs() -> Vec<CompletionCandidate> {
    let Some(home) = home() else {
        return Vec::new();
    };
    StateHome::at(&home)
        .bottles()
        .into_iter()
        .map(|bottle| CompletionCandidate::new(bottle.slug).help(Some(bottle.name.into())))
        .collect()
}

/// The agents and bottles that could be planned here.
#[must_use]
pub fn agents() -> Vec<CompletionCandidate> {
    let (Some(home), Ok(cwd)) = (home(), env::current_dir()) else {
        return Vec::new();
    };
    load::known_names(&Places { home, cwd })
        .into_iter()
        .map(CompletionCandidate::new)
        .collect()
}

/// The bottles of this home, without its agents.
#[must_use]
pub fn bottles() -> Vec<CompletionCandidate> {
    let names = home().map(|home| load::known_bottles(&home));
    names
        .unwrap_or_default()
        .into_iter()
        .map(CompletionCandidate::new)
        .collect()
}

/// The documents there are a schema for.
#[must_use]
pub fn documents() -> Vec<CompletionCandidate> {
    schema::DOCUMENTS
        .iter()
        .map(CompletionCandidate::new)
        .collect()
}

/// The home as far as the environment says; what stands on the command line is not known here.
fn home() -> Option<PathBuf> {
    env::var_os("BOTTLE_HOME")
        .filter(|home| !home.is_empty())
        .map(PathBuf::from)
        .or_else(|| Some(PathBuf::from(env::var_os("HOME")?).join(".bottle")))
}
