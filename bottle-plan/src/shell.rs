//! What every command line of the tools offers the same way: completions, man pages, the version for machines.

use std::env;
use std::path::PathBuf;

use clap::Command;
use clap_complete::env::Shells;
use clap_complete::{CompleteEnv, CompletionCandidate};

use crate::failure::{Failure, Result};
use crate::manifest::load::{self, Places};
use crate::state::StateHome;
use crate::tool;

/// The shells there are completions for.
pub const SHELLS: [&str; 3] = ["bash", "zsh", "fish"];

/// Set by the completion script when the shell asks what could come next.
const VARIABLE: &str = "BOTTLE_COMPLETE";

/// When it is a shell that asks what could come next, answers it and ends the program. The first thing in `main`.
pub fn answer(command: fn() -> Command) {
    CompleteEnv::with_factory(command).var(VARIABLE).complete();
}

/// The script that makes `shell` ask `tool`, which then answers with the bottles and agents there are at that moment.
///
/// # Errors
/// When it is none of [`SHELLS`].
pub fn completions(shell: &str, tool: &str) -> Result<String> {
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

/// Prints the completion script; the whole of the subcommand `completions`.
///
/// # Errors
/// As [`completions`], or when stdout cannot be written to.
pub fn print_completions(shell: &str, tool: &str) -> Result<u8> {
    tool::emit(&completions(shell, tool)?).map(|()| 0)
}

/// Writes a man page for the tool and each of its commands into `folder`: `TOOL.1`, `TOOL-COMMAND.1`.
///
/// # Errors
/// When a page cannot be written.
pub fn write_man_pages(command: Command, folder: &std::path::Path) -> Result<u8> {
    use crate::failure::PathContext as _;
    std::fs::create_dir_all(folder).at("create", folder)?;
    clap_mangen::generate_to(command.disable_help_subcommand(true), folder)
        .at("write man pages to", folder)?;
    Ok(0)
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

/// The home as far as the environment says; what stands on the command line is not known here.
fn home() -> Option<PathBuf> {
    env::var_os("BOTTLE_HOME")
        .map(PathBuf::from)
        .or_else(|| Some(PathBuf::from(env::var_os("HOME")?).join(".bottle")))
}
