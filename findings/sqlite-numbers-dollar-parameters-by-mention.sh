#!/bin/sh
# SQLite: a parameter $2 is not the second one. "$2" is a name to SQLite, and a name gets its number by its first mention in the
# statement; only "?2" is the second parameter. PostgreSQL takes $2 for the second one wherever it stands. So one text of a
# statement for both databases, bound by position, exchanges the values in SQLite without an error as soon as $2 stands before $1.
#
# Seen with SQLite 3.54.1 (apsw 3.54.1.0) and PostgreSQL 15.18, values 'one' and 'two' in this order:
#   SQLite, SELECT $2, $1: one two
#   SQLite, SELECT ?2, ?1: two one
#   PostgreSQL, SELECT $2, $1: two one
# Exit code 1 when this has changed. Needs python3-venv and postgresql (initdb, postgres, psql); as root it runs the server as the
# user nobody.
set -eu
bin=$(ls -d /usr/lib/postgresql/*/bin | sort -V | tail -1)
"$bin/postgres" --version
dir=$(mktemp -d)
chmod 755 "$dir"
as=
mkdir "$dir/server"
if [ "$(id -u)" = 0 ]; then
    chown nobody "$dir/server"
    as='setpriv --reuid nobody --clear-groups'
fi
cd /
server=
trap '[ -z "$server" ] || { kill -QUIT "$server"; wait "$server" || :; }; rm -rf "$dir"' EXIT
python3 -m venv "$dir/venv"
"$dir/venv/bin/pip" install --quiet --disable-pip-version-check apsw==3.54.1.0
"$dir/venv/bin/python" -c 'import apsw; print("SQLite", apsw.sqlite_lib_version())'
$as "$bin/initdb" -U tester --auth=trust --no-sync -D "$dir/server/data" >"$dir/init.log"
$as "$bin/postgres" -D "$dir/server/data" -k "$dir/server" -c listen_addresses= -c fsync=off >"$dir/log" 2>&1 &
server=$!
until "$bin/pg_isready" -q -h "$dir/server"; do sleep 0.1; done

failed=0
expect() {
    echo "$1: $2"
    [ "$2" = "$3" ] || failed=1
}
sqlite() {
    "$dir/venv/bin/python" -c '
import apsw, sys
print(*next(apsw.Connection(":memory:").execute(sys.argv[1], ("one", "two"))))' "$1"
}
postgres() {
    "$bin/psql" -X -q -At -F ' ' -h "$dir/server" -U tester -d postgres \
        -c "PREPARE it (text, text) AS $1; EXECUTE it ('one', 'two')"
}
expect 'SQLite, SELECT $2, $1' "$(sqlite 'SELECT $2, $1')" 'one two'
expect 'SQLite, SELECT ?2, ?1' "$(sqlite 'SELECT ?2, ?1')" 'two one'
expect 'PostgreSQL, SELECT $2, $1' "$(postgres 'SELECT $2, $1')" 'two one'
exit "$failed"
