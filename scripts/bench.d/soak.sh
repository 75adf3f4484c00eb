# shellcheck shell=bash disable=SC2154
# Bottles that work for half an hour: what each of their sidecars takes, drawn and as a table. The work itself is
# tests/tests/soak.rs, whose short form is a test like any other.

bench_soak() {
    work=$(mktemp -d "${TMPDIR:-/tmp}/bottle-bench.XXXXXX")
    trap soak_remove EXIT
    trap 'exit 130' INT
    trap 'exit 143' TERM
    mkdir -p "$bench_out"
    [ -z "$build" ] || soak_build
    local samples=$bench_out/soak.jsonl why='' bottles=${count:-10}
    machine > "$work/machine.json"
    say "$bottles bottles for $minutes minutes"
    # Its homes are below our folder, so that we find what it leaves when it is killed.
    env TMPDIR="$work" BOTTLE_REQUIRE_ENGINE=1 BOTTLE_BIN_DIR="$bench_bin" BOTTLE_SIDECAR="$bench_bin/bottle-sidecar" \
        BOTTLE_TESTKIT="$bench_bin/bottle-testkit" BOTTLE_SOAK_SECONDS=$((minutes * 60)) BOTTLE_SOAK_BOTTLES="$bottles" \
        BOTTLE_SOAK_OUT="$samples" "$bench_bin/soak" nothing_grows --exact --nocapture > "$work/log" 2>&1 || why='the soak failed'
    grep '^soak: [0-9]' "$work/log" >&2 || true
    [ -z "$why" ] || tail -n 20 "$work/log" >&2
    # The load that everybody on the machine made, ours too.
    jq --raw-output --slurp --slurpfile machine "$work/machine.json" --argjson later "$(machine)" \
        -L scripts/bench.d -f scripts/bench.d/soak-table.jq "$samples" > "$work/section.md"
    jq --raw-output --slurp -f scripts/bench.d/soak-plot.jq "$samples" > "$bench_out/soak.svg"
    if [ -z "$quick$why" ]; then
        cp "$bench_out/soak.svg" docs/soak.svg
        say 'written to docs/soak.svg'
    fi
    publish soak "$work/section.md" "$why" docs/reliability.md
    [ -z "$why" ] || die "$why"
}

# The test as a program of its own, beside the tools it runs.
soak_build() {
    local program
    program=$(cargo test --locked --quiet -p bottle-tests --test soak --no-run --message-format=json |
        jq --raw-output 'select(.executable and .target.name == "soak").executable')
    cp "$program" "$bench_bin/soak"
}

# A soak that ends removes what it made; this is for one that was killed.
soak_remove() {
    local home mine
    for home in "$work"/bottle-test-*/home; do
        [ -d "$home" ] || continue
        mine=t$(printf %s "$home" | sha256sum | cut -c1-8)
        docker ps --all --quiet --filter "name=^/?(bottle-)?$mine-" | xargs --no-run-if-empty docker rm --force --volumes > /dev/null
        docker network ls --quiet --filter "name=^(bottle-)?$mine-" | xargs --no-run-if-empty docker network rm > /dev/null
    done
    rm -rf "$work"
}
