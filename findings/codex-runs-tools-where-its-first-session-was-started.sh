#!/bin/sh
# codex 0.171.0, the terminal program: the first session starts a daemon, "codex app-server", and leaves it behind. Every later session of
# the user hands its work to this daemon, which runs the commands of the model's tool calls. They have what the first session was
# started with: its environment, its resource limits, its mount namespace. What the later session itself was started with does not
# reach them, and they are not its descendants. Only the working directory is the later session's. With --no-daemon, and with
# "codex exec", the session runs its commands itself.
#
# So a limit, a namespace, a control group, another PATH or a revoked token that is given to "codex" has no effect on what it runs, if
# any session was started before. Start it with --no-daemon, or give it a CODEX_HOME of its own, where confinement is meant.
#
# Seen with codex 0.171.0 (WHO is a variable with the session's name, and "files" the limit of open files):
#   first session, tool command: WHO=first, files 1000, first mount namespace, below its session
#   after its end: the daemon runs
#   second session, tool command: WHO=first, files 1000, first mount namespace, not below its session
#   second session with --no-daemon, tool command: WHO=second, files 2000, second mount namespace, below its session
# Exit code 1 when this has changed. Needs npm, node, python3 and unshare with the right to make a mount namespace (root, or user
# namespaces). About 45 s after the installation.
set -eu
dir=$(mktemp -d)
trap 'rm -rf "$dir"' EXIT
trap 'exit 1' HUP INT TERM
export HOME="$dir/home" TMPDIR="$dir/tmp"
mkdir -p "$TMPDIR" "$HOME/.codex" "$dir/node" "$dir/work"
unset CODEX_HOME
cd "$dir/node"
npm install --no-audit --no-fund --loglevel=error @openai/codex@0.171.0 >"$dir/npm.log" 2>&1 || { cat "$dir/npm.log"; exit 1; }
cat >"$dir/command.sh" <<'EOF'
# What a tool call runs: tells where it was started.
parents= pid=$$
while [ "$pid" -gt 1 ]; do
    pid=$(sed 's/.*) . \([0-9]*\) .*/\1/' "/proc/$pid/stat")
    parents="$parents $pid"
done
echo "$WHO $(ulimit -n) $(readlink /proc/self/ns/mnt)$parents" >"$1.part"
mv "$1.part" "$1"
EOF
cat >"$dir/try.py" <<'EOF'
import json
import os
import pty
import signal
import subprocess
import sys
import threading
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

PLACE = Path.cwd().parent
CODEX = str(PLACE / "node/node_modules/.bin/codex")
# What a full-screen program asks its terminal before it starts, and the answers.
ANSWERS = {b"\x1b[6n": b"\x1b[1;1R", b"\x1b[c": b"\x1b[?62;c", b"\x1b[?u": b"\x1b[?0u"}


class Model(BaseHTTPRequestHandler):
    """OpenAI's Responses API, streamed: asks for the command once, and then says a word."""

    protocol_version = "HTTP/1.1"

    def log_message(self, *_):
        pass

    def do_GET(self):
        self.answer("application/json", b"{}")

    def do_POST(self):
        asked = json.loads(self.rfile.read(int(self.headers["content-length"])))
        called = any(item.get("type") == "function_call_output" for item in asked["input"])
        if called or "exec_command" not in json.dumps(asked.get("tools", [])):
            text = {"type": "output_text", "text": "done", "annotations": []}
            item = {"type": "message", "id": "msg_1", "role": "assistant", "status": "completed", "content": [text]}
        else:
            line = json.dumps({"cmd": f"sh {PLACE}/command.sh {PLACE}/told"})
            item = {"type": "function_call", "id": "fc_1", "call_id": "call_1", "name": "exec_command", "arguments": line, "status": "completed"}
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


def session(name, files, *options):
    """A session on a terminal of its own; what its tool command told. It is ended after that."""
    leader, follower = pty.openpty()
    told = PLACE / "told"
    told.unlink(missing_ok=True)
    # A file tells the session's mount namespace.
    line = f'readlink /proc/self/ns/mnt >"$1"; shift; ulimit -n {files}; exec "$@"'
    rights = [] if os.geteuid() == 0 else ["--map-current-user"]
    command = ["unshare", *rights, "--mount", "sh", "-c", line, "sh", str(PLACE / name), CODEX, *options]
    process = subprocess.Popen(
        [*command, "--dangerously-bypass-approvals-and-sandbox", "Go."], env=os.environ | {"WHO": name, "TERM": "xterm-256color"},
        stdin=follower, stdout=follower, stderr=follower, start_new_session=True,
    )
    started.append(process)
    os.close(follower)
    screen = bytearray()

    def read():
        while True:
            try:
                got = os.read(leader, 65536)
            except OSError:
                return
            screen.extend(got)
            for question, answer in ANSWERS.items():
                if question in got:
                    os.write(leader, answer)

    threading.Thread(target=read, daemon=True).start()
    limit = time.monotonic() + 90
    while not told.exists():
        if process.poll() is not None or time.monotonic() > limit:
            sys.exit(f"the {name} session ran no command: {bytes(screen)!r}")
        time.sleep(0.1)
    who, open_files, mounts, *parents = told.read_text().split()
    process.terminate()
    process.wait(30)
    spaces = {(PLACE / one).read_text().strip(): one for one in ("first", "second") if (PLACE / one).exists()}
    below = "below its session" if str(process.pid) in parents else "not below its session"
    return f"WHO={who}, files {open_files}, {spaces.get(mounts, 'another')} mount namespace, {below}"


failed = False


def expect(what, seen, expected):
    global failed
    print(f"{what}: {seen}", flush=True)
    failed |= seen != expected


started = []
try:
    expect("first session, tool command", session("first", 1000), "WHO=first, files 1000, first mount namespace, below its session")
    expect("after its end", "the daemon runs" if daemons() else "no daemon runs", "the daemon runs")
    expect("second session, tool command", session("second", 2000), "WHO=first, files 1000, first mount namespace, not below its session")
    expect("second session with --no-daemon, tool command", session("second", 2000, "--no-daemon"),
           "WHO=second, files 2000, second mount namespace, below its session")
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
