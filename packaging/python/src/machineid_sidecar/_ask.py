"""Sends the question over the daemon's socket, with one time limit for all of it, blocking or on an event loop."""

from __future__ import annotations

import asyncio
import math
import os
import socket
import time
from typing import Final
from urllib.parse import urlencode

from ._answer import LONGEST, Answer, Undecided, judge

SYSTEM: Final = "/run/machineid/sidecar.sock"
QUEUE_FULL: Final = 0.02
"""How long to wait before the next try when the daemon's queue of connections is full."""


def socket_path() -> str:
    """The daemon's socket: MACHINEID_SOCKET (machineid-run sets it), else the system's, else this user's."""
    if named := os.environ.get("MACHINEID_SOCKET"):
        return named
    if os.path.exists(SYSTEM):
        return SYSTEM
    return os.path.join(os.environ.get("XDG_RUNTIME_DIR") or "/run", "machineid/sidecar.sock")


def question(device: str | None, max_age: float | None) -> bytes:
    query: dict[str, str] = {}
    if device is not None:
        query["device"] = device
    if max_age is not None:
        if not (math.isfinite(max_age) and max_age >= 0):
            raise ValueError("max_age is a number of seconds, 0 or more")
        query["max_age"] = f"{int(max_age * 1000)}ms"
    target = "/v1/check" + (f"?{urlencode(query)}" if query else "")
    return f"GET {target} HTTP/1.1\r\nhost: localhost\r\nuser-agent: machineid-sidecar-python\r\nconnection: close\r\n\r\n".encode()


def _failed(error: OSError, path: str) -> Undecided:
    if isinstance(error, (FileNotFoundError, ConnectionRefusedError)):
        return Undecided(f"nothing listens on {path}; is machineid-sidecar running?")
    if isinstance(error, PermissionError):
        return Undecided(f"no permission to open {path}; join the group of the socket (machineid), or ask the daemon's administrator")
    return Undecided(f"no complete answer on {path}: {error}")


def _silent(path: str, timeout: float) -> Undecided:
    return Undecided(f"the daemon on {path} gave no answer within {timeout:g} s; is it stopped or overloaded? See its log")


def ask(path: str, request: bytes, timeout: float) -> Answer:
    deadline = time.monotonic() + timeout
    received = bytearray()
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as connection:

        def within() -> None:
            left = deadline - time.monotonic()
            if not left > 0:
                raise TimeoutError
            connection.settimeout(left)

        try:
            while True:
                within()
                try:
                    connection.connect(path)
                    break
                except BlockingIOError:
                    # A unix socket does not wait for a place in the queue when it has a time limit.
                    time.sleep(QUEUE_FULL)
            within()
            connection.sendall(request)
            while len(received) <= LONGEST:
                within()
                part = connection.recv(16 * 1024)
                if not part:
                    break
                received += part
        except (TimeoutError, socket.timeout) as error:
            raise _silent(path, timeout) from error
        except (OSError, ValueError) as error:
            raise _failed(error if isinstance(error, OSError) else OSError(str(error)), path) from error
    return judge(bytes(received))


async def aask(path: str, request: bytes, timeout: float) -> Answer:
    async def exchange() -> bytes:
        loop = asyncio.get_running_loop()
        received = bytearray()
        with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as connection:
            connection.setblocking(False)
            while True:
                try:
                    # A unix socket connects at once or not at all.
                    connection.connect(path)
                    break
                except BlockingIOError:
                    await asyncio.sleep(QUEUE_FULL)
            await loop.sock_sendall(connection, request)
            while len(received) <= LONGEST:
                part = await loop.sock_recv(connection, 16 * 1024)
                if not part:
                    break
                received += part
        return bytes(received)

    try:
        received = await asyncio.wait_for(exchange(), timeout)
    except (TimeoutError, asyncio.TimeoutError) as error:
        raise _silent(path, timeout) from error
    except (OSError, ValueError) as error:
        raise _failed(error if isinstance(error, OSError) else OSError(str(error)), path) from error
    return judge(received)
