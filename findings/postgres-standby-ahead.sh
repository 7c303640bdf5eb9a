#!/usr/bin/env bash
# PostgreSQL, after the promotion of a standby that was behind another standby:
#
#   1. The standby that was ahead cannot follow: it has WAL that the new primary never had. It reports this only in its own log,
#      and asks the new primary again and again.
#   2. When synchronous_standby_names contains that standby, it counts as synchronous, and a COMMIT on the new primary succeeds at
#      once, without a warning: a standby confirms a position in the WAL, whatever its timeline, and this standby's position is
#      further. The standby does not have the row, and never gets it.
#
# Every asynchronous standby is ahead of a synchronous one for short moments. So after a promotion a standby may count as
# synchronous only when it follows the new timeline (rewind or copy it first), and a change that was confirmed may exist once.
#
# Runs three servers of its own from Debian's package postgresql; installs nothing. Exit code 1 when any of this has changed.
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
sql() { timeout 20 "$programs/psql" -XAtq --host "$place/$1" --username me --dbname postgres -v ON_ERROR_STOP=1 "${@:2}"; }
server() { "${as[@]}" "$programs/pg_ctl" -D "$place/$1/data" -s "${@:2}"; }
start() { server "$1" -w -l "$place/$1/log" start; }
# The server's own settings, in addition to the common ones.
configure() { "${as[@]}" sh -c 'printf "unix_socket_directories = %s\n%s\n" "$2" "$3" > "$1"' - "$1/data/own.conf" "'$place/$1'" "$2"; }
follow="host=$place/%s user=me application_name=%s"
# shellcheck disable=SC2059
following() { printf "primary_conninfo = '$follow'" "$2" "$1"; }
failed=0
expect() {
    printf '%-82s %s\n' "$1" "$2"
    [ "$2" = "$3" ] || { printf '    CHANGED: expected %s\n' "$3"; failed=1; }
}
trap 'for one in a b c; do server $one -m immediate stop || true; done 2> /dev/null; rm -rf "$place"' EXIT

"${as[@]}" mkdir a b c
"${as[@]}" "$programs/initdb" --username me --auth=trust --no-sync --locale=C --encoding=UTF8 -D "$place/a/data" > a/init.log
printf '%s\n' "listen_addresses = ''" 'fsync = off' 'wal_retrieve_retry_interval = 1s' "include_if_exists = 'own.conf'" \
    >> a/data/postgresql.conf
configure a ''
start a
sql a -c 'CREATE TABLE t (name text)'
for one in b c; do
    "${as[@]}" "$programs/pg_basebackup" --no-sync --checkpoint=fast --username me --host "$place/a" -D "$place/$one/data"
    "${as[@]}" touch "$one/data/standby.signal"
    configure $one "$(following $one a)"
    start $one
done
until [ "$(sql a -c "SELECT count(*) FROM pg_stat_replication WHERE state = 'streaming'")" = 2 ]; do sleep 0.1; done

# c receives this change; b does not.
receiver=$(sql b -c 'SELECT pid FROM pg_stat_wal_receiver')
kill -STOP "$receiver"
sql a -c "INSERT INTO t SELECT 'before' FROM generate_series(1, 20000)"
until [ "$(sql c -c 'SELECT count(*) FROM t')" = 20000 ]; do sleep 0.1; done
server a -m immediate stop
kill -CONT "$receiver"

configure b "synchronous_standby_names = 'c'"
sql b -c 'SELECT pg_reload_conf()' -c 'SELECT pg_promote()' > promote.out
configure c "$(following c b)"
sql c -c 'SELECT pg_reload_conf()' > reload.out
for _ in $(seq 300); do
    grep -q 'forked off current database system timeline 1 before current recovery point' c/log && break
    sleep 0.1
done

code=0
sql b -c "INSERT INTO t VALUES ('after')" > insert.out 2>&1 || code=$?
expect 'a commit on the new primary, which waits for c: exit code of its client:' "$code" 0
expect '    what it was warned of:' "$(cat insert.out)" ''
sleep 3
expect '    such rows at the standby that confirmed it:' "$(sql c -c "SELECT count(*) FROM t WHERE name = 'after'")" 0
expect '    rows at the standby that the new primary never had:' "$(sql c -c "SELECT count(*) FROM t WHERE name = 'before'")" 20000
expect '    what its own log says:' \
    "$(grep -o 'new timeline 2 forked off current database system timeline 1 before' c/log | head -n 1)" \
    'new timeline 2 forked off current database system timeline 1 before'
exit $failed
