#!/bin/sh
# PostgreSQL (Debian's, 15): with synchronous replication, a transaction that contains only NOTIFY is committed without
# waiting for the standby. The transaction gets an id and a commit record, but PostgreSQL does not count it as one that has
# written, and only those wait. So a successful NOTIFY does not show that the synchronous standby follows. A transactional
# logical message, which changes no table either, does wait.
#
# Seen with version 15.18:
#   NOTIFY alone: committed
#   pg_current_xact_id() alone: committed
#   pg_logical_emit_message(true, …): waits
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
# The synchronous standby does not exist, so a commit that waits for it waits for ever.
$as "$bin/postgres" -D "$dir/data" -k "$dir" -c listen_addresses= -c fsync=off -c synchronous_standby_names=away \
    >"$dir/log" 2>&1 &
server=$!
until "$bin/pg_isready" -q -h "$dir"; do sleep 0.1; done

# "committed" or "waits".
of() {
    if timeout 5 "$bin/psql" -X -q -At -h "$dir" -U tester -d postgres -c "$1" >"$dir/out" 2>&1; then
        echo committed
    else
        [ $? = 124 ] || { cat "$dir/out" >&2; exit 1; }
        echo waits
    fi
}
failed=0
expect() {
    found=$(of "$2")
    echo "$1: $found"
    [ "$found" = "$3" ] || failed=1
}
expect 'NOTIFY alone' "SELECT pg_notify('any', '')" committed
expect 'pg_current_xact_id() alone' 'SELECT pg_current_xact_id()' committed
expect 'pg_logical_emit_message(true, …)' "SELECT pg_logical_emit_message(true, 'any', '')" waits
exit "$failed"
