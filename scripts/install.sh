#!/bin/sh
# Installs the bottle tools from a release that was downloaded: checks the sums first, then puts bin/ and share/ below a
# prefix. Nothing is downloaded, nothing needs root, and each file that is there already is replaced whole.
set -eu

usage() {
    cat <<'TEXT'
usage: install.sh [--to PREFIX] [--check] [TARBALL]

TARBALL   bottle-VERSION-TARGET.tar.gz; without it, the only one beside this script
--to      where bin/ and share/ go (default: ~/.local)
--check   check the sums, install nothing

SHA256SUMS must lie beside the tarball. Whoever can change the tarball can change the sums beside it: compare their
hash with one you have from somewhere else.
Exit codes: 0 done, 1 failed or a sum is wrong, 2 wrong usage.
TEXT
}

die() {
    echo "install: $1" >&2
    if [ $# -gt 1 ]; then echo "hint: $2" >&2; fi
    exit 1
}
wrong() {
    echo "install: $1" >&2
    echo "hint: install.sh --help" >&2
    exit 2
}

prefix=''
check=''
tarball=''
while [ $# -gt 0 ]; do
    case $1 in
        --to) [ $# -gt 1 ] || wrong '--to needs a folder'; prefix=$2; shift ;;
        --check) check=1 ;;
        -h | --help) usage; exit 0 ;;
        -*) wrong "unknown argument: $1" ;;
        *) [ -z "$tarball" ] || wrong 'only one tarball'; tarball=$1 ;;
    esac
    shift
done

here=$(cd "$(dirname "$0")" && pwd)
if [ -z "$tarball" ]; then
    for found in "$here"/bottle-*.tar.gz; do
        [ -z "$tarball" ] || die 'there is more than one tarball' "name one: install.sh $found"
        tarball=$found
    done
fi
[ -f "$tarball" ] || die "there is no tarball at $tarball" 'name it: install.sh bottle-VERSION-TARGET.tar.gz'
folder=$(cd "$(dirname "$tarball")" && pwd)
name=$(basename "$tarball")
[ -f "$folder/SHA256SUMS" ] || die "there is no SHA256SUMS in $folder" 'download it with the tarball'

# Only the line of this very file counts, and there must be one.
wanted=$(awk -v name="$name" '$2 == name || $2 == "*" name { print $1; count++ } END { exit count != 1 }' \
    "$folder/SHA256SUMS") || die "SHA256SUMS does not name $name once"
if command -v sha256sum > /dev/null 2>&1; then
    found=$(sha256sum < "$folder/$name")
else
    found=$(shasum -a 256 < "$folder/$name")
fi
[ "${found%% *}" = "$wanted" ] || die "$name is not what SHA256SUMS says" 'download both again; nothing was installed'
echo "install: the sum of $name is right" >&2
[ -z "$check" ] || exit 0

if [ -z "$prefix" ]; then
    [ -n "${HOME:-}" ] || die 'HOME is not set' 'say where: install.sh --to PREFIX'
    prefix=$HOME/.local
fi
mkdir -p "$prefix"
# Beside the target, so that the moves are renames.
work=$(mktemp -d "$prefix/.bottle-install.XXXXXX")
trap 'rm -rf "$work"' EXIT
trap 'exit 1' HUP INT TERM
tar -xzf "$folder/$name" -C "$work" --no-same-owner
root=$work/${name%.tar.gz}
[ -x "$root/bin/bottle-plan" ] || die "$name holds no tools"
"$root/bin/bottle-plan" --version > /dev/null || die 'the tools do not run on this machine' 'is it the right TARGET?'

(cd "$root" && find bin share -type f) | while IFS= read -r file; do
    mkdir -p "$prefix/$(dirname "$file")"
    # A tool that is running keeps its own file.
    mv -f "$root/$file" "$prefix/$file"
done
echo "install: done, in $prefix/bin" >&2
case ":$PATH:" in
    *":$prefix/bin:"*) ;;
    *) echo "hint: export PATH=\"$prefix/bin:\$PATH\"" >&2 ;;
esac
