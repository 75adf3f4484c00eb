//! The command line of `bottle-snapshot`.

mod examples;

use std::fs::File;
use std::io::IsTerminal as _;
use std::path::{Path, PathBuf};

use bottle_plan::failure::{Failure, PathContext as _, Result};
use bottle_plan::snapshot::{Snapshot, Wanted};
use bottle_plan::{shell, state, tool};
use bottle_run::bottle::{Home, slug_or_stdin};
use bottle_run::engine::Engine;
use bottle_run::interrupt;
use bottle_snapshot::registry::{self, Place};
use bottle_snapshot::remove::Which;
use bottle_snapshot::values::Choice;
use bottle_snapshot::{commit, export, import, pick, recover, remove, show, verify};
use clap::{Args, Parser, Subcommand};
use clap_complete::ArgValueCandidates;

const TOOL: &str = "bottle-snapshot";

const EXAMPLES: &str = "\
Examples:
  bottle-snapshot commit demo-x7k2p -m 'tests pass'     freeze a running bottle
  bottle-plan --resume demo-x7k2p | bottle-render | bottle-run up      go on from it
  bottle-plan --from demo-x7k2p@1 --slug demo-b | bottle-render | bottle-run up      another one from it
  bottle-snapshot list                                  see what there is
  bottle-snapshot verify demo-x7k2p@1                   prove once more that no secret is inside
  bottle-snapshot export demo-x7k2p -o demo.tar.zst     one file for another host
  bottle-snapshot import demo.tar.zst                   take it in there
  bottle-snapshot push demo-x7k2p registry.example.com/demo:1      or by a registry, and pull

Exit codes: 0 done, 1 failed, 2 usage or invalid input, 3 refused: a secret is inside,
            4 not found, 5 conflict";

/// Far above any image, far below what fills a disk unnoticed.
const MAX_IMPORT: u64 = 64 << 30;

/// Freeze bottles into images that provably hold no secret, and move them.
#[derive(Parser, Debug)]
#[command(name = "bottle-snapshot", version, after_help = EXAMPLES)]
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
    /// Freeze a bottle, prove that no secret is inside, and print the snapshot
    #[command(after_help = examples::COMMIT)]
    Commit(Commit),
    /// Show the snapshots of all bottles, or of one
    #[command(alias = "ls")]
    #[command(after_help = examples::LIST)]
    List {
        /// The bottle
        #[arg(add = ArgValueCandidates::new(shell::slugs))]
        slug: Option<String>,
    },
    /// Print what is recorded of a snapshot: its lineage, what changed, and the proof
    #[command(after_help = examples::SHOW)]
    Show {
        /// The newest of a bottle, or number N
        #[arg(value_name = "SLUG[@N]", add = ArgValueCandidates::new(shell::slugs))]
        snapshot: Wanted,
    },
    /// Prove once more that no secret is inside, over every layer; print the proof
    #[command(after_help = examples::VERIFY)]
    Verify {
        /// The newest of a bottle, or number N
        #[arg(value_name = "SLUG[@N]", add = ArgValueCandidates::new(shell::slugs))]
        snapshot: Wanted,
        #[command(flatten)]
        values: Values,
    },
    /// Remove snapshots
    #[command(after_help = examples::RM)]
    Rm {
        /// The newest of a bottle, or number N
        #[arg(required = true, value_name = "SLUG[@N]", add = ArgValueCandidates::new(shell::slugs))]
        snapshots: Vec<Wanted>,
        /// All of the bottle
        #[arg(long)]
        all: bool,
        /// Also the last one, or one that a bottle runs from
        #[arg(long, short)]
        force: bool,
    },
    /// Remove old snapshots of a bottle
    #[command(after_help = examples::PRUNE)]
    Prune {
        /// The bottle
        #[arg(add = ArgValueCandidates::new(shell::slugs))]
        slug: String,
        /// So many of the newest stay
        #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..))]
        keep: u32,
    },
    /// Write a snapshot into one file: image, plan, proof and digests
    #[command(after_help = examples::EXPORT)]
    Export {
        /// The newest of a bottle, or number N
        #[arg(value_name = "SLUG[@N]", add = ArgValueCandidates::new(shell::slugs))]
        snapshot: Wanted,
        /// The file; `-` is stdout
        #[arg(long, short, value_name = "FILE", default_value = "-")]
        output: PathBuf,
    },
    /// Take in a snapshot that was exported, and print it
    #[command(after_help = examples::IMPORT)]
    Import {
        /// The file; `-` is stdin
        #[arg(value_name = "FILE", default_value = "-")]
        file: PathBuf,
        /// Give the bottle another name
        #[arg(long, value_name = "SLUG")]
        slug: Option<String>,
        /// Refuse what unpacks to more bytes
        #[arg(long, value_name = "BYTES", default_value_t = MAX_IMPORT)]
        max_size: u64,
    },
    /// Push a snapshot to a registry by the engine: the image, and beside it plan and proof
    #[command(after_help = examples::PUSH)]
    Push {
        /// The newest of a bottle, or number N
        #[arg(value_name = "SLUG[@N]", add = ArgValueCandidates::new(shell::slugs))]
        snapshot: Wanted,
        /// Where to
        #[arg(value_name = "REGISTRY/REPO:TAG")]
        place: Place,
        /// Replace what is there, without looking
        #[arg(long, short)]
        force: bool,
    },
    /// Pull a snapshot that was pushed, take it in, and print it
    #[command(after_help = examples::PULL)]
    Pull {
        /// Where from
        #[arg(value_name = "REGISTRY/REPO:TAG")]
        place: Place,
        /// Give the bottle another name
        #[arg(long, value_name = "SLUG")]
        slug: Option<String>,
    },
    /// Finish or undo what a killed command left
    #[command(after_help = examples::GC)]
    Gc,
    #[command(flatten)]
    Common(shell::Common),
}

#[derive(Args, Debug)]
struct Commit {
    /// The bottle; `-` reads a handle from stdin
    #[arg(add = ArgValueCandidates::new(shell::slugs))]
    slug: Option<String>,
    /// Say something about it
    #[arg(long, short, value_name = "TEXT")]
    message: Option<String>,
    /// Make all layers one: what was deleted is gone for good
    #[arg(long)]
    squash: bool,
    /// Let the agent go on meanwhile; files it is writing may be in it by half
    #[arg(long)]
    no_pause: bool,
    #[command(flatten)]
    values: Values,
}

/// What the user says about the values that are looked for.
#[derive(Args, Debug)]
struct Values {
    /// Go on without values that are not to be had any more; the proof says so
    #[arg(long)]
    allow_missing: bool,
    /// This variable of the agent is no secret (may be repeated)
    #[arg(long, value_name = "NAME")]
    not_secret: Vec<String>,
}

impl Values {
    fn choice(self) -> Choice {
        Choice {
            allow_missing: self.allow_missing,
            not_secret: self.not_secret,
        }
    }
}

pub(crate) fn run(cli: Cli) -> Result<u8> {
    // It wants no home.
    if let Command::Common(common) = &cli.command {
        return common.run::<Cli>();
    }
    let engine = Engine::from_env();
    let home = Home::find(cli.home.as_deref())?;
    let quiet = cli.flags.quiet;
    let say = move |text: &str| {
        if !quiet {
            tool::say(TOOL, text);
        }
    };
    match cli.command {
        Command::Common(_) => Ok(0),
        Command::Commit(args) => {
            interrupt::watch()?;
            if cli.flags.no_input && args.slug.is_none() {
                return Err(
                    Failure::invalid("no bottle is named, and --no-input forbids asking")
                        .hint("bottle-run list shows what there is"),
                );
            }
            freeze(&engine, &home, args, &say)
        }
        Command::List { slug } => {
            let list = show::list(&home, slug.as_deref())?;
            let text = if cli.flags.json {
                state::to_json(&list)?
            } else {
                show::table(&list)
            };
            tool::emit(&text).map(|()| 0)
        }
        Command::Show { snapshot } => print(&show::find(&home, &snapshot)?),
        Command::Verify { snapshot, values } => {
            interrupt::watch()?;
            let snapshot = show::find(&home, &snapshot)?;
            let proof = verify::verify(&engine, &home, &snapshot, &values.choice(), &say)?;
            say(&format!("no secret is inside {}", snapshot.tag));
            print(&proof)
        }
        Command::Rm {
            snapshots,
            all,
            force,
        } => {
            let mut gone = Vec::new();
            for wanted in &snapshots {
                let which = if all { Which::All } else { Which::One };
                gone.extend(remove(&engine, &home, wanted, which, force || all, &say)?);
            }
            print_if(cli.flags.json, &show::List::of(gone))
        }
        Command::Prune { slug, keep } => {
            let wanted = Wanted { slug, number: None };
            let which = Which::AllBut(keep as usize);
            let gone = remove(&engine, &home, &wanted, which, false, &say)?;
            print_if(cli.flags.json, &show::List::of(gone))
        }
        Command::Export { snapshot, output } => {
            interrupt::watch()?;
            write_out(&engine, &home, &snapshot, &output, &say)
        }
        Command::Import {
            file,
            slug,
            max_size,
        } => {
            interrupt::watch()?;
            let request = import::Request {
                home: &home,
                slug,
                max_bytes: max_size,
            };
            let snapshot = if file == Path::new("-") {
                import::import(&engine, &request, std::io::stdin(), &say)?
            } else {
                let opened = File::open(&file).at("open", &file)?;
                import::import(&engine, &request, opened, &say)?
            };
            print(&snapshot)
        }
        Command::Push {
            snapshot,
            place,
            force,
        } => {
            interrupt::watch()?;
            let pushed = registry::push(&engine, &home, &snapshot, &place, force, &say)?;
            say(&format!("{}@{} is at {place}", pushed.slug, pushed.number));
            print_if(cli.flags.json, &pushed)
        }
        Command::Pull { place, slug } => {
            interrupt::watch()?;
            let request = import::Request {
                home: &home,
                slug,
                max_bytes: MAX_IMPORT,
            };
            print(&registry::pull(&engine, &request, &place, &say)?)
        }
        Command::Gc => print_if(cli.flags.json, &recover::all(&engine, &home, &say)?),
    }
}

fn print<T: serde::Serialize>(document: &T) -> Result<u8> {
    tool::emit(&state::to_json(document)?).map(|()| 0)
}

/// For commands whose result is of use to programs alone.
fn print_if<T: serde::Serialize>(json: bool, document: &T) -> Result<u8> {
    if json { print(document) } else { Ok(0) }
}

fn freeze(engine: &Engine, home: &Home, args: Commit, say: &dyn Fn(&str)) -> Result<u8> {
    let slug = match &args.slug {
        Some(given) => slug_or_stdin(given)?,
        None => pick::bottle(engine, home)?,
    };
    let request = commit::Request {
        home,
        slug: &slug,
        message: args.message,
        squash: args.squash,
        no_pause: args.no_pause,
        choice: args.values.choice(),
    };
    let snapshot = commit::commit(engine, &request, say)?;
    say(&format!("frozen as {}", snapshot.tag));
    print(&snapshot)
}

fn remove(
    engine: &Engine,
    home: &Home,
    wanted: &Wanted,
    which: Which,
    force: bool,
    say: &dyn Fn(&str),
) -> Result<Vec<Snapshot>> {
    let gone = remove::remove(engine, home, wanted, which, force, say)?;
    for one in &gone {
        say(&format!("{}@{} is gone", one.slug, one.number));
    }
    Ok(gone)
}

/// To stdout as it comes; into a file only when it is complete, and never over another one.
fn write_out(
    engine: &Engine,
    home: &Home,
    wanted: &Wanted,
    output: &Path,
    say: &dyn Fn(&str),
) -> Result<u8> {
    let snapshot = show::find(home, wanted)?;
    let plan = export::plan_of(engine, home, &snapshot)?;
    if output == Path::new("-") {
        if std::io::stdout().is_terminal() {
            return Err(Failure::invalid("an archive is not for a terminal")
                .hint("-o FILE, or send it on: | ssh HOST bottle-snapshot import"));
        }
        return export::export(engine, &snapshot, &plan, std::io::stdout()).map(|_| 0);
    }
    if output.exists() {
        return Err(
            Failure::conflict(format!("{} is there already", output.display()))
                .hint("name another file, or remove it first"),
        );
    }
    let folder = output
        .parent()
        .filter(|folder| !folder.as_os_str().is_empty());
    let folder = folder.unwrap_or(Path::new("."));
    let file = tempfile::Builder::new()
        .prefix(".bottle-export-")
        .tempfile_in(folder)
        .at("write in", folder)?;
    let (opened, place) = file.into_parts();
    let opened = export::export(engine, &snapshot, &plan, opened)?;
    opened.sync_all().at("write", output)?;
    place
        .persist_noclobber(output)
        .map_err(|error| error.error)
        .at("write", output)?;
    let size = opened.metadata().at("look at", output)?.len();
    say(&format!(
        "{}@{} is in {} ({})",
        snapshot.slug,
        snapshot.number,
        output.display(),
        show::bytes(size)
    ));
    Ok(0)
}
