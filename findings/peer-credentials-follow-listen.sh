#!/bin/sh
# Linux, SO_PEERCRED at a client of a unix socket: with socket activation, the service's library decides which process it names.
# A service manager binds a socket, listens, and passes the socket to the service. unix(7) says that the credentials are those at
# the time of listen(2), so the client should see the manager. But listen() may be called again on a socket that already
# listens, and the kernel then replaces the credentials by the caller's, for connections made from then on. asyncio (and so
# uvicorn) and Node.js call listen() on a socket that they are given; Python's socket module and gunicorn do not. This holds for uid
# and gid as well as for the pid, and a client cannot see which case it has.
#
# So a client that checks the uid of a socket-activated service sees the manager's uid or the service's, as the service's library
# has it, and needs to know which of them is right. The pid is not a process to signal.
#
# Seen with Linux 6.18, Python 3.11, uvicorn 0.54.0, gunicorn 27.0.1, Node.js 20.20.2:
#   before a service runs: the manager
#   a service that only accepts: the manager
#   gunicorn: the manager
#   uvicorn: the service
#   Node.js: the service
#   the same, asked on a connection made before: the manager
# Exit code 1 when this has changed. Needs python3-venv and node. About 15 s after the installation.
set -eu
dir=$(mktemp -d)
trap 'rm -rf "$dir"' EXIT
trap 'exit 1' HUP INT TERM
export HOME="$dir"
cd "$dir"
python3 -m venv venv
venv/bin/pip install --quiet --disable-pip-version-check --no-cache-dir uvicorn==0.54.0 gunicorn==27.0.1
venv/bin/python --version
echo "Node.js $(node --version), Linux $(uname -r)"
cat >app.py <<'EOF'
async def asgi(scope, receive, send):
    await send({"type": "http.response.start", "status": 200, "headers": [(b"content-length", b"0")]})
    await send({"type": "http.response.body"})


def wsgi(environ, start_response):
    start_response("200 OK", [("content-length", "0")])
    return [b""]
EOF
cat >accepts.py <<'EOF'
import socket

listener = socket.socket(fileno=3)
while True:
    connection, _ = listener.accept()
    connection.recv(4096)
    connection.sendall(b"HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n")
EOF
echo 'require("http").createServer((_, answer) => answer.end()).listen({fd: 3})' >accepts.js
cat >manager.py <<'EOF'
import fcntl
import os
import socket
import struct
import subprocess
import sys

failed = False


def expect(what, seen, expected):
    global failed
    print(f"{what}: {seen}")
    failed |= seen != expected


def connect(path):
    client = socket.socket(socket.AF_UNIX)
    client.settimeout(60)
    client.connect(path)
    return client


def peer(client):
    pid, _, _ = struct.unpack("3i", client.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, 12))
    return "the manager" if pid == os.getpid() else "the service" if pid == service.pid else f"another process, {pid}"


service = None
python = sys.executable
for what, argv, expected in (
    ("a service that only accepts", [python, "accepts.py"], "the manager"),
    ("gunicorn", [python, "-m", "gunicorn", "--log-level", "error", "app:wsgi"], "the manager"),
    ("uvicorn", [python, "-m", "uvicorn", "--log-level", "error", "--lifespan", "off", "--fd", "3", "app:asgi"], "the service"),
    ("Node.js", ["node", "accepts.js"], "the service"),
):
    path = what.split()[-1]
    listener = socket.socket(socket.AF_UNIX)
    listener.bind(path)
    listener.listen()
    # Connected now, accepted and answered only by the service.
    early = connect(path)
    early.sendall(b"GET / HTTP/1.1\r\nhost: here\r\nconnection: close\r\n\r\n")
    if service is None:
        expect("before a service runs", peer(early), "the manager")
    # The shell puts the socket where systemd would: descriptor 3, with LISTEN_PID naming the service.
    given = fcntl.fcntl(listener.fileno(), fcntl.F_DUPFD, 10)
    script = f'exec env LISTEN_FDS=1 LISTEN_PID=$$ "$@" 3<&{given} {given}<&-'
    # bash takes descriptors of two digits; sh need not.
    service = subprocess.Popen(["bash", "-c", script, "bash", *argv], pass_fds=[given], stdin=subprocess.DEVNULL)
    try:
        # The service has answered, so it is past its own preparation of the socket.
        if not early.recv(4096).startswith(b"HTTP/1.1 200"):
            sys.exit(f"{what} does not answer")
        late = connect(path)
        expect(what, peer(late), expected)
        if what == "Node.js":
            expect("the same, asked on a connection made before", peer(early), "the manager")
    finally:
        service.terminate()
        service.wait()
    os.close(given)
    listener.close()
sys.exit(failed)
EOF
venv/bin/python manager.py
