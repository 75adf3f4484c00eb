# The section of docs/performance.md, from what egress.jq made.
include "stats";

def times: if . == null then "–" else figures + "×" end;

.conditions as $c
| .rows as $rows
| "\(if $c.quick == 1 then "**A quick run: one short round, good for a glance.**\n\n" else "" end)"
  + (if .disturbed then "**Something else ran: the ratios are skewed, and the figures are too low.**\n\n" else "" end)
  + "Measured \($c.machine.when) on \($c.machine.cores) cores (\($c.machine.cpu)), \($c.machine.memory / 1e9 | round) GB, \($c.machine.kernel),"
  + " engine \($c.machine.engine); commit \($c.machine.commit)\(if $c.machine.changed then " with changes" else "" end),"
  + " \($c.sidecar) (sha256 \($c.digest)…, binary \($c.binary / 1e6 | figures) MB, image \($c.image / 1e6 | figures) MB); \($c.versions).",
  "",
  "Rounds: \($c.rounds), all ways in turn, \($c.seconds) s a measurement, bodies of 1 KiB and \($c.bulk / 1048576) MiB; the figures are medians."
  + " Everything else on the machine took \(.others.median * 100 | figures) % of its processors (median; the most in one measurement \(.others.most * 100 | figures) %)."
  + ([$rows[].ways[].spread | select(. != null)]
    | if length == 0 then "" else " Between the rounds the figures differ by \(median * 100 | figures) % (median over all of them)." end)
  + (if .errors > 0 then "\n\n**\(.errors) errors**: " + ([.failed[] | "\(.way) \(.case): \(.first_error // "?")"] | unique | join("; ")) else " No request failed." end),
  "",
  ([["", "direct", "ours", "squid", "mitmproxy", "ours/direct", "ours/squid", "ours/mitmproxy"]]
    + [$rows[] | ["\(.name), \(.unit)\(if .less then " ↓" else "" end)"]
        + [.ways[("direct", "ours", "squid", "mitmproxy")].median | figures]
        + [.ratios[("direct", "squid", "mitmproxy")] | times]]
    | table),
  "",
  "↓: less is better.",
  "",
  ([["goal", "target", "measured", "reached"]]
    + [.verdicts[] | [.what, .target, (.measured | figures) + .unit,
        (if .reached == null then "–" elif .reached then "yes" else "**no**" end)]]
    | table),
  "",
  "Where the processors' time of a request goes, µs, at 32 connections:",
  "",
  ([["", "client", "proxy", "upstream", "sum"]]
    + [.shares[] | [.way, (.client | figures), (.proxy | figures), (.upstream | figures),
        ([.client, .proxy, .upstream] | add | figures)]]
    | table),
  "",
  "*relay* is an nginx that only takes TLS and gives TLS: the floor. At 32 connections the sidecar passes on \(.to_floor | times) as many requests a second."
