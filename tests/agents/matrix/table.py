"""The measured outcomes as Markdown."""

from __future__ import annotations

from typing import Iterable

from .cell import Outcome
from .outside import OutsideOutcome

ENDINGS = {"TERM": "SIGTERM", "KILL": "SIGKILL", "end": "normal end (of four)", "revoke": "revoke"}


def column(outcome: Outcome) -> str:
    cell = outcome.cell
    how = ENDINGS[cell.ending]
    if cell.containment is not None:
        how = f"`machineid-run`, {cell.containment}: {how}"
    return f"{how} ({cell.user})"


def entry(outcome: Outcome) -> str:
    if outcome.failure:
        return "not measured"
    lives = f", and {', '.join(outcome.agent)}" if outcome.agent else ""
    return f"{outcome.survivors}{lives}"


def matrix(outcomes: Iterable[Outcome]) -> str:
    """A row for each program and a column for each way to end it."""
    outcomes = list(outcomes)
    columns = list(dict.fromkeys(column(one) for one in outcomes))
    rows: dict[str, dict[str, str]] = {}
    for one in outcomes:
        rows.setdefault(f"{one.cell.program} {one.version}", {})[column(one)] = entry(one)
    lines = ["| of five tool commands, live on after | " + " | ".join(columns) + " |", "|---" * (len(columns) + 1) + "|"]
    lines += [f"| {name} | " + " | ".join(row.get(column, "") for column in columns) + " |" for name, row in rows.items()]
    return "\n".join(lines)


def outside(outcomes: Iterable[OutsideOutcome]) -> str:
    words = {
        "refused": "refused before the start, which names it",
        "told": "the stop's line names it",
        "contained": "nothing lived on",
        "no": "**neither refused nor told**",
    }
    lines = ["| its daemon runs outside | under `machineid-run`, after a revoke | said |", "|---|---|---|"]
    for one in outcomes:
        left = "not measured" if one.failure else f"{one.survivors} of {one.started} live on" if one.started else "did not start"
        lines.append(f"| {one.program} {one.version}: {', '.join(one.daemon)} | {one.containment}: {left} | {words[one.promise]} |")
    return "\n".join(lines)
