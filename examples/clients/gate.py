"""Asks this host's machineid-sidecar before each task. Standard library only."""

import http.client
import json
import os
import socket
import sys


class Denied(Exception):
    """The answer is no: stop."""


class Undecided(Exception):
    """No decision is available: stop for now."""


def socket_path():
    if named := os.environ.get("MACHINEID_SOCKET"):
        return named
    system = "/run/machineid/sidecar.sock"
    return system if os.path.exists(system) else os.environ.get("XDG_RUNTIME_DIR", "/run") + "/machineid/sidecar.sock"


class _OverUnixSocket(http.client.HTTPConnection):
    def connect(self):
        self.sock = socket.socket(socket.AF_UNIX)
        self.sock.settimeout(self.timeout)
        self.sock.connect(socket_path())


def gate():
    """Returns when the answer is yes; otherwise raises Denied or Undecided."""
    connection = _OverUnixSocket("localhost", timeout=10)
    try:
        connection.request("GET", "/v1/check")
        response = connection.getresponse()
        status, body = response.status, response.read()
    except (OSError, http.client.HTTPException) as error:
        raise Undecided(f"no answer from the daemon: {error}") from error
    finally:
        connection.close()
    if status == 200:
        return
    try:
        answer = json.loads(body)
        why = f"{answer['code']} (request_id {answer['request_id']}): {answer['reason']}"
    except (ValueError, KeyError, TypeError):
        why = f"HTTP {status}"
    raise (Denied if status == 403 else Undecided)(why)


def main():
    for task in (1, 2, 3):
        gate()
        print(f"task {task}", flush=True)


if __name__ == "__main__":
    try:
        main()
    except Denied as error:
        print(f"denied: {error}", file=sys.stderr)
        sys.exit(77)
    except Undecided as error:
        print(f"could not find out whether to go on: {error}", file=sys.stderr)
        sys.exit(75)
