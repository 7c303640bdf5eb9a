#!/usr/bin/env bash
# Makes the Python wheel from built programs: target/dist/machineid_sidecar-VERSION-py3-none-TAGS.whl
#
#     packaging/wheel.sh [--bin DIR] [--out DIR]      [default: target/dist/portable, target/dist]
#
# The tags follow from the programs: static ones fit every Linux of their processor. Programs for another processor
# (packaging/build.sh --portable --target aarch64-unknown-linux-gnu) make a wheel for that one.
set -euo pipefail
cd "$(dirname "$0")/.."

bin=target/dist/portable out=target/dist
while [ $# -gt 0 ]; do
    case $1 in
        --bin) bin=$2; shift 2 ;;
        --out) out=$2; shift 2 ;;
        *) sed -n '2,/^set/s/^# \{0,1\}//p' "$0" >&2; exit 2 ;;
    esac
done

tools=target/packaging-tools
[ -x $tools/bin/python ] || python3 -m venv $tools
$tools/bin/python -c 'import hatchling' 2> /dev/null ||
    $tools/bin/python -m pip install --quiet --disable-pip-version-check 'hatchling>=1.28,<2'

stage=$(mktemp -d)
trap 'rm -rf "$stage"' EXIT
cp -r packaging/python/{pyproject.toml,hatch_build.py,README.md,src} "$stage/"
find "$stage" -name __pycache__ -prune -exec rm -r {} +
cp LICENSE "$stage/"
[ ! -e target/dist/THIRD-PARTY-LICENSES ] || cp target/dist/THIRD-PARTY-LICENSES "$stage/LICENSE-THIRD-PARTY"
mkdir "$stage/bin"
install -m 755 -t "$stage/bin" "$bin"/machineid{,-run,-sidecar,-authority}
packaging/strip.sh "$stage"/bin/*
mkdir -p "$out"
out=$(realpath -- "$out") hatchling=$(realpath -s -- $tools/bin/python)
MACHINEID_VERSION=$(sed -n '/^\[workspace.package\]/,/^\[/s/^version = "\(.*\)"/\1/p' Cargo.toml)
SOURCE_DATE_EPOCH=${SOURCE_DATE_EPOCH:-$(git log -1 --format=%ct 2> /dev/null || stat -c %Y CHANGELOG.md)}
if [ -n "${MACHINEID_SBOM:-}" ]; then cp "$MACHINEID_SBOM" "$stage/machineid-sidecar.cdx.json"; export MACHINEID_SBOM=machineid-sidecar.cdx.json; fi
export MACHINEID_VERSION SOURCE_DATE_EPOCH MACHINEID_PROGRAMS="$stage/bin"
cd "$stage"
"$hatchling" -m hatchling build --target wheel --directory "$out"
