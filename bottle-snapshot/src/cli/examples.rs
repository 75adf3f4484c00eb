//! What `--help` shows under each command.

pub(super) const COMMIT: &str = "\
Examples:
  bottle-snapshot commit demo-x7k2p -m 'tests pass'";

pub(super) const LIST: &str = "\
Examples:
  bottle-snapshot list
  bottle-snapshot --json list demo-x7k2p";

pub(super) const SHOW: &str = "\
Examples:
  bottle-snapshot show demo-x7k2p@2";

pub(super) const VERIFY: &str = "\
Examples:
  bottle-snapshot verify demo-x7k2p";

pub(super) const RM: &str = "\
Examples:
  bottle-snapshot rm demo-x7k2p@1";

pub(super) const PRUNE: &str = "\
Examples:
  bottle-snapshot prune demo-x7k2p --keep 3";

pub(super) const EXPORT: &str = "\
Examples:
  bottle-snapshot export demo-x7k2p -o demo.tar.zst";

pub(super) const IMPORT: &str = "\
Examples:
  bottle-snapshot import demo.tar.zst
  bottle-snapshot import demo.tar.zst --slug demo-b";

pub(super) const PUSH: &str = "\
Examples:
  bottle-snapshot push demo-x7k2p registry.example.com/team/demo:1";

pub(super) const PULL: &str = "\
Examples:
  bottle-snapshot pull registry.example.com/team/demo:1
  bottle-snapshot pull registry.example.com/team/demo:1 --slug demo-b";

pub(super) const GC: &str = "\
Examples:
  bottle-snapshot gc";

pub(super) const COMPLETIONS: &str = "\
Examples:
  bottle-snapshot completions bash > ~/.local/share/bash-completion/completions/bottle-snapshot";
