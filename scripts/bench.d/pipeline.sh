# shellcheck shell=bash
# The filters as processes beside docker's own command line; a bottle up and down beside `docker compose` with its file.

bench_pipeline() {
    begin_run remove_bottles
    cat > "$BOTTLE_HOME/bottles/bench.yaml" << 'YAML'
image: debian:trixie-slim
egress:
  routes:
    - host: api.example.com
      matches: [{methods: [GET, POST], paths: [/v1]}]
      auth: {scheme: Bearer, token_ref: BENCH_TOKEN}
YAML
    BENCH_TOKEN=bench-$(openssl rand -hex 16)
    # What the rendered file calls it: `docker compose` takes it from there.
    export BENCH_TOKEN EGRESS_TOKEN_0=$BENCH_TOKEN

    results=$bench_out/pipeline.jsonl
    : > "$results"
    machine > "$work/machine.json"
    time_filters $((rounds * 10))
    prepare_reference
    local round
    for ((round = 1; round <= rounds + 2; round++)); do
        await_quiet
        say "up and down, round $round of $((rounds + 2))"
        time_bottle
        time_compose compose --wait "$work/networks.yml"
        time_compose unwatched '' "$work/networks.yml" "$work/unwatched.yml"
    done

    jq --slurp --slurpfile machine "$work/machine.json" --argjson quick "${quick:-0}" --argjson rounds "$rounds" \
        -L scripts/bench.d -f scripts/bench.d/pipeline.jq "$results" > "$bench_out/pipeline.json"
    jq --raw-output -L scripts/bench.d -f scripts/bench.d/pipeline-table.jq "$bench_out/pipeline.json" > "$work/section.md"
    publish pipeline "$work/section.md" ''
}

remove_bottles() {
    compose "$work/networks.yml" -- down --timeout 0 > /dev/null 2>&1 || true
    bottle-run down --quiet --purge "$run" "$run-ref" 2> /dev/null || true
    rm -rf "$work"
}

# WHAT INPUT OUTPUT COMMAND...: notes how long the command takes. What it says on stderr is shown only if it fails,
# and whether it may is for `expected` to say: docker's client ends with 1 when it finds no engine.
timed() {
    local what=$1 input=$2 output=$3 began ended status=0
    shift 3
    began=$(now)
    "$@" < "$input" > "$output" 2> "$work/stderr" || status=$?
    ended=$(now)
    if [ "$status" -ne "${expected:-0}" ]; then
        cat "$work/stderr" >&2
        die "$what ended with $status"
    fi
    printf '{"what":"%s","us":%d}\n' "$what" $((ended - began)) >> "$results"
}

# Each time a bottle that is not there yet, with a key to be made; docker's client is kept from waiting for an engine.
# `true` says how much of a figure is the shell's.
time_filters() { # TIMES
    local slug=$run-filter turn
    say "plan, ca, render as processes, $1 times"
    for ((turn = 0; turn < $1; turn++)); do
        await_quiet
        timed true /dev/null /dev/null /bin/true
        timed plan /dev/null "$work/1" bottle-plan bench --slug "$slug"
        timed ca "$work/1" "$work/2" bottle-ca
        timed render "$work/2" "$work/3" bottle-render
        expected=1 DOCKER_HOST=unix://$work/nobody timed docker /dev/null /dev/null docker version --format x
        rm -rf "${BOTTLE_HOME:?}/state/$slug"
    done
}

render() { # SLUG
    bottle-plan bench --slug "$1" | bottle-ca 2> /dev/null | bottle-render
}

time_bottle() {
    render "$run" > "$work/bottle.yml"
    timed up "$work/bottle.yml" "$work/handle.json" bottle-run up --quiet
    timed down /dev/null /dev/null bottle-run down --quiet "$run"
}

# A bottle's file and all that it mounts, with the networks as compose would make them. `bottle-run` makes them itself,
# so without this the reference would have less to do.
prepare_reference() {
    local state=$BOTTLE_HOME/state/$run-ref
    render "$run-ref" > "$work/reference.yml"
    # Also makes the images, so that everything timed is warm.
    bottle-run up --quiet < "$work/reference.yml" > /dev/null
    cp -a "$state" "$work/kept"
    bottle-run down --quiet "$run-ref"
    rm -rf "$state"
    mv "$work/kept" "$state"
    jq '.networks | {networks: {
        internal: ({external: false, internal: true} + (.internal | {ipam: {config: [{subnet, gateway}]}})),
        egress: ({external: false} + (.egress | {ipam: {config: [{subnet, gateway}]}}))}}' \
        "$state/plan.json" > "$work/networks.yml"
    # The file's health check is first asked after its interval of 2 s, which is most of what compose then waits for.
    # Without it, what is left is the making and starting.
    printf '%s\n' 'services:' '  agent: {depends_on: {egress: {condition: service_started}}}' \
        '  egress: {healthcheck: {disable: true}}' > "$work/unwatched.yml"
}

compose() { # FILE... -- COMMAND...
    local files=(--file "$BOTTLE_HOME/state/$run-ref/docker-compose.yml")
    while [ "$1" != -- ]; do files+=(--file "$1"); shift; done
    shift
    docker compose --env-file /dev/null --project-name "bottle-$run-ref" "${files[@]}" "$@"
}

time_compose() { # NAME WAIT FILE...
    local name=$1 wait=$2
    shift 2
    timed "$name-up" /dev/null /dev/null compose "$@" -- up --detach ${wait:+"$wait"}
    timed "$name-down" /dev/null /dev/null compose "$@" -- down --timeout 0
}
