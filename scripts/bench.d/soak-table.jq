# What each kind of sidecar took in the first and in the last third of a soak. `--slurpfile machine` is from its start,
# `--argjson later` from its end.
include "stats";

def kind_of_thing: {egress: 0, supervise: 1, "git-gate": 2}[.] // 3;

(map(select(.sidecar)) | map(select(.at > 40))) as $samples
| (map(select(.counts)) | last) as $total
| ($samples | group_by(.sidecar) | sort_by(.[0].sidecar | kind_of_thing)) as $kinds
| ($kinds | map(
    (map(.at) | min) as $from | (map(.at) | max) as $to | (($to - $from) / 3) as $third
    | map(select(.at <= $from + $third)) as $first | map(select(.at >= $to - $third)) as $last
    | def both(of): "\($first | map(of) | median | figures) / \($last | map(of) | median | figures)";
      [.[0].sidecar, (map(.bottle) | unique | length | tostring), both(.kib / 1024), (map(.kib / 1024) | max | figures),
       both(.fds), (map(.fds) | max | tostring), both(.threads)])) as $rows
| ([["sidecar", "how many", "memory, MiB: first / last third", "most", "file descriptors: first / last third", "most", "threads"]] + $rows | table),
  "",
  "\($total.bottles) bottles, \($total.seconds / 60 | round) minutes: " +
  ([["requests", "requests"], ["denied", "denied"], ["reloads", "reloads of the policy during traffic"], ["grants", "grants, each used up"],
    ["pushes", "pushes"], ["snapshots", "snapshots"]] | map("\($total.counts[.[0]] // 0 | figures) \(.[1])") | join(", ")) +
  "; \($total.errors | length) errors. Medians of the first and the last third, after 40 s of warm-up.",
  "\($machine[0].cores) cores, load \($machine[0].load) at the beginning and \($later.load) at the end, engine \($later.engine), \($later.kernel), \($machine[0].when)."
