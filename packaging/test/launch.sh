#!/usr/bin/env bash
# Tests the launch examples: Supervisor runs for real, and cron's lines run in cron's environment.
#
#     packaging/test/launch.sh DIRECTORY-OF-THE-PROGRAMS
set -uo pipefail
cd "$(dirname "$0")/../.." || exit
bin=$(realpath "${1:?the directory of the programs}")

. packaging/test/outcome.sh
details() { tail -5 "$work"/*.log | sed 's/^/    | /'; }

work=$(mktemp -d)
daemon='' supervisor=''
finish() {
    [ -z "$supervisor" ] || kill "$supervisor" 2> /dev/null
    [ -z "$daemon" ] || kill "$daemon" 2> /dev/null
    wait
    rm -rf "$work"
}
trap finish EXIT

"$bin/machineid-sidecar" --dev > "$work/dev.log" 2>&1 &
daemon=$!
within 30 grep -q 'machineid revoke' "$work/dev.log" || { cat "$work/dev.log"; exit 1; }
socket=$(sed -n 's/^ *socket *//p' "$work/dev.log" | head -1)
device=$(sed -n 's/^ *device *//p' "$work/dev.log" | head -1)
machineid=$(dirname "$socket")/machineid
within 30 "$machineid" check --socket "$socket" -q

# --- cron -----------------------------------------------------------------------------------------------------------------
mkdir "$work/bin"
printf '#!/bin/sh\necho "batch ran: $*"\n' > "$work/bin/python3"
chmod 755 "$work/bin/python3"
line=$(sed -n 's/^\*\/10 .* agent  //p' packaging/launch/crontab)
by_cron() { env -i SHELL=/bin/sh PATH="$work/bin:$bin:/usr/bin:/bin" MACHINEID_SOCKET="$socket" /bin/sh -c "$line" < /dev/null 2>&1; }
ok "cron's line starts the agent while it is allowed" grep -q 'batch ran: /opt/agent/batch.py' <(by_cron)

# --- Supervisor -------------------------------------------------------------------------------------------------------------
if command -v supervisord > /dev/null; then
    cat > "$work/agent.sh" <<END
#!/bin/sh
setsid sh -c 'trap "" TERM; echo \$\$ > $work/child; while :; do sleep 1; done' &
echo \$\$ > $work/leader
wait
END
    cat > "$work/supervisord.conf" <<END
[supervisord]
nodaemon=true
logfile=$work/supervisord.log
pidfile=$work/supervisord.pid
childlogdir=$work
[unix_http_server]
file=$work/supervisor.sock
[supervisorctl]
serverurl=unix://$work/supervisor.sock
[rpcinterface:supervisor]
supervisor.rpcinterface_factory=supervisor.rpcinterface:make_main_rpcinterface
END
    sed -e "s#/usr/bin/machineid-run#$bin/machineid-run --stop-grace 1s#; s#python3 /opt/agent/agent.py#sh $work/agent.sh#" \
        -e "s#^user=.*#user=$(id -un)#; s#^environment=.*#environment=MACHINEID_SOCKET=\"$socket\"#" \
        -e "s#/var/log/agent.log#$work/agent.log#" packaging/launch/supervisor.conf >> "$work/supervisord.conf"
    supervisord -c "$work/supervisord.conf" > "$work/supervisor.log" 2>&1 &
    supervisor=$!
    control() { supervisorctl -c "$work/supervisord.conf" "$@"; }
    state() { control status agent | awk '{ print $2 }'; }
    is_state() { [ "$(state)" = "$1" ] || { control status agent; return 1; }; }
    ended() { local pid; for pid in "$@"; do [ ! -e "/proc/$pid" ] || { echo "$pid lives"; return 1; }; done; }
    ok 'Supervisor starts the agent' within 20 is_state RUNNING
    within 10 test -s "$work/child"
    tree="$(cat "$work/leader" "$work/child")"
    control stop agent > /dev/null
    # shellcheck disable=SC2086
    ok 'supervisorctl stop ends its whole tree, whatever groups and sessions it is in' within 10 ended $tree
    rm -f "$work/child" "$work/leader"
    control start agent > /dev/null
    within 10 test -s "$work/child"
    tree="$(cat "$work/leader" "$work/child")"
    "$machineid" revoke "$device" > /dev/null
    # shellcheck disable=SC2086
    ok 'a revoke ends it' within 20 ended $tree
    ok 'and Supervisor does not start it again' within 10 is_state EXITED
    sleep 2
    ok 'nor later' is_state EXITED
    ok 'it says why in its log' grep -q 'DEVICE_REVOKED' "$work/agent.log"
else
    echo 'SKIPPED - there is no supervisord'
    "$machineid" revoke "$device" > /dev/null
    within 20 test "$("$machineid" check --socket "$socket" -q; echo $?)" = 77
fi

output=$(by_cron)
code=$?
ok "denied, cron's line does not run it, and says so in one line" \
    test "$code $(wc -l <<< "$output") $(grep -c DEVICE_REVOKED <<< "$output")" = '77 1 1'

outcome
