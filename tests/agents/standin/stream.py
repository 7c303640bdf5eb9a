"""Server-sent events."""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import Iterable

from .conversation import Json


@dataclass(frozen=True)
class Event:
    data: str
    name: str | None = None

    def bytes(self) -> bytes:
        name = f"event: {self.name}\n" if self.name else ""
        return f"{name}data: {self.data}\n\n".encode()


def named(events: Iterable[Json]) -> list[Event]:
    """Events that are named by their own type, as Anthropic's and the Responses API's are."""
    return [Event(json.dumps(event), event["type"]) for event in events]
