#!/usr/bin/env bash
# Publishes the wheels on PyPI and the npm packages, with the accounts that twine and npm find.
#
#     packaging/publish.sh --dry-run DIRECTORY     checks everything, uploads nothing
#     packaging/publish.sh DIRECTORY
#
# Both processors must be there: machineid-run names both of its packages, and an installer on a processor without a wheel would find an
# older version.
set -euo pipefail
cd "$(dirname "$0")/.."

dry=''
if [ "${1:-}" = --dry-run ]; then dry=yes; shift; fi
[ $# = 1 ] || { sed -n '2,/^set/s/^# \{0,1\}//p' "$0" >&2; exit 2; }
directory=$(realpath -- "$1")

for processor in x86_64:x64 aarch64:arm64; do
    for file in "$directory"/machineid_sidecar-*musllinux*_"${processor%:*}".whl "$directory"/machineid-sidecar-linux-"${processor#*:}"-*.tgz; do
        [ -e "$file" ] && continue
        echo "publish.sh: there is no ${file##*/}; on such a host: packaging/build.sh --portable && packaging/wheel.sh && packaging/npm.sh" >&2
        [ -n "$dry" ] || exit 1
    done
done

tools=target/packaging-tools
[ -x $tools/bin/python ] || python3 -m venv $tools
[ -x $tools/bin/twine ] || $tools/bin/python -m pip install --quiet --disable-pip-version-check twine
$tools/bin/twine check --strict "$directory"/machineid_sidecar-*.whl
[ -n "$dry" ] || $tools/bin/twine upload "$directory"/machineid_sidecar-*.whl
# The one that names the others comes last: until then nothing refers to them.
for package in "$directory"/machineid-sidecar-linux-*.tgz "$directory"/machineid-run-*.tgz; do
    npm publish --access public ${dry:+--dry-run} "$package"
done
