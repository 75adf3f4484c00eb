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
  bottle-plan demo | bottle-render | bottle-run run --headless --prompt 'Fix the tests'

Exit codes: the command's own, 128+N after signal N
Before there is one: 2 usage or invalid input, 3 another digest than expected, 125 our own failure";

pub(super) const EXEC: &str = "\
Examples:
  bottle-run exec demo-x7k2p -- git log -1
  echo hello | bottle-run exec demo-x7k2p -- cat                         it reads our stdin
  while read -r f; do bottle-run exec -n demo-x7k2p -- rm \"$f\"; done < list

Exit codes: the command's own, 128+N after signal N, 125 our own failure around it";

pub(super) const ATTACH: &str = "\
Examples:
  bottle-run attach demo-x7k2p
  bottle-run attach demo-x7k2p --session tests           another one beside it
  bottle-run attach demo-x7k2p --headless --prompt 'Fix the tests'

Ctrl-P Ctrl-Q leaves the session running, and so does closing the terminal. The command's end is the session's.
Without a terminal the command runs on plain pipes and is no session.

Exit codes: the command's own, 128+N after signal N, 0 when it was left, 125 our own failure";

pub(super) const LOGS: &str = "\
Examples:
  bottle-run logs demo-x7k2p
  bottle-run logs demo-x7k2p egress --follow --tail 20       one container, as it goes on";

pub(super) const LIST: &str = "\
Examples:
  bottle-run list
  bottle-run --json list | jq -r '.bottles[] | select(.status == \"running\").slug'";

pub(super) const DOWN: &str = "\
Examples:
  bottle-run down demo-x7k2p
  bottle-run down --purge demo-x7k2p other-1                 with their audit and logs
  bottle-plan demo | bottle-render | bottle-run up | bottle-run down -";

pub(super) const AUDIT: &str = "\
Examples:
  bottle-run audit demo-x7k2p --denied                       what was not let through
  bottle-run audit demo-x7k2p --summary --since 10m          how often, by host and reason
  bottle-run audit verify demo-x7k2p                         whether the record was changed";

pub(super) const VERIFY: &str = "\
Examples:
  bottle-run audit verify demo-x7k2p
  bottle-run --json audit verify demo-x7k2p | jq .intact

Exit codes: 0 intact, 1 not intact, 2 usage, 4 no such bottle";

pub(super) const DIFF: &str = "\
Examples:
  bottle-run diff demo-x7k2p --stat                          how many lines a file
  bottle-run diff demo-x7k2p -- src                          only below src";

pub(super) const PULL: &str = "\
Examples:
  bottle-run pull demo-x7k2p                             to the branch bottle/demo-x7k2p of this repository
  bottle-run pull demo-x7k2p --branch fix --into ~/src/app";

pub(super) const REQUESTS: &str = "\
Examples:
  bottle-run requests
  bottle-run requests show r-7k2p                            all of one, with the difference a push makes
  bottle-run --json requests | jq -r '.requests[].request.id'";

pub(super) const APPROVE: &str = "\
Examples:
  bottle-run approve r-7k2p --for 30m                        as often as it likes until then
  bottle-run approve r-7k2p --uses 1                         once, within ten minutes
  bottle-run approve r-7k2p --edit                           less than it asked for";

pub(super) const DENY: &str = "\
Examples:
  bottle-run deny r-7k2p --why 'use the mirror in docs/'";

pub(super) const ANSWER: &str = "\
Examples:
  bottle-run answer r-7k2p 'yes, the second one'";

pub(super) const GRANTS: &str = "\
Examples:
  bottle-run grants                                          those that hold now
  bottle-run --json grants --all";

pub(super) const REVOKE: &str = "\
Examples:
  bottle-run revoke g-7k2p";

pub(super) const PROMOTE: &str = "\
Examples:
  bottle-run promote g-7k2p                                  shows the change of the manifest, and asks
  bottle-run promote g-7k2p --yes";

pub(super) const WATCH: &str = "\
Examples:
  bottle-run watch
  bottle-run watch --by ann                                  the name that goes on record";

pub(super) const GC: &str = "\
Examples:
  bottle-run gc --dry-run                                    what would be removed
  bottle-run gc";

pub(super) const CHECK: &str = "\
Examples:
  bottle-run check                                           a bottle made for it
  bottle-run check demo-x7k2p                                one that runs
  bottle-plan demo > plan.json && bottle-run check --plan plan.json --json

Exit codes: 0 nothing failed, 1 it could not be tried, 2 usage or invalid input,
            3 something is open, 4 no such bottle, 5 conflict";

pub(super) const SHOW: &str = "\
Examples:
  bottle-run requests show r-7k2p";
