#!/bin/sh
# codex 0.171.0, the terminal program: when its process is ended by SIGTERM, or its terminal is closed, in the middle of a turn, the turn
# goes on. The session's work is done by a daemon that codex started, "codex app-server": it asks the model again and runs
# every further tool call, without a client, until the model says that it is done. With --no-daemon the session does its work itself,
# and SIGTERM and a closed terminal end the turn.
#
# So the end of the terminal program, its window or its ssh connection is not the end of the agent, although it ends as if it were. Stop
# the daemon too ("codex app-server daemon stop"), or start codex with --no-daemon.
#
# Seen with codex 0.171.0, a turn of four tool calls of 2 s, ended after the first one (calls carried out in all):
#   SIGTERM: ended by SIGTERM, 4 calls
#   terminal closed: ended by SIGHUP, 4 calls
#   SIGTERM, --no-daemon: ended by SIGTERM, 1 call
#   terminal closed, --no-daemon: ended by SIGHUP, 1 call
# Exit code 1 when this has changed. Needs npm, node and python3. About 1 min after the installation.
set -eu
dir=$(mktemp -d)
trap 'rm -rf "$dir"' EXIT
trap 'exit 1' HUP INT TERM
export HOME="$dir/home" TMPDIR="$dir/tmp"
mkdir -p "$TMPDIR" "$HOME/.codex" "$dir/node" "$dir/work"
unset CODEX_HOME
cd "$dir/node"
npm install --no-audit --no-fund --loglevel=error @openai/codex@0.171.0 >"$dir/npm.log" 2>&1 || { cat "$dir/npm.log"; exit 1; }
cat >"$dir/try.py" <<'EOF'
import fcntl
import json
import os
import pty
import select
import signal
import subprocess
import sys
import termios
import threading
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

PLACE = Path.cwd().parent
CODEX = str(PLACE / "node/node_modules/.bin/codex")
CALLS = 4
# What a full-screen program asks its terminal before it starts, and the answers.
ANSWERS = {b"\x1b[6n": b"\x1b[1;1R", b"\x1b[c": b"\x1b[?62;c", b"\x1b[?u": b"\x1b[?0u"}


class Model(BaseHTTPRequestHandler):
    """OpenAI's Responses API, streamed: asks for a command CALLS times, and then says a word."""

    protocol_version = "HTTP/1.1"

    def log_message(self, *_):
        pass

    def do_GET(self):
        self.answer("application/json", b"{}")

    def do_POST(self):
        asked = json.loads(self.rfile.read(int(self.headers["content-length"])))
        called = sum(item.get("type") == "function_call_output" for item in asked["input"])
        if called == CALLS or "exec_command" not in json.dumps(asked.get("tools", [])):
            text = {"type": "output_text", "text": "done", "annotations": []}
            item = {"type": "message", "id": "msg_1", "role": "assistant", "status": "completed", "content": [text]}
        else:
            line = json.dumps({"cmd": f"sleep 2; echo done >>{PLACE}/calls"})
            item = {"type": "function_call", "id": f"fc_{called}", "call_id": f"call_{called}", "name": "exec_command", "arguments": line, "status": "completed"}
        usage = {"input_tokens": 1, "input_tokens_details": {"cached_tokens": 0}, "output_tokens": 1,
                 "output_tokens_details": {"reasoning_tokens": 0}, "total_tokens": 2}
        whole = {"id": "resp_1", "object": "response", "created_at": 1, "status": "completed", "model": "m",
                 "output": [item], "usage": usage}
        events = [
            {"type": "response.created", "response": whole | {"status": "in_progress", "output": [], "usage": None}},
            {"type": "response.output_item.added", "output_index": 0, "item": item | {"status": "in_progress"}},
            {"type": "response.output_item.done", "output_index": 0, "item": item},
            {"type": "response.completed", "response": whole},
        ]
        body = "".join(f"event: {one['type']}\ndata: {json.dumps(one)}\n\n" for one in events).encode()
        self.answer("text/event-stream", body)

    def answer(self, kind, body):
        self.send_response(200)
        self.send_header("content-type", kind)
        self.send_header("content-length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)


server = ThreadingHTTPServer(("127.0.0.1", 0), Model)
server.daemon_threads = True
threading.Thread(target=server.serve_forever, daemon=True).start()
# So that what was started is ended.
signal.signal(signal.SIGTERM, lambda *_: sys.exit(1))
Path(os.environ["HOME"], ".codex/config.toml").write_text(f"""
model = "m"
model_provider = "here"
check_for_update_on_startup = false
[features]
plugins = false
[analytics]
enabled = false
[model_providers.here]
name = "here"
base_url = "http://127.0.0.1:{server.server_port}/v1"
wire_api = "responses"
[projects."{Path.cwd()}"]
trust_level = "trusted"
""")


def runs(pid):
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] not in "ZX"
    except OSError:
        return False


def daemons():
    """Daemons whose program or HOME lies in this script's folder."""
    found = []
    for folder in Path("/proc").glob("[0-9]*"):
        try:
            line = (folder / "cmdline").read_bytes()
        except OSError:
            continue
        if b"app-server" in line and os.fsencode(PLACE) in line and runs(folder.name):
            found.append(int(folder.name))
    return found


def calls():
    done = PLACE / "calls"
    return len(done.read_text().splitlines()) if done.exists() else 0


def session(ending, *options):
    """A session on a terminal of its own, ended after the first call; how it ended, and how many calls were carried out."""
    (PLACE / "calls").unlink(missing_ok=True)
    leader, follower = pty.openpty()
    process = subprocess.Popen(
        [CODEX, *options, "--dangerously-bypass-approvals-and-sandbox", "Go."], env=os.environ | {"TERM": "xterm-256color"},
        stdin=follower, stdout=follower, stderr=follower, preexec_fn=lambda: (os.setsid(), fcntl.ioctl(0, termios.TIOCSCTTY, 0)),
    )
    started.append(process)
    os.close(follower)
    screen = bytearray()
    limit = time.monotonic() + 90
    while not calls():
        if process.poll() is not None or time.monotonic() > limit:
            sys.exit(f"the session ran no command: {bytes(screen)!r}")
        if select.select([leader], [], [], 0.1)[0]:
            got = os.read(leader, 65536)
            screen.extend(got)
            for question, answer in ANSWERS.items():
                if question in got:
                    os.write(leader, answer)
    if ending == "terminal closed":
        os.close(leader)
    else:
        process.send_signal(getattr(signal, ending))
    code = process.wait(30)
    # Time for three calls of 2 s, and as much again.
    time.sleep(12)
    how = f"ended by {signal.Signals(-code).name}" if code < 0 else f"exit code {code}"
    return f"{how}, {calls()} call{'s' if calls() != 1 else ''}"


failed = False


def expect(what, seen, expected):
    global failed
    print(f"{what}: {seen}", flush=True)
    failed |= seen != expected


started = []
try:
    expect("SIGTERM", session("SIGTERM"), "ended by SIGTERM, 4 calls")
    expect("terminal closed", session("terminal closed"), "ended by SIGHUP, 4 calls")
    expect("SIGTERM, --no-daemon", session("SIGTERM", "--no-daemon"), "ended by SIGTERM, 1 call")
    expect("terminal closed, --no-daemon", session("terminal closed", "--no-daemon"), "ended by SIGHUP, 1 call")
finally:
    for process in started:
        if process.poll() is None:
            process.kill()
            process.wait()
    for pid in daemons():
        try:
            os.kill(pid, signal.SIGKILL)
        except ProcessLookupError:
            pass
        while runs(pid):
            time.sleep(0.1)
sys.exit(failed)
EOF
cd "$dir/work"
echo "codex $(../node/node_modules/.bin/codex --version 2>/dev/null | sed 's/^codex-cli //')"
python3 "$dir/try.py"
