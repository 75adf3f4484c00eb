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
  bottle-run attach demo-x7k2p --headless --prompt 'Fix the tests'";

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
