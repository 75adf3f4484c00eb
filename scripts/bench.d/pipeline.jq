# Medians, ratios and verdicts from single times. Input: an array of what pipeline.sh noted.
include "stats";

def ms($what): map(select(.what == $what) | .us / 1e3);

def row($name; $what; $against; $reference; $most_ratio; $most_ms):
  { $name, $reference,
    ms: (ms($what) | median), spread: (ms($what) | spread), reference_ms: (ms($against) | median) }
  | .ratio = (.reference_ms as $other | .ms | over($other))
  | .target = (if $most_ratio == null then null
      else "≤ \($most_ratio)×" + if $most_ms == null then "" else ", < \($most_ms) ms" end end)
  | .reached = (if $most_ratio == null then null
      else .ratio <= $most_ratio and ($most_ms == null or .ms < $most_ms) end);

def docker: "docker version --format x, client only";

{ machine: $machine[0], $quick, $rounds, shell_ms: (ms("true") | median),
  times: (map(select(.what == "plan")) | length), starts: (map(select(.what == "up")) | length),
  rows: [
    row("bottle-plan"; "plan"; "docker"; docker; 1; 10),
    row("bottle-ca, making a key"; "ca"; "docker"; docker; 1; 10),
    row("bottle-render"; "render"; "docker"; docker; 1; 10),
    row("bottle-run up, warm"; "up"; "compose-up"; "docker compose up -d --wait"; 1.3; null),
    row("bottle-run up, warm"; "up"; "unwatched-up"; "docker compose up -d, health check taken out"; null; null),
    row("bottle-run down"; "down"; "compose-down"; "docker compose down -t 0"; 1.2; null) ] }
