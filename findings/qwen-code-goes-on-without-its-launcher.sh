#!/bin/sh
# qwen-code 0.24.4, headless (-p): "qwen" is a launcher that starts the agent with spawnSync and waits for it, so it can neither catch nor
# forward a signal. SIGTERM ends the launcher at once, and the agent continues without it: it asks the model again and runs every
# further tool call. The caller sees "ended by SIGTERM", as if the agent had ended. SIGTERM to the process group ends the agent too.
#
# So a supervisor that stops "qwen" by its pid, and takes its end for the agent's, stops nothing. Signal the process group or the control
# group. (gemini-cli, from which qwen-code descends, does the reverse: there the launcher ignores SIGTERM.)
#
# Seen with qwen-code 0.24.4, Node.js 20.20.2, a turn of four tool calls of 2 s, ended after the first one (calls carried out in all):
#   SIGTERM to qwen: ended by SIGTERM, 4 calls
#   SIGTERM to its process group: ended by SIGTERM, 1 call
# Exit code 1 when this has changed. Needs npm, node and python3. About 45 s after the installation.
set -eu
dir=$(mktemp -d)
trap 'rm -rf "$dir"' EXIT
trap 'exit 1' HUP INT TERM
export HOME="$dir/home" TMPDIR="$dir/tmp"
mkdir -p "$TMPDIR" "$HOME/.qwen" "$dir/node" "$dir/work"
unset QWEN_HOME QWEN_SANDBOX
cd "$dir/node"
npm install --no-audit --no-fund --loglevel=error @qwen-code/qwen-code@0.24.4 >"$dir/npm.log" 2>&1 || { cat "$dir/npm.log"; exit 1; }
cat >"$HOME/.qwen/settings.json" <<'EOF'
{
    "security": { "auth": { "selectedType": "openai" } },
    "general": { "enableAutoUpdate": false },
    "privacy": { "usageStatisticsEnabled": false }
}
EOF
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

CALLS = 4
PACKAGE = Path("../node/node_modules/@qwen-code/qwen-code").absolute()
QWEN = "../node/node_modules/.bin/qwen"
done = Path("calls")


class Model(BaseHTTPRequestHandler):
    """OpenAI's chat completions, streamed: asks for a command CALLS times, and then says a word."""

    protocol_version = "HTTP/1.1"

    def log_message(self, *_):
        pass

    def do_POST(self):
        asked = json.loads(self.rfile.read(int(self.headers["content-length"])))
        called = sum(message["role"] == "tool" for message in asked["messages"])
        if called < CALLS and "run_shell_command" in json.dumps(asked.get("tools", [])):
            line = json.dumps({"command": "timeout 2 tail -f /dev/null; echo done >>calls", "is_background": False, "description": "work"})
            function = {"name": "run_shell_command", "arguments": line}
            delta = {"role": "assistant", "tool_calls": [{"index": 0, "id": f"call_{called}", "type": "function", "function": function}]}
        else:
            delta = {"role": "assistant", "content": "done"}
        chunks = [{"index": 0, "delta": delta, "finish_reason": None},
                  {"index": 0, "delta": {}, "finish_reason": "tool_calls" if "tool_calls" in delta else "stop"}]
        whole = {"id": "chatcmpl-1", "object": "chat.completion.chunk", "created": 1, "model": "m"}
        body = "".join(f"data: {json.dumps(whole | {'choices': [chunk]})}\n\n" for chunk in chunks).encode() + b"data: [DONE]\n\n"
        self.send_response(200)
        self.send_header("content-type", "text/event-stream")
        self.send_header("content-length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)


server = ThreadingHTTPServer(("127.0.0.1", 0), Model)
server.daemon_threads = True
threading.Thread(target=server.serve_forever, daemon=True).start()
# So that what was started is ended.
signal.signal(signal.SIGTERM, lambda *_: sys.exit(1))


def agents():
    """The agent's processes: those that run cli.js of this script's folder."""
    found = []
    for folder in Path("/proc").glob("[0-9]*"):
        try:
            words = (folder / "cmdline").read_bytes().split(b"\0")
            state = (folder / "stat").read_text().rpartition(")")[2].split()[0]
        except OSError:
            continue
        if os.fsencode(PACKAGE / "cli.js") in words and state not in "ZX":
            found.append(int(folder.name))
    return found


def calls():
    return len(done.read_text().splitlines()) if done.exists() else 0


def run(target):
    """A run of which this, "launcher" or "group", gets SIGTERM after the first call; how it ended, and how many calls were carried out."""
    done.unlink(missing_ok=True)
    environment = os.environ | {
        "OPENAI_API_KEY": "none",
        "OPENAI_BASE_URL": f"http://127.0.0.1:{server.server_port}/v1",
        "OPENAI_MODEL": "m",
    }
    process = subprocess.Popen([QWEN, "--yolo", "-p", "Work."], env=environment, stdin=subprocess.DEVNULL,
                               stdout=open("log", "w"), stderr=subprocess.STDOUT, start_new_session=True)
    started.append(process)
    limit = time.monotonic() + 90
    while not calls():
        if process.poll() is not None or time.monotonic() > limit:
            sys.exit("the agent ran no command: " + Path("log").read_text())
        time.sleep(0.1)
    os.kill(process.pid if target == "launcher" else -process.pid, signal.SIGTERM)
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
    expect("SIGTERM to qwen", run("launcher"), "ended by SIGTERM, 4 calls")
    expect("SIGTERM to its process group", run("group"), "ended by SIGTERM, 1 call")
finally:
    for process in started:
        if process.poll() is None:
            process.kill()
            process.wait()
    for pid in agents():
        try:
            os.kill(pid, signal.SIGKILL)
        except ProcessLookupError:
            pass
sys.exit(failed)
EOF
cd "$dir/work"
echo "qwen-code $(../node/node_modules/.bin/qwen --version), Node.js $(node --version)"
python3 "$dir/try.py"
