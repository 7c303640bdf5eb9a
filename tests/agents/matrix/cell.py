"""One program, run once: started, given the five processes, ended, and looked at."""

from __future__ import annotations

import os
import pwd
import random
import shutil
import signal
import subprocess
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from standin.script import leftovers as leftovers_line
from standin.script import started_mark

from . import processes
from .install import binaries
from .processes import all_processes, wait_until
from .programs import Program, filled
from .service import GRACE, Service

# The longest time for a program to start its command, or to end after it.
START = 90
# What a supervisor usually waits after SIGTERM.
AFTER_SIGNAL = 10
# Variables of this process that an agent needs; everything else could change what it does.
INHERITED = ("LANG", "LC_ALL", "SSL_CERT_FILE", "NODE_EXTRA_CA_CERTS")


@dataclass(frozen=True)
class Cell:
    """`containment` is None without machineid-run. `ending` is TERM, KILL, end or, under machineid-run, revoke."""

    program: str
    ending: str
    containment: str | None
    user: str


@dataclass
class Outcome:
    cell: Cell
    version: str
    # How many of the processes were started before the ending, and how many lived on after it.
    started: int = 0
    survivors: int = 0
    # What else of the agent lived on.
    agent: list[str] = field(default_factory=list)
    exit: str = ""
    # Why it could not be measured.
    failure: str = ""

    def to_json(self) -> dict[str, Any]:
        return asdict(self)


@dataclass
class Place:
    """The folders of one run, and whose they are."""

    folder: Path
    user: pwd.struct_passwd
    installed: Path

    @property
    def home(self) -> Path:
        return self.folder / "home"

    @property
    def work(self) -> Path:
        return self.folder / "work"

    def make(self, program: Program, values: dict[str, str]) -> None:
        for name in ("home", "work", "tmp"):
            (self.folder / name).mkdir(parents=True)
        for name, text in program.files.items():
            path = self.home / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(filled(text, values))
        if self.user.pw_uid != os.geteuid():
            for path in (self.folder, *self.folder.rglob("*")):
                os.chown(path, self.user.pw_uid, self.user.pw_gid)

    def environment(self, program: Program, values: dict[str, str]) -> dict[str, str]:
        return {
            **{name: os.environ[name] for name in INHERITED if name in os.environ},
            "PATH": f"{binaries(program, self.installed)}:{os.environ['PATH']}",
            "HOME": str(self.home),
            "TMPDIR": str(self.folder / "tmp"),
            "USER": self.user.pw_name,
            "LOGNAME": self.user.pw_name,
            "SHELL": "/bin/bash",
            "TERM": "xterm-256color",
            "NO_PROXY": "127.0.0.1,localhost",
            "PYTHONDONTWRITEBYTECODE": "1",
            **{name: filled(value, values) for name, value in program.environment.items()},
        }

    def as_user(self, command: list[str]) -> list[str]:
        if self.user.pw_uid == os.geteuid():
            return command
        return ["setpriv", f"--reuid={self.user.pw_uid}", f"--regid={self.user.pw_gid}", "--clear-groups", *command]


class Run:
    """What all runs share: where things are, and how a cell is carried out."""

    def __init__(self, service: Service | None, url: str, installed: Path, scratch: Path) -> None:
        self.service, self.url, self.installed, self.scratch = service, url, installed, scratch
        self.count = 0

    def known(self) -> list[int]:
        return self.service.pids() if self.service else []

    def place(self, user: str) -> Place:
        self.count += 1
        return Place(self.scratch / f"run-{self.count}", pwd.getpwnam(user), self.installed)

    def values(self, place: Place, base: int, foreground: bool) -> dict[str, str]:
        marker = f"[[{'leave' if foreground else 'leave-behind'} {base}]]"
        return {
            "URL": self.url,
            "PROMPT": f"Please do this. {marker}",
            "SHELL": leftovers_line(base, foreground),
            "HOME": str(place.home),
            "WORK": str(place.work),
        }

    def measure(self, program: Program, cell: Cell) -> Outcome:
        place = self.place(cell.user)
        outcome = Outcome(cell, program.version)
        agent = None
        try:
            base = unused_base()
            foreground = cell.ending != "end"
            values = self.values(place, base, foreground)
            place.make(program, values)
            environment = place.environment(program, values)
            if program.prepare:
                prepare = [filled(word, values) for word in program.prepare]
                subprocess.run(
                    place.as_user(prepare),
                    env=environment,
                    cwd=place.work,
                    stdin=subprocess.DEVNULL,
                    capture_output=True,
                    timeout=START,
                )
            command = [filled(word, values) for word in program.command]
            device = ""
            if cell.containment is not None:
                assert self.service is not None
                device = self.service.device()
                command = self.service.wrapped(command, device, cell.containment)
            log = place.folder / "log"
            with log.open("wb") as output:
                agent = subprocess.Popen(
                    place.as_user(command),
                    env=environment, cwd=place.work,
                    stdin=subprocess.DEVNULL, stdout=output, stderr=output, start_new_session=True,
                )  # fmt: skip
            if foreground:
                outcome.started = most_seen(base, agent)
            elif has_ended(agent) and (place.work / started_mark(base)).exists():
                outcome.started = 4
            if outcome.started < (5 if foreground else 4):
                outcome.failure = f"{outcome.started} processes started: {log.read_text(errors='replace')[-600:]}"
                return outcome
            self.end(cell, agent, device)
            settle(base, agent)
            looked = all_processes()
            outcome.survivors = len(processes.leftovers(base, looked))
            outcome.agent = sorted({one.label for one in processes.others(base, looked, self.known())})
            outcome.exit = "runs" if agent.poll() is None else str(agent.returncode)
            return outcome
        finally:
            clean_up(agent, self.known())
            shutil.rmtree(place.folder, ignore_errors=True)

    def end(self, cell: Cell, agent: subprocess.Popen[bytes], device: str) -> None:
        match cell.ending:
            case "TERM":
                agent.terminate()
            case "KILL":
                agent.kill()
            case "revoke":
                assert self.service is not None
                self.service.revoke(device)


def unused_base() -> int:
    """A number by which the five processes are known; no process of the host has it."""
    while True:
        base = random.randrange(1_000_000, 9_000_000)
        if not processes.leftovers(base, all_processes()):
            return base


def most_seen(base: int, agent: subprocess.Popen[bytes]) -> int:
    """How many of the five run, as soon as all do, or the agent has ended."""
    wait_until(lambda: agent.poll() is not None or len(processes.leftovers(base, all_processes())) == 5, START)
    return len(processes.leftovers(base, all_processes()))


def has_ended(agent: subprocess.Popen[bytes]) -> bool:
    return wait_until(lambda: agent.poll() is not None, START)


def settle(base: int, agent: subprocess.Popen[bytes]) -> None:
    """Waits until the ending has had its effect: the agent has ended and all are gone, or time is up."""
    wait_until(lambda: agent.poll() is not None, AFTER_SIGNAL + GRACE)
    # What an agent's own clean-up or the end of its pipes does follows within moments.
    wait_until(lambda: not processes.leftovers(base, all_processes()), 2)


def clean_up(agent: subprocess.Popen[bytes] | None, known: list[int]) -> None:
    if agent is not None and agent.poll() is None:
        agent.send_signal(signal.SIGKILL)
        agent.wait()
    processes.end_all_below(known)
