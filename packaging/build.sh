#!/usr/bin/env bash
# Builds the programs for a release.
#
#     packaging/build.sh                             for the host's packages: target/dist/bin
#     packaging/build.sh --portable [--target TRIPLE]  for PyPI and npm: target/dist/portable, for another processor
#                                                    target/dist/portable-TRIPLE
#
# For the packages, three programs are linked with libc (the profile `dist`), and machineid-run and machineid-leaf statically (the
# profile `alone`; gnu target, +crt-static; built separately, from their own crates). Portable programs are all static, since they run
# on hosts with any C library. Another processor needs a gcc that links for it (Debian: gcc-aarch64-linux-gnu) and
# `rustup target add TRIPLE`; otherwise run this on a host of that processor.
#
# The programs contain no path of the build machine, so two builds of a commit have the same bytes.
set -euo pipefail
cd "$(dirname "$0")/.."

host=$(rustc -vV | sed -n 's/^host: //p')
target=$host portable=''
while [ $# -gt 0 ]; do
    case $1 in
        --portable) portable=yes; shift ;;
        --target) target=$2; shift 2 ;;
        *) sed -n '2,/^set/s/^# \{0,1\}//p' "$0" >&2; exit 2 ;;
    esac
done
[ "$target" = "$host" ] || [ -n "$portable" ] || { echo 'build.sh: --target goes with --portable' >&2; exit 2; }
if [ "$target" != "$host" ]; then
    compiler=${target%%-*}-linux-gnu-gcc
    command -v "$compiler" > /dev/null || { echo "build.sh: there is no $compiler to link for $target; run this on such a host" >&2; exit 3; }
    [ -d "$(rustc --print sysroot)/lib/rustlib/$target" ] || { echo "build.sh: Rust has no library for $target (rustup target add $target); or run this on such a host" >&2; exit 3; }
    variable=${target//-/_}
    export "CC_$variable=$compiler" "CARGO_TARGET_${variable^^}_LINKER=$compiler"
fi

cargo_home=${CARGO_HOME:-$HOME/.cargo}
sysroot=$(rustc --print sysroot)
remap="--remap-path-prefix=$PWD=/machineid-sidecar --remap-path-prefix=$cargo_home=/cargo --remap-path-prefix=$sysroot=/rust"
export CFLAGS="${CFLAGS:-} -ffile-prefix-map=$PWD=/machineid-sidecar -ffile-prefix-map=$cargo_home=/cargo"
export CARGO_INCREMENTAL=0
export SOURCE_DATE_EPOCH=${SOURCE_DATE_EPOCH:-$(git log -1 --format=%ct 2>/dev/null || stat -c %Y CHANGELOG.md)}

# Places of their own, so that neither build makes the other one compile everything again.
static="-C target-feature=+crt-static" directory=target/dist/build linked='' out=target/dist/bin helpers=(machineid-run machineid-leaf)
if [ -n "$portable" ]; then
    directory=target/dist/portable-build linked=$static helpers=(machineid-run) out=target/dist/portable
    [ "$target" = "$host" ] || out=$out-$target
fi
RUSTFLAGS="$remap $linked" cargo build --profile dist --locked --target "$target" --target-dir "$directory" \
    --bin machineid-sidecar --bin machineid --bin machineid-authority
RUSTFLAGS="$remap $static" cargo build --profile alone --locked --target "$target" \
    --target-dir target/dist/static --package machineid-run --package machineid-leaf \
    --features machineid-run/program,machineid-leaf/program

rm -rf "$out"
mkdir -p "$out"
install -m 755 -t "$out" "$directory/$target/dist/"machineid{,-sidecar,-authority} \
    "${helpers[@]/#/target/dist/static/$target/alone/}"
ls -l "$out"
