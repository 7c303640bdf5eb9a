#!/usr/bin/env bash
# Tests the npm packages: makes them from these programs, installs them offline below a new prefix, and runs the tests of their module and
# of their programs there.
#
#     packaging/test/npm.sh [DIRECTORY-OF-THE-PROGRAMS]      [default: target/debug]
#
# PACKAGES=DIR tests those instead.
set -uo pipefail
cd "$(dirname "$0")/../.." || exit
bin=$(realpath -- "${1:-target/debug}")
command -v npm > /dev/null || { echo 'SKIPPED: packaging/test/npm.sh: there is no npm'; exit 0; }
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
. packaging/test/outcome.sh

# npm's cache and settings are those of nobody.
export HOME=$work/home npm_config_cache=$work/cache npm_config_offline=true npm_config_audit=false npm_config_fund=false npm_config_update_notifier=false
mkdir -p "$HOME" "$work/project"
packages=${PACKAGES:-}
if [ -z "$packages" ]; then
    packages=$work/packages
    packaging/npm.sh --bin "$bin" --out "$packages" > "$work/npm.log" 2>&1 || { cat "$work/npm.log"; exit 1; }
fi
packages=$(realpath -- "$packages")
du -k "$packages"/*.tgz | while read -r size file; do echo "$(basename "$file"), $size KiB"; done
docs=$PWD/docs tests=$PWD/packaging/npm/test/gate.test.mjs
cd "$work/project" || exit
echo '{ "name": "project", "version": "1.0.0", "private": true }' > package.json

ok 'npm installs the package without that of a processor, since that is optional' npm install --silent --omit=optional --no-save "$packages"/machineid-run-*.tgz
missing() { local said; said=$(node_modules/.bin/machineid-run -- true 2>&1); [ $? = 125 ] && grep -q 'the package @machineid-sidecar/linux-.* is missing' <<< "$said"; }
ok 'its launcher then says what is missing, with exit code 125' missing
ok 'npm installs both, without a registry and without a script' npm install --silent --ignore-scripts --no-save "$packages"/*.tgz
for name in machineid-run machineid-sidecar machineid; do
    ok "$name is there, and runs" "node_modules/.bin/$name" --version
done
in_a_place_with_spaces() {
    mkdir -p "$work/a place" && cp -a node_modules "$work/a place/" && cd "$work/a place" && node_modules/.bin/machineid-run --version &&
        ln -s "$PWD/node_modules/.bin/machineid-run" "$work/link" && "$work/link" --version
}
ok 'also in a place with spaces, and by a link' in_a_place_with_spaces
cp "$tests" .
ok 'its module asks, and fails closed; its programs are themselves (packaging/npm/test)' env DOCS="$docs" node --test gate.test.mjs
ok 'npm removes all of it' sh -c 'npm uninstall --silent --no-save machineid-run @machineid-sidecar/linux-x64 @machineid-sidecar/linux-arm64 && ! ls node_modules/.bin 2> /dev/null | grep machineid'
outcome
