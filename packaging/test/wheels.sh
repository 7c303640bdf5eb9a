#!/usr/bin/env bash
# Tests the Python wheel: builds it from these programs, installs it offline into a new virtual environment, and runs the tests of its
# module there, against its own programs.
#
#     packaging/test/wheels.sh [DIRECTORY-OF-THE-PROGRAMS]      [default: target/debug]
#
# WHEEL=FILE tests that one instead.
set -uo pipefail
cd "$(dirname "$0")/../.." || exit
bin=$(realpath -- "${1:-target/debug}")
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
. packaging/test/outcome.sh

tools=$PWD/target/packaging-tools
wheel=${WHEEL:-}
if [ -z "$wheel" ]; then
    packaging/wheel.sh --bin "$bin" --out "$work/wheel" > "$work/wheel.log" 2>&1 || { cat "$work/wheel.log"; exit 1; }
    wheel=$(echo "$work"/wheel/*.whl)
fi
wheel=$(realpath -- "$wheel")
echo "$(basename "$wheel"), $(du -k "$wheel" | cut -f1) KiB"

python3 -m venv "$work/venv"
ok 'pip installs it, without an index' "$work/venv/bin/python" -m pip install --quiet --disable-pip-version-check --no-index --no-deps "$wheel"
for name in machineid-run machineid-sidecar machineid machineid-authority; do
    ok "$name is in the environment, and runs" "$work/venv/bin/$name" --version
done
module_tests() {
    (cd "$work" && MACHINEID_PROGRAMS="$work/venv/bin" PYTHONDONTWRITEBYTECODE=1 \
        "$work/venv/bin/python" -m unittest discover --quiet --start-directory "$OLDPWD/packaging/python/tests" 2>&1)
}
ok 'its module asks, and fails closed (packaging/python/tests)' module_tests
ok 'pip removes all of it' sh -c '"$0" -m pip uninstall --quiet --yes machineid-sidecar && ! ls "${0%/*}" | grep machineid' "$work/venv/bin/python"
tags() { # a dynamic program of another host must not be offered as one for all
    python3 - "$wheel" <<'END'
import sys, zipfile
with zipfile.ZipFile(sys.argv[1]) as wheel:
    names = wheel.namelist()
    about = wheel.read(next(name for name in names if name.endswith(".dist-info/WHEEL"))).decode()
    programs = [wheel.read(name) for name in names if "/scripts/" in name]
static = all(b"/ld-linux" not in program[:4096] for program in programs)
assert len(programs) == 4 and ("manylinux" in about and "musllinux" in about) == static, about
assert "machineid_sidecar/py.typed" in names and "Root-Is-Purelib: false" in about, about
END
}
ok 'its tags are those that its programs allow, and it is marked as typed' tags

# The programs on one's own PATH, in the way of people who have uv.
[ -x "$tools/bin/uvx" ] || "$tools/bin/python" -m pip install --quiet --disable-pip-version-check uv || true
if [ -x "$tools/bin/uvx" ]; then
    printf 'import os\nprint("worked as", os.environ["MACHINEID_DEVICE_ID"])\nraise SystemExit(7)\n' > "$work/agent.py"
    by_uvx() {
        local output
        output=$(UV_CACHE_DIR=$work/uv "$tools/bin/uvx" --offline --no-config --python "$work/venv/bin/python" --from "$wheel" machineid-sidecar --dev -- \
            "$tools/bin/uvx" --offline --no-config --python "$work/venv/bin/python" --from "$wheel" machineid-run -- "$work/venv/bin/python" "$work/agent.py" 2>&1)
        [ $? = 7 ] && grep -q '^worked as dev:' <<< "$output" || { echo "$output"; return 1; }
    }
    export UV_CACHE_DIR=$work/uv
    ok 'uvx --from WHEEL machineid-run -- python agent.py runs the agent, and passes on its exit code' by_uvx
else
    skip 'uvx: no uv from the registry'
fi
outcome
