"""An authority and a daemon of this run's own, and revokes."""

from __future__ import annotations

import json
import shutil
import subprocess
from pathlib import Path
from typing import Callable

from .processes import wait_until

PATIENCE = 60
GRACE = 3


class Service:
    """Both, in one scratch folder. `stop` ends them."""

    def __init__(self, programs: Path, scratch: Path, mixed: bool) -> None:
        self.programs, self.scratch = programs, scratch
        self.children: list[subprocess.Popen[bytes]] = []
        self.devices = 0
        # Where every user may read it.
        self.wrapper = Path(shutil.copy(programs / "machineid-run", scratch / "machineid-run"))
        # An older wrapper neither refuses a start beside a daemon outside nor can be told to go on.
        self.refuses_outside = "--outside" in self.call("machineid-run", "--help").stdout
        self.url = f"unix:{scratch}/api.sock"
        self.socket = scratch / "run/sidecar.sock"
        self.start(mixed)

    def start(self, mixed: bool) -> None:
        here = self.scratch
        admin = ["--admin-socket", f"{here}/admin.sock"]
        self.spawn("machineid-authority", "serve", "--listen", self.url, "--database", f"sqlite:{here}/authority.db", *admin)
        self.ready("the authority", lambda: (here / "api.sock").exists() and (here / "admin.sock").exists())
        made = self.run("machineid-authority", "org", "create", "--name", "agents", "--plan", "max", "--json", *admin)
        self.write_secret("admin-key", json.loads(made)["orgApiKey"])
        self.write_secret(
            "host-key", self.operator("key", "create", "--role", "host", "--devices", "*", "--name", "host").strip()
        )
        (here / "run").mkdir()
        (here / "daemon.toml").write_text(
            f"""
[authority]
url = "{self.url}"
org_key_file = "{here}/host-key"
[device]
id = "host:agents"
allow = ["agent:*"]
new_per_hour = 0
[enforcement]
interval = "1s"
stop_grace = "{GRACE}s"
[local]
socket = "{self.socket}"
runtime_dir = "{here}/state"
mode = "{"0666" if mixed else "0600"}"
"""
        )
        self.spawn("machineid-sidecar", "--config", f"{here}/daemon.toml")
        self.ready("the daemon", lambda: self.call("machineid", "check", "--quiet", "--socket", str(self.socket)).returncode == 0)

    def write_secret(self, name: str, secret: str) -> None:
        path = self.scratch / name
        path.touch(mode=0o600)
        path.write_text(secret)

    def spawn(self, program: str, *arguments: str) -> None:
        log = (self.scratch / f"{program}.log").open("ab")
        command = [str(self.programs / program), *arguments]
        self.children.append(subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=log, stderr=log, start_new_session=True))

    def ready(self, what: str, condition: Callable[[], bool]) -> None:
        wait_until(lambda: condition() or self.children[-1].poll() is not None, PATIENCE)
        if not condition():
            logs = "".join(log.read_text() for log in self.scratch.glob("machineid-*.log"))
            raise RuntimeError(f"{what} did not start:\n{logs}")

    def call(self, program: str, *arguments: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run([str(self.programs / program), *arguments], capture_output=True, text=True, timeout=PATIENCE)

    def run(self, program: str, *arguments: str) -> str:
        ran = self.call(program, *arguments)
        if ran.returncode != 0:
            raise RuntimeError(f"{program} {' '.join(arguments)}: {ran.stderr}")
        return ran.stdout

    def operator(self, *arguments: str) -> str:
        return self.run("machineid", *arguments, "--url", self.url, "--org-key-file", f"{self.scratch}/admin-key")

    def device(self) -> str:
        """A device that no run had before."""
        self.devices += 1
        return f"agent:{self.devices}"

    def wrapped(self, command: list[str], device: str, containment: str) -> list[str]:
        options = ["--socket", str(self.socket), "--device", device, "--containment", containment]
        return [str(self.wrapper), *options, "--", *command]

    def revoke(self, device: str) -> str:
        """What the operator is told."""
        told = self.call(
            "machineid", "revoke", device, "--wait=20s", "--url", self.url, "--org-key-file", f"{self.scratch}/admin-key"
        )
        return told.stdout + told.stderr

    def pids(self) -> list[int]:
        return [child.pid for child in self.children]

    def stop(self) -> None:
        for child in reversed(self.children):
            child.terminate()
            try:
                child.wait(20)
            except subprocess.TimeoutExpired:
                child.kill()
                child.wait()
