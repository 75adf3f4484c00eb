# From single measurements to medians, ratios and verdicts. Input: an array of what egress.sh noted.
include "stats";

# These take {way, all} and give one value a round.
def at($case; f): .way as $way | .all | map(select(.way == $way and .case == $case) | f);

# Latency over the direct way's in the same round: what the machine did to both of them is not in it.
def added(f):
  .all as $all
  | if .way == "direct" then []
    else at("c1"; (f) - (.round as $round | $all[] | select(.way == "direct" and .case == "c1" and .round == $round) | f))
    end;

def megabytes: (.memory // empty) / 1e6;

def row($id; $name; $unit; $less; f):
  . as $all
  | { $id, $name, $unit, $less,
      ways: (["direct", "ours", "squid", "mitmproxy"]
        | map(. as $way | {$way, $all} | f | {key: $way, value: {median: median, spread: spread}}) | from_entries) }
  | .ratios = (.ways.ours.median as $ours
      | .ways | del(.ours) | map_values(.median as $other | $ours | over($other)));

def rows:
  row("c1"; "requests, 1 connection"; "/s"; false; at("c1"; .requests_per_s)),
  row("c32"; "requests, 32 connections"; "/s"; false; at("c32"; .requests_per_s)),
  row("c256"; "requests, 256 connections"; "/s"; false; at("c256"; .requests_per_s)),
  row("p50"; "latency p50, 1 connection"; "ms"; true; at("c1"; .p50_us / 1e3)),
  row("p99"; "latency p99, 1 connection"; "ms"; true; at("c1"; .p99_us / 1e3)),
  row("added_p50"; "added latency p50, 1 connection"; "ms"; true; added(.p50_us / 1e3)),
  row("added_p99"; "added latency p99, 1 connection"; "ms"; true; added(.p99_us / 1e3)),
  row("p99_c32"; "latency p99, 32 connections"; "ms"; true; at("c32"; .p99_us / 1e3)),
  row("down"; "bulk download, 1 connection"; "MB/s"; false; at("down"; .bytes_per_s / 1e6)),
  row("up"; "bulk upload, 1 connection"; "MB/s"; false; at("up"; .bytes_per_s / 1e6)),
  row("new"; "new TLS connections, 32 at once"; "/s"; false; at("new"; .connections_per_s)),
  row("rest"; "memory, before the first request"; "MB"; true; at("rest"; megabytes)),
  # Of the first round: later ones stand on what 256 connections and the bulk have left behind, which is in "most".
  row("load"; "memory, under 32 connections"; "MB"; true; at("c32"; select(.round == 1) | megabytes)),
  row("most"; "memory, the most in any measurement"; "MB"; true;
    at("c1", "c32", "c256", "new", "down", "up"; megabytes) | [max // empty]),
  row("after"; "memory, at rest after all that"; "MB"; true; at("after"; megabytes)),
  row("cpu_request"; "processor, a request at 32 connections"; "us"; true;
    at("c32"; .requests_total as $count | .cpu_us.proxy | over($count))),
  row("cpu_connection"; "processor, a new TLS connection"; "us"; true;
    at("new"; .requests_total as $count | .cpu_us.proxy | over($count))),
  row("cpu_down"; "processor, a GB down"; "s"; true;
    at("down"; (.bytes_per_s * .seconds / 1e9) as $gigabytes | .cpu_us.proxy | over(1e6) | over($gigabytes)));

# The goal WHAT for MEASURED: at least or at most so much.
def verdict($what; $sign; $target; $unit; $measured):
  { $what, target: "\($sign) \($target)\($unit)", $measured, $unit,
    reached: (if $measured == null then null elif $sign == "≥" then $measured >= $target else $measured <= $target end) };

def verdicts($conditions):
  map({key: .id, value: .}) | from_entries
  | verdict("requests/s, 32 connections, to direct"; "≥"; 0.6; "×"; .c32.ratios.direct),
    verdict("… to squid"; "≥"; 2; "×"; .c32.ratios.squid),
    verdict("… to mitmproxy"; "≥"; 17; "×"; .c32.ratios.mitmproxy),
    verdict("added latency p50, 1 connection"; "≤"; 0.12; " ms"; .added_p50.ways.ours.median),
    verdict("bulk download, to direct"; "≥"; 0.6; "×"; .down.ratios.direct),
    verdict("new TLS connections/s, to squid"; "≥"; 1; "×"; .new.ratios.squid),
    verdict("memory at rest"; "≤"; 8; " MB"; .rest.ways.ours.median),
    verdict("memory under 32 connections"; "≤"; 24; " MB"; .load.ways.ours.median),
    verdict("egress image"; "≤"; 6; " MB"; $conditions.image / 1e6);

# Where the processors' time of a request goes: whose it is to save.
def shares:
  . as $all
  | ["direct", "relay", "ours", "squid", "mitmproxy"]
  | map(. as $way | $all | map(select(.way == $way and .case == "c32"))
      | { $way,
          client: (map(.requests_total as $count | .cpu_us.client | over($count)) | median),
          proxy: (map(.requests_total as $count | .cpu_us.proxy | over($count)) | median),
          upstream: (map(.requests_total as $count | .cpu_us.upstream | over($count)) | median) });

$conditions[0] as $conditions
| . as $all
| [rows] as $rows
| { $conditions, $rows,
    verdicts: [$rows | verdicts($conditions)],
    shares: ($all | shares),
    others: ($all | map(.others | select(. != null)) | {median: median, most: max}),
    to_floor: (["ours", "relay"] | map(. as $way | $all | map(select(.way == $way and .case == "c32") | .requests_per_s) | median)
      | .[0] as $ours | .[1] as $floor | $ours | over($floor)),
    disturbed: ($all | map(.others | select(. != null)) | median > 0.1),
    errors: ($all | map(.errors // 0) | add),
    failed: ($all | map(select((.errors // 0) > 0) | {way, case, round, errors, first_error})) }
