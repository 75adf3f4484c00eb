# shellcheck shell=bash
# What the benchmarks share: programs, image, machine, processor time and memory of a container, and the report.

bench_out=target/bench
bench_bin=$PWD/$bench_out/bin

say() { printf 'bench: %s\n' "$*" >&2; }
die() { printf 'bench: %s\n' "$*" >&2; exit 1; }

need() {
    local program
    for program; do
        command -v "$program" > /dev/null || die "$program is missing; scripts/setup installs it"
    done
}

# The programs as they are released, in a folder of their own: target/bottle may hold somebody's debug build.
build_programs() { scripts/build --testkit --to "$bench_bin"; }

# [FOLDER]: prints the image of that recipe, with nginx, squid and mitmproxy when none is named; builds it when it is not
# there or its recipe has changed.
bench_image() {
    local folder=scripts/bench.d/${1:-image} ca=/etc/ssl/certs/ca-certificates.crt digest tag args=()
    digest=$(cat "$folder"/Dockerfile $([ -z "${1:-}" ] || echo "$folder"/*.*) | sha256sum)
    tag=bottle-bench:${digest:0:12}
    if ! docker image inspect "$tag" > /dev/null 2>&1; then
        say "building $tag (a minute; scripts/bench clean removes it)"
        [ -s "$ca" ] && args+=(--secret "id=host_ca,src=$ca")
        docker buildx build --quiet --load --label bottle.bench=1 --tag "$tag" "${args[@]}" "$folder" > /dev/null
    fi
    echo "$tag"
}

# REMOVE: a folder for a run, and the name of its bottle; by both of them `clean_up` knows what is ours. REMOVE is called at
# its end, however that comes.
begin_run() {
    work=$(mktemp -d "${TMPDIR:-/tmp}/bottle-bench.XXXXXX")
    run=bench-$$
    export BOTTLE_HOME=$work/home PATH=$bench_bin:$PATH
    unset BOTTLE_SUBNETS BOTTLE_DOCKER BOTTLE_SIDECAR
    # shellcheck disable=SC2064  # what to call is known now
    trap "$1" EXIT
    trap 'exit 130' INT
    trap 'exit 143' TERM
    mkdir -p "$BOTTLE_HOME/bottles" "$bench_out"
}

# What runs left, this one or one that was killed, and the image. What is gone already is no failure.
clean_up() {
    local filter
    for filter in label=bottle.bench name=^/?bottle-bench-[0-9]+-; do
        docker ps --all --quiet --filter "$filter" | xargs --no-run-if-empty docker rm --force --volumes > /dev/null
    done
    docker network ls --quiet --filter name=^bottle-bench-[0-9]+- | xargs --no-run-if-empty docker network rm > /dev/null
    docker images --quiet --filter label=bottle.bench | sort -u | xargs --no-run-if-empty docker image rm --force > /dev/null
    rm -rf "${TMPDIR:-/tmp}"/bottle-bench.??????
}

# --- the machine ------------------------------------------------------------------------------------------------------

# What the figures were measured on, as JSON. The commit alone does not say it when the checkout was changed.
machine() {
    local commit changed=false
    commit=$(git rev-parse --short HEAD 2> /dev/null || echo unknown)
    [ -z "$(git status --porcelain -- '*.rs' '*.toml' Cargo.lock 2> /dev/null)" ] || changed=true
    jq -n --arg cpu "$(awk -F': ' '/^model name/ && !n++ { print $2 }' /proc/cpuinfo)" \
        --argjson cores "$(nproc)" --argjson memory "$(awk '/^MemTotal/ { print $2 * 1024 }' /proc/meminfo)" \
        --arg kernel "$(uname -sr)" --arg commit "$commit" --argjson changed "$changed" \
        --arg engine "$(docker version --format '{{.Server.Version}}, client {{.Client.Version}}')" \
        --arg compose "$(docker compose version --short)" --arg when "$(date --utc +%FT%TZ)" \
        --argjson load "$(cut -d' ' -f1 /proc/loadavg)" \
        '$ARGS.named'
}

# Processor time that all of the machine has spent, in microseconds: what was not idle and not waiting.
machine_cpu() {
    local tick user nice system irq softirq steal
    tick=$((1000000 / $(getconf CLK_TCK)))
    read -r _ user nice system _ _ irq softirq steal _ < /proc/stat
    echo $(((user + nice + system + irq + softirq + steal) * tick))
}

# Waits until the machine has nothing to do for half a second, while there is patience left.
await_quiet() {
    local busy since=$SECONDS
    while [ $((SECONDS - since)) -lt "$patience" ]; do
        busy=$(machine_cpu)
        sleep 0.5
        busy=$(($(machine_cpu) - busy))
        [ "$busy" -gt $((500000 * $(nproc) / 10)) ] || break
        sleep 2
    done
    patience=$((patience - (SECONDS - since)))
}

now() { echo "${EPOCHREALTIME/[.,]/}"; }

# --- a container, from outside ----------------------------------------------------------------------------------------

# CONTAINER: its main process, as the host numbers it.
container_pid() { docker inspect --format '{{.State.Pid}}' "$1"; }

# CONTAINER: the file that counts its processor time, in either version of control groups.
container_cpu_file() {
    local pid file one two
    pid=$(container_pid "$1")
    one=$(awk -F: '$2 ~ /(^|,)cpuacct(,|$)/ { print $3 }' "/proc/$pid/cgroup")
    two=$(awk -F: '$1 == 0 { print $3 }' "/proc/$pid/cgroup")
    for file in "/sys/fs/cgroup/cpuacct$one/cpuacct.usage" "/sys/fs/cgroup$two/cpu.stat"; do
        if [ -r "$file" ]; then echo "$file"; return; fi
    done
    die "no control group of $1 can be read here; is the engine on this machine?"
}

# FILE: microseconds.
cpu_of() {
    local count
    case $1 in
        *.usage) count=$(< "$1"); echo $((count / 1000)) ;;
        *) awk '$1 == "usage_usec" { print $2 }' "$1" ;;
    esac
}

# PID: bytes that it and its descendants hold. Their own pages are added up; of the pages of files, the most that one of
# them has, because processes of one program share them. A health check is not a descendant and does not count.
memory_of() {
    local todo=("$1") files=() pid
    while [ ${#todo[@]} -gt 0 ]; do
        pid=${todo[0]}
        todo=("${todo[@]:1}")
        files+=("/proc/$pid/status")
        # A process may end while it is looked at.
        # shellcheck disable=SC2207
        todo+=($(cat "/proc/$pid"/task/*/children 2> /dev/null || true))
    done
    cat "${files[@]}" 2> /dev/null | awk '
        /^Rss(Anon|Shmem):/ { own += $2 }
        /^RssFile:/ { if ($2 > shared) shared = $2 }
        END { printf "%.0f\n", (own + shared) * 1024 }'
}

# PID: prints what memory_of says, each time that it is more than before, until it is killed or the process ends.
watch_memory() {
    local most=0 bytes
    while [ -e "/proc/$1" ]; do
        bytes=$(memory_of "$1")
        if [ "$bytes" -gt "$most" ]; then
            most=$bytes
            echo "$most"
        fi
        sleep 0.5
    done
}

# --- the report -------------------------------------------------------------------------------------------------------

# NAME FILE WHY-NOT [PAGE]: shows the section, and puts it between its marks in the page if nothing speaks against it.
publish() {
    local why=$3 doc=${4:-docs/performance.md}
    cat "$2"
    [ -z "$quick" ] || why='a quick run'
    if [ -n "$why" ]; then
        say "$doc stays as it is: $why"
        return
    fi
    grep -q "<!-- bench:$1:begin -->" "$doc" || die "$doc has no place for $1"
    awk -v name="$1" -v file="$2" '
        $0 == "<!-- bench:" name ":end -->" { inside = 0 }
        !inside { print }
        $0 == "<!-- bench:" name ":begin -->" {
            inside = 1
            while ((getline line < file) > 0) print line
        }' "$doc" > "$doc.new"
    mv "$doc.new" "$doc"
    say "written into $doc"
}
