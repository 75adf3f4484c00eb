# shellcheck shell=bash
# For scripts/build and scripts/static.

# Puts FILE into the folder DIR. Renamed into place: a program that is running right now keeps its own file, and one that
# is started meanwhile is the old one or the new one.
place() { # FILE DIR
    cp "$1" "$2/.new.$$"
    mv -f "$2/.new.$$" "$2/${1##*/}"
}
