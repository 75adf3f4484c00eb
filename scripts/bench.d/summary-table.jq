# The section of docs/performance.md, from what summary.jq made.
include "stats";

([.machines[] | "\(.cores) cores (\(.cpu)), \(.memory / 1e9 | round) GB, \(.kernel), engine \(.engine), compose \(.compose)"] | unique | join("; ")) as $where
| (if .quick then "**Some of it from a quick run: good for a glance.**\n" else empty end),
  (if $where == "" then "Nothing was measured yet." else
    "On \($where); commit \([.machines[].commit] | unique | join(", ")), \([.machines[].when] | min | .[:10])."
    + " Reached: \([.rows[] | select(.reached)] | length) of \(.rows | length)." end),
  "",
  ([["what", "beside", "reach", "measured", "reached"]]
    + [.rows[] | [.what, .reference, .reach,
        (if .measured == null then "not measured" else (.measured | figures) + .unit + (if .also then ", \(.also | figures) ms" else "" end) end),
        (if .reached == null then "–" elif .reached then "yes" else "**no**" end)]]
    | table),
  (if .charts.reach != null then "", "![Each row as a bar: how far it is from what was wanted](bench-reach.svg)" else empty end),
  (if .charts.egress != null then "", "![Egress beside squid and mitmproxy](bench-egress.svg)" else empty end),
  (if .charts.pipeline != null then "", "![The pipeline beside docker](bench-pipeline.svg)" else empty end)
