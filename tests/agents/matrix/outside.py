"""A program whose daemon lives outside the wrapper: it is started first, and then the program under machineid-run uses it.

The promise: machineid-run refuses to start the program and names the daemon's pid, or the stop's line names it as still running
outside. A stop that is called complete while tool commands run on is what must not be. And what docs/agents.md advises holds: a
program that is told to do its own work leaves nothing, and neither does the revoke of a daemon that is a supervised unit of its own.
"""

from __future__ import annotations

import re
import shutil
import subprocess
from dataclasses import asdict, dataclass, field
from enum import Enum
from typing import Any

from . import processes
from .cell import START, Place, Run, clean_up, most_seen, settle, unused_base
from .processes import all_processes, wait_until
from .programs import Outside, Program, filled
from .service import Service
from .terminal import Terminal

# The exit code of machineid-run for a start that it refuses.
REFUSED = 125


class Way(Enum):
    """How daemon and program are started."""

    OUTSIDE = "daemon outside"
    IN_TREE = "daemon outside, not used"
    UNIT = "daemon under machineid-run itself, and revoked"


def ways(program: Program) -> list[Way]:
    """A daemon that an ordinary run leaves behind is not started as a unit of its own."""
    assert program.outside is not None
    return [Way.OUTSIDE, Way.IN_TREE] if program.outside.leaves else list(Way)


@dataclass
class OutsideOutcome:
    program: str
    version: str
    way: str
    containment: str
    daemon: list[str] = field(default_factory=list)
    # "refused": before the start, with the pid; "told": by the stop's line; "no": neither; "contained": nothing lived on.
    promise: str = "no"
    started: int = 0
    survivors: int = 0
    # What machineid-run said.
    said: list[str] = field(default_factory=list)
    failure: str = ""

    @property
    def kept(self) -> bool:
        return not self.failure and self.promise != "no"

    def to_json(self) -> dict[str, Any]:
        return asdict(self)


def measure_outside(
    run: Run, service: Service, program: Program, way: Way, containment: str, user: str, allow: bool
) -> OutsideOutcome:
    """With `allow`, the wrapper is told to start the program all the same (--outside allow)."""
    outside = program.outside
    assert outside is not None
    outcome = OutsideOutcome(program.name, program.version, way.value, containment)
    place = run.place(user)
    daemon = agent = None
    terminal = None
    try:
        base = unused_base()
        values = run.values(place, base, foreground=True)
        place.make(program, values)
        environment = place.environment(program, values)
        if program.prepare:
            call(place, environment, [filled(word, values) for word in program.prepare])
        device, of_daemon = service.device(), service.device()
        daemon_command = [filled(word, values) for word in outside.daemon]
        if way is Way.UNIT:
            daemon_command = service.wrapped(daemon_command, of_daemon, containment)
        daemon = start_daemon(place, environment, outside, daemon_command)
        living = processes.others(base, all_processes(), run.known())
        pids = [one.pid for one in living]
        outcome.daemon = sorted({one.label for one in living})
        if not pids:
            outcome.failure = f"its daemon does not run: {(place.folder / 'daemon.log').read_text(errors='replace')[-600:]}"
            return outcome
        program_command = outside.in_tree if way is Way.IN_TREE else outside.command
        # A daemon under another device than the program's counts as outside.
        own = of_daemon if way is Way.UNIT else device
        command = service.wrapped([filled(word, values) for word in program_command], own, containment)
        if allow:
            command[1:1] = ["--outside", "allow"]
        terminal = Terminal()
        # Without a terminal of its own the program writes to this one all the same; it is the easiest place to read from.
        agent = subprocess.Popen(
            place.as_user(command), env=environment, cwd=place.work,
            stdin=terminal.follower if outside.terminal else subprocess.DEVNULL, stdout=terminal.follower, stderr=terminal.follower,
            start_new_session=True,
        )  # fmt: skip
        outcome.started = most_seen(base, agent)
        if outcome.started < 5 and agent.poll() == 0:
            # It handed its work to the daemon and has ended.
            wait_until(lambda: len(processes.leftovers(base, all_processes())) == 5, START)
            outcome.started = len(processes.leftovers(base, all_processes()))
        if outcome.started == 5:
            service.revoke(own)
            settle(base, daemon if way is Way.UNIT and daemon is not None else agent)
        elif agent.poll() is None:
            outcome.failure = f"{outcome.started} of 5 processes started"
        outcome.survivors = len(processes.leftovers(base, all_processes()))
        judge(outcome, agent.poll(), terminal.text(), pids)
        return outcome
    finally:
        clean_up(agent, run.known())
        if daemon is not None:
            daemon.wait()
        if terminal is not None:
            terminal.close()
        shutil.rmtree(place.folder, ignore_errors=True)


def call(place: Place, environment: dict[str, str], command: list[str]) -> None:
    subprocess.run(
        place.as_user(command), env=environment, cwd=place.work,
        stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, timeout=START,
    )  # fmt: skip


def start_daemon(
    place: Place, environment: dict[str, str], outside: Outside, command: list[str]
) -> subprocess.Popen[bytes] | None:
    if outside.leaves:
        call(place, environment, command)
        return None
    with (place.folder / "daemon.log").open("wb") as log:
        daemon = subprocess.Popen(
            place.as_user(command), env=environment, cwd=place.work,
            stdin=subprocess.DEVNULL, stdout=log, stderr=log, start_new_session=True,
        )  # fmt: skip
    if outside.socket is not None:
        socket = place.home / outside.socket
        wait_until(lambda: socket.exists() or daemon.poll() is not None, START)
    return daemon


def judge(outcome: OutsideOutcome, code: int | None, text: str, pids: list[int]) -> None:
    """Which part of the promise was kept."""
    # The program's own screen has no line that begins like this.
    outcome.said = [line.strip() for line in re.findall(r"machineid-run: [^\r\n]*", text)]
    naming = [line for line in outcome.said if any(re.search(rf"\b{pid}\b", line) for pid in pids)]
    if outcome.started == 0 and code == REFUSED and naming:
        outcome.promise = "refused"
    elif outcome.started < 5:
        outcome.failure = outcome.failure or f"{outcome.started} of 5 processes started, exit code {code}: {text[-600:]}"
    elif any("stopped" in line and "outside" in line for line in naming):
        outcome.promise = "told"
    elif outcome.survivors == 0:
        outcome.promise = "contained"
