#!/bin/sh
# cline 3.0.65: an ordinary headless run ("cline PROMPT", where the model only answers a word) ends with exit code 0 and leaves a daemon
# behind, "cline --cline-hub-daemon". The README describes this hub for --zen, which was not given here. The run starts the daemon in a
# session of its own; it listens on a TCP port of the loopback interface, was still there after eight minutes, and the next run
# starts no other. A signal to the run or to its process group does not reach the daemon.
#
# So the end of the process, its process group or its session is not the end of the agent. A run in a container or a service's
# control group keeps the group populated, or the daemon is killed with it, also for other runs that use it.
#
# Seen with cline 3.0.65:
#   a run that says a word: exit code 0
#   a daemon 20 s later: runs, parent is not the run, session of its own, listens
#   after a second run: exit code 0, the same daemon
# Exit code 1 when this has changed. Needs npm and python3. About 1 min after the installation.
set -eu
dir=$(mktemp -d)
trap 'rm -rf "$dir"' EXIT
trap 'exit 1' HUP INT TERM
export HOME="$dir/home" TMPDIR="$dir/tmp"
mkdir -p "$TMPDIR" "$HOME" "$dir/node" "$dir/work"
cd "$dir/node"
npm install --no-audit --no-fund --loglevel=error cline@3.0.65 >"$dir/npm.log" 2>&1 || { cat "$dir/npm.log"; exit 1; }
cat >"$dir/try.py" <<'EOF'
import json
import os
import signal
import subprocess
import sys
import threading
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path


class Model(BaseHTTPRequestHandler):
    """OpenAI's Responses API, streamed: answers every request with one word."""

    protocol_version = "HTTP/1.1"

    def log_message(self, *_):
        pass

    def do_POST(self):
        self.rfile.read(int(self.headers["content-length"]))
        text = {"type": "output_text", "text": "done", "annotations": []}
        item = {"type": "message", "id": "msg_1", "role": "assistant", "status": "completed", "content": [text]}
        place = {"item_id": "msg_1", "output_index": 0, "content_index": 0}
        usage = {"input_tokens": 1, "input_tokens_details": {"cached_tokens": 0}, "output_tokens": 1,
                 "output_tokens_details": {"reasoning_tokens": 0}, "total_tokens": 2}
        whole = {"id": "resp_1", "object": "response", "created_at": 1, "status": "completed", "model": "m",
                 "output": [item], "usage": usage}
        events = [
            {"type": "response.created", "response": whole | {"status": "in_progress", "output": [], "usage": None}},
            {"type": "response.output_item.added", "output_index": 0, "item": item | {"content": [], "status": "in_progress"}},
            {"type": "response.output_text.delta", "delta": "done", **place},
            {"type": "response.output_item.done", "output_index": 0, "item": item},
            {"type": "response.completed", "response": whole},
        ]
        body = "".join(f"event: {one['type']}\ndata: {json.dumps(one)}\n\n" for one in events).encode()
        self.send_response(200)
        self.send_header("content-type", "text/event-stream")
        self.send_header("content-length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)


server = ThreadingHTTPServer(("127.0.0.1", 0), Model)
server.daemon_threads = True
threading.Thread(target=server.serve_forever, daemon=True).start()
cline = str(Path("../node/node_modules/.bin/cline").absolute())
# So that what was started is ended.
signal.signal(signal.SIGTERM, lambda *_: sys.exit(1))
place = Path.cwd().parent


def fields(pid):
    """The process's state, parent, process group and session, and so on, as in proc_pid_stat(5)."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except OSError:
        return ["X"]


def runs(pid):
    return fields(pid)[0] not in "ZX"


def daemons():
    """Daemons whose program lies in this script's folder."""
    found = []
    for folder in Path("/proc").glob("[0-9]*"):
        try:
            line = (folder / "cmdline").read_bytes()
        except OSError:
            continue
        if b"--cline-hub-daemon" in line and os.fsencode(place) in line and runs(folder.name):
            found.append(int(folder.name))
    return found


def listens(pid):
    sockets = set()
    for one in Path(f"/proc/{pid}/fd").iterdir():
        try:
            sockets.add(os.readlink(one))
        except OSError:
            pass
    rows = [row.split() for row in Path("/proc/net/tcp").read_text().splitlines()[1:]]
    return any(row[3] == "0A" and f"socket:[{row[9]}]" in sockets for row in rows)


def run():
    """An ordinary run; how it ended."""
    global agent
    agent = subprocess.Popen([cline, "Say a word."], stdin=subprocess.DEVNULL, stdout=open("log", "w"), stderr=subprocess.STDOUT)
    agent.wait(90)
    return f"exit code {agent.returncode}"


failed = False


def expect(what, seen, expected):
    global failed
    print(f"{what}: {seen}", flush=True)
    failed |= seen != expected


agent = None
try:
    url = f"http://127.0.0.1:{server.server_port}/v1"
    subprocess.run([cline, "auth", "-p", "openai-native", "-k", "none", "-m", "gpt-5", "-b", url],
                   check=True, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, timeout=90)
    if daemons():
        sys.exit("a daemon runs before the first run")
    expect("a run that says a word", run(), "exit code 0")
    time.sleep(20)
    seen = "none"
    for pid in daemons():
        _, parent, _, session = fields(pid)[:4]
        seen = ", ".join([
            "runs",
            "parent is the run" if int(parent) == agent.pid else "parent is not the run",
            "session of its own" if int(session) == pid else "the run's session",
            "listens" if listens(pid) else "does not listen",
        ])
    expect("a daemon 20 s later", seen, "runs, parent is not the run, session of its own, listens")

    first = daemons()
    ending = run()
    expect("after a second run", f"{ending}, {'the same daemon' if daemons() == first else 'other daemons'}", "exit code 0, the same daemon")
finally:
    if agent and agent.poll() is None:
        agent.kill()
        agent.wait()
    for pid in daemons():
        os.kill(pid, signal.SIGKILL)
        while runs(pid):
            time.sleep(0.1)
sys.exit(failed)
EOF
cd "$dir/work"
echo "cline $(../node/node_modules/.bin/cline --version)"
python3 "$dir/try.py"
