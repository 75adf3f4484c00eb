# shellcheck shell=bash
# The sidecar beside what else one would put there. An upstream, four ways to it, and a load generator in the agent's
# place; every way does the same job: open TLS, allow one host, put the credential in, log the request.

ways=(direct ours squid mitmproxy)
# And the floor under all of them, at 32 connections only: an nginx that does nothing but take TLS and give TLS.
floor=relay

# What the sidecar is held to (bottle-render), the others are held to as well, but for the memory: mitmproxy would be
# killed at 256 MB.
limits=(--cap-drop ALL --security-opt no-new-privileges --user 65532:65532 --read-only --tmpfs /tmp:mode=1777
    --pids-limit 512 --ulimit nofile=4096 --ulimit core=0 --sysctl net.ipv4.ip_unprivileged_port_start=0
    --sysctl net.ipv6.conf.all.disable_ipv6=1)
memory_limit=1g

bench_egress() {
    image=$(bench_image)
    begin_run remove_all

    bulk=$((512 << 20))
    [ -z "$quick" ] || bulk=$((128 << 20))
    declare -A cpu_file=() pid=() proxy=()
    make_credentials
    start_bottle
    start_upstream
    start_squid
    start_mitmproxy
    start_relay
    start_clients
    prove_the_rule

    results=$bench_out/egress.jsonl
    : > "$results"
    describe > "$work/conditions.json"
    local way case round turn
    for way in ours squid mitmproxy; do
        note "$way" rest 0 "$(memory_of "${pid[$way]}")"
    done
    for ((round = 1; round <= rounds; round++)); do
        for ((turn = 0; turn < ${#ways[@]}; turn++)); do
            # Each round begins with another, so that no way always comes after the same one.
            way=${ways[(turn + round - 1) % ${#ways[@]}]}
            say "round $round of $rounds: $way"
            for case in c1 c32 c256 new down up; do measure "$way" "$case" "$round"; done
        done
        say "round $round of $rounds: nginx as a relay"
        measure "$floor" c32 "$round"
    done
    for way in ours squid mitmproxy; do
        note "$way" after 0 "$(memory_of "${pid[$way]}")"
    done
    prove_the_audit

    jq --slurp --slurpfile conditions "$work/conditions.json" -L scripts/bench.d -f scripts/bench.d/egress.jq \
        "$results" > "$bench_out/egress.json"
    jq --raw-output -L scripts/bench.d -f scripts/bench.d/egress-table.jq "$bench_out/egress.json" > "$work/section.md"
    publish egress "$work/section.md" "$(jq --raw-output 'if .disturbed then "something else ran" else "" end' "$bench_out/egress.json")"
}

remove_all() {
    docker ps --all --quiet --filter "label=bottle.bench=$run" |
        xargs --no-run-if-empty docker rm --force --volumes > /dev/null
    # Last: its networks cannot go while anything is on them.
    bottle-run down --quiet --purge "$run" 2> /dev/null || true
    rm -rf "$work"
}

# --- what there is to measure -----------------------------------------------------------------------------------------

# One authority for the upstream, and one with which squid and mitmproxy open TLS. The bottle has its own.
make_credentials() {
    local etc=$work/etc
    mkdir -p "$etc" "$work/logs/squid" "$work/logs/mitmproxy"
    make_authority upstream "$etc/upstream-ca"
    make_authority proxy "$etc/proxy-ca"
    openssl req -newkey ec -pkeyopt ec_paramgen_curve:prime256v1 -nodes -subj /CN=api.example.com \
        -keyout "$etc/server.key" -out "$etc/server.csr" 2> /dev/null
    openssl x509 -req -in "$etc/server.csr" -CA "$etc/upstream-ca.pem" -CAkey "$etc/upstream-ca.key" -CAcreateserial \
        -days 2 -extfile <(echo subjectAltName=DNS:api.example.com) -out "$etc/server.pem" 2> /dev/null
    cat "$etc/proxy-ca.key" >> "$etc/proxy-ca.pem"
    BENCH_TOKEN=bench-$(openssl rand -hex 16)
    export BENCH_TOKEN
    for file in nginx.conf squid.conf relay.conf; do
        sed -e "s/@TOKEN@/$BENCH_TOKEN/" -e "s/@UPSTREAM@/$run-upstream/" -e "s/@CORES@/$(nproc)/" "scripts/bench.d/image/$file" > "$etc/$file"
    done
    cp scripts/bench.d/image/rule.py "$etc/"
    # The containers' user is not the one who runs this, and these keys are worth nothing in an hour.
    chmod 755 "$work" "$etc"
    chmod 644 "$etc"/*
    chmod 777 "$work"/logs/*
}

make_authority() { # NAME FILE
    openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:prime256v1 -nodes -days 2 -subj "/CN=bench $1 CA" \
        -addext keyUsage=critical,keyCertSign,cRLSign -keyout "$2.key" -out "$2.pem" 2> /dev/null
}

# A whole bottle, made by the tools; its agent sleeps.
start_bottle() {
    cp "$work/etc/upstream-ca.pem" "$BOTTLE_HOME/bottles/"
    cat > "$BOTTLE_HOME/bottles/bench.yaml" << 'YAML'
image: debian:trixie-slim
egress:
  upstream_ca: upstream-ca.pem
  routes:
    - host: api.example.com
      matches: [{methods: [GET, POST], paths: [/]}]
      auth: {scheme: Bearer, token_ref: BENCH_TOKEN}
      private: [10.213.0.0/16]
      limits: {bytes_out: 1t}
YAML
    say "starting a bottle"
    bottle-plan bench --slug "$run" | bottle-ca | bottle-render > "$work/bottle.yml"
    bottle-run up --quiet < "$work/bottle.yml" > "$work/handle.json"
    # What an agent sends, that has no credential. (squid replaces a header, but does not add one.)
    placeholder="Authorization: Bearer $(bottle-run exec "$run" -- printenv BENCH_TOKEN)"
    inside=bottle-$run-internal
    outside=bottle-$run-egress
    local container=bottle-$run-egress wanted found
    know ours "$container"
    # The image has one name for everybody on this machine; a build beside us could have taken it.
    wanted=$(sha256sum < "$bench_bin/bottle-sidecar" | cut -d' ' -f1)
    sidecar_image=$(docker inspect --format '{{.Image}}' "$container")
    found=$(docker image inspect --format '{{index .Config.Labels "bottle.sidecar.sha256"}}' "$sidecar_image")
    [ "$wanted" = "$found" ] || die "the bottle runs another sidecar than the one in $bench_bin"
}

start_upstream() {
    create upstream "$outside" --network-alias api.example.com --tmpfs /www:mode=1777 -- sh -c '
        head -c 1024 /dev/urandom | base64 -w 0 | head -c 1024 > /www/1k
        head -c "$0" /dev/urandom > /www/bulk
        exec nginx -c /etc/bench/nginx.conf' "$bulk"
    docker start "$run-upstream" > /dev/null
    know upstream "$run-upstream"
}

start_squid() {
    create squid "$outside" --tmpfs /run/squid --volume "$work/logs/squid:/logs" -- sh -c '
        /usr/lib/squid/security_file_certgen -c -s /tmp/certificates -M 4MB > /dev/null
        exec squid --foreground -f /etc/bench/squid.conf'
    start_on_both squid
}

start_mitmproxy() {
    create mitmproxy "$outside" --volume "$work/logs/mitmproxy:/logs" --env BENCH_TOKEN -- sh -c '
        mkdir /tmp/mitmproxy
        cp /etc/bench/proxy-ca.pem /tmp/mitmproxy/mitmproxy-ca.pem
        exec mitmdump --quiet --listen-port 3128 --set confdir=/tmp/mitmproxy --set stream_large_bodies=64k \
            --set ssl_verify_upstream_trusted_ca=/etc/bench/upstream-ca.pem --scripts /etc/bench/rule.py'
    start_on_both mitmproxy
}

start_relay() {
    create "$floor" "$outside" -- nginx -c /etc/bench/relay.conf
    docker start "$run-$floor" > /dev/null
    know "$floor" "$run-$floor"
}

# The load generator: in the agent's place, and for the direct way beside the upstream. Where every request is a
# connection, it would run out of ports without the two settings.
start_clients() {
    local place address
    cat "$work/etc/upstream-ca.pem" "$BOTTLE_HOME/state/$run/egress/mitmproxy-ca-cert.pem" > "$work/etc/trusted.pem"
    openssl x509 -in "$work/etc/proxy-ca.pem" >> "$work/etc/trusted.pem"
    for place in inside outside; do
        create "client-$place" "${!place}" --volume "$bench_bin/bottle-testkit:/bottle-testkit:ro" \
            --sysctl net.ipv4.ip_local_port_range='1024 65535' --sysctl net.ipv4.tcp_tw_reuse=1 -- sleep infinity
        docker start "$run-client-$place" > /dev/null
        know "client-$place" "$run-client-$place"
    done
    # The relay has no CONNECT: to this one it is the upstream.
    address=$(docker inspect --format "{{with index .NetworkSettings.Networks \"$outside\"}}{{.IPAddress}}{{end}}" "$run-$floor")
    create client-relay "$outside" --add-host "api.example.com:$address" \
        --volume "$bench_bin/bottle-testkit:/bottle-testkit:ro" -- sleep infinity
    docker start "$run-client-relay" > /dev/null
    know client-relay "$run-client-relay"
}

create() { # NAME NETWORK [OPTION]... -- COMMAND...
    local name=$1 network=$2 options=()
    shift 2
    while [ "$1" != -- ]; do options+=("$1"); shift; done
    shift
    docker create --name "$run-$name" --label "bottle.bench=$run" --network "$network" "${limits[@]}" \
        --memory "$memory_limit" --memory-swap "$memory_limit" --volume "$work/etc:/etc/bench:ro" "${options[@]}" \
        "$image" "$@" > /dev/null
}

start_on_both() { # NAME
    docker network connect "$inside" "$run-$1"
    docker start "$run-$1" > /dev/null
    know "$1" "$run-$1"
}

# NAME CONTAINER: where it is seen from outside, and for a proxy from inside.
know() {
    pid[$1]=$(container_pid "$2")
    cpu_file[$1]=$(container_cpu_file "$2")
    proxy[$1]=$(docker inspect --format "{{with index .NetworkSettings.Networks \"$inside\"}}{{.IPAddress}}:3128{{end}}" "$2")
}

# That every way does the job: the host and the credential, and another host is refused. A benchmark of a proxy that lets
# everything through would be a benchmark of nothing.
prove_the_rule() {
    local way
    for way in ours squid mitmproxy; do
        say "waiting for $way"
        expect 200 "$way" https://api.example.com/1k
        expect 403 "$way" https://elsewhere.example.com/
    done
}

expect() { # STATUS WAY URL
    local deadline=$((SECONDS + 30)) seen=''
    while [ "$SECONDS" -lt "$deadline" ]; do
        seen=$(docker exec --env "https_proxy=http://${proxy[$2]}" --env SSL_CERT_FILE=/etc/bench/trusted.pem \
            "$run-client-inside" /bottle-testkit fetch GET "$3" "$placeholder" 2>&1) || true
        [ "$(jq .status <<< "$seen" 2> /dev/null)" != "$1" ] || return 0
        sleep 0.2
    done
    docker logs "$run-$2" >&2 2> /dev/null || true
    tail -n 5 "$work/logs/$2/"*.log >&2 2> /dev/null || true
    die "$2 should have answered $1 to $3: $seen"
}

# That each request which went through the sidecar has a record; of those that rotation has dropped, the chain's numbers
# tell.
prove_the_audit() {
    local made recorded
    made=$(jq --slurp 'map(select(.way == "ours") | .requests_total // 0) | add' "$results")
    recorded=$(tail -n 1 "$BOTTLE_HOME/state/$run/audit/audit.jsonl" | jq '.seq + 1')
    [ "$recorded" -ge "$made" ] || die "$made requests went through the sidecar, and its audit counts $recorded records"
}

# --- measuring --------------------------------------------------------------------------------------------------------

# Notes one measurement; of those that something else disturbed, with patience left, the best of three.
measure() { # WAY CASE ROUND
    rm -f "$work/best"
    for _ in 1 2 3; do
        await_quiet
        measure_once "$@" > "$work/one"
        jq --raw-output '"  \(.case): \(.requests_per_s)/s, p50 \(.p50_us) us, \(.bytes_per_s / 1e6 | round) MB/s, others" +
            " \(.others * 100 | round)%" + if .errors > 0 then ", \(.errors) ERRORS: \(.first_error)" else "" end' "$work/one" >&2
        if [ ! -e "$work/best" ] || jq --exit-status --slurpfile best "$work/best" '.others < $best[0].others' "$work/one" > /dev/null; then
            mv "$work/one" "$work/best"
        fi
        if [ "$patience" -le 0 ] || jq --exit-status '.others < 0.1' "$work/best" > /dev/null; then break; fi
    done
    cat "$work/best" >> "$results"
}

measure_once() { # WAY CASE ROUND
    local way=$1 case=$2 client=client-inside args=(--ca /etc/bench/trusted.pem)
    local url=https://api.example.com/1k warm_up=1
    [ -z "$quick" ] || warm_up=0.5
    case $case in
        c*) args+=(--connections "${case#c}" --warm-up "$warm_up") ;;
        new) args+=(--connections 32 --new-connections --warm-up "$warm_up") ;;
        down) url=https://api.example.com/bulk ;;
        up) url=https://api.example.com/sink args+=(--upload $((bulk / 2))) ;;
    esac
    if [ "$way" = "$floor" ]; then
        client=client-relay
    elif [ "$way" = direct ]; then
        # Nobody puts the credential in, so the client has it.
        client=client-outside
        args+=(--header "Authorization: Bearer $BENCH_TOKEN")
    else
        args+=(--proxy "${proxy[$way]}" --header "$placeholder")
    fi
    args+=(--seconds "$seconds" "$url")

    local watcher='' memory=null parts=("$client" upstream) part before=() spent=() began wall all report others
    if [ "$way" != direct ]; then
        parts+=("$way")
        memory_of "${pid[$way]}" > "$work/most"
        watch_memory "${pid[$way]}" >> "$work/most" &
        watcher=$!
    fi
    for part in "${parts[@]}"; do before+=("$(cpu_of "${cpu_file[$part]}")"); done
    all=$(machine_cpu) began=$(now)
    report=$(docker exec "$run-$client" /bottle-testkit load "${args[@]}") || die "$way, $case: the load generator failed"
    # What everything else on this machine took of its processors meanwhile.
    others=$(($(machine_cpu) - all)) wall=$((($(now) - began) * $(nproc)))
    for part in "${!parts[@]}"; do
        spent[part]=$(($(cpu_of "${cpu_file[${parts[part]}]}") - before[part]))
        others=$((others - spent[part]))
    done
    if [ -n "$watcher" ]; then
        { kill "$watcher" && wait "$watcher"; } 2> /dev/null || true
        memory=$(tail -n 1 "$work/most")
    fi
    jq --compact-output --arg way "$way" --arg case "$case" --argjson round "$3" --argjson client "${spent[0]}" \
        --argjson upstream "${spent[1]}" --argjson proxy "${spent[2]:-null}" \
        --argjson memory "$memory" --argjson others "$((others > 0 ? others : 0))" \
        --argjson wall "$wall" \
        '{$way, $case, $round} + . + {cpu_us: {$client, $upstream, $proxy}, memory: $memory, others: ($others / $wall)}' \
        <<< "$report"
}

note() { # WAY CASE ROUND BYTES
    jq --null-input --compact-output --arg way "$1" --arg case "$2" --argjson round "$3" --argjson memory "$4" \
        '$ARGS.named' >> "$results"
}

describe() {
    local versions
    versions=$(docker run --rm --label "bottle.bench=$run" --network none "$image" sh -c '
        nginx -v 2>&1 | sed "s,.*/,nginx ,"; squid -v | sed -n "1s,.*Version ,squid ,p"
        mitmdump --version | sed -n "1s,.*: ,mitmproxy ,p"')
    jq --argjson machine "$(machine)" --arg versions "${versions//$'\n'/, }" \
        --arg sidecar "$(bottle-sidecar --version)" --arg digest "$(sha256sum < "$bench_bin/bottle-sidecar" | cut -c1-12)" \
        --argjson binary "$(stat --format %s "$bench_bin/bottle-sidecar")" \
        --argjson image "$(docker image inspect --format '{{.Size}}' "$sidecar_image")" \
        --argjson rounds "$rounds" --argjson seconds "$seconds" --argjson bulk "$bulk" \
        --argjson quick "${quick:-0}" --null-input '$ARGS.named'
}
