#!/usr/bin/env bash
# Removes symbols from programs, those for another processor with the tools for that one.
#
#     packaging/strip.sh FILE...
set -euo pipefail
for file in "$@"; do
    machine=$(od -An -tu2 -j18 -N2 -- "$file" | tr -d ' ')
    case $machine in
        62) prefix=x86_64-linux-gnu- ;;
        183) prefix=aarch64-linux-gnu- ;;
        *) echo "strip.sh: $file is for no processor that is packaged" >&2; exit 1 ;;
    esac
    strip='strip'
    ! command -v "${prefix}strip" > /dev/null || strip=${prefix}strip
    # What `dist` built has none left; a debug build for the tests has.
    "$strip" --strip-unneeded -- "$file"
done
