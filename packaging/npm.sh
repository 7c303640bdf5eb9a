#!/usr/bin/env bash
# Makes the npm packages from built programs: target/dist/npm/machineid-run-VERSION.tgz, and one for the programs' processor,
# machineid-sidecar-linux-x64-VERSION.tgz or machineid-sidecar-linux-arm64-VERSION.tgz.
#
#     packaging/npm.sh [--bin DIR] [--out DIR]      [default: target/dist/portable, target/dist/npm]
set -euo pipefail
cd "$(dirname "$0")/.."

bin=target/dist/portable out=target/dist/npm
while [ $# -gt 0 ]; do
    case $1 in
        --bin) bin=$2; shift 2 ;;
        --out) out=$2; shift 2 ;;
        *) sed -n '2,/^set/s/^# \{0,1\}//p' "$0" >&2; exit 2 ;;
    esac
done

version=$(sed -n '/^\[workspace.package\]/,/^\[/s/^version = "\(.*\)"/\1/p' Cargo.toml)
stage=$(mktemp -d)
trap 'rm -rf "$stage"' EXIT
mkdir -p "$out" "$stage/platform/bin"
out=$(realpath -- "$out")

cp -r packaging/npm/machineid-run "$stage/"
# machineid-authority stays out: `--dev` has one, and it would double the size.
install -m 755 -t "$stage/platform/bin" "$bin"/machineid{,-run,-sidecar}
case $(od -An -tu2 -j18 -N2 -- "$stage/platform/bin/machineid-run" | tr -d ' ') in
    62) cpu=x64 ;;
    183) cpu=arm64 ;;
    *) echo "npm.sh: the programs in $bin are for no processor that is packaged" >&2; exit 1 ;;
esac
packaging/strip.sh "$stage"/platform/bin/*
cp packaging/npm/platform/* "$stage/platform/"
[ ! -e target/dist/THIRD-PARTY-LICENSES ] || cp target/dist/THIRD-PARTY-LICENSES "$stage/platform/LICENSE-THIRD-PARTY"
for package in machineid-run platform; do
    cp LICENSE "$stage/$package/"
    sed -i "s/\"0\.0\.0\"/\"$version\"/; s/PLATFORM/linux-$cpu/; s/\"CPU\"/\"$cpu\"/" "$stage/$package/package.json"
    (cd "$stage/$package" && HOME=$stage npm pack --silent --ignore-scripts --pack-destination "$out")
done
