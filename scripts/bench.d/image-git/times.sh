#!/bin/sh
# times.sh clone URL | commits COUNT BYTES SEED | push BRANCH: prints the microseconds that git took; commits are only made.
set -eu
work=$HOME/bench-clone
microseconds() { echo $(($(date +%s%N) / 1000)); }
case $1 in
clone)
    rm -rf "$work"
    began=$(microseconds)
    git clone --quiet --no-checkout "$2" "$work" >&2
    echo $(($(microseconds) - began))
    ;;
commits)
    git -C "$work" update-ref -d refs/heads/bench
    perl /usr/local/bin/history.pl "$2" "$3" "$4" refs/heads/bench "$(git -C "$work" rev-parse origin/main)" |
        git -C "$work" fast-import --quiet --done
    ;;
push)
    began=$(microseconds)
    git -C "$work" push origin "refs/heads/bench:refs/heads/$2" >&2
    echo $(($(microseconds) - began))
    ;;
esac
