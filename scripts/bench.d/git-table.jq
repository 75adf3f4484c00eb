# The section of docs/performance.md, from what git.jq made.
include "stats";

.machine as $m
| "\(if .quick == 1 then "**A quick run: a small repository, one round, good for a glance.**\n\n" else "" end)"
  + "Measured \($m.when) on \($m.cores) cores (\($m.cpu)), \($m.memory / 1e9 | round) GB, \($m.kernel), engine \($m.engine);"
  + " commit \($m.commit)\(if $m.changed then " with changes" else "" end); load average at the start \($m.load).",
  "",
  "A repository of \(.commits | figures) commits and \(.size / 1e6 | round) MB (packed); medians of \(.rounds) rounds, both ways in turn."
  + " Between the rounds the figures differ by \(if .spread == null then "–" else (.spread * 100 | figures) + " %" end) (median).",
  "",
  ([["", "direct SSH, s", "gate, s", "of it the checks, s", "gate/direct", "without the checks", "target", "reached"]]
    + [.scan as $scan | .rows[] | [.name, (.direct | figures), (.gate | figures),
        (if .without == .gate then "–" else ($scan | figures) end), (.ratio | figures) + "×", (.ratio_without | figures) + "×",
        "≤ \(.most)×", (if .reached then "yes" else "**no**" end)]]
    | table),
  "",
  "The first clone of a bottle, for which the gate first fetches all of it from the upstream: \(.first | figures) s."
