//! `bottle-run audit`: its flags, and what they call.

use bottle_plan::failure::Result;
use bottle_plan::{shell, state, tool};
use bottle_run::audit;
use bottle_run::bottle::Home;
use clap::Subcommand;
use clap_complete::ArgValueCandidates;

/// Show what a bottle did and tried, running or stopped
#[derive(clap::Args, Debug)]
#[command(
    args_conflicts_with_subcommands = true,
    disable_help_subcommand = true,
    after_help = super::examples::AUDIT
)]
pub(super) struct Args {
    #[command(subcommand)]
    command: Option<Command>,

    /// The bottle
    #[arg(required = true, add = ArgValueCandidates::new(shell::slugs))]
    slug: Option<String>,
    /// Go on as more comes
    #[arg(long, short, conflicts_with = "summary")]
    follow: bool,
    /// Only what was not let through
    #[arg(long)]
    denied: bool,
    /// Only what began since: 90s, 10m, 2h, 1d, or a time
    #[arg(long, value_name = "WHEN")]
    since: Option<String>,
    /// Count by host, decision and reason
    #[arg(long)]
    summary: bool,
}

#[derive(Subcommand, Debug)]
enum Command {
    /// Check that nothing was changed, taken out or cut off
    #[command(after_help = super::examples::VERIFY)]
    Verify {
        /// The bottle
        #[arg(add = ArgValueCandidates::new(shell::slugs))]
        slug: String,
        /// Also check that the line with this hash is there, which an earlier check called the head
        #[arg(long, value_name = "HASH")]
        head: Option<String>,
    },
}

pub(super) fn run(home: &Home, args: &Args, json: bool, say: &dyn Fn(&str)) -> Result<u8> {
    match &args.command {
        Some(Command::Verify { slug, head }) => verify(home, slug, head.as_deref(), json),
        None => show(home, args, json, say),
    }
}

fn show(home: &Home, args: &Args, json: bool, say: &dyn Fn(&str)) -> Result<u8> {
    let slug = args.slug.as_deref().unwrap_or_default();
    let folders = audit::folders(home, slug)?;
    let filter = audit::Filter {
        denied: args.denied,
        since: args.since.as_deref().map(audit::parse_since).transpose()?,
    };
    if args.summary {
        let summary = audit::summarise(slug, &folders, &filter)?;
        let text = if json {
            state::to_json(&summary)?
        } else {
            summary.table()
        };
        return tool::emit(&text).map(|()| 0);
    }
    let show = audit::Show {
        filter,
        follow: args.follow,
        json,
    };
    audit::show(&folders, &show, say).map(|()| 0)
}

fn verify(home: &Home, slug: &str, head: Option<&str>, json: bool) -> Result<u8> {
    let kept = home
        .state
        .metadata(slug)?
        .and_then(|metadata| metadata.audit_head);
    let mut intact = true;
    for (number, folder) in audit::folders(home, slug)?.iter().enumerate() {
        // What was kept is the head of the first chain, egress's.
        let expected = head.or(kept.as_deref()).filter(|_| number == 0);
        let verified = audit::verify(slug, folder, expected)?;
        let text = match (json, number) {
            (true, _) => state::to_json(&verified)?,
            (false, 0) => verified.text(),
            (false, _) => format!("git-gate:\n{}", verified.text()),
        };
        tool::emit(&text)?;
        intact &= verified.intact;
    }
    Ok(u8::from(!intact))
}
