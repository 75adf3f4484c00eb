//! What `--help` of each command shows.

pub(super) const UP: &str = "\
Examples:
  bottle-plan demo | bottle-render | bottle-run up               start it, print its handle
  bottle-plan demo | bottle-render | bottle-run up --dry-run     say what would be started
  bottle-run up --file compose.yaml --expect-digest sha256:…     start this and no other";

pub(super) const RUN: &str = "\
Examples:
  bottle-plan demo | bottle-render | bottle-run run                       its own command
  bottle-plan demo | bottle-render | bottle-run run -- git --version      another one
  bottle-plan demo | bottle-render | bottle-run run --headless --prompt 'Fix the tests'";

pub(super) const EXEC: &str = "\
Examples:
  bottle-run exec demo-x7k2p -- git log -1
  echo hello | bottle-run exec demo-x7k2p -- cat
  while read -r f; do bottle-run exec -n demo-x7k2p -- rm \"$f\"; done < list";

pub(super) const ATTACH: &str = "\
Examples:
  bottle-run attach demo-x7k2p
  bottle-run attach demo-x7k2p --session tests           another one beside it
  bottle-run attach demo-x7k2p --headless --prompt 'Fix the tests'

Ctrl-P Ctrl-Q leaves the session running, and so does closing the terminal. The command's end is the session's.
Without a terminal the command runs on plain pipes and is no session.";

pub(super) const LOGS: &str = "\
Examples:
  bottle-run logs demo-x7k2p
  bottle-run logs demo-x7k2p egress --follow --tail 20";

pub(super) const LIST: &str = "\
Examples:
  bottle-run list
  bottle-run --json list | jq -r '.bottles[] | select(.status == \"running\").slug'";

pub(super) const DOWN: &str = "\
Examples:
  bottle-run down demo-x7k2p
  bottle-run down --purge demo-x7k2p other-1
  bottle-plan demo | bottle-render | bottle-run up | bottle-run down -";

pub(super) const AUDIT: &str = "\
Examples:
  bottle-run audit demo-x7k2p --denied
  bottle-run audit demo-x7k2p --summary --since 10m
  bottle-run audit verify demo-x7k2p";

pub(super) const VERIFY: &str = "\
Examples:
  bottle-run audit verify demo-x7k2p
  bottle-run --json audit verify demo-x7k2p | jq .intact";

pub(super) const COMPLETIONS: &str = "\
Examples:
  source <(bottle-run completions bash)                                   now
  bottle-run completions bash > ~/.local/share/bash-completion/completions/bottle-run
  bottle-run completions fish > ~/.config/fish/completions/bottle-run.fish";

pub(super) const DIFF: &str = "\
Examples:
  bottle-run diff demo-x7k2p --stat
  bottle-run diff demo-x7k2p -- src";

pub(super) const PULL: &str = "\
Examples:
  bottle-run pull demo-x7k2p                             to the branch bottle/demo-x7k2p of this repository
  bottle-run pull demo-x7k2p --branch fix --into ~/src/app";

pub(super) const REQUESTS: &str = "\
Examples:
  bottle-run requests
  bottle-run requests --follow --json | while read -r line; do echo \"$line\"; done";

pub(super) const APPROVE: &str = "\
Examples:
  bottle-run approve r-7k2p --for 30m
  bottle-run approve r-7k2p --uses 1";

pub(super) const DENY: &str = "\
Examples:
  bottle-run deny r-7k2p --why 'use the mirror in docs/'";

pub(super) const ANSWER: &str = "\
Examples:
  bottle-run answer r-7k2p 'yes, the second one'";

pub(super) const GRANTS: &str = "\
Examples:
  bottle-run grants
  bottle-run --json grants --all";

pub(super) const REVOKE: &str = "\
Examples:
  bottle-run revoke g-7k2p";

pub(super) const PROMOTE: &str = "\
Examples:
  bottle-run promote g-7k2p";

pub(super) const WATCH: &str = "\
Examples:
  bottle-run watch";

pub(super) const GC: &str = "\
Examples:
  bottle-run gc --dry-run
  bottle-run gc";

pub(super) const CHECK: &str = "\
Examples:
  bottle-run check
  bottle-run check demo-x7k2p
  bottle-plan demo > plan.json && bottle-run check --plan plan.json --json";

pub(super) const SHOW: &str = "\
Examples:
  bottle-run requests show r-7k2p";
