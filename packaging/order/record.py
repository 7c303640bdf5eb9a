#!/usr/bin/env python3
"""Records which functions the daemon enters, in which order, and writes the linker script that puts them together.

    CARGO_PROFILE_RELEASE_STRIP=none cargo build --release --bin machineid-sidecar --target-dir target/unstripped
    packaging/order/record.py target/unstripped/release/machineid-sidecar

It takes half a minute, and replaces `first.ld` beside this file once everything was recorded.

The program is four programs in one, and the functions of the daemon lie scattered among those of the others. The kernel
maps a program's pages by sixteens, so a daemon that enters a tenth of its code would hold two thirds of it in memory.

Every function's first byte becomes a breakpoint (x86-64), which is taken out when it is hit for the first time. What the
daemon does meanwhile is what it does everywhere: it starts, idles, answers, supervises an agent, stops it for a revoke,
reloads, loses its authority and finds it again. Names are written without the compiler's hashes, so that the script outlives
a change of compiler or library; a name that is not there any more is ignored by the linker.
"""

import ctypes
import json
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time

PTRACE_TRACEME, PTRACE_CONT, PTRACE_GETREGS, PTRACE_SETREGS, PTRACE_SETOPTIONS = 0, 7, 12, 13, 0x4200
OPTIONS = 0x8 | 0x100000  # PTRACE_O_TRACECLONE | PTRACE_O_EXITKILL
OWN_TRACEES = 0x40000000 | 0x20000000  # __WALL, __WNOTHREAD: threads of the daemon too, no children of our other thread
RIP = 16  # in user_regs_struct, counted in words
BREAKPOINT = b"\xcc"
PATIENCE = 60.0

libc = ctypes.CDLL(None, use_errno=True)
libc.ptrace.argtypes = [ctypes.c_long, ctypes.c_long, ctypes.c_void_p, ctypes.c_void_p]
libc.ptrace.restype = ctypes.c_long
Registers = ctypes.c_ulonglong * 27


def ptrace(request, pid, data=None):
    if libc.ptrace(request, pid, None, data) == -1:
        errno = ctypes.get_errno()
        raise OSError(errno, os.strerror(errno))


def functions(program):
    """Where each function begins, and its names."""
    names = {}
    listing = subprocess.run(["nm", "--defined-only", "-S", program], capture_output=True, text=True, check=True).stdout
    for line in listing.splitlines():
        fields = line.split(" ", 3)
        if len(fields) == 4 and fields[2] in "tTwW" and int(fields[1], 16) > 0:
            names.setdefault(int(fields[0], 16), []).append(fields[3])
    if not names:
        sys.exit(f"{program} has no symbols: build it with CARGO_PROFILE_RELEASE_STRIP=none")
    return names


def without_hashes(name):
    """The name as a pattern of a linker script."""
    name = re.sub(r"\.llvm\.\d+$", "*", name)
    name = re.sub(r"17h[0-9a-f]{16}E\*?", "17h*", name)
    if name.startswith("_R"):
        name = re.sub(r"Cs[0-9A-Za-z]+_", "Cs*_", name)
    return name


class Recorder:
    """Runs the daemon and notes each function that it enters. One thread traces a process: whoever calls `run`."""

    def __init__(self, command, starts):
        self.command, self.starts = command, starts
        self.entered = {}
        self.pid = None
        self.started = threading.Event()
        self.is_complete = False

    def live(self, life):
        """Lets the daemon live a life, and ends it in any case."""
        self.started.wait()
        try:
            life()
            self.is_complete = True
        finally:
            os.kill(self.pid, signal.SIGTERM)

    def run(self):
        self.pid = os.fork()
        if self.pid == 0:
            ptrace(PTRACE_TRACEME, 0)
            os.execv(self.command[0], self.command)
        os.waitpid(self.pid, 0)
        ptrace(PTRACE_SETOPTIONS, self.pid, OPTIONS)
        program = os.path.realpath(self.command[0])
        with open(f"/proc/{self.pid}/maps", encoding="utf-8") as maps:
            base = next(int(line.split("-")[0], 16) for line in maps if line.rstrip().endswith(program))
        # Opened now: the daemon soon keeps others out of its memory.
        self.memory = os.open(f"/proc/{self.pid}/mem", os.O_RDWR)
        originals = {base + start: os.pread(self.memory, 1, base + start) for start in self.starts}
        for address in originals:
            os.pwrite(self.memory, BREAKPOINT, address)
        ptrace(PTRACE_CONT, self.pid)
        self.started.set()
        while True:
            pid, status = os.waitpid(-1, OWN_TRACEES)
            if not os.WIFSTOPPED(status):
                if pid == self.pid:
                    return
                continue
            try:
                ptrace(PTRACE_CONT, pid, self.stopped(pid, status, originals, base))
            except ProcessLookupError:
                pass  # killed in between, with the process

    def stopped(self, pid, status, originals, base):
        """The signal to pass on."""
        number = os.WSTOPSIG(status)
        if number == signal.SIGSTOP or status >> 16:
            return None
        if number != signal.SIGTRAP:
            return number
        registers = Registers()
        ptrace(PTRACE_GETREGS, pid, ctypes.addressof(registers))
        address = registers[RIP] - 1
        if address in originals:
            os.pwrite(self.memory, originals[address], address)
            self.entered[address - base] = None
            registers[RIP] = address
            ptrace(PTRACE_SETREGS, pid, ctypes.addressof(registers))
        return None


def until(what, look):
    deadline = time.monotonic() + PATIENCE
    while time.monotonic() < deadline:
        found = look()
        if found:
            return found
        time.sleep(0.05)
    sys.exit(f"not within {PATIENCE:.0f} s: {what}")


def exercise(directory, recorder, authority):
    """What a daemon does in its life. `authority` starts one, `recorder` runs the daemon."""
    local = f"{directory}/socket/sidecar.sock"
    key = f"{directory}/key"

    def curl(path, *more):
        command = ["curl", "-s", "-m", "10", "--unix-socket", local, f"http://localhost{path}", *more]
        return subprocess.run(command, capture_output=True, text=True).stdout

    def operator(*arguments):
        command = [f"{directory}/machineid", *arguments, "--url", f"http://{authority.address}", "--org-key-file", key]
        subprocess.run(command, check=True, stdout=subprocess.DEVNULL)

    def allowed():
        return '"allowed":true' in curl("/v1/check")

    until("the daemon allows", allowed)
    # Idle, for two of its intervals.
    time.sleep(11)
    for path in ["/v1/check?max_age=2s", "/v1/check?device=recorded", "/v1/status", "/metrics", "/healthz", "/readyz"]:
        curl(path)
    curl("/v1/events", "-m", "1")
    agent = [f"{directory}/machineid-run", "--socket", local, "--", "sh", "-c", "trap '' TERM; setsid sleep 600"]
    for stop in [lambda: operator("revoke", "recorded", "--yes"), lambda: os.kill(wrapper.pid, signal.SIGKILL)]:
        wrapper = subprocess.Popen(agent, stdin=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        until("the agent runs", lambda: '"state":"running"' in curl("/v1/status"))
        stop()
        wrapper.wait()
        until("the agent is gone", lambda: '"agents":[]' in curl("/v1/status"))
        operator("unrevoke", "recorded", "--yes")
        until("the daemon allows again", allowed)
    os.kill(recorder.pid, signal.SIGHUP)
    authority.stop()
    time.sleep(6)
    authority.start()
    until("the daemon allows once more", allowed)
    time.sleep(6)


class Authority:
    def __init__(self, directory):
        self.directory = directory
        with socket.create_server(("127.0.0.1", 0)) as free:
            self.address = f"127.0.0.1:{free.getsockname()[1]}"
        self.admin = f"{directory}/admin.sock"
        self.process = None

    def start(self):
        command = [f"{self.directory}/machineid-authority", "serve", "--listen", self.address, "--admin-socket", self.admin]
        command += ["--database", f"sqlite:{self.directory}/authority.db"]
        self.process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        until("the authority listens", lambda: os.path.exists(self.admin))

    def stop(self):
        self.process.terminate()
        self.process.wait()

    def make_org(self):
        command = [f"{self.directory}/machineid-authority", "org", "create", "--json", "--admin-socket", self.admin]
        return json.loads(subprocess.run(command, capture_output=True, check=True).stdout)["orgApiKey"]


def script(names, entered):
    patterns = dict.fromkeys(without_hashes(name) for start in entered for name in names[start])
    # What the compiler takes for unlikely has a section of that kind.
    lines = [f"    *(.text.{pattern} .text.unlikely.{pattern})" for pattern in patterns]
    head = ["/* Written by record.py: the functions that the daemon enters, in that order, together. */"]
    head += ["SECTIONS {", "  .text.first : {"]
    print(f"{len(entered)} functions of {len(names)}, {len(patterns)} names")
    return "\n".join([*head, *lines, "  }", "} INSERT BEFORE .text;"]) + "\n"


def replace(path, text):
    """As a whole: half a script, or an empty one, would be the linker's whole layout."""
    with open(f"{path}.new", "w", encoding="utf-8") as fresh:
        fresh.write(text)
    os.replace(f"{path}.new", path)


def main():
    if len(sys.argv) != 2:
        sys.exit(__doc__)
    program = os.path.realpath(sys.argv[1])
    names = functions(program)
    with tempfile.TemporaryDirectory() as directory:
        for name in ["machineid", "machineid-run", "machineid-authority"]:
            os.symlink(program, f"{directory}/{name}")
        shutil.copy(program, f"{directory}/machineid-sidecar")
        os.mkdir(f"{directory}/socket")
        authority = Authority(directory)
        authority.start()
        with open(f"{directory}/key", "w", encoding="utf-8", opener=lambda path, flags: os.open(path, flags, 0o600)) as key:
            key.write(authority.make_org())
        with open(f"{directory}/sidecar.toml", "w", encoding="utf-8") as settings:
            settings.write(
                f'[authority]\nurl = "http://{authority.address}"\norg_key_file = "{directory}/key"\n'
                f'[device]\nid = "recorded"\n[enforcement]\nstop_grace = "1s"\n[audit]\nfile = "{directory}/audit"\n'
                f'[local]\nsocket = "{directory}/socket/sidecar.sock"\nruntime_dir = "{directory}/runtime"\n'
                f'max_age_cap = "2s"\n'
            )
        os.environ["STATE_DIRECTORY"] = f"{directory}/state"
        recorder = Recorder([f"{directory}/machineid-sidecar", "--config", f"{directory}/sidecar.toml"], list(names))
        life = lambda: exercise(directory, recorder, authority)
        threading.Thread(target=recorder.live, args=(life,), daemon=True).start()
        try:
            recorder.run()
        finally:
            authority.stop()
    if not recorder.is_complete:
        sys.exit("the daemon's life was cut short: first.ld stays as it is")
    replace(f"{os.path.dirname(os.path.abspath(__file__))}/first.ld", script(names, recorder.entered))


main()
