# shellcheck shell=bash
# Each goal beside what was measured last, and the charts of docs/performance.md.

bench_summary() {
    local part folder why inputs=()
    folder=$(mktemp -d)
    # shellcheck disable=SC2064
    trap "rm -rf '$folder'" EXIT
    for part in pipeline egress snapshot git many; do
        # What was never measured is null, and said so.
        if [ -s "$bench_out/$part.json" ]; then cp "$bench_out/$part.json" "$folder/$part.json"; else echo null > "$folder/$part.json"; fi
        inputs+=(--slurpfile "$part" "$folder/$part.json")
    done
    mkdir -p "$bench_out"
    jq --null-input -L scripts/bench.d "${inputs[@]}" -f scripts/bench.d/summary.jq > "$bench_out/summary.json"
    jq --raw-output -L scripts/bench.d -f scripts/bench.d/summary-table.jq "$bench_out/summary.json" > "$folder/section.md"
    why=$(jq --raw-output 'if .quick then "a part was measured quickly" else "" end' "$bench_out/summary.json")
    for part in reach egress pipeline; do
        jq --raw-output -L scripts/bench.d "include \"chart\"; .charts.$part | if . == null then empty else chart end" \
            "$bench_out/summary.json" > "$bench_out/bench-$part.svg"
        if [ -s "$bench_out/bench-$part.svg" ] && [ -z "$quick$why" ]; then cp "$bench_out/bench-$part.svg" docs/; fi
    done
    say "the charts are in $bench_out"
    publish summary "$folder/section.md" "$why"
}
