//! A registry of a test's own: Debian's `docker-registry`, on loopback, with its images in a folder that goes with it.
//!
//! The engine takes registries on loopback without TLS, and so it does in a network namespace of its own: another server
//! there, on the same folder, makes it the same registry for an engine that can reach no other.

use std::fs;
use std::net::TcpListener;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use tempfile::TempDir;

use crate::engine::wait_within;
use crate::second::SecondEngine;
use crate::tools;

const PROGRAM: &str = "docker-registry";

/// The registry; its servers end with it.
#[derive(Debug)]
pub struct Registry {
    folder: TempDir,
    port: u16,
    servers: Vec<Child>,
}

impl Registry {
    /// Starts one. Nothing when it is not installed; the text says so.
    ///
    /// # Errors
    /// What is missing.
    ///
    /// # Panics
    /// When it does not start.
    pub fn start() -> Result<Self, String> {
        let program = tools::find(PROGRAM)
            .ok_or_else(|| format!("there is no {PROGRAM}; scripts/setup --tests installs it"))?;
        let folder = tempfile::Builder::new()
            .prefix("bottle-registry-")
            .tempdir_in("/var/tmp")
            .expect("a temporary folder");
        let free = TcpListener::bind("127.0.0.1:0").expect("a free port");
        let port = free.local_addr().expect("bound").port();
        drop(free);
        let config = format!(
            "version: 0.1\nstorage: {{filesystem: {{rootdirectory: {}}}}}\nhttp: {{addr: '127.0.0.1:{port}'}}\n",
            folder.path().join("data").display()
        );
        fs::write(folder.path().join("config.yml"), config).expect("a file");
        let mut registry = Self {
            folder,
            port,
            servers: Vec::new(),
        };
        registry.serve(Command::new(program));
        Ok(registry)
    }

    /// Serves the same images where another engine is.
    ///
    /// # Panics
    /// When that does not start.
    pub fn beside(&mut self, engine: &SecondEngine) {
        let mut command = engine.command_beside();
        command.arg(tools::find(PROGRAM).expect("it is there"));
        self.serve(command);
    }

    fn serve(&mut self, mut command: Command) {
        let log = self
            .folder
            .path()
            .join(format!("log-{}", self.servers.len()));
        let server = command
            .arg("serve")
            .arg(self.folder.path().join("config.yml"))
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(fs::File::create(&log).expect("a file"))
            .spawn()
            .expect("the registry starts");
        self.servers.push(server);
        wait_within(Duration::from_secs(30), "the registry", || {
            fs::read_to_string(&log).is_ok_and(|text| text.contains("listening on"))
        });
    }

    /// `REGISTRY/REPO:TAG` on it.
    #[must_use]
    pub fn place(&self, name: &str) -> String {
        format!("127.0.0.1:{}/{name}", self.port)
    }
}

impl Drop for Registry {
    fn drop(&mut self) {
        for server in &mut self.servers {
            let _ = server.kill();
            let _ = server.wait();
        }
    }
}
