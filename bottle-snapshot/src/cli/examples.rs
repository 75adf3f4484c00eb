//! What `--help` shows under each command.

pub(super) const COMMIT: &str = "\
Examples:
  bottle-snapshot commit demo-x7k2p -m 'tests pass'
  bottle-snapshot commit demo-x7k2p --squash             what was deleted in it is gone for good
  bottle-snapshot commit                                 choose from a list

Exit codes: 0 done, 1 failed, 2 usage, or a value to look for is missing,
            3 refused: a secret is inside, 4 not found, 5 conflict";

pub(super) const LIST: &str = "\
Examples:
  bottle-snapshot list
  bottle-snapshot --json list demo-x7k2p";

pub(super) const SHOW: &str = "\
Examples:
  bottle-snapshot show demo-x7k2p@2
  bottle-snapshot show demo-x7k2p | jq .proof";

pub(super) const VERIFY: &str = "\
Examples:
  bottle-snapshot verify demo-x7k2p
  bottle-snapshot verify demo-x7k2p@1 --allow-missing    also without the values that are gone

Exit codes: 0 none is inside, 1 failed, 2 usage, or a value to look for is missing,
            3 a secret is inside, 4 not found, 5 conflict";

pub(super) const RM: &str = "\
Examples:
  bottle-snapshot rm demo-x7k2p@1
  bottle-snapshot rm demo-x7k2p --all                    every one of the bottle's";

pub(super) const PRUNE: &str = "\
Examples:
  bottle-snapshot prune demo-x7k2p --keep 3              the three newest stay";

pub(super) const EXPORT: &str = "\
Examples:
  bottle-snapshot export demo-x7k2p -o demo.tar.zst
  bottle-snapshot export demo-x7k2p@1 | ssh HOST bottle-snapshot import";

pub(super) const IMPORT: &str = "\
Examples:
  bottle-snapshot import demo.tar.zst
  bottle-snapshot import demo.tar.zst --slug demo-b      beside a bottle that has the name";

pub(super) const PUSH: &str = "\
Examples:
  bottle-snapshot push demo-x7k2p registry.example.com/team/demo:1
  bottle-snapshot push demo-x7k2p@2 registry.example.com/team/demo:1 --force";

pub(super) const PULL: &str = "\
Examples:
  bottle-snapshot pull registry.example.com/team/demo:1
  bottle-snapshot pull registry.example.com/team/demo:1 --slug demo-b";

pub(super) const GC: &str = "\
Examples:
  bottle-snapshot gc";
