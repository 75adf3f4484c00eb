//! `bottle-run requests`, `approve`, `deny`, `answer`, `revoke`, `grants`: their flags, and what they call.

use std::fs;
use std::io::{IsTerminal as _, Write as _};
use std::process::Command;

use bottle_plan::failure::{Failure, PathContext as _, Result};
use bottle_plan::request::{Ask, Scope};
use bottle_plan::{state, tool};
use bottle_run::ask::{self, Approval, Decision, Limits};
use bottle_run::bottle::Home;
use bottle_run::engine::Engine;
use bottle_run::{interrupt, view};
use clap::{Args, Subcommand};

/// How long a grant lasts unless something else is said.
const USUAL_SECONDS: u64 = 600;

/// Show what agents ask, over all bottles
#[derive(Args, Debug)]
#[command(args_conflicts_with_subcommands = true, disable_help_subcommand = true)]
pub(super) struct Requests {
    #[command(subcommand)]
    command: Option<RequestsCommand>,
    /// Also those that are over
    #[arg(long)]
    all: bool,
    /// Go on as more come, and say what becomes of them
    #[arg(long, short)]
    follow: bool,
}

#[derive(Subcommand, Debug)]
enum RequestsCommand {
    /// Show all of one request
    #[command(after_help = super::examples::SHOW)]
    Show {
        /// The request, or the beginning of its id
        id: String,
    },
}

/// Grant what a request asks for
#[derive(Args, Debug)]
pub(super) struct Approve {
    /// The request, or the beginning of its id
    id: String,
    /// For how long: 90s, 10m, 2h [default: 10m]
    #[arg(long = "for", value_name = "TIME", value_parser = seconds)]
    seconds: Option<u64>,
    /// For so many requests or pushes
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u64).range(1..))]
    uses: Option<u64>,
    /// Until the bottle goes down
    #[arg(long, conflicts_with = "seconds")]
    until_down: bool,
    /// Put in the credential that the plan has for this host
    #[arg(long)]
    with_credential: bool,
    /// Change what is granted in $VISUAL or $EDITOR first
    #[arg(long)]
    edit: bool,
    /// A note for the agent
    #[arg(long, value_name = "TEXT")]
    note: Option<String>,
    #[command(flatten)]
    answer: Answering,
}

/// Refuse a request
#[derive(Args, Debug)]
pub(super) struct Deny {
    /// The request, or the beginning of its id
    id: String,
    /// Why; the agent is told
    #[arg(long, value_name = "TEXT")]
    why: Option<String>,
    #[command(flatten)]
    answer: Answering,
}

/// Answer a question
#[derive(Args, Debug)]
pub(super) struct Answer {
    /// The request, or the beginning of its id
    id: String,
    /// The answer
    text: String,
    #[command(flatten)]
    answer: Answering,
}

#[derive(Args, Debug)]
struct Answering {
    /// Who decides, when a program runs this for somebody
    #[arg(long, value_name = "NAME")]
    by: Option<String>,
    /// Only if the request is still the one with this sha256
    #[arg(long, value_name = "SHA256")]
    expect: Option<String>,
}

/// End a grant now
#[derive(Args, Debug)]
pub(super) struct Revoke {
    /// The grant, or the beginning of its id
    id: String,
    /// Who decides
    #[arg(long, value_name = "NAME")]
    by: Option<String>,
}

/// Write a grant into the manifest, for good
#[derive(Args, Debug)]
pub(super) struct Promote {
    /// The grant, or the beginning of its id
    id: String,
    /// Do not ask
    #[arg(long, short)]
    yes: bool,
}

/// Show what was granted, over all bottles
#[derive(Args, Debug)]
pub(super) struct Grants {
    /// Also those that are over
    #[arg(long)]
    all: bool,
}

/// Watch all bottles on one screen, and answer
#[derive(Args, Debug)]
pub(super) struct Watch {
    /// Who decides
    #[arg(long, value_name = "NAME")]
    by: Option<String>,
}

pub(super) fn watch(engine: &Engine, home: &Home, args: &Watch) -> Result<u8> {
    view::watch(engine, home, &who(args.by.as_deref())?).map(|()| 0)
}

pub(super) fn requests(home: &Home, args: &Requests, json: bool) -> Result<u8> {
    if let Some(RequestsCommand::Show { id }) = &args.command {
        let asked = ask::find(&home.state, id)?;
        return emit(json, &asked, || {
            let colour = std::io::stdout().is_terminal() && std::env::var_os("NO_COLOR").is_none();
            ask::request_page(&asked) + &ask::push_page(&home.state, &asked, colour)
        });
    }
    if args.follow {
        interrupt::watch()?;
        return ask::follow(&home.state, args.all, json).map(|()| 0);
    }
    let requests = ask::requests(&home.state, args.all);
    let list = ask::Requests {
        schema: ask::REQUESTS_SCHEMA,
        requests,
    };
    emit(json, &list, || ask::requests_table(&list.requests))
}

pub(super) fn grants(home: &Home, args: &Grants, json: bool) -> Result<u8> {
    let list = ask::Grants {
        schema: ask::GRANTS_SCHEMA,
        grants: ask::grants(&home.state, args.all),
    };
    emit(json, &list, || ask::grants_table(&list.grants))
}

pub(super) fn approve(home: &Home, args: &Approve, json: bool, say: &dyn Fn(&str)) -> Result<u8> {
    let seconds = (!args.until_down).then(|| args.seconds.unwrap_or(USUAL_SECONDS));
    let approval = Approval {
        limits: Limits {
            seconds,
            uses: args.uses,
        },
        credential: args.with_credential,
        note: args.note.as_deref(),
        by: &who(args.answer.by.as_deref())?,
        edit: &|scope| if args.edit { edit(&scope) } else { Ok(scope) },
    };
    let expect = args.answer.expect.as_deref();
    let decision = ask::approve(&home.state, &args.id, expect, &approval)?;
    let id = decision
        .asked
        .grant
        .as_ref()
        .map_or("", |grant| grant.id.as_str());
    say(&format!("{} ({id})", decision.words));
    if decision.applied == Some(false) {
        say(&format!(
            "warning: {0} has not said that it applies it; bottle-run logs {1} {0}",
            match decision.asked.request.ask {
                Ask::Push { .. } => "git-gate",
                _ => "egress",
            },
            decision.asked.slug
        ));
    }
    done(&decision, json)
}

pub(super) fn deny(home: &Home, args: &Deny, json: bool, say: &dyn Fn(&str)) -> Result<u8> {
    let by = who(args.answer.by.as_deref())?;
    let expect = args.answer.expect.as_deref();
    let decision = ask::deny(&home.state, &args.id, expect, args.why.as_deref(), &by)?;
    say(&decision.words);
    done(&decision, json)
}

pub(super) fn answer(home: &Home, args: &Answer, json: bool, say: &dyn Fn(&str)) -> Result<u8> {
    let by = who(args.answer.by.as_deref())?;
    let expect = args.answer.expect.as_deref();
    let decision = ask::answer(&home.state, &args.id, expect, &args.text, &by)?;
    say(&decision.words);
    done(&decision, json)
}

pub(super) fn revoke(home: &Home, args: &Revoke, json: bool, say: &dyn Fn(&str)) -> Result<u8> {
    let (grant, words) = ask::revoke(&home.state, &args.id, &who(args.by.as_deref())?)?;
    say(&words);
    if json {
        tool::emit(&state::to_json(&grant)?)?;
    }
    Ok(0)
}

pub(super) fn promote(home: &Home, args: &Promote, json: bool, say: &dyn Fn(&str)) -> Result<u8> {
    let promotion = ask::promote(&home.state, &args.id)?;
    if json {
        say(promotion.diff.trim_end());
    } else {
        tool::emit(&promotion.diff)?;
    }
    if !args.yes && !confirmed(&promotion.path)? {
        return Err(Failure::refused("nothing was changed"));
    }
    promotion.write()?;
    say(&format!(
        "{} is changed; the next `up` of a new plan has it",
        promotion.path.display()
    ));
    if json {
        tool::emit(&state::to_json(&promotion)?)?;
    }
    Ok(0)
}

fn confirmed(path: &std::path::Path) -> Result<bool> {
    if !std::io::stdin().is_terminal() {
        return Err(
            Failure::invalid("this wants to be confirmed, and stdin is no terminal")
                .hint("read the diff, then give --yes"),
        );
    }
    eprint!("write this into {}? [y/N] ", path.display());
    let mut answer = String::new();
    std::io::stdin()
        .read_line(&mut answer)
        .map_err(|error| Failure::failed("cannot read the answer").because(error))?;
    Ok(matches!(answer.trim(), "y" | "Y" | "yes"))
}

fn done(decision: &Decision, json: bool) -> Result<u8> {
    if json {
        return tool::emit(&state::to_json(&decision.asked)?).map(|()| 0);
    }
    Ok(0)
}

fn emit<T: serde::Serialize>(json: bool, value: &T, text: impl FnOnce() -> String) -> Result<u8> {
    let text = if json { state::to_json(value)? } else { text() };
    tool::emit(&text).map(|()| 0)
}

/// Who is at the keyboard, or for whom a program speaks.
fn who(given: Option<&str>) -> Result<String> {
    let name = match given {
        Some(name) => name.to_owned(),
        None => {
            let uid = nix::unistd::getuid();
            let user = nix::unistd::User::from_uid(uid).ok().flatten();
            user.map_or_else(|| uid.to_string(), |user| user.name)
        }
    };
    let fits = !name.trim().is_empty()
        && name.chars().count() <= 80
        && !name.chars().any(char::is_control);
    if fits {
        return Ok(name);
    }
    Err(Failure::invalid("--by is not a name").hint("up to 80 printable characters"))
}

/// The scope as JSON in an editor.
fn edit(scope: &Scope) -> Result<Scope> {
    let editor = ["VISUAL", "EDITOR"].iter().find_map(|name| {
        std::env::var(name)
            .ok()
            .filter(|value| !value.trim().is_empty())
    });
    let editor = editor.ok_or_else(|| {
        Failure::invalid("neither VISUAL nor EDITOR is set")
            .hint("EDITOR=vi bottle-run approve … --edit")
    })?;
    let folder = std::env::temp_dir();
    let mut file = tempfile::Builder::new()
        .prefix("bottle-grant-")
        .suffix(".json")
        .tempfile()
        .at("write in", &folder)?;
    file.write_all(state::to_json(scope)?.as_bytes())
        .at("write", file.path())?;
    // As git does: the variable may hold options.
    let status = Command::new("sh")
        .args(["-c", &format!("{editor} \"$1\""), "editor"])
        .arg(file.path())
        .status()
        .map_err(|error| Failure::failed(format!("cannot start {editor}")).because(error))?;
    if !status.success() {
        return Err(Failure::failed(format!(
            "{editor} ended with {status}; nothing was granted"
        )));
    }
    // An editor may have put another file in its place.
    let bytes = fs::read(file.path()).at("read", file.path())?;
    serde_json::from_slice(&bytes).map_err(|error| {
        Failure::invalid("what was edited is no longer a scope")
            .because(error)
            .hint("nothing was granted")
    })
}

fn seconds(text: &str) -> Result<u64, String> {
    bottle_plan::manifest::values::parse_seconds(text)
        .filter(|&seconds| seconds > 0)
        .ok_or_else(|| "a time such as 90s, 10m or 2h".to_owned())
}
