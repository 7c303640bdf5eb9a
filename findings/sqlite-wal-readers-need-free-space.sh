#!/bin/sh
# SQLite in WAL mode on a full disk: reading fails too, and the error does not say that space is missing. The first connection makes the
# file -shm of 32 KiB, even when the database was closed cleanly and has no log. If there is no space for it, every SELECT fails with
# SQLITE_IOERR ("disk I/O error", extended code SQLITE_IOERR_SHMSIZE), which looks like broken hardware, and not with SQLITE_FULL
# ("database or disk is full"). mode=ro changes nothing. With a rollback journal, the same file can be read on the same disk.
# While another connection is open, -shm exists, and a reader gets its rows. So a service continues to read from its database on a
# full disk until it restarts, and then it cannot start. DELETE does not help in either case: it needs space itself.
#
# So test the restart on a full disk, and reserve space that can be released.
#
# Seen with SQLite 3.54.1 (apsw 3.54.1.0):
#   rollback journal, SELECT: 40 rows
#   WAL, SELECT: IOERR_SHMSIZE
#   WAL, SELECT with mode=ro: IOERR_SHMSIZE
#   WAL, DELETE: IOERR_SHMSIZE
#   WAL, SELECT with immutable=1: 40 rows
#   WAL while another connection is open, SELECT: 40 rows
#   WAL while another connection is open, DELETE: FULL
# Exit code 1 when this has changed. Needs python3-venv and user namespaces (the disk is a tmpfs of 512 KiB in a mount namespace of
# its own). About 1 s after the installation.
set -eu
unshare --user --map-root-user --mount true 2>/dev/null || { echo 'SKIPPED: no user namespaces here'; exit 0; }
dir=$(mktemp -d)
trap 'rm -rf "$dir"' EXIT
trap 'exit 1' HUP INT TERM
export HOME="$dir"
cd "$dir"
python3 -m venv venv
venv/bin/pip install --quiet --disable-pip-version-check --no-cache-dir apsw==3.54.1.0
mkdir disk
cat >try.py <<'EOF'
import os
import sys

import apsw

print("SQLite", apsw.sqlite_lib_version())
os.chdir("disk")
failed = False


def make(mode):
    """A database of 40 rows in this mode, on an otherwise empty disk."""
    for name in os.listdir():
        os.unlink(name)
    db = apsw.Connection("db")
    db.execute(f"PRAGMA journal_mode = {mode}")
    db.execute("CREATE TABLE t (x)")
    db.executemany("INSERT INTO t VALUES (hex(zeroblob(250)))", [()] * 40)
    return db


def fill():
    with open("other", "wb", buffering=0) as other:
        try:
            while True:
                other.write(bytes(4096))
        except OSError:
            pass


def expect(what, expected, sql="SELECT COUNT(*) FROM t", uri="file:db"):
    global failed
    try:
        with_uri = apsw.SQLITE_OPEN_READWRITE | apsw.SQLITE_OPEN_URI
        db = apsw.Connection(uri, flags=with_uri)
        rows = list(db.execute(sql))
        seen = f"{rows[0][0]} rows" if rows else "done"
        db.close()
    except apsw.Error as error:
        names = apsw.mapping_extended_result_codes if error.extendedresult > 255 else apsw.mapping_result_codes
        seen = names[error.extendedresult].removeprefix("SQLITE_")
    print(f"{what}: {seen}")
    failed |= seen != expected


make("delete").close()
fill()
expect("rollback journal, SELECT", "40 rows")

make("wal").close()
fill()
expect("WAL, SELECT", "IOERR_SHMSIZE")
expect("WAL, SELECT with mode=ro", "IOERR_SHMSIZE", uri="file:db?mode=ro")
expect("WAL, DELETE", "IOERR_SHMSIZE", sql="DELETE FROM t WHERE rowid = 1")
expect("WAL, SELECT with immutable=1", "40 rows", uri="file:db?immutable=1")

first = make("wal")
fill()
expect("WAL while another connection is open, SELECT", "40 rows")
expect("WAL while another connection is open, DELETE", "FULL", sql="DELETE FROM t WHERE rowid = 1")
first.close()
sys.exit(failed)
EOF
unshare --user --map-root-user --mount sh -c 'mount -t tmpfs -o size=512k none disk && exec venv/bin/python try.py'
