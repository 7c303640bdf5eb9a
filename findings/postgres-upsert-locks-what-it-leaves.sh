#!/bin/sh
# PostgreSQL (Debian's, 15): INSERT … ON CONFLICT DO UPDATE … WHERE locks the conflicting row until the transaction ends even
# when the WHERE is false and the row stays as it is ("INSERT 0 0"). An UPDATE whose WHERE is false locks nothing. So a
# statement that is meant to write rarely, such as a time of last use that is kept to a minute, makes others wait each time,
# and two transactions that pass over the same rows in different orders end in a deadlock although neither changes anything.
#
# Seen with version 15.18:
#   after an UPDATE that changes nothing: free
#   after an upsert that changes nothing: locked
#   two upserts in opposite order that change nothing: deadlock
# Exit code 1 when this has changed. Needs postgresql (initdb, postgres, psql); as root it runs the server as the user nobody.
set -eu
bin=$(ls -d /usr/lib/postgresql/*/bin | sort -V | tail -1)
"$bin/postgres" --version
dir=$(mktemp -d)
chmod 755 "$dir"
as=
if [ "$(id -u)" = 0 ]; then
    chown nobody "$dir"
    as='setpriv --reuid nobody --clear-groups'
fi
cd /
server=
trap '[ -z "$server" ] || { kill -QUIT "$server"; wait "$server" || :; }; rm -rf "$dir"' EXIT
$as "$bin/initdb" -U tester --auth=trust --no-sync -D "$dir/data" >"$dir/init.log"
$as "$bin/postgres" -D "$dir/data" -k "$dir" -c listen_addresses= -c fsync=off -c deadlock_timeout=200ms >"$dir/log" 2>&1 &
server=$!
until "$bin/pg_isready" -q -h "$dir"; do sleep 0.1; done
sql() { "$bin/psql" -X -q -At -h "$dir" -U tester -d postgres "$@"; }
sql -c 'CREATE TABLE used (name text PRIMARY KEY, at int)' -c "INSERT INTO used VALUES ('a', 100), ('b', 100)"

upsert() { echo "INSERT INTO used VALUES ('$1', 1) ON CONFLICT (name) DO UPDATE SET at = excluded.at WHERE excluded.at > used.at;"; }

# Whether another session may lock the row while the transaction of this statement is open: "free" or "locked". The first
# session looks from within its transaction, through a second connection of psql's own.
state_after() {
    {
        echo 'BEGIN;'
        echo "$1"
        echo "\\! '$bin/psql' -X -q -At -h '$dir' -U tester -d postgres -c \"SELECT COUNT(*) FROM (SELECT FROM used WHERE name = 'a' FOR UPDATE SKIP LOCKED) AS free\""
        echo 'COMMIT;'
    } | sql | sed 's/^1$/free/; s/^0$/locked/'
}

failed=0
expect() {
    echo "$1: $2"
    [ "$2" = "$3" ] || failed=1
}
expect 'after an UPDATE that changes nothing' "$(state_after "UPDATE used SET at = 1 WHERE name = 'a' AND 1 > at;")" free
expect 'after an upsert that changes nothing' "$(state_after "$(upsert a)")" locked

# Two sessions, each fed a line at a time, so that the order is certain.
mkfifo "$dir/one" "$dir/two"
sql <"$dir/one" >"$dir/one.out" 2>&1 &
one=$!
sql <"$dir/two" >"$dir/two.out" 2>&1 &
two=$!
exec 3>"$dir/one" 4>"$dir/two"
meet() { until [ "$(wc -l <"$1")" -ge "$2" ]; do sleep 0.05; done; }
{ echo 'BEGIN;'; upsert a; echo 'SELECT 1;'; } >&3
{ echo 'BEGIN;'; upsert b; echo 'SELECT 1;'; } >&4
meet "$dir/one.out" 1
meet "$dir/two.out" 1
upsert b >&3
upsert a >&4
exec 3>&- 4>&-
wait "$one" "$two" || :
if grep -q 'deadlock detected' "$dir/one.out" "$dir/two.out"; then found=deadlock; else found='no deadlock'; fi
expect 'two upserts in opposite order that change nothing' "$found" deadlock
[ "$(sql -c 'SELECT SUM(at) FROM used')" = 200 ] || { echo 'a row was changed' >&2; exit 1; }
exit "$failed"
