"""Processes: those of this run, found in /proc and ended by pidfd.

This process makes itself a subreaper, so that all that it started stays below it, whatever was detached how often. What is not below it
was not started by it, and is left alone.
"""

from __future__ import annotations

import ctypes
import os
import re
import signal
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Callable, Iterable

from standin.script import leftover_arguments

PR_SET_CHILD_SUBREAPER = 36
INTERPRETER = re.compile(r"node|bun|python[0-9.]*")
SUBCOMMAND = re.compile(r"[a-z][a-z-]{1,20}|--[a-z-]*daemon[a-z-]*")


@dataclass(frozen=True)
class Process:
    pid: int
    parent: int
    state: str
    # Ticks since boot: with the pid, this identifies a process.
    started: str
    arguments: tuple[str, ...]

    @property
    def label(self) -> str:
        """What a person calls it: the program and, where it has one, its subcommand or the option that makes it a daemon."""
        words = list(self.arguments)
        if words and INTERPRETER.fullmatch(Path(words[0]).name):
            words = [word for word in words[1:] if not word.startswith("-")] or words
        # A process may have replaced its arguments by a title.
        path = Path(words[0].split(" ")[0] if words else f"process-{self.pid}")
        while path.name in ("cli.js", "index.js", "main.js", "bin", "dist", "bundle"):
            path = path.parent
        name = path.name
        return f"{name} {words[1]}" if len(words) > 1 and SUBCOMMAND.fullmatch(words[1]) else name


def become_subreaper() -> None:
    if ctypes.CDLL(None, use_errno=True).prctl(PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0) != 0:
        raise OSError(ctypes.get_errno(), "prctl")


def look(pid: int) -> Process | None:
    try:
        stat = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
        line = Path(f"/proc/{pid}/cmdline").read_bytes()
    except OSError:
        return None
    arguments = tuple(os.fsdecode(part) for part in line.rstrip(b"\0").split(b"\0")) if line else ()
    return Process(pid, int(stat[1]), stat[0], stat[19], arguments)


def all_processes() -> dict[int, Process]:
    """All living processes of the host."""
    looked = (look(int(name)) for name in os.listdir("/proc") if name.isdigit())
    return {one.pid: one for one in looked if one is not None and one.state not in "ZX"}


def below(ancestor: int, processes: dict[int, Process]) -> list[Process]:
    """All living descendants of this process."""
    children: dict[int, list[Process]] = {}
    for one in processes.values():
        children.setdefault(one.parent, []).append(one)
    found, waiting = [], [ancestor]
    while waiting:
        for child in children.get(waiting.pop(), ()):
            found.append(child)
            waiting.append(child.pid)
    return found


def leftovers(base: int, processes: dict[int, Process]) -> list[Process]:
    """Those of the five processes that live."""
    wanted = {("sleep", argument) for argument in leftover_arguments(base)}
    return [one for one in processes.values() if one.arguments in wanted]


def others(base: int, processes: dict[int, Process], known: Iterable[int]) -> list[Process]:
    """What else of the agent lives: neither one of the five, nor a shell that started them, nor known from before."""
    ignored = set(known) | {one.pid for one in leftovers(base, processes)}
    return [one for one in below(os.getpid(), processes) if one.pid not in ignored and not is_of_a_shell(one)]


def is_of_a_shell(one: Process) -> bool:
    return bool(one.arguments) and Path(one.arguments[0]).name in ("sh", "bash", "dash", "setsid", "nohup")


def wait_until(condition: Callable[[], bool], seconds: float, every: float = 0.1) -> bool:
    limit = time.monotonic() + seconds
    while not condition():
        if time.monotonic() > limit:
            return False
        time.sleep(every)
    return True


def end_all_below(known: Iterable[int]) -> None:
    """Ends all descendants of this process but the known ones and theirs, and reaps those that became its children."""
    known = set(known)
    for _ in range(100):
        processes = all_processes()
        kept = known | {one.pid for pid in known for one in below(pid, processes)}
        left = [one for one in below(os.getpid(), processes) if one.pid not in kept]
        for one in left:
            kill(one)
        reap(known)
        if not left:
            return
        time.sleep(0.05)
    raise RuntimeError(f"these processes do not end: {left}")


def kill(one: Process) -> None:
    """Kills exactly this process, not one that got its number since."""
    try:
        descriptor = os.pidfd_open(one.pid)
    except ProcessLookupError:
        return
    try:
        now = look(one.pid)
        if now is not None and now.started == one.started:
            signal.pidfd_send_signal(descriptor, signal.SIGKILL)
    except ProcessLookupError:
        pass
    finally:
        os.close(descriptor)


def reap(known: set[int]) -> None:
    """Reaps the dead that were handed to this process as subreaper."""
    for name in os.listdir("/proc"):
        if not name.isdigit() or int(name) in known:
            continue
        one = look(int(name))
        if one is not None and one.state == "Z" and one.parent == os.getpid():
            try:
                os.waitpid(one.pid, os.WNOHANG)
            except ChildProcessError:
                pass
