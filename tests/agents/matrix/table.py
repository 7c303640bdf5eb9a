"""The measured outcomes as Markdown."""

from __future__ import annotations

from typing import Iterable

from .cell import Cell, Outcome
from .outside import OutsideOutcome

ENDINGS = {"TERM": "SIGTERM", "KILL": "SIGKILL", "end": "normal end (of four)", "revoke": "a revoke"}


def column(cell: Cell) -> str:
    """The column of a run; the containments share one."""
    wrapped = "" if cell.containment is None else "under `machineid-run`, "
    return f"{wrapped}{ENDINGS[cell.ending]}, as {cell.user}"


def entry(outcome: Outcome) -> str:
    if outcome.failure:
        return "not measured"
    return f"{outcome.survivors}{''.join(f', and {name}' for name in outcome.agent)}"


def in_each(outcomes: list[Outcome]) -> str:
    """One entry for all containments, where they do not differ."""
    entries = {one.cell.containment: entry(one) for one in outcomes}
    if len(set(entries.values())) == 1:
        return next(iter(entries.values()))
    return "; ".join(f"{containment}: {what}" for containment, what in entries.items())


def matrix(outcomes: Iterable[Outcome]) -> str:
    """A row for each program and a column for each way to end it."""
    rows: dict[str, dict[str, list[Outcome]]] = {}
    columns: dict[str, None] = {}
    for one in outcomes:
        columns[column(one.cell)] = None
        rows.setdefault(f"{one.cell.program} {one.version}", {}).setdefault(column(one.cell), []).append(one)
    lines = ["| tool commands that live on (of five) after | " + " | ".join(columns) + " |", "|---" * (len(columns) + 1) + "|"]
    for name, row in rows.items():
        entries = (in_each(row[title]) if title in row else "" for title in columns)
        lines.append(f"| {name} | " + " | ".join(entries) + " |")
    return "\n".join(lines)


def outside(outcomes: Iterable[OutsideOutcome]) -> str:
    words = {
        "refused": "refused before the start, which names it",
        "told": "the stop's line names it",
        "contained": "nothing lived on",
        "no": "**neither refused nor told**",
    }
    lines = ["| agent and its daemon | how | under `machineid-run`, after a revoke | said |", "|---|---|---|---|"]
    for one in outcomes:
        left = "not measured" if one.failure else f"{one.survivors} of {one.started} live on" if one.started else "did not start"
        who = f"{one.program} {one.version}: {', '.join(one.daemon)}"
        lines.append(f"| {who} | {one.way} | {one.containment}: {left} | {'' if one.failure else words[one.promise]} |")
    return "\n".join(lines)
