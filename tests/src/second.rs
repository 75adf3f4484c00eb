//! An engine of a test's own: another dockerd, in network and mount namespaces of its own, with a folder of its own.
//!
//! Two engines in one network namespace share the rules of its firewall and take them from each other. In its own it can be
//! stopped, killed and given other runtimes, and the machine's engine never knows.

use std::fs;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use serde_json::json;
use tempfile::TempDir;

use crate::engine::wait_within;
use crate::run::{Call, Done};
use crate::tools::find;

/// What is run in a mount namespace of its own around `runsc`: this version takes a kernel that has `net.core.rmem_default`
/// in every network namespace (6.9 and later) for being in the root's, and refuses.
const RUNSC: &str = "#!/bin/sh
exec unshare --mount --propagation slave sh -c 'mount -t tmpfs none /proc/sys/net && exec \"$@\"' sh RUNSC \"$@\"
";

/// The engine. It ends, with all that it has, when this goes.
#[derive(Debug)]
pub struct SecondEngine {
    folder: TempDir,
    daemon: Child,
}

impl SecondEngine {
    /// Starts one that knows `runsc`, when the machine has it. Nothing when this machine cannot have a second engine; the
    /// text says why.
    ///
    /// # Errors
    /// What is missing.
    ///
    /// # Panics
    /// When files cannot be written.
    pub fn start() -> Result<Self, String> {
        Self::start_with(None)
    }

    /// The same with no more than so many MiB for all that it keeps.
    ///
    /// # Errors
    /// What is missing.
    ///
    /// # Panics
    /// When files cannot be written.
    pub fn start_within(mebibytes: u32) -> Result<Self, String> {
        Self::start_with(Some(mebibytes))
    }

    fn start_with(mebibytes: Option<u32>) -> Result<Self, String> {
        for program in ["dockerd", "unshare", "nsenter", "ip"] {
            if find(program).is_none() {
                return Err(format!("there is no {program}"));
            }
        }
        if !nix::unistd::geteuid().is_root() {
            return Err("only root can start a second engine".to_owned());
        }
        // Not below /tmp, which may be in memory: images are large.
        let folder = tempfile::Builder::new()
            .prefix("bottle-engine-")
            .tempdir_in("/var/tmp")
            .expect("a temporary folder");
        let at = |name: &str| folder.path().join(name).display().to_string();
        let mut runtimes = json!({});
        if let Some(runsc) = find("runsc") {
            let wrapper = folder.path().join("runsc");
            let script = RUNSC.replace("RUNSC", &runsc.display().to_string());
            fs::write(&wrapper, script).expect("a file");
            make_executable(&wrapper);
            runtimes["runsc"] = json!({"path": at("runsc"), "runtimeArgs": ["--platform=systrap"]});
        }
        let config = json!({
            "data-root": at("data"), "exec-root": at("exec"), "pidfile": at("pid"),
            "hosts": [format!("unix://{}", at("sock"))], "runtimes": runtimes,
        });
        fs::write(at("daemon.json"), config.to_string()).expect("a file");
        if let Some(mebibytes) = mebibytes {
            fs::create_dir(at("data")).expect("a folder");
            let mounted = Command::new("mount")
                .args(["-t", "tmpfs", "-o", &format!("size={mebibytes}m"), "small"])
                .arg(at("data"))
                .status();
            if !mounted.is_ok_and(|status| status.success()) {
                return Err("nothing can be mounted here".to_owned());
            }
        }
        let daemon = Self::spawn(folder.path());
        let engine = Self { folder, daemon };
        engine.wait();
        Ok(engine)
    }

    fn spawn(folder: &Path) -> Child {
        let log = fs::File::create(folder.join("log")).expect("a file");
        let config = folder.join("daemon.json");
        Command::new("unshare")
            .args(["--net", "--mount", "--propagation", "slave", "sh", "-c"])
            .arg("ip link set lo up; exec dockerd --config-file \"$0\"")
            .arg(config)
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(log)
            .spawn()
            .expect("unshare starts")
    }

    fn wait(&self) {
        wait_within(Duration::from_secs(90), "the second engine", || {
            self.docker(["version"]).status.success()
        });
    }

    /// Kills it as a crash would, and starts it again on the same folder.
    ///
    /// # Panics
    /// When it does not come back.
    pub fn crash_and_return(&mut self) {
        self.crash();
        self.daemon = Self::spawn(self.folder.path());
        self.wait();
    }

    /// Kills it as a crash would: its containerd goes with it, its containers stay.
    ///
    /// # Panics
    /// When its containerd lives on.
    pub fn crash(&mut self) {
        let _ = self.daemon.kill();
        let _ = self.daemon.wait();
        let containerd = self.folder.path().join("exec/containerd/containerd.pid");
        if let Ok(pid) = fs::read_to_string(&containerd) {
            wait_within(Duration::from_secs(30), "the end of its containerd", || {
                ended(pid.trim())
            });
        }
        // The number in a pid file that a crash left is a zombie's as long as nobody collects it, and then anybody's. The
        // engine takes either for its own: it refuses to start, or waits in vain for a containerd that is none. So whoever
        // starts an engine again removes them, as scripts/setup and service managers do.
        for file in [self.folder.path().join("pid"), containerd] {
            let _ = fs::remove_file(file);
        }
    }

    /// `$DOCKER_HOST` of it.
    #[must_use]
    pub fn host(&self) -> String {
        format!("unix://{}", self.folder.path().join("sock").display())
    }

    /// A call of its command line.
    pub fn docker<I, A>(&self, args: I) -> Done
    where
        I: IntoIterator<Item = A>,
        A: Into<std::ffi::OsString>,
    {
        Call::new("docker")
            .env("DOCKER_HOST", self.host())
            .args(args)
            .run()
    }

    /// A call of a tool where the engine's bridges are this machine's own.
    ///
    /// # Panics
    /// When the engine does not run.
    pub fn beside(&self, home: &crate::Home, tool: &str) -> Call {
        let pid = self.daemon.id().to_string();
        let call = home.tool_by("nsenter", &["--net", "--target", &pid], tool);
        call.env("DOCKER_HOST", self.host())
    }

    /// Whatever is added to it runs where the engine's own loopback is.
    #[must_use]
    pub fn command_beside(&self) -> Command {
        let mut command = Command::new("nsenter");
        command
            .args(["--net", "--target", &self.daemon.id().to_string()])
            .stdin(Stdio::null());
        command
    }

    /// Gives it an image of the machine's engine.
    ///
    /// # Panics
    /// When there is no such image.
    pub fn lend(&self, image: &str) {
        let saved = Command::new("docker")
            .args(["save", image])
            .output()
            .expect("docker starts");
        assert!(saved.status.success(), "there is no image {image}");
        let load = Call::new("docker").env("DOCKER_HOST", self.host());
        let _ = load
            .args(["load", "--quiet"])
            .stdin(saved.stdout)
            .run()
            .ok();
    }

    /// Whether it has gVisor.
    #[must_use]
    pub fn has_runsc(&self) -> bool {
        let runtimes = self.docker(["info", "--format={{json .Runtimes}}"]);
        runtimes.stdout.contains("\"runsc\"")
    }
}

impl Drop for SecondEngine {
    fn drop(&mut self) {
        let ids = self.docker(["ps", "--all", "--quiet"]);
        for id in ids.stdout.lines() {
            let _ = self.docker(["rm", "--force", "--volumes", id]);
        }
        let pid = i32::try_from(self.daemon.id()).map(nix::unistd::Pid::from_raw);
        if let Ok(pid) = pid {
            // SIGTERM, so that it takes its containerd and its mounts along.
            let _ = nix::sys::signal::kill(pid, nix::sys::signal::Signal::SIGTERM);
        }
        let _ = self.daemon.wait();
        let data = self.folder.path().join("data");
        for mounted in ["overlay2", ""] {
            let _ = Command::new("umount")
                .args(["--lazy", "--quiet"])
                .arg(data.join(mounted))
                .stderr(Stdio::null())
                .status();
        }
    }
}

/// Whether a process is gone, or waits for nothing but being collected.
fn ended(pid: &str) -> bool {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
    // The name before the state is in parentheses and may hold any character.
    stat.rsplit_once(") ")
        .is_none_or(|(_, rest)| rest.starts_with('Z'))
}

fn make_executable(path: &Path) {
    use std::os::unix::fs::PermissionsExt as _;
    fs::set_permissions(path, fs::Permissions::from_mode(0o755)).expect("ours");
}
