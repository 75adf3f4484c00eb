# shellcheck shell=bash disable=SC2016,SC2154
# Many bottles of three containers on one machine: started some at a time, each with its policy enforced, all removed.

# The agent of these bottles: the base image alone, so that nothing is built and nothing is downloaded.
many_manifest='image: debian:trixie-slim
resources: {memory: 64m, cpus: 1, pids: 64}
workspace: {from: none}
supervise: true
egress:
  routes:
    - {host: api.example.com}
'

bench_many() {
    local count=${count:-100}
    begin_run many_remove
    mkdir -p "$work/log"
    printf '%s' "$many_manifest" > "$BOTTLE_HOME/bottles/many.yaml"
    # The image is made once, and not by eight at the same time.
    many_up warm
    bottle-run down --purge --quiet "$run-warm"

    local before after began up checked gone slugs
    before=$(many_memory)
    began=$(now)
    say "starting $count bottles, $parallel at a time"
    export -f many_up many_check
    export run work
    seq 1 "$count" | xargs --max-procs="$parallel" --replace bash -c 'many_up {} || echo {} >> "$work/failed"'
    up=$(($(now) - began))
    sleep 2
    after=$(many_memory)
    local containers networks
    containers=$(docker ps --quiet --filter "name=^/?bottle-$run-" | wc -l)
    networks=$(docker network ls --quiet --filter "name=^bottle-$run-" | wc -l)

    say 'asking each whether its policy holds'
    began=$(now)
    seq 1 "$count" | xargs --max-procs="$parallel" --replace bash -c 'many_check {}' > "$work/checked"
    checked=$(($(now) - began))

    say 'removing all'
    mapfile -t slugs < <(seq 1 "$count" | sed "s/^/$run-/")
    began=$(now)
    printf '%s\n' "${slugs[@]}" | xargs --max-procs="$parallel" --max-args=4 bottle-run down --purge --quiet > /dev/null 2>> "$work/down.log" || true
    gone=$(($(now) - began))
    local left
    left=$( { docker ps --all --quiet --filter "name=^/?bottle-$run-"; docker network ls --quiet --filter "name=^bottle-$run-"; } | wc -l)

    touch "$work/failed"
    jq -n --argjson count "$count" --argjson parallel "$parallel" \
        --argjson failed "$(wc -l < "$work/failed")" \
        --argjson enforced "$(grep -c '^ok$' "$work/checked")" \
        --argjson up_ms $((up / 1000)) --argjson check_ms $((checked / 1000)) --argjson down_ms $((gone / 1000)) \
        --argjson containers "$containers" --argjson networks "$networks" --argjson left "$left" \
        --argjson bytes $((after - before)) --argjson machine "$(machine)" '$ARGS.named' > "$bench_out/many.json"
    jq -r '"| | |", "|---|---|",
        "| bottles, started \(.parallel) at a time | \(.count) |",
        "| failed to start | \(.failed) |",
        "| time to start all | \(.up_ms / 1000 | round) s, \(.up_ms / .count | round) ms a bottle |",
        "| containers and networks then | \(.containers) and \(.networks) |",
        "| memory of the machine they take | \(.bytes / 1048576 | round) MiB, \(.bytes / 1048576 / .count * 10 | round / 10) MiB a bottle |",
        "| policies enforced (a foreign host refused, the outside silent, the sidecars there) | \(.enforced) |",
        "| time to remove all | \(.down_ms / 1000 | round) s, \(.down_ms / .count | round) ms a bottle |",
        "| containers and networks left | \(.left) |",
        "", "\(.machine.cores) cores, load \(.machine.load) at the end, engine \(.machine.engine), \(.machine.kernel), \(.machine.when)."' \
        "$bench_out/many.json" > "$work/section.md"
    local why=''
    jq -e '.failed == 0 and .enforced == .count and .left == 0 and .containers == 3 * .count and .networks == 2 * .count' \
        "$bench_out/many.json" > /dev/null || why='not all bottles started, held and went'
    publish many "$work/section.md" "$why" docs/reliability.md
    if [ -s "$work/failed" ]; then
        say 'the first that failed:'
        head -n 3 "$work/log/$(head -n 1 "$work/failed")" >&2
    fi
    grep -v '^ok$' "$work/checked" | head -n 3 >&2 || true
    [ -z "$why" ] || die "$why"
}

many_up() { # NAME
    bottle-plan many --slug "$run-$1" 2> "$work/log/$1" | bottle-render 2>> "$work/log/$1" |
        bottle-run up --quiet > "$work/log/$1.handle" 2>> "$work/log/$1"
}

# Two denials that a bottle without a policy would not make, and two things that must work.
many_check() { # NAME
    local plan=$BOTTLE_HOME/state/$run-$1/plan.json egress supervise gateway found
    egress=$(jq -r .networks.addresses.egress "$plan" 2> /dev/null) || { echo missing; return 0; }
    supervise=$(jq -r .networks.addresses.supervise "$plan")
    gateway=$(jq -r .networks.egress.gateway "$plan")
    found=$(bottle-run exec --no-stdin "$run-$1" -- /usr/local/lib/bottle/bottle-sidecar probe --timeout-ms=1000 \
        "http:$egress:3128:blocked.example.net:443" "icmp:$gateway" "tcp:$egress:3128" "tcp:$supervise:9100" 2>> "$work/log/$1") || { echo broken; return 0; }
    jq -r 'if (.[0].reached | not) and (.[0].detail | contains("host_not_allowed")) and (.[1].reached | not) and .[2].reached and .[3].reached
        then "ok" else "open \(.)" end' <<< "$found"
}

# Bytes of the machine's memory that are neither free nor a cache.
many_memory() { awk '/^MemTotal/ { all = $2 } /^MemAvailable/ { printf "%.0f\n", (all - $2) * 1024 }' /proc/meminfo; }

# Whatever ends the run, nothing of it stays.
many_remove() {
    docker ps --all --quiet --filter "name=^/?bottle-$run-" | xargs --no-run-if-empty docker rm --force --volumes > /dev/null
    docker network ls --quiet --filter "name=^bottle-$run-" | xargs --no-run-if-empty docker network rm > /dev/null
    rm -rf "$work"
}
