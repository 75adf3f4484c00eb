//! A bottle made for the check, and removed after it.

use std::env;
use std::fmt::Write as _;
use std::fs::File;
use std::io::{Read as _, Write as _};
use std::path::{Path, PathBuf};

use bottle_plan::failure::{Failure, PathContext as _, Result};
use bottle_plan::manifest::load::Places;
use bottle_plan::plan::Plan;
use bottle_plan::state::StateHome;
use bottle_plan::{planner, state, subnet};

use super::{Card, Depth, score};
use crate::bottle::Home;
use crate::containers::CHECK_LABEL;
use crate::engine::Engine;
use crate::journal::{CHECK, Journal};
use crate::{down, interrupt, up};

/// The destination it may reach, which the outside plays.
pub(super) const PLAIN_HOST: &str = "plain.check.example";

/// The destination with a credential, which nobody plays.
pub(super) const SECRET_HOST: &str = "api.check.example";

/// The variable its credential is named by; nobody has to set it.
const TOKEN: &str = "BOTTLE_CHECK_TOKEN";

/// Small limits, so that running into them takes little of the host.
const MANIFEST: &str = "\
bottle:
  image: debian:trixie-slim
  command: [sleep, infinity]
  resources: {memory: 128m, cpus: 1, pids: 128}
  workspace: {from: none}
  egress:
    routes:
      - {host: PLAIN, scheme: http, private: [BLOCK]}
      - {host: SECRET, auth: {scheme: Bearer, token_ref: TOKEN}}
agent: {}
";

/// What is to be made.
#[derive(Clone, Debug)]
pub enum Made {
    /// The built-in bottle.
    BuiltIn,
    /// The bottle of a plan, with its image, limits and credentials.
    Planned(Box<Plan>),
}

/// Makes the bottle, checks it and removes it, whatever comes of the check.
///
/// # Errors
/// As `up`, and when the check could not be made.
pub fn own_bottle(engine: &Engine, home: &Home, made: &Made, say: &dyn Fn(&str)) -> Result<Card> {
    let (mut plan, depth) = match made {
        Made::BuiltIn => (plan_built_in(&home.state)?, Depth::Made),
        Made::Planned(plan) => ((**plan).clone(), Depth::Alone),
    };
    plan.labels
        .insert(CHECK_LABEL.to_owned(), plan.slug.clone());
    let compose = bottle_render::compose(&plan, bottle_render::Options::default())?;
    let request = up::Request {
        compose: bottle_render::to_yaml(&compose)?,
        progress: false,
        ask: true,
        check: false,
        planted: match depth {
            Depth::Made => vec![(TOKEN.to_owned(), random_token()?)],
            _ => Vec::new(),
        },
        plan,
    };
    let plan = &request.plan;
    // Held to the end: `gc` takes a bottle of a check for dead as soon as nobody holds this.
    let held = up::hold(plan, say)?;
    let journal = Journal::of(&held.home, &plan.slug)?;
    if depth == Depth::Made {
        journal.begin(CHECK, serde_json::Value::Null)?;
    }
    let card = up::up_held(engine, &request, &held, say)
        .and_then(|_| score(engine, &held.home, plan, depth));
    interrupt::clear();
    let removed = remove(engine, plan, &held.home, depth);
    if removed.is_ok() {
        journal.end_all(&[CHECK])?;
    }
    let card = card?;
    removed.map(|()| card)
}

fn remove(engine: &Engine, plan: &Plan, home: &StateHome, depth: Depth) -> Result<()> {
    let request = down::Request {
        home,
        home_label: up::home_label(plan)?,
        slug: &plan.slug,
        purge: false,
    };
    down::remove(engine, &request, &plan.state)?;
    match depth {
        Depth::Made => planner::release(home, &plan.slug),
        _ => Ok(()),
    }
}

fn plan_built_in(state: &StateHome) -> Result<Plan> {
    let home = state.path().parent().unwrap_or(Path::new("/"));
    let block = env::var("BOTTLE_SUBNETS").unwrap_or_else(|_| subnet::DEFAULT_BLOCK.to_owned());
    let manifest = MANIFEST
        .replace("PLAIN", PLAIN_HOST)
        .replace("SECRET", SECRET_HOST)
        .replace("TOKEN", TOKEN)
        .replace("BLOCK", &block);
    let file = manifest_file(&manifest)?;
    let request = planner::Request {
        places: Places {
            home: home.to_owned(),
            cwd: env::current_dir().at("read", Path::new("the current folder"))?,
        },
        user_home: env::var_os("HOME").map(PathBuf::from),
        name: None,
        file: Some(file.path().to_owned()),
        bottles: Vec::new(),
        slug: Some(bottle_plan::slug::random("check")?),
        workspace: None,
        cwd_given: false,
        begin: None,
        block: subnet::parse_block(&block)?,
    };
    planner::plan(&request).map(|planned| planned.plan)
}

fn manifest_file(text: &str) -> Result<tempfile::NamedTempFile> {
    let name = Path::new("a temporary file");
    let mut file = tempfile::Builder::new()
        .prefix("bottle-check-")
        .suffix(".yaml")
        .tempfile()
        .at("make", name)?;
    file.write_all(text.as_bytes()).at("write", name)?;
    Ok(file)
}

/// A credential that is worth nothing and found nowhere by chance.
fn random_token() -> Result<String> {
    let source = Path::new("/dev/urandom");
    let mut bytes = [0; 24];
    File::open(source)
        .and_then(|mut file| file.read_exact(&mut bytes))
        .at("read", source)?;
    let mut token = "tok-check-".to_owned();
    for byte in bytes {
        let _ = write!(token, "{byte:02x}");
    }
    Ok(token)
}

/// Reads a plan from a file.
///
/// # Errors
/// When it is none.
pub fn read_plan(path: &Path) -> Result<Plan> {
    let bytes = std::fs::read(path).at("read", path)?;
    let plan: Plan = state::parse_document(&bytes, bottle_plan::plan::PLAN_SCHEMA)
        .map_err(|failure| failure.while_doing(format!("reading {}", path.display())))?;
    if !plan.state.is_absolute() {
        return Err(Failure::invalid("the plan's state folder is not absolute"));
    }
    Ok(plan)
}
