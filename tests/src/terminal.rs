//! A real terminal: tmux types, resizes and reads the screen.

use std::path::Path;
use std::process::Command;
use std::time::{Duration, Instant};

use crate::engine::wait_within;
use crate::home::Home;
use crate::tools;

/// A bottle takes its time to start on a busy machine.
pub const PATIENCE: Duration = Duration::from_secs(60);

/// A terminal of tmux's, gone with this value.
#[derive(Debug)]
pub struct Terminal {
    socket: String,
}

impl Terminal {
    /// A shell in an empty environment, in the home's folder, with the built tools on its PATH.
    ///
    /// # Panics
    /// When tmux does not start.
    #[must_use]
    pub fn start(home: &Home, name: &str, width: u16, height: u16) -> Self {
        let terminal = Self {
            socket: home.slug(name),
        };
        let (width, height) = (width.to_string(), height.to_string());
        let tools = tools::tool("bottle-run");
        let tools = tools.parent().unwrap_or(Path::new("/"));
        let mut environment = vec![
            (
                "PATH".to_owned(),
                format!(
                    "{}:{}",
                    tools.display(),
                    std::env::var("PATH").unwrap_or_default()
                ),
            ),
            ("BOTTLE_HOME".to_owned(), home.path().display().to_string()),
            ("HOME".to_owned(), home.user().display().to_string()),
        ];
        environment.extend(
            tools::sidecar().map(|path| ("BOTTLE_SIDECAR".to_owned(), path.display().to_string())),
        );
        let environment: Vec<String> = environment
            .into_iter()
            .map(|(name, value)| format!("'{name}={value}'"))
            .collect();
        let shell = format!(
            "cd '{}'; exec env -i {} PS1='ready> ' TERM=screen bash --norc --noprofile",
            home.cwd().display(),
            environment.join(" ")
        );
        let _ = terminal.tmux(&[
            "-f",
            "/dev/null",
            "new-session",
            "-d",
            "-s",
            "t",
            "-x",
            &width,
            "-y",
            &height,
            &shell,
        ]);
        terminal.waits_for("ready>");
        terminal
    }

    /// Calls tmux on this terminal's server, and gives what it prints.
    ///
    /// # Panics
    /// When tmux fails.
    pub fn tmux(&self, args: &[&str]) -> String {
        let output = Command::new("tmux")
            .arg("-L")
            .arg(&self.socket)
            .args(args)
            .output()
            .expect("tmux runs");
        assert!(
            output.status.success(),
            "tmux {args:?}: {}",
            String::from_utf8_lossy(&output.stderr)
        );
        String::from_utf8_lossy(&output.stdout).into_owned()
    }

    /// What stands on the screen.
    #[must_use]
    pub fn screen(&self) -> String {
        self.tmux(&["capture-pane", "-p", "-t", "t"])
    }

    /// Types a line.
    pub fn types(&self, keys: &str) {
        let _ = self.tmux(&["send-keys", "-t", "t", keys, "Enter"]);
    }

    /// Types until the answer is there: a shell that has just shown its prompt may throw away what came before it read.
    pub fn asks(&self, keys: &str, answer: &str) {
        let mut polls = 0;
        wait_within(PATIENCE, &format!("`{answer}` after `{keys}`"), || {
            if polls % 100 == 0 {
                self.types(keys);
            }
            polls += 1;
            self.screen().contains(answer)
        });
    }

    /// Presses keys by tmux's names, such as `C-c`.
    pub fn presses(&self, keys: &[&str]) {
        let args = [&["send-keys", "-t", "t"], keys].concat();
        let _ = self.tmux(&args);
    }

    /// Closes the window, as a person does, without ending what runs in it.
    pub fn close(&self) {
        let _ = self.tmux(&["kill-session", "-t", "t"]);
    }

    /// Waits until the screen has the text.
    ///
    /// # Panics
    /// When it does not come.
    pub fn waits_for(&self, text: &str) {
        let mut screen = String::new();
        let began = Instant::now();
        while !screen.contains(text) {
            let left = PATIENCE.checked_sub(began.elapsed());
            assert!(
                left.is_some(),
                "waited in vain for `{text}`; the screen:\n{screen}"
            );
            std::thread::sleep(Duration::from_millis(5));
            screen = self.screen();
        }
    }
}

impl Drop for Terminal {
    fn drop(&mut self) {
        let _ = Command::new("tmux")
            .args(["-L", &self.socket, "kill-server"])
            .output();
    }
}

/// Whether there is a tmux; if not, `name` is skipped with a message.
#[must_use]
pub fn need_tmux(name: &str) -> bool {
    let there = Command::new("tmux").arg("-V").output().is_ok();
    if !there {
        crate::engine::skip(name, "tmux is not installed");
    }
    there
}
