"""What the daemon answered, and what it means. No I/O: bytes in, an answer or an exception out."""

from __future__ import annotations

import http.client
import io
import json
import sys
from dataclasses import dataclass
from typing import Any, ClassVar, NoReturn

LONGEST = 64 * 1024
"""The most bytes of an answer that are read; the daemon's have some 300."""

SENTENCES = {
    "LOCAL_KILL": "the kill file exists",
    "LOCAL_STOP": "an operator stopped the agent, or holds its device, on this host",
    "DEVICE_LIMIT_REACHED": "the organisation's plan has no free place for this device",
    "DEVICE_NOT_PERMITTED": "the client may not name this device",
    "PID_NOT_PERMITTED": "the client may not name this process",
    "REGISTRATION_LIMITED": "the device is not registered, and the user has registered as many new devices as "
    "device.new_per_hour allows",
    "REMOTE_REFUSED": "the daemon could not stop this agent by itself, and local.require_local_killer is set",
    "AUTHORITY_UNREACHABLE": "the authority gave no usable answer",
    "STARTING": "no decision yet",
    "CHECK_TIMEOUT": "no decision within the check's deadline",
    "LEASE_EXPIRED": "no ALLOW within the lease",
    "OVERLOADED": "too many requests at once",
    "BAD_REQUEST": "the request is malformed",
}
"""The codes of the daemon, in the words of its HTTP reference."""


@dataclass(frozen=True)
class Answer:
    """A yes."""

    code: str
    request_id: str | None
    device_id: str | None
    validated_at: str | None
    age_ms: int | None


class NotAllowed(Exception):
    """There is no yes: do not go on. `code` is None when the daemon gave no usable answer."""

    exit_code: ClassVar[int] = 75
    _prefix: ClassVar[str] = "could not find out whether to go on"

    def __init__(
        self,
        why: str,
        *,
        code: str | None = None,
        request_id: str | None = None,
        device_id: str | None = None,
        retry_after: float | None = None,
    ) -> None:
        super().__init__(why)
        self.why = why
        self.code = code
        self.request_id = request_id
        self.device_id = device_id
        self.retry_after = retry_after

    def __str__(self) -> str:
        return f"{self._prefix}: {self.why}"

    def exit(self) -> NoReturn:
        """Ends the program as machineid-run would: one line on stderr, exit code 77 or 75."""
        print(self, file=sys.stderr, flush=True)
        raise SystemExit(self.exit_code) from self


class Denied(NotAllowed):
    """The answer is no: stop."""

    exit_code = 77
    _prefix = "denied"


class Undecided(NotAllowed):
    """No decision is available: stop for now, or ask again later (`retry_after`, in seconds)."""


class _Received:
    """Bytes that have arrived already, as http.client reads them."""

    def __init__(self, received: bytes) -> None:
        self._received = received

    def makefile(self, _mode: str) -> io.BytesIO:
        return io.BytesIO(self._received)


def judge(received: bytes) -> Answer:
    """Returns the answer if it is a yes: status 200, and a JSON object that says `allowed`. Raises otherwise."""
    if len(received) > LONGEST:
        raise Undecided("the answer is too long to be the daemon's")
    response = http.client.HTTPResponse(_Received(received))  # type: ignore[arg-type]
    try:
        response.begin()
        body = response.read()
    except (OSError, ValueError, http.client.HTTPException) as error:
        raise Undecided(f"no complete answer: {error!r}; is it machineid-sidecar that listens there?") from error
    said = _object(body)
    code, reason = _text(said, "code"), _text(said, "reason")
    request_id, device_id = _text(said, "request_id"), _text(said, "device_id")
    if response.status == 200 and said.get("allowed") is True and code is not None:
        age = said.get("age_ms")
        return Answer(code, request_id, device_id, _text(said, "validated_at"), age if type(age) is int else None)
    if code is None or response.status == 200:
        why = f"what listens there did not answer like machineid-sidecar (HTTP {response.status})"
    else:
        sentence = reason or SENTENCES.get(code)
        why = code + (f" (request_id {request_id})" if request_id else "") + (f": {sentence}" if sentence else "")
    kind = Denied if response.status == 403 else Undecided
    raise kind(why, code=code, request_id=request_id, device_id=device_id, retry_after=_seconds(response.getheader("retry-after")))


def _object(body: bytes) -> dict[str, Any]:
    try:
        said = json.loads(body, object_pairs_hook=_without_repeats)
    except (ValueError, RecursionError):
        return {}
    return said if isinstance(said, dict) else {}


def _without_repeats(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """A key that comes twice contradicts itself."""
    said = dict(pairs)
    if len(said) != len(pairs):
        raise ValueError("a key comes twice")
    return said


def _text(said: dict[str, Any], key: str) -> str | None:
    value = said.get(key)
    return value if isinstance(value, str) else None


def _seconds(header: str | None) -> float | None:
    return float(header) if header is not None and header.isascii() and header.isdigit() and len(header) < 6 else None
