#!/bin/sh
# Asks this host's machineid-sidecar before each task. Needs curl.
set -eu

socket=${MACHINEID_SOCKET:-/run/machineid/sidecar.sock}
[ -n "${MACHINEID_SOCKET:-}" ] || [ -S "$socket" ] || socket=${XDG_RUNTIME_DIR:-/run}/machineid/sidecar.sock

# Returns when the answer is yes; otherwise ends the agent.
gate() {
    # Compare with 200, because `curl --fail` alone would accept any 2xx as a yes. 000 means no answer.
    status=$(curl --silent --max-time 10 --output /dev/null --write-out '%{http_code}' \
        --unix-socket "$socket" http://localhost/v1/check) || status=000
    case $status in
        200) ;;
        403) echo "denied: stopping" >&2; exit 77 ;;
        *) echo "could not find out whether to go on (HTTP $status): stopping" >&2; exit 75 ;;
    esac
}

for task in 1 2 3; do
    gate
    echo "task $task"
done
