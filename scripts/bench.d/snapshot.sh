# shellcheck shell=bash
# Commit with proof beside plain `docker commit`, for a little and for much that changed; a resumed bottle beside a new one.

# How much the agent wrote, in MiB.
snapshot_sizes=(10 1024)

bench_snapshot() {
    begin_run snapshot_remove
    cat > "$BOTTLE_HOME/bottles/bench.yaml" << 'YAML'
image: debian:trixie-slim
egress:
  routes:
    - host: api.example.com
      auth: {scheme: Bearer, token_ref: BENCH_TOKEN}
YAML
    BENCH_TOKEN=bench-$(openssl rand -hex 16)
    export BENCH_TOKEN
    results=$bench_out/snapshot.jsonl
    : > "$results"
    machine > "$work/machine.json"
    [ -z "$quick" ] || snapshot_sizes=(10 128)

    local size round
    snapshot_up bench --slug "$run"
    for size in "${snapshot_sizes[@]}"; do
        # Random, so that nothing on the way can make less of it.
        bottle-run exec --no-stdin "$run" -- sh -c "head -c ${size}M /dev/urandom > /workspace/changes"
        for ((round = 0; round <= rounds; round++)); do
            await_quiet
            say "$size MiB of changes, round $round of $rounds"
            # The first of each is not counted: it brings the files into memory.
            snapshot_timed "$round" "commit-$size" bottle-snapshot commit --quiet "$run"
            snapshot_timed "$round" "docker-$size" docker commit "bottle-$run-agent" "$run:plain"
            docker image rm "$run:plain" > /dev/null
        done
    done
    # From a small snapshot: what is measured is the way, not the copying.
    bottle-run exec --no-stdin "$run" -- sh -c 'head -c 10M /dev/urandom > /workspace/changes'
    bottle-snapshot commit --quiet "$run" > /dev/null
    bottle-run down --quiet "$run"
    for ((round = 0; round <= rounds + 2; round++)); do
        await_quiet
        say "up and resume, round $round of $((rounds + 2))"
        snapshot_timed "$round" resume snapshot_up --resume "$run"
        bottle-run down --quiet "$run"
        snapshot_timed "$round" up snapshot_up bench --slug "$run-new"
        bottle-run down --quiet --purge "$run-new"
    done

    jq --slurp --slurpfile machine "$work/machine.json" --argjson quick "${quick:-0}" --argjson rounds "$rounds" \
        --arg sizes "${snapshot_sizes[*]}" \
        -L scripts/bench.d -f scripts/bench.d/snapshot.jq "$results" > "$bench_out/snapshot.json"
    jq --raw-output -L scripts/bench.d -f scripts/bench.d/snapshot-table.jq "$bench_out/snapshot.json" > "$work/section.md"
    publish snapshot "$work/section.md" ''
}

# PLAN-ARGUMENTS: from the plan to an agent that is handed over.
snapshot_up() { bottle-plan "$@" 2> /dev/null | bottle-render | bottle-run up --quiet; }

# ROUND NAME COMMAND...
snapshot_timed() {
    local round=$1 name=$2 began ended
    shift 2
    began=$(now)
    "$@" > /dev/null 2> "$work/stderr" || { cat "$work/stderr" >&2; die "$name failed"; }
    ended=$(now)
    [ "$round" -eq 0 ] || printf '{"what":"%s","us":%d}\n' "$name" $((ended - began)) >> "$results"
}

snapshot_remove() {
    docker image rm --force "$run:plain" > /dev/null 2>&1 || true
    bottle-snapshot rm --quiet --all --force "$run" 2> /dev/null || true
    bottle-run down --quiet --purge "$run" "$run-new" 2> /dev/null || true
    rm -rf "$work"
}
