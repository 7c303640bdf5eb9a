"""The agent programs, as programs.toml describes them."""

from __future__ import annotations

import string
import tomllib
from dataclasses import dataclass, field
from pathlib import Path

HERE = Path(__file__).resolve().parent.parent


@dataclass(frozen=True)
class Outside:
    """The program's daemon outside the wrapper, and what is then started under it."""

    daemon: list[str]
    command: list[str]
    # The same, so that its work stays in its own tree although the daemon runs.
    in_tree: list[str]
    leaves: bool = False
    terminal: bool = False
    # Where the daemon listens, below HOME: it is ready as soon as this exists.
    socket: str | None = None


@dataclass(frozen=True)
class Program:
    name: str
    command: list[str]
    npm: list[str] = field(default_factory=list)
    pypi: list[str] = field(default_factory=list)
    # The oldest Python that the packages accept, where it is newer than this one's.
    python: str | None = None
    prepare: list[str] = field(default_factory=list)
    environment: dict[str, str] = field(default_factory=dict)
    files: dict[str, str] = field(default_factory=dict)
    outside: Outside | None = None

    @property
    def version(self) -> str:
        first = (self.npm or self.pypi)[0]
        return first.rpartition("@" if self.npm else "==")[2]


def programs() -> dict[str, Program]:
    with (HERE / "programs.toml").open("rb") as file:
        described = tomllib.load(file)
    for one in described.values():
        if "outside" in one:
            one["outside"] = Outside(**one["outside"])
    return {name: Program(name=name, **one) for name, one in described.items()}


def filled(text: str, values: dict[str, str]) -> str:
    """The text with $URL and the others replaced."""
    return string.Template(text).substitute(values, HERE=str(HERE))
