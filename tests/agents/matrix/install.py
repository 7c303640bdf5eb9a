"""Installs the pinned programs, each into a folder of its own."""

from __future__ import annotations

import shutil
import subprocess
import time
from pathlib import Path

from .programs import Program

LIMIT = 600


class NotInstalled(Exception):
    """The registry or a tool did not do it; not the program's fault, nor ours."""


def binaries(program: Program, folder: Path) -> Path:
    """The folder that comes first in the program's PATH."""
    return folder / program.name / ("node_modules/.bin" if program.npm else "bin")


def command_for(program: Program, place: Path) -> list[list[str]]:
    """The commands that install the program there."""
    if program.npm:
        if shutil.which("npm") is None:
            raise NotInstalled("npm is missing")
        return [["npm", "install", "--prefix", str(place), "--no-audit", "--no-fund", "--loglevel=error", *program.npm]]
    python = shutil.which(f"python{program.python}") if program.python else shutil.which("python3")
    if python is None:
        raise NotInstalled(f"python{program.python or 3} is missing")
    pip = [str(place / "bin/python"), "-m", "pip", "install", "--quiet", "--disable-pip-version-check"]
    return [[python, "-m", "venv", str(place)], [*pip, *program.pypi]]


def install(program: Program, folder: Path) -> None:
    """Installs the program, unless this version is there already."""
    place = folder / program.name
    done = place / ".installed"
    wanted = "\n".join([*program.npm, *program.pypi])
    if done.exists() and done.read_text() == wanted:
        return
    place.mkdir(parents=True, exist_ok=True)
    began = time.monotonic()
    for command in command_for(program, place):
        try:
            # Not in the folder itself: npm takes a folder with the package's name for the package.
            ran = subprocess.run(command, cwd="/", stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=LIMIT)
        except subprocess.TimeoutExpired:
            raise NotInstalled(f"{command[0]} took longer than {LIMIT} s") from None
        if ran.returncode != 0:
            raise NotInstalled((ran.stderr or ran.stdout).strip()[-600:])
    done.write_text(wanted)
    print(f"{program.name} {program.version} installed in {time.monotonic() - began:.0f} s", flush=True)
