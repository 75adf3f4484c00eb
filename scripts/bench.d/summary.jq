# The goals, from the summaries of the parts; null is a part that has not run.
include "stats";

# How far from what was wanted: 1 is just reached, more is better.
def margin($least; $target): if . == null then null elif $least then . / $target else $target / . end;

# `unit` of a target such as "≥ 0.6×" or "≤ 24 MB".
def number: capture("(?<n>[0-9.]+)").n | tonumber;

def row($part; $what; $reference; $reach; $unit; $measured; $reached):
  { $part, $what, $reference, $reach, $unit, $measured, $reached,
    margin: ($measured | margin($reach | startswith("≥"); $reach | number)) };
def missing($part; $what; $reference; $reach): row($part; $what; $reference; $reach; ""; null; null);

def pipeline:
  def wanted: [["bottle-plan", "1", "docker version --format x"], ["bottle-ca, making a key", "1", "docker version --format x"],
    ["bottle-render", "1", "docker version --format x"], ["bottle-run up, warm", "1.3", "docker compose up -d --wait"],
    ["bottle-run down", "1.2", "docker compose down -t 0"]];
  . as $all | wanted[] as [$name, $most, $reference]
  | (if $all == null then null else first($all.rows[] | select(.name == $name and .reached != null)) end) as $row
  | row("pipeline"; $name; $reference; "≤ \($most)×"; "×"; $row.ratio; $row.reached)
  | if $name | test("plan|ca|render") then .reach += ", < 10 ms" | .also = $row.ms else . end;

def egress:
  if . == null then
    missing("egress"; "requests/s, added latency, bulk, new connections, memory, image"; "direct, squid, mitmproxy"; "≥ 0.6×")
  else .verdicts[] | row("egress"; .what; (.what | if test("squid") then "squid" elif test("mitmproxy") then "mitmproxy"
      elif test("direct|latency|bulk") then "direct" else "–" end); .target; .unit; .measured; .reached) end;

def snapshot:
  if . == null then missing("snapshot"; "bottle-snapshot commit, with its proof"; "docker commit"; "≤ 1.5×")
  else .rows[] | select(.reached != null)
    | row("snapshot"; .name; .reference; "≤ \(.most)×"; "×"; .ratio; .reached) end;

def git:
  if . == null then missing("git"; "clone, and push without its checks"; "ssh to the upstream"; "≤ 1.3×")
  else .rows[] | row("git"; .name; "ssh to the upstream"; "≤ \(.most)×"; "×"; .ratio_without; .reached) end;

def many:
  if . == null then missing("many"; "bottles at once on one machine"; "about 15 with Docker's default pools"; "≥ 100")
  else (.failed == 0 and .enforced == .count and .left == 0) as $whole
    | row("many"; "bottles at once on one machine"; "about 15 with Docker's default pools"; "≥ 100"; "";
        (if $whole then .count else .enforced end); $whole and .count >= 100) end;

def bars($way; $names): [$names[] as [$key, $name] | {$name, value: $way[$key], ours: ($key == "ours")} | select(.value != null)];
def ways: [["direct", "direct"], ["ours", "bottle"], ["squid", "squid"], ["mitmproxy", "mitmproxy"]];

def egress_chart:
  if . == null then null else
    (.rows | map({key: .id, value: .}) | from_entries) as $rows
    | def panel($id; $title; $unit; $less):
        {$title, $unit, $less, bars: bars($rows[$id].ways | map_values(.median); ways)};
      { title: "Egress beside squid and mitmproxy", panels: [
          panel("c32"; "Requests, 32 connections"; "/s"; false), panel("added_p50"; "Added latency, median"; "ms"; true),
          panel("down"; "Bulk download"; "MB/s"; false), panel("new"; "New TLS connections"; "/s"; false),
          panel("load"; "Memory under load"; "MB"; true), panel("cpu_request"; "Processor time of a request"; "µs"; true)
        ] } end;

def pipeline_chart:
  if . == null then null else
    { title: "The pipeline beside docker", panels: [
        (.rows[] | select(.reached != null) | {title: .name, unit: "ms", less: true,
          bars: [{name: "bottle", value: .ms, ours: true}, {name: (.reference | split(",")[0] | sub("docker "; "")), value: .reference_ms, ours: false}]}) ] } end;

[$pipeline[0], $egress[0], $snapshot[0], $git[0], $many[0]] as [$p, $e, $s, $g, $m]
| [($p | pipeline), ($s | snapshot), ($e | egress), ($g | git), ($m | many)] as $rows
| { $rows,
    quick: ([$p.quick, $e.conditions.quick, $s.quick, $g.quick] | any(. == 1)),
    machines: ([$p.machine, $e.conditions.machine, $s.machine, $g.machine, $m.machine] | map(select(. != null))),
    charts: {
      reach: { title: "What was wanted, and what was reached", panels: [
        { title: "Right of the line: reached", unit: "×", line: 1, most: 3,
          bars: [$rows[] | select(.margin != null) | {name: .what, value: .margin, ours: .reached, missed: (.reached | not)}] }] },
      egress: ($e | egress_chart), pipeline: ($p | pipeline_chart) } }
| if (.charts.reach.panels[0].bars | length) == 0 then .charts.reach = null else . end
