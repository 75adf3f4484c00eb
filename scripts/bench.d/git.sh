# shellcheck shell=bash disable=SC2016,SC2154
# Clone and push of a large repository: through the gate, and by SSH straight to the same upstream, in turn.

bench_git() {
    need ssh-keygen
    image=$(bench_image image-git)
    begin_run remove_git

    # BYTES a commit become a little more than half of it in the pack.
    local commits=20000 bytes=15000 pushed=100
    [ -z "$quick" ] || commits=2000
    results=$bench_out/git.jsonl
    : > "$results"
    machine > "$work/machine.json"
    start_git_upstream
    start_git_clients
    say "making a repository of $commits commits"
    docker exec --user git "$run-upstream" sh -euc '
        git init --quiet --bare /srv/git/bench.git
        perl /usr/local/bin/history.pl "$0" "$1" 1 refs/heads/main | git -C /srv/git/bench.git fast-import --quiet --done
        git -C /srv/git/bench.git repack --quiet -a -d -f --depth=10 --window=5
    ' "$commits" "$bytes"
    size=$(docker exec "$run-upstream" sh -c 'du -sb /srv/git/bench.git/objects/pack' | cut -f1)

    say 'the first clone through the gate, which fills its mirror'
    time_git first gate clone "$url"
    local round way
    for ((round = 1; round <= rounds; round++)); do
        for way in direct gate; do
            await_quiet
            say "round $round of $rounds: clone, $way"
            time_git clone "$way" clone "$url"
        done
        for way in direct gate; do
            # Other contents for each: what the upstream has already does not travel again.
            git_client "$way" commits "$pushed" "$bytes" "$round$((RANDOM))"
            await_quiet
            say "round $round of $rounds: push, $way"
            time_git push "$way" push "agent/$way-$round"
            [ "$way" = direct ] || note_git scan gate "$(git_scan_time)"
        done
    done

    jq --slurp --slurpfile machine "$work/machine.json" --argjson quick "${quick:-0}" --argjson rounds "$rounds" \
        --argjson commits "$commits" --argjson pushed "$pushed" --argjson size "$size" \
        -L scripts/bench.d -f scripts/bench.d/git.jq "$results" > "$bench_out/git.json"
    jq --raw-output -L scripts/bench.d -f scripts/bench.d/git-table.jq "$bench_out/git.json" > "$work/section.md"
    publish git "$work/section.md" ''
}

remove_git() {
    docker ps --all --quiet --filter "label=bottle.bench=$run" |
        xargs --no-run-if-empty docker rm --force --volumes > /dev/null
    bottle-run down --quiet --purge "$run" 2> /dev/null || true
    docker network rm "$run-git" > /dev/null 2>&1 || true
    rm -rf "$work"
}

# An sshd with the key of both clients, and nothing else.
start_git_upstream() {
    ssh-keygen -q -t ed25519 -N '' -C bench -f "$work/key"
    docker network create --label "bottle.bench=$run" "$run-git" > /dev/null
    docker run --detach --init --name "$run-upstream" --label "bottle.bench=$run" --network "$run-git" "$image" sh -euc '
        install -d -o git -m 0700 /home/git/.ssh
        printf "%s\n" "$0" > /home/git/.ssh/authorized_keys
        exec /usr/sbin/sshd -D -e -o PasswordAuthentication=no -o UsePAM=no -o StrictModes=no' "$(< "$work/key.pub")" > /dev/null
    url=git@git.example.com:/srv/git/bench.git
}

# A bottle whose agent goes through the gate, and a container with the same image and limits on the network of its sidecars.
start_git_clients() {
    local host_key
    host_key=$(docker exec "$run-upstream" cut -d' ' -f1,2 /etc/ssh/ssh_host_ed25519_key.pub)
    cat > "$BOTTLE_HOME/bottles/bench.yaml" << YAML
image: $image
resources: {memory: 2g, cpus: $(nproc)}
git-gate:
  user: {name: Bench, email: bench@example.com}
  repos:
    bench:
      url: $url
      host_key: $host_key
      key: {provider: static, path: $work/key}
YAML
    say 'starting a bottle'
    bottle-plan bench --slug "$run" | bottle-ca | bottle-render | bottle-run up --quiet > "$work/handle.json"
    docker network connect --alias git.example.com "bottle-$run-egress" "$run-upstream"
    docker run --detach --init --name "$run-direct" --label "bottle.bench=$run" --network "bottle-$run-egress" \
        --memory 2g --cpus "$(nproc)" --cap-drop ALL --security-opt no-new-privileges --user git \
        --tmpfs /keys:mode=1777 --workdir /home/git "$image" sleep infinity > /dev/null
    docker exec --interactive "$run-direct" sh -euc 'umask 077; cat > /keys/key' < "$work/key"
    docker exec --interactive "$run-direct" sh -euc 'cat > /keys/hosts' <<< "git.example.com $host_key"
}

# WAY COMMAND...: runs times.sh in the client of that way.
git_client() {
    local way=$1
    shift
    if [ "$way" = gate ]; then
        bottle-run exec --no-stdin "$run" -- sh /usr/local/bin/times.sh "$@"
    else
        docker exec --env GIT_SSH_COMMAND='ssh -F /dev/null -i /keys/key -o UserKnownHostsFile=/keys/hosts -o IdentitiesOnly=yes -o BatchMode=yes' \
            "$run-direct" sh /usr/local/bin/times.sh "$@"
    fi
}

# WHAT WAY COMMAND...: notes how long it took, and keeps what was said.
time_git() {
    local what=$1 way=$2 took
    shift 2
    took=$(git_client "$way" "$@" 2> "$work/said") || { cat "$work/said" >&2; die "$what, $way: failed"; }
    note_git "$what" "$way" "$took"
}

# What the gate said of the last push: `checked 100 new commit(s) in 1.23 s and handed them to …`.
git_scan_time() {
    local seconds
    seconds=$(sed -n 's/.*git-gate: checked [0-9]* new commit(s) in \([0-9.]*\) s .*/\1/p' "$work/said")
    [ -n "$seconds" ] || { cat "$work/said" >&2; die 'the gate does not say how long it took to check'; }
    jq -n --argjson seconds "$seconds" '$seconds * 1e6 | round'
}

note_git() { # WHAT WAY MICROSECONDS
    printf '{"what":"%s","way":"%s","us":%d}\n' "$1" "$2" "$3" >> "$results"
}
