//! A bottle home of a test's own, and the bottles in it.

use std::ffi::OsString;
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use serde_json::Value;
use sha2::{Digest as _, Sha256};
use tempfile::TempDir;

use crate::internet::CLIENT;
use crate::probe::{Findings, IN_THE_AGENT};
use crate::raw::{Exchange, Outcome};
use crate::run::{Call, Done};
use crate::{engine, tools};

/// A home in a folder of its own. When it goes, so does every container, network and image that was made from it.
/// Clones are the same home, which goes with the last of them.
#[derive(Clone, Debug)]
pub struct Home(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    folder: TempDir,
    label: String,
    env: Vec<(String, OsString)>,
    used_engine: AtomicBool,
}

impl Home {
    /// An empty home.
    ///
    /// # Panics
    /// When no temporary folder can be made.
    #[must_use]
    pub fn new() -> Self {
        Self::with_env(&[])
    }

    /// An empty home whose tools all see these variables.
    ///
    /// # Panics
    /// When no temporary folder can be made.
    #[must_use]
    pub fn with_env(env: &[(&str, &str)]) -> Self {
        let folder = tempfile::Builder::new()
            .prefix("bottle-test-")
            .tempdir()
            .expect("a temporary folder");
        for sub in ["home/bottles", "home/agents", "cwd", "user"] {
            fs::create_dir_all(folder.path().join(sub)).expect("a folder");
        }
        let path = folder.path().join("home");
        let digest = Sha256::digest(path.to_string_lossy().as_bytes());
        let label = digest[..8]
            .iter()
            .map(|byte| format!("{byte:02x}"))
            .collect();
        let env = env
            .iter()
            .map(|(name, value)| ((*name).to_owned(), value.into()))
            .collect();
        Self(Arc::new(Inner {
            folder,
            label,
            env,
            used_engine: AtomicBool::new(false),
        }))
    }

    /// `$BOTTLE_HOME`.
    #[must_use]
    pub fn path(&self) -> PathBuf {
        self.0.folder.path().join("home")
    }

    /// The folder the tools are called in.
    #[must_use]
    pub fn cwd(&self) -> PathBuf {
        self.0.folder.path().join("cwd")
    }

    /// The state folder of a bottle.
    #[must_use]
    pub fn state(&self, slug: &str) -> PathBuf {
        self.path().join("state").join(slug)
    }

    /// The label that all resources of this home carry, `key=value`.
    #[must_use]
    pub fn label(&self) -> String {
        format!("bottle.home={}", self.0.label)
    }

    /// A slug no other test has: container names are shared by all homes of an engine.
    #[must_use]
    pub fn slug(&self, name: &str) -> String {
        format!("t{}-{name}", &self.0.label[..8])
    }

    /// Writes a file below the home.
    ///
    /// # Panics
    /// When it cannot be written.
    pub fn write(&self, path: impl AsRef<Path>, text: impl AsRef<[u8]>) -> PathBuf {
        let path = self.path().join(path);
        let folder = path.parent().expect("a file is in a folder");
        fs::create_dir_all(folder).expect("a folder");
        fs::write(&path, text).expect("the file can be written");
        path
    }

    /// Writes the manifest of a bottle.
    pub fn bottle(&self, name: &str, yaml: &str) {
        self.write(format!("bottles/{name}.yaml"), yaml);
    }

    /// Writes the manifest of an agent.
    pub fn agent(&self, name: &str, yaml: &str) {
        self.write(format!("agents/{name}.yaml"), yaml);
    }

    /// A call of one of the bottle tools in this home. Its user has an empty home directory and nothing in the
    /// environment but what was given to [`Home::with_env`].
    pub fn tool(&self, name: &str) -> Call {
        if matches!(name, "bottle-run" | "bottle-snapshot") {
            self.0.used_engine.store(true, Ordering::Relaxed);
        }
        let call = Call::new(tools::tool(name))
            .cwd(self.cwd())
            .env("HOME", self.0.folder.path().join("user"))
            .env("BOTTLE_HOME", self.path())
            .envs(&self.0.env);
        match tools::sidecar() {
            Some(path) => call.env("BOTTLE_SIDECAR", path),
            None => call,
        }
    }

    /// The plan of `name` for the bottle `slug`, as text.
    ///
    /// # Panics
    /// When it cannot be planned.
    #[must_use]
    pub fn plan(&self, name: &str, slug: &str) -> String {
        self.tool("bottle-plan")
            .args([name, "--slug", slug])
            .run()
            .ok()
    }

    /// A plan rendered.
    ///
    /// # Panics
    /// When it cannot be rendered.
    #[must_use]
    pub fn render(&self, plan: &str) -> String {
        self.tool("bottle-render").stdin(plan).run().ok()
    }

    /// Starts the bottle `slug` from the manifest `name`, by the three-stage pipeline.
    ///
    /// # Panics
    /// When it does not start.
    #[must_use]
    pub fn up(&self, name: &str, slug: &str) -> Bottle {
        let compose = self.render(&self.plan(name, slug));
        let handle = self
            .tool("bottle-run")
            .args(["up"])
            .stdin(compose)
            .run()
            .json();
        Bottle::started(self, slug, handle)
    }

    /// Removes a bottle.
    ///
    /// # Panics
    /// When that fails.
    pub fn down(&self, slug: &str) {
        let _ = self.tool("bottle-run").args(["down", slug]).run().ok();
    }

    /// What the engine still has of a bottle.
    #[must_use]
    pub fn left_of(&self, slug: &str) -> Vec<String> {
        let mine = engine::labelled(&self.label());
        let prefix = format!("bottle-{slug}-");
        mine.into_iter()
            .filter(|line| line.contains(&prefix))
            .collect()
    }
}

impl Default for Home {
    fn default() -> Self {
        Self::new()
    }
}

impl Drop for Inner {
    fn drop(&mut self) {
        // Tests without an engine must not wait for one that does not answer.
        if self.used_engine.load(Ordering::Relaxed) {
            engine::sweep(&format!("bottle.home={}", self.label));
        }
    }
}

/// A running bottle.
#[derive(Debug)]
pub struct Bottle {
    home: Home,
    /// Its slug.
    pub slug: String,
    /// What `up` printed.
    pub handle: Value,
}

impl Bottle {
    /// The bottle whose handle `up` printed, for tests that call it themselves.
    #[must_use]
    pub fn started(home: &Home, slug: &str, handle: Value) -> Self {
        Self {
            home: home.clone(),
            slug: slug.to_owned(),
            handle,
        }
    }

    /// The agent's container.
    #[must_use]
    pub fn agent(&self) -> String {
        format!("bottle-{}-agent", self.slug)
    }

    /// The egress sidecar's container.
    #[must_use]
    pub fn egress(&self) -> String {
        format!("bottle-{}-egress", self.slug)
    }

    /// The plan it runs.
    ///
    /// # Panics
    /// When the state folder does not hold it.
    #[must_use]
    pub fn plan(&self) -> Value {
        let path = self.home.state(&self.slug).join("plan.json");
        let bytes = fs::read(&path).expect("up wrote the plan");
        serde_json::from_slice(&bytes).expect("a plan is JSON")
    }

    /// One of the addresses in the plan, such as `/networks/addresses/agent`.
    ///
    /// # Panics
    /// When there is no such place in the plan.
    #[must_use]
    pub fn address(&self, pointer: &str) -> String {
        let plan = self.plan();
        let text = plan.pointer(pointer).and_then(Value::as_str);
        text.unwrap_or_else(|| panic!("no {pointer} in the plan"))
            .to_owned()
    }

    /// Runs a command in the agent.
    #[must_use]
    pub fn exec(&self, command: &[&str]) -> Done {
        let call = self
            .home
            .tool("bottle-run")
            .args(["exec", &self.slug, "--"]);
        call.args(command.iter().copied()).run()
    }

    /// Gives the agent one task, without a terminal.
    #[must_use]
    pub fn task(&self, text: &str) -> Done {
        let args = ["attach", &self.slug, "--headless", "--prompt", text];
        self.home.tool("bottle-run").args(args).run()
    }

    /// Makes a request from the agent, with the client of an [`crate::internet::agent_image`].
    ///
    /// # Panics
    /// When there is no answer.
    #[must_use]
    pub fn fetch(&self, args: &[&str]) -> Value {
        let mut command = vec![CLIENT, "fetch"];
        command.extend(args);
        self.exec(&command).json()
    }

    /// Makes exchanges from the agent byte for byte, all at once; see [`crate::raw`].
    ///
    /// # Panics
    /// When they cannot be made.
    #[must_use]
    pub fn raw(&self, exchanges: &[Exchange]) -> Vec<Outcome> {
        let json = serde_json::to_string(exchanges).expect("plain data");
        let args = ["exec", &self.slug, "--", CLIENT, "raw"];
        let said = self
            .home
            .tool("bottle-run")
            .args(args)
            .stdin(json)
            .run()
            .ok();
        serde_json::from_str(&said).unwrap_or_else(|error| panic!("{error}: {said}"))
    }

    /// Runs probes in the agent, as its user.
    ///
    /// # Panics
    /// When the probe does not run.
    #[must_use]
    pub fn probe(&self, probes: &[String]) -> Findings {
        let mut command = vec![IN_THE_AGENT, "probe", "--timeout-ms", "300"];
        command.extend(probes.iter().map(String::as_str));
        Findings::parse(&self.exec(&command).ok())
    }
}
