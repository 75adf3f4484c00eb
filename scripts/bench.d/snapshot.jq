# Medians, ratios and verdicts from single times. Input: an array of what snapshot.sh noted.
include "stats";

def ms($what): map(select(.what == $what) | .us / 1e3);

def row($name; $what; $reference; $against; $most):
  { $name, $reference, $most, ms: (ms($what) | median), spread: (ms($what) | spread), reference_ms: (ms($against) | median) }
  | .ratio = (.reference_ms as $other | .ms | over($other))
  | .reached = (if $most == null then null else .ratio <= $most end);

{ machine: $machine[0], $quick, $rounds,
  rows: [
    (($sizes | split(" "))[] as $size
      | row("bottle-snapshot commit, \($size) MiB of changes"; "commit-\($size)"; "docker commit"; "docker-\($size)"; 1.5)),
    row("bottle-plan --resume … bottle-run up"; "resume"; "bottle-plan … bottle-run up"; "up"; null) ] }
