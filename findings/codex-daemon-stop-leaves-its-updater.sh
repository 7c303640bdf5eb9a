#!/bin/sh
# codex 0.171.0: "codex app-server daemon start" starts two processes that outlive it, the daemon ("codex app-server --listen …") and its
# updater ("codex app-server daemon pid-update-loop"). "codex app-server daemon stop" ends the first, says {"status":"stopped"}, and leaves
# the second: it runs on as a child of init, with a socket of its own, and a further "stop", which says "notRunning", leaves it as well.
# No subcommand ends it. The interactive "codex" starts the daemon in the same way.
#
# So after "stop" something of codex still runs as this user. To end it, send SIGTERM to the process in
# ~/.codex/app-server-daemon/daemon-updater.pid, or end the control group in which the daemon was started.
#
# Seen with codex 0.171.0:
#   after start: the daemon and the updater
#   after stop ("stopped"): the updater
#   after another stop ("notRunning"), 10 s later: the updater, a child of init (or of the nearest subreaper)
#   after SIGTERM to the updater: none
# Exit code 1 when this has changed. Needs npm, node and python3. About 20 s after the installation.
set -eu
dir=$(mktemp -d)
trap 'rm -rf "$dir"' EXIT
trap 'exit 1' HUP INT TERM
export HOME="$dir/home" TMPDIR="$dir/tmp"
mkdir -p "$TMPDIR" "$HOME/.codex" "$dir/node"
unset CODEX_HOME
cd "$dir/node"
npm install --no-audit --no-fund --loglevel=error @openai/codex@0.171.0 >"$dir/npm.log" 2>&1 || { cat "$dir/npm.log"; exit 1; }
cat >"$dir/try.py" <<'EOF'
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

HOME = Path(os.environ["HOME"])
CODEX = HOME.parent / "node/node_modules/.bin/codex"


def daemon(verb):
    """The status that codex says."""
    ran = subprocess.run([CODEX, "app-server", "daemon", verb], stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=120)
    for line in reversed(ran.stdout.splitlines()):
        if line.startswith("{") and "status" in json.loads(line):
            return json.loads(line)["status"]
    return f"exit code {ran.returncode}: {ran.stdout}{ran.stderr}"


def running():
    """The processes of this HOME's codex that outlive a command, by what they are."""
    found = {}
    for entry in Path("/proc").iterdir():
        if not entry.name.isdigit():
            continue
        try:
            words = (entry / "cmdline").read_bytes().decode(errors="replace").split("\0")
            parent = int((entry / "stat").read_text().rpartition(")")[2].split()[1])
        except OSError:
            continue
        if str(HOME) in words[0] and "app-server" in words:
            found["the updater" if "pid-update-loop" in words else "the daemon"] = (int(entry.name), parent)
    return found


def names(found):
    return " and ".join(sorted(found)) or "none"


started = daemon("start")
after_start = running()
print(f"after start ({started}): {names(after_start)}")
first = daemon("stop")
after_stop = running()
print(f"after stop ({first}): {names(after_stop)}")
second = daemon("stop")
time.sleep(10)
later = running()
updater, parent = later.get("the updater", (0, 0))
print(f"after another stop ({second}), 10 s later: {names(later)}, whose parent has the pid {parent}")
for pid, _ in later.values():
    os.kill(pid, signal.SIGTERM)
deadline = time.monotonic() + 10
while running() and time.monotonic() < deadline:
    time.sleep(0.1)
print(f"after SIGTERM: {names(running())}")
sys.exit((names(after_start), names(after_stop), names(later), names(running())) != ("the daemon and the updater", "the updater", "the updater", "none"))
EOF
python3 -B "$dir/try.py"
