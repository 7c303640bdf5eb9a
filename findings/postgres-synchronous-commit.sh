#!/usr/bin/env bash
# PostgreSQL: what ends the wait of a commit for a synchronous standby that does not answer:
#
#   1. pg_cancel_backend ends the wait, and the server reports success for the COMMIT; only a WARNING says that no standby has the
#      change. A client whose library does not show warnings cannot distinguish this from a replicated commit.
#   2. pg_terminate_backend ends the wait and the connection. The client sees a failure, but the row exists.
#   3. One waiting commit that has sent a NOTIFY keeps every other transaction with a NOTIFY, on any channel and in any
#      database, from committing: the lock on the queue is held until the standby answers. With a lock_timeout the other
#      COMMIT fails, though synchronous_commit = local would have it wait for no standby.
#
# Runs a server of its own from Debian's package postgresql; installs nothing. Exit code 1 when any of this has changed.
set -euo pipefail

programs=$(printf '%s\n' /usr/lib/postgresql/*/bin | sort -V | tail -n 1)
[ -x "$programs/postgres" ] || { echo 'SKIPPED: no PostgreSQL here (apt-get install postgresql)'; exit 0; }
"$programs/postgres" --version

place=$(mktemp -d)
as=()
if [ "$(id -u)" = 0 ]; then
    # The server refuses to run as root.
    chown nobody "$place"
    as=(setpriv --reuid nobody --regid nogroup --clear-groups)
fi
cd "$place"
"${as[@]}" "$programs/initdb" --username me --auth=trust --no-sync --locale=C --encoding=UTF8 -D "$place/data" > init.log
cat >> "$place/data/postgresql.conf" <<END
listen_addresses = ''
unix_socket_directories = '$place'
fsync = off
END
"${as[@]}" "$programs/pg_ctl" -D "$place/data" -w -s -l "$place/log" start
trap '"${as[@]}" "$programs/pg_ctl" -D "$place/data" -s -m immediate stop; rm -rf "$place"' EXIT

sql() { sql_in postgres "$@"; }
sql_in() { "$programs/psql" -XAtq --host "$place" --username me --dbname "$1" -v ON_ERROR_STOP=1 "${@:2}"; }
failed=0
expect() {
    printf '%-82s %s\n' "$1" "$2"
    [ "$2" = "$3" ] || { printf '    CHANGED: expected %s\n' "$3"; failed=1; }
}
# Waits until so many commits wait for the standby.
waiting() {
    for _ in $(seq 100); do
        [ "$(sql -c "SELECT count(*) FROM pg_stat_activity WHERE wait_event = 'SyncRep'")" = "$1" ] && return
        sleep 0.1
    done
    echo "no commit waits for the standby"; cat "$place/log"; exit 1
}
waiter="SELECT pid FROM pg_stat_activity WHERE wait_event = 'SyncRep' ORDER BY xact_start LIMIT 1"
# One row in a transaction of its own, in the background; its output and exit code in files of this name.
insert() {
    local name=$1; shift
    { sql "$@" -c "INSERT INTO t VALUES ('$name')" > "$name.out" 2>&1 && echo 0 > "$name.code" || echo $? > "$name.code"; } &
}
rows() { sql -c "SELECT count(*) FROM t WHERE name = '$1'"; }

sql -c 'CREATE TABLE t (name text)' -c 'CREATE DATABASE other'
sql -c "ALTER SYSTEM SET synchronous_standby_names = 'none_of_this_name'" -c 'SELECT pg_reload_conf()' > reload.out
until [ "$(sql -c 'SHOW synchronous_standby_names')" = none_of_this_name ]; do sleep 0.1; done

insert cancelled
waiting 1
expect 'the commit waits; others see so many rows:' "$(rows cancelled)" 0
sql -c "SELECT pg_cancel_backend(($waiter))" > cancel.out
wait
expect 'pg_cancel_backend: exit code of the client whose COMMIT waited:' "$(cat cancelled.code)" 0
expect '    what it was warned of:' "$(grep -o 'canceling wait for synchronous replication' cancelled.out)" \
    'canceling wait for synchronous replication'
expect '    rows that others see, though no standby has them:' "$(rows cancelled)" 1

insert terminated
waiting 1
sql -c "SELECT pg_terminate_backend(($waiter))" > terminate.out
wait
expect 'pg_terminate_backend: exit code of the client whose COMMIT waited:' "$(cat terminated.code)" 2
expect '    rows that others see, though the client was told of a failure:' "$(rows terminated)" 1

sql -c 'BEGIN' -c "INSERT INTO t VALUES ('first')" -c 'NOTIFY one' -c 'COMMIT' > first.out 2>&1 &
waiting 1
code=0
sql_in other -c "SET synchronous_commit = local" -c "SET lock_timeout = '500ms'" -c 'BEGIN' -c 'NOTIFY another' -c 'COMMIT' \
    > second.out 2>&1 || code=$?
expect 'a NOTIFY in another database meanwhile, commit = local: exit code of its client:' "$code" 1
expect '    what its COMMIT says:' "$(grep -o 'canceling statement due to lock timeout' second.out)" \
    'canceling statement due to lock timeout'
sql -c "SET synchronous_commit = local" -c "SET lock_timeout = '500ms'" -c "INSERT INTO t VALUES ('third')"
expect 'a row in the same database without a NOTIFY, commit = local: rows' "$(rows third)" 1
sql -c "SELECT pg_terminate_backend(($waiter))" > terminate.out
wait
exit $failed
