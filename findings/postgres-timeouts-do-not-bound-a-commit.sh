#!/bin/sh
# PostgreSQL: no timeout of the server bounds a COMMIT that waits for a synchronous standby.
#
# Expected: a COMMIT is a statement, so statement_timeout bounds it; failing that, lock_timeout or
# idle_in_transaction_session_timeout does. Seen (PostgreSQL 15, Debian 12): the server switches statement_timeout off before
# it commits, and a COMMIT that waits for a standby that does not exist waits for ever. A client that gives up and closes its
# connection does not end the wait either: the server process, its place among max_connections and its row locks stay until a
# standby connects or the setting changes. Only then do other transactions see the change.
#
# So a client needs a timeout of its own and a bounded pool, and must count such a change as "perhaps done".
#
# Needs Debian's postgresql package. Runs as root (then the server runs as nobody) or as an ordinary user. About 10 s.
set -eu

programs=$(ls -d /usr/lib/postgresql/*/bin 2>/dev/null | sort -V | tail -1)
[ -n "$programs" ] || { echo "SKIPPED: no PostgreSQL here (apt-get install postgresql)"; exit 0; }
"$programs/postgres" --version

place=$(mktemp -d)
user=
if [ "$(id -u)" = 0 ]; then
    chown nobody "$place"
    user="setpriv --reuid nobody --clear-groups"
fi
end() {
    $user "$programs/pg_ctl" -D "$place/data" -m immediate stop >/dev/null 2>&1 || true
    rm -rf "$place"
}
trap end EXIT
cd "$place"

$user "$programs/initdb" --username test --auth trust --no-sync -D "$place/data" >/dev/null
$user "$programs/pg_ctl" -D "$place/data" -w -l "$place/log" \
    -o "-k $place -c listen_addresses= -c fsync=off" start >/dev/null
sql() { "$programs/psql" -h "$place" -U test -d postgres -X -At "$@"; }
waiting() { sql -c "SELECT count(*) FROM pg_stat_activity WHERE wait_event = 'SyncRep'"; }

sql -q -c "CREATE TABLE t (x int)"
# Commits wait for a standby that does not exist.
sql -q -c "ALTER SYSTEM SET synchronous_standby_names = 'ANY 1 (nobody)'"
sql -c "SELECT pg_reload_conf()" >/dev/null
sleep 1

status=0
said=$(timeout 5 "$programs/psql" -h "$place" -U test -d postgres -X -At -c "SET statement_timeout = '1s'" \
    -c "SET lock_timeout = '1s'" -c "SET idle_in_transaction_session_timeout = '1s'" \
    -c "BEGIN" -c "INSERT INTO t VALUES (1)" -c "COMMIT" 2>&1) || status=$?
printf '%s\n' "$said"
sleep 1
echo "psql after 5 s with timeouts of 1 s: exit code $status (124: ended by timeout)"
echo "processes that wait on, without their client: $(waiting); rows that others see: $(sql -c 'SELECT count(*) FROM t')"
[ "$status" = 124 ] && [ "$(waiting)" = 1 ] && [ "$(sql -c 'SELECT count(*) FROM t')" = 0 ] ||
    { echo "CHANGED: something bounds the wait now"; exit 1; }

sql -q -c "ALTER SYSTEM RESET synchronous_standby_names"
sql -c "SELECT pg_reload_conf()" >/dev/null
sleep 1
rows=$(sql -c "SELECT count(*) FROM t")
echo "after the setting is gone: waiting $(waiting), rows $rows"
[ "$rows" = 1 ] || { echo "CHANGED: the change whose client had given up is not there"; exit 1; }
echo "As described."
