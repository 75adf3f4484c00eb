//! `diff` and `pull`.

use std::io::{IsTerminal as _, Write as _};
use std::path::PathBuf;

use bottle_plan::explain::counted;
use bottle_plan::failure::{Failure, PathContext as _, Result};
use bottle_plan::{shell, state, tool};
use bottle_run::bottle::Home;
use bottle_run::engine::Engine;
use bottle_run::interrupt;
use bottle_run::work::{self, DiffRequest, PullRequest, Pulled, Shown};
use clap_complete::ArgValueCandidates;

/// Show what the agent changed
#[derive(clap::Args, Debug)]
pub(super) struct DiffArgs {
    /// The bottle
    #[arg(add = ArgValueCandidates::new(shell::slugs))]
    slug: String,
    /// Lines a file instead of the lines themselves
    #[arg(long)]
    stat: bool,
    /// Leave out what the agent has not committed
    #[arg(long)]
    committed: bool,
    /// The bytes as they are, also on a terminal
    #[arg(long)]
    raw: bool,
    /// Only these files and folders
    #[arg(last = true, value_name = "PATH")]
    paths: Vec<String>,
}

/// Bring what the agent did into a branch of a repository here
#[derive(clap::Args, Debug)]
pub(super) struct PullArgs {
    /// The bottle
    #[arg(add = ArgValueCandidates::new(shell::slugs))]
    slug: String,
    /// The branch; bottle/SLUG unless given
    #[arg(long, value_name = "NAME")]
    branch: Option<String>,
    /// The repository; the one the workspace was copied from unless given
    #[arg(long, value_name = "DIR")]
    into: Option<PathBuf>,
    /// Leave out what the agent has not committed
    #[arg(long)]
    committed: bool,
    /// Take the place of a branch of that name
    #[arg(long)]
    replace: bool,
}

pub(super) fn diff(
    engine: &Engine,
    home: &Home,
    args: &DiffArgs,
    as_json: bool,
    say: &dyn Fn(&str),
) -> Result<u8> {
    let plan = home.plan(&args.slug)?;
    let terminal = std::io::stdout().is_terminal();
    let shown = if args.raw || !terminal {
        Shown::Bytes
    } else {
        Shown::Terminal {
            colour: std::env::var_os("NO_COLOR").is_none_or(|value| value.is_empty()),
        }
    };
    let request = DiffRequest {
        paths: &args.paths,
        stat: args.stat,
        committed: args.committed,
        shown,
    };
    interrupt::watch()?;
    if as_json {
        let document = work::document(engine, &plan, &request, say)?;
        return tool::emit(&state::to_json(&document)?).map(|()| 0);
    }
    let mut out = std::io::stdout().lock();
    let mut open = true;
    work::diff(engine, &plan, &request, say, &mut |bytes| {
        match out.write_all(bytes) {
            Err(error) if error.kind() != std::io::ErrorKind::BrokenPipe => {
                return Err(Failure::failed("cannot write to stdout").because(error));
            }
            Err(_) => open = false,
            Ok(()) => {}
        }
        Ok(())
    })?;
    if open {
        let _ = out.flush();
    }
    Ok(0)
}

pub(super) fn pull(
    engine: &Engine,
    home: &Home,
    args: PullArgs,
    as_json: bool,
    say: &dyn Fn(&str),
) -> Result<u8> {
    let plan = home.plan(&args.slug)?;
    let into = args
        .into
        .map(|folder| std::fs::canonicalize(&folder).at("enter", &folder))
        .transpose()?;
    let request = PullRequest {
        branch: args.branch,
        into,
        committed: args.committed,
        replace: args.replace,
    };
    interrupt::watch()?;
    let pulled = work::pull(engine, &plan, &request, say)?;
    if as_json {
        return tool::emit(&state::to_json(&pulled)?).map(|()| 0);
    }
    tell(&pulled, say);
    match &pulled.branch {
        Some(branch) => tool::emit(&format!("{branch}\n")).map(|()| 0),
        None => Ok(0),
    }
}

fn tell(pulled: &Pulled, say: &dyn Fn(&str)) {
    let Some(branch) = &pulled.branch else {
        return say(&format!(
            "`{}` has nothing that is not here already",
            pulled.slug
        ));
    };
    let what = match (pulled.commits, pulled.uncommitted) {
        (0, _) => "what was not committed".to_owned(),
        (count, false) => counted(count, "commit"),
        (count, true) => format!("{} and what was not committed", counted(count, "commit")),
    };
    let repository = pulled.repository.display();
    say(&format!(
        "{what} of `{}`: now in the branch {branch} of {repository}",
        pulled.slug
    ));
    say(&format!(
        "look at it before you run anything of it: git -C {repository} log -p HEAD..{branch}"
    ));
}
