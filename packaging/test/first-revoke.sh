#!/usr/bin/env bash
# Measures the time from nothing but Python to the first revoke: the installation of a wheel, an authority, a daemon and an agent, the
# revoke, and the end of the agent. Once with uvx, which is one command, and once with venv and pip. A figure, not a test of CI.
#
#     packaging/test/first-revoke.sh WHEEL
set -euo pipefail
cd "$(dirname "$0")/../.."
wheel=$(realpath -- "${1:?the wheel}")
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT

now() { date +%s%3N; }
since() { printf '%6d ms  %s\n' $(($(now) - begun)) "$1"; }
to_the_revoke() { # COMMAND... starts machineid-sidecar
    : > "$work/agent.log"
    "$@" --dev -- python3 -u examples/agent.py > "$work/agent.log" 2> "$work/dev.log" &
    local dev=$! code=0 revoke
    until grep -q 'task 1' "$work/agent.log"; do [ -d "/proc/$dev" ] || { cat "$work/dev.log"; exit 1; }; sleep 0.02; done
    since 'the agent works'
    read -r -a revoke <<< "$(grep -o '[^ ]*/machineid revoke [^ ]*' "$work/dev.log" | head -1)"
    "${revoke[@]}" > /dev/null
    since 'revoked'
    wait "$dev" || code=$?
    since "the agent and all else has ended, with $code"
    [ "$code" = 77 ]
}

uvx=target/packaging-tools/bin/uvx
[ -x $uvx ] || target/packaging-tools/bin/python -m pip install --quiet --disable-pip-version-check uv
echo 'uvx --from WHEEL machineid-sidecar --dev -- python3 agent.py, with an empty cache'
begun=$(now)
to_the_revoke env UV_CACHE_DIR="$work/uv" $uvx --offline --no-config --from "$wheel" machineid-sidecar

echo 'python3 -m venv, pip install WHEEL, machineid-sidecar --dev -- python3 agent.py'
begun=$(now)
python3 -m venv "$work/venv"
since 'a virtual environment'
"$work/venv/bin/python" -m pip install --quiet --disable-pip-version-check --no-index --no-deps "$wheel"
since 'the wheel is installed'
to_the_revoke "$work/venv/bin/machineid-sidecar"
