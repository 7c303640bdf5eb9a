#!/usr/bin/env bash
# Builds the five programs for a release into target/dist/bin: three linked with libc (the profile `dist`), and machineid-run
# and machineid-leaf linked statically (the profile `alone`; gnu target, +crt-static; built separately, from their own crates).
#
# The programs contain no path of the build machine, so two builds of a commit have the same bytes.
set -euo pipefail
cd "$(dirname "$0")/.."

target=$(rustc -vV | sed -n 's/^host: //p')
cargo_home=${CARGO_HOME:-$HOME/.cargo}
sysroot=$(rustc --print sysroot)
remap="--remap-path-prefix=$PWD=/machineid-sidecar --remap-path-prefix=$cargo_home=/cargo --remap-path-prefix=$sysroot=/rust"
export CFLAGS="${CFLAGS:-} -ffile-prefix-map=$PWD=/machineid-sidecar -ffile-prefix-map=$cargo_home=/cargo"
export CARGO_INCREMENTAL=0
export SOURCE_DATE_EPOCH=${SOURCE_DATE_EPOCH:-$(git log -1 --format=%ct 2>/dev/null || stat -c %Y CHANGELOG.md)}

RUSTFLAGS="$remap" cargo build --profile dist --locked --target "$target" --target-dir target/dist/build \
    --bin machineid-sidecar --bin machineid --bin machineid-authority
RUSTFLAGS="$remap -C target-feature=+crt-static" cargo build --profile alone --locked --target "$target" \
    --target-dir target/dist/static --package machineid-run --package machineid-leaf \
    --features machineid-run/program,machineid-leaf/program

rm -rf target/dist/bin
mkdir -p target/dist/bin
install -m 755 -t target/dist/bin "target/dist/build/$target/dist/"machineid{,-sidecar,-authority} \
    "target/dist/static/$target/alone/"machineid-{run,leaf}
ls -l target/dist/bin
