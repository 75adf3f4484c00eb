//! Telling the upstream: exactly the objects that were checked, on condition that nothing has changed there.

use std::io;
use std::time::Duration;

use bottle_plan::git::Sign;

use super::git::finish;
use super::hook::Voice;
use super::objects::Quarantine;
use super::repo::Repo;
use super::rules::{Command, Refusal};
use crate::reason::Reason;

/// How long the upstream may take; its own hooks run in that time.
const LIMIT: Duration = Duration::from_secs(30 * 60);

/// Pushes the updates. Git makes a pack of its own from what is reachable, so that nothing else the agent sent along gets
/// there. The upstream's own words are handed on as they come.
pub(super) fn forward(
    repo: &Repo,
    quarantine: &Quarantine<'_>,
    updates: &[Command],
    voice: &Voice,
) -> Result<(), Refusal> {
    let mut command = repo.upstream_git();
    quarantine.lay_over(&mut command);
    command.args([
        // The agent's git has looked for deltas already, and what it found is taken over.
        "-c",
        "pack.window=0",
        "push",
        "--porcelain",
        "--no-verify",
        "--no-follow-tags",
        "--recurse-submodules=no",
        match repo.rules.sign {
            None => "--no-signed",
            Some(Sign::Ssh) => "--signed=yes",
            Some(Sign::SshIfAsked) => "--signed=if-asked",
        },
    ]);
    if updates.len() > 1 {
        command.arg("--atomic");
    }
    for update in updates {
        // An empty one says that there is none yet. That history only grows was checked; this says that it still is the
        // history that was looked at.
        let old = if update.creates() { "" } else { &update.old };
        command.arg(format!("--force-with-lease={}:{old}", update.name));
    }
    command.args(["--", &repo.rules.url]);
    // Git looks for a branch of this name before it takes the object of this id; no branch is called `ID^{object}`.
    command.args(
        updates
            .iter()
            .map(|update| format!("{}^{{object}}:{}", update.new, update.name)),
    );
    let mut said_before = false;
    let mut relay = |line: &str| {
        if let Some(words) = line.strip_prefix("remote:") {
            said_before = true;
            voice.say(words.strip_prefix(' ').unwrap_or(words).trim_end());
        }
    };
    let done = match finish(&mut command, Vec::new(), LIMIT, &mut relay) {
        Ok(done) => done,
        Err(error) => return Err(unreachable(repo, &error)),
    };
    if done.status.success() {
        return Ok(());
    }
    let report = String::from_utf8_lossy(&done.stdout).into_owned();
    let refused: Vec<&str> = report
        .lines()
        .filter_map(|line| line.strip_prefix("!\t"))
        .collect();
    if done.stderr.contains("does not support --signed") {
        let detail =
            "it takes no signed pushes (receive.certNonceSeed), and `sign: ssh` wants them";
        return Err(Refusal::new(Reason::GitUpstreamRefused, detail));
    }
    if refused.is_empty() {
        let why: Vec<&str> = done
            .stderr
            .lines()
            .filter(|line| !line.starts_with("remote:"))
            .take(4)
            .collect();
        return Err(unreachable(repo, &io::Error::other(why.join("; "))));
    }
    let is_stale = refused
        .iter()
        .any(|line| line.contains("(stale info)") || line.contains("(fetch first)"));
    let reason = if is_stale {
        Reason::GitStale
    } else {
        Reason::GitUpstreamRefused
    };
    Err(Refusal::new(
        reason,
        refused
            .iter()
            .map(|line| words(line))
            .collect::<Vec<_>>()
            .join("; "),
    ))
}

/// `OID:REF<tab>[remote rejected] (why)`, without the object.
fn words(line: &str) -> String {
    let (refs, summary) = line.split_once('\t').unwrap_or(("", line));
    let name = refs.split_once(':').map_or(refs, |(_, name)| name);
    format!("{name} {summary}")
}

fn unreachable(repo: &Repo, error: &io::Error) -> Refusal {
    Refusal::new(
        Reason::UpstreamUnreachable,
        format!("{}: {error}", repo.host),
    )
}

#[cfg(test)]
mod tests {
    use super::words;

    #[test]
    fn the_report_of_git_is_said_in_its_words() {
        assert_eq!(
            words("aaaa:refs/heads/agent/x\t[remote rejected] (pre-receive hook declined)"),
            "refs/heads/agent/x [remote rejected] (pre-receive hook declined)"
        );
    }
}
