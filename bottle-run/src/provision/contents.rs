//! What is in the tar: for each step of the plan, the files and folders that it puts into the container.

use std::io::Write;
use std::path::{Path, PathBuf};

use bottle_plan::failure::{Failure, Result};
use bottle_plan::plan::{AgentFile, HELPER, Plan, Step, WorkspaceMode};
use bottle_plan::policy::Tls;

use super::archive::{LeftOut, ROOT, broken, directory, file, some_of, tree};
use super::{EGRESS_CA, SKILLS_STAGED, SYSTEM_BUNDLE, skills_folder};
use crate::git_gate;

/// Where OpenSSL looks for a root by the hash of its name, when no variable points it at the bundle.
const HASHED_FOLDER: &str = "etc/ssl/certs";

/// Where the prompt is, when there is no provider that knows better.
const PROMPT: &str = "/etc/bottle/prompt.md";

/// By so many characters Claude Code knows a key again that it was told to use.
const PLACEHOLDER_END: usize = 20;

/// All that the tar is made from.
pub(super) struct Contents {
    pub(super) plan: Plan,
    pub(super) user: (u32, u32),
    pub(super) bundle: Vec<u8>,
    pub(super) passwd: Vec<u8>,
    pub(super) ca_pem: String,
    pub(super) ca_hash: String,
    pub(super) old_ca_hash: Option<String>,
    pub(super) resumed: bool,
    pub(super) helper: Vec<u8>,
    /// What of the workspace is copied; none: all.
    pub(super) listed: Option<Vec<PathBuf>>,
}

impl Contents {
    pub(super) fn write(&self, out: &mut dyn Write, left_out: &mut LeftOut) -> Result<()> {
        let mut archive = tar::Builder::new(out);
        archive.follow_symlinks(false);
        let archive = &mut archive;
        directory(archive, "usr/local/lib/bottle", 0o755, ROOT)?;
        file(
            archive,
            HELPER.trim_start_matches('/'),
            0o755,
            ROOT,
            &self.helper,
        )?;
        directory(archive, "etc/bottle", 0o755, ROOT)?;
        for step in &self.plan.provision {
            self.step(archive, *step, left_out)
                .map_err(|failure| failure.while_doing(format!("{step:?}").to_lowercase()))?;
        }
        archive.finish().map_err(broken)
    }

    fn step<W: Write>(
        &self,
        archive: &mut tar::Builder<W>,
        step: Step,
        left_out: &mut LeftOut,
    ) -> Result<()> {
        let agent = &self.plan.agent;
        let home = agent.home.trim_start_matches('/');
        match step {
            Step::User => {
                directory(archive, home, 0o755, self.user)?;
                // A mounted one is the host's: its owner and mode stay as they are.
                if self.plan.workspace.mode == WorkspaceMode::Copy {
                    let workdir = agent.workdir.trim_start_matches('/');
                    directory(archive, workdir, 0o755, self.user)?;
                }
                if let Some(passwd) = self.passwd_with_agent() {
                    file(archive, "etc/passwd", 0o644, ROOT, &passwd)?;
                }
                Ok(())
            }
            Step::Ca => self.trust(archive),
            Step::Provider => {
                for given in &agent.files {
                    let text = self.with_placeholder(given)?;
                    self.place(archive, &given.path, text.as_bytes())?;
                }
                Ok(())
            }
            Step::Prompt => {
                let prompt = agent.prompt.as_deref().unwrap_or_default();
                let path = agent.prompt_file.as_deref().unwrap_or(PROMPT);
                self.place(archive, path, prompt.as_bytes())
            }
            Step::Skills => {
                self.parents(archive, &format!("{}/x", skills_folder(&self.plan)))?;
                let staged = Path::new(SKILLS_STAGED.trim_start_matches('/'));
                for skill in &agent.skills {
                    tree(
                        archive,
                        &skill.path,
                        &staged.join(&skill.name),
                        ROOT,
                        left_out,
                    )?;
                }
                Ok(())
            }
            // It is there, as the agent left it.
            Step::Workspace if self.resumed => Ok(()),
            Step::Workspace => {
                let target = Path::new(agent.workdir.trim_start_matches('/'));
                match (&self.plan.workspace.from, &self.listed) {
                    (Some(from), Some(names)) => {
                        some_of(archive, from, target, names, self.user, left_out)
                    }
                    (Some(from), None) => tree(archive, from, target, self.user, left_out),
                    (None, _) => Ok(()),
                }
            }
            Step::Git => {
                let path = format!("{home}/.gitconfig");
                file(
                    archive,
                    &path,
                    0o644,
                    self.user,
                    self.gitconfig().as_bytes(),
                )
            }
        }
    }

    /// The bottle's CA, wherever programs look for those they trust.
    fn trust<W: Write>(&self, archive: &mut tar::Builder<W>) -> Result<()> {
        let mut bundle = self.bundle.clone();
        if !bundle.is_empty() && !bundle.ends_with(b"\n") {
            bundle.push(b'\n');
        }
        bundle.extend_from_slice(self.ca_pem.as_bytes());
        file(archive, EGRESS_CA, 0o644, ROOT, self.ca_pem.as_bytes())?;
        file(archive, "etc/bottle/ca-bundle.pem", 0o644, ROOT, &bundle)?;
        // Both places of the system store: the bundle programs read, and the folder it is made from.
        file(archive, SYSTEM_BUNDLE, 0o644, ROOT, &bundle)?;
        let source = "usr/local/share/ca-certificates/bottle-egress.crt";
        file(archive, source, 0o644, ROOT, self.ca_pem.as_bytes())?;
        // The name says which bottle it is, so nobody else has this hash and the `.0` is free.
        let hashes = self.old_ca_hash.iter().chain([&self.ca_hash]);
        for hash in hashes {
            // Under an old name the new certificate is never asked for, and the old one is gone.
            let hashed = format!("{HASHED_FOLDER}/{hash}.0");
            file(archive, &hashed, 0o644, ROOT, self.ca_pem.as_bytes())?;
        }
        Ok(())
    }

    /// Who commits, and the gate in the place of every upstream.
    fn gitconfig(&self) -> String {
        let user = &self.plan.agent.git_user;
        let quoted = |text: &str| text.replace('\\', "\\\\").replace('"', "\\\"");
        let mut config = String::from("[user]\n");
        for (key, value) in [("name", &user.name), ("email", &user.email)] {
            if let Some(value) = value {
                config.push_str(&format!("\t{key} = \"{}\"\n", quoted(value)));
            }
        }
        config + &git_gate::instead_of(&self.plan)
    }

    /// What of ours the image has no place for, where somebody could miss it.
    pub(super) fn missing(&self) -> Vec<String> {
        let mut lines = Vec::new();
        let routes = &self.plan.egress.routes;
        if self.bundle.is_empty() && routes.iter().any(|route| route.tls == Tls::Passthrough) {
            lines.push(
                "the image has no root certificates (Debian: ca-certificates): hosts with `tls: passthrough` are not \
                 trusted in it"
                    .to_owned(),
            );
        }
        if self.passwd.is_empty() {
            lines.push(
                "the image has no /etc/passwd: programs in it find no name for their user"
                    .to_owned(),
            );
        }
        lines
    }

    /// A file at an absolute path: the agent's own below its home, elsewhere one it can only read.
    fn place<W: Write>(
        &self,
        archive: &mut tar::Builder<W>,
        path: &str,
        bytes: &[u8],
    ) -> Result<()> {
        let own = self.below_home(path).is_some();
        let (mode, owner) = if own {
            (0o600, self.user)
        } else {
            (0o644, ROOT)
        };
        self.parents(archive, path)?;
        file(archive, path.trim_start_matches('/'), mode, owner, bytes)
    }

    /// The folders between the home and `path`. The engine would make them too, but root's: a program that keeps its
    /// settings beside its skills could not write them.
    fn parents<W: Write>(&self, archive: &mut tar::Builder<W>, path: &str) -> Result<()> {
        let Some(below) = self.below_home(path) else {
            return Ok(());
        };
        let home = Path::new(self.plan.agent.home.trim_start_matches('/'));
        let mut folders: Vec<&Path> = below.ancestors().skip(1).collect();
        folders.retain(|folder| !folder.as_os_str().is_empty());
        for folder in folders.into_iter().rev() {
            let folder = home.join(folder);
            directory(archive, &folder.to_string_lossy(), 0o755, self.user)?;
        }
        Ok(())
    }

    fn below_home<'a>(&self, path: &'a str) -> Option<&'a Path> {
        Path::new(path).strip_prefix(&self.plan.agent.home).ok()
    }

    /// The text of a provider's file. The placeholder is filled in here because it is another one in every bottle.
    fn with_placeholder(&self, given: &AgentFile) -> Result<String> {
        let Some(slot) = &given.slot else {
            return Ok(given.text.clone());
        };
        let auths = self
            .plan
            .egress
            .routes
            .iter()
            .filter_map(|route| route.auth.as_ref());
        let placeholder = auths
            .filter(|auth| auth.slot == *slot)
            .find_map(|auth| auth.placeholder.as_deref())
            .ok_or_else(|| {
                Failure::invalid(format!(
                    "{} needs the placeholder of {slot}, which no route has",
                    given.path
                ))
            })?;
        let end: Vec<char> = placeholder.chars().rev().take(PLACEHOLDER_END).collect();
        let end: String = end.into_iter().rev().collect();
        Ok(given
            .text
            .replace("{{placeholder_end}}", &end)
            .replace("{{placeholder}}", placeholder))
    }

    /// The image's passwd with a line for the agent: without one ssh, git and Node's `os.userInfo` refuse to work.
    fn passwd_with_agent(&self) -> Option<Vec<u8>> {
        let text = std::str::from_utf8(&self.passwd)
            .ok()
            .filter(|text| !text.is_empty())?;
        let (uid, gid) = self.user;
        let has_uid = text
            .lines()
            .any(|line| line.split(':').nth(2) == Some(&uid.to_string()));
        if has_uid {
            return None;
        }
        let line = format!(
            "agent:x:{uid}:{gid}:agent:{}:/bin/bash",
            self.plan.agent.home
        );
        Some(format!("{}\n{line}\n", text.trim_end()).into_bytes())
    }
}
