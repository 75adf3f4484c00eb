# The section of docs/performance.md, from what pipeline.jq made.
include "stats";

.machine as $m
| "\(if .quick == 1 then "**A quick run: few rounds, good for a glance.**\n\n" else "" end)"
  + "Measured \($m.when) on \($m.cores) cores (\($m.cpu)), \($m.memory / 1e9 | round) GB, \($m.kernel), engine \($m.engine),"
  + " compose \($m.compose); commit \($m.commit)\(if $m.changed then " with changes" else "" end); load average at the start \($m.load).",
  "",
  "Medians of \(.times) runs of each filter and \(.starts) starts, with the reference in turn. A process that does nothing"
  + " takes \(.shell_ms | figures) ms here, and that is in every figure.",
  "",
  ([["", "ms", "reference", "ms", "ratio", "target", "reached"]]
    + [.rows[] | [.name, (.ms | figures), .reference, (.reference_ms | figures), (.ratio | if . == null then "–" else figures + "×" end),
        (.target // "–"), (if .reached == null then "–" elif .reached then "yes" else "**no**" end)]]
    | table)
