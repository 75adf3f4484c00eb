# The section of docs/performance.md, from what snapshot.jq made.
include "stats";

.machine as $m
| "\(if .quick == 1 then "**A quick run: one round, good for a glance.**\n\n" else "" end)"
  + "Measured \($m.when) on \($m.cores) cores (\($m.cpu)), \($m.memory / 1e9 | round) GB, \($m.kernel), engine \($m.engine);"
  + " commit \($m.commit)\(if $m.changed then " with changes" else "" end); load average at the start \($m.load)."
  + " Medians of \(.rounds) rounds, each beside its reference.",
  "",
  ([["", "ms", "reference", "ms", "ratio", "target", "reached"]]
    + [.rows[] | [.name, (.ms | figures), .reference, (.reference_ms | figures), (.ratio | if . == null then "–" else figures + "×" end),
        (.most | if . == null then "–" else "≤ \(.)×" end),
        (if .reached == null then "–" elif .reached then "yes" else "**no**" end)]]
    | table)
