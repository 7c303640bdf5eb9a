#!/bin/sh
# gemini-cli 0.61.0, headless (-p), while its shell tool runs a command: SIGTERM and SIGINT to the started process have no effect.
# "gemini" starts itself again as a child process with more memory. The parent catches the signals, and neither ends nor passes
# them on; the child continues its work. SIGTERM to the child ends both, but the exit code is 0, as after success, and the
# tool's foreground command, which has a session of its own, continues to run without an agent. With GEMINI_CLI_NO_RELAUNCH=true
# there is only one process. SIGTERM ends it: again with exit code 0, and again the command continues to run.
#
# So a supervisor cannot stop this agent by a signal to the process that it started, must not read the exit code as "has
# finished", and must find the command's session itself (a control group does).
#
# Seen with gemini-cli 0.61.0, Node.js 20.20.2:
#   10 s after SIGTERM to gemini: agent runs, command runs
#   10 s after SIGINT to gemini: agent runs, command runs
#   after SIGTERM to its child: exit code 0, command runs
#   after SIGTERM, one process: exit code 0, command runs
# Exit code 1 when this has changed. Needs npm, node and python3. About 45 s after the installation.
set -eu
dir=$(mktemp -d)
trap 'rm -rf "$dir"' EXIT
trap 'exit 1' HUP INT TERM
export HOME="$dir/home" TMPDIR="$dir/tmp"
mkdir -p "$TMPDIR" "$HOME/.gemini" "$dir/node" "$dir/work"
cd "$dir/node"
npm install --no-audit --no-fund --loglevel=error @google/gemini-cli@0.61.0 >"$dir/npm.log" 2>&1 || { cat "$dir/npm.log"; exit 1; }
cat >"$HOME/.gemini/settings.json" <<'EOF'
{
    "security": { "auth": { "selectedType": "gemini-api-key" } },
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

# The command tells its process id, so that this script can look for it and end it.
RUN = "echo $$ > command.pid; exec sleep 300"


class Model(BaseHTTPRequestHandler):
    """A model that asks for one shell command, and then says that it is done."""

    protocol_version = "HTTP/1.1"

    def log_message(self, *_):
        pass

    def do_POST(self):
        asked = json.loads(self.rfile.read(int(self.headers["content-length"])))
        parts = asked["contents"][-1]["parts"] if asked.get("contents") else []
        has_shell = "run_shell_command" in json.dumps(asked.get("tools", []))
        if has_shell and not any("functionResponse" in part for part in parts):
            part = {"functionCall": {"name": "run_shell_command", "args": {"command": RUN, "description": "wait"}}}
        else:
            part = {"text": "done"}
        candidate = {"content": {"role": "model", "parts": [part]}, "finishReason": "STOP", "index": 0}
        answer = json.dumps({"candidates": [candidate], "usageMetadata": {"totalTokenCount": 1}})
        stream = ":streamGenerateContent" in self.path
        body = (f"data: {answer}\n\n" if stream else answer).encode()
        self.send_response(200)
        self.send_header("content-type", "text/event-stream" if stream else "application/json")
        self.send_header("content-length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)


server = ThreadingHTTPServer(("127.0.0.1", 0), Model)
server.daemon_threads = True
threading.Thread(target=server.serve_forever, daemon=True).start()
# The shell that started this script may have it ignore SIGINT, and the agent would inherit that.
signal.signal(signal.SIGINT, signal.default_int_handler)
# So that what was started is ended.
signal.signal(signal.SIGTERM, lambda *_: sys.exit(1))
pid_file = Path("command.pid")


def runs(pid):
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] not in "ZX"
    except OSError:
        return False


def children(pid):
    try:
        return [int(child) for child in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]
    except OSError:
        return []


def state(agent):
    end = "agent runs" if agent.poll() is None else f"exit code {agent.returncode}"
    return f"{end}, command {'runs' if runs(command) else 'has ended'}"


failed = False


def expect(what, seen, expected):
    global failed
    print(f"{what}: {seen}", flush=True)
    failed |= seen != expected


def start(**more):
    """The agent, as soon as its command runs."""
    global command
    pid_file.unlink(missing_ok=True)
    environment = os.environ | {
        "GEMINI_API_KEY": "none",
        "GOOGLE_GEMINI_BASE_URL": f"http://127.0.0.1:{server.server_port}",
        "GEMINI_CLI_TRUST_WORKSPACE": "true",
    } | more
    for name in ("SANDBOX", "GEMINI_SANDBOX", *(() if more else ("GEMINI_CLI_NO_RELAUNCH",))):
        environment.pop(name, None)
    agent = subprocess.Popen(
        ["../node/node_modules/.bin/gemini", "-m", "gemini-2.5-pro", "--yolo", "-p", "Wait."],
        env=environment, stdin=subprocess.DEVNULL, stdout=open("log", "w"), stderr=subprocess.STDOUT,
    )
    started.append(agent)
    limit = time.monotonic() + 90
    while not (pid_file.exists() and pid_file.read_text().strip()):
        if agent.poll() is not None or time.monotonic() > limit:
            sys.exit("the agent did not start its command: " + Path("log").read_text())
        time.sleep(0.1)
    command = int(pid_file.read_text())
    commands.append(command)
    # The tool has registered the command by then.
    time.sleep(1)
    return agent


def ended(agent, seconds):
    try:
        agent.wait(seconds)
    except subprocess.TimeoutExpired:
        pass


started, commands = [], []
command = 0
try:
    agent = start()
    for name in ("SIGTERM", "SIGINT"):
        agent.send_signal(getattr(signal, name))
        ended(agent, 10)
        expect(f"10 s after {name} to gemini", state(agent), "agent runs, command runs")
    for child in children(agent.pid):
        os.kill(child, signal.SIGTERM)
    ended(agent, 20)
    expect("after SIGTERM to its child", state(agent), "exit code 0, command runs")

    agent = start(GEMINI_CLI_NO_RELAUNCH="true")
    agent.terminate()
    ended(agent, 20)
    expect("after SIGTERM, one process", state(agent), "exit code 0, command runs")
finally:
    for agent in started:
        if agent.poll() is None:
            for pid in children(agent.pid):
                os.kill(pid, signal.SIGKILL)
            agent.kill()
            agent.wait()
    for pid in commands:
        if runs(pid) and b"sleep" in Path(f"/proc/{pid}/cmdline").read_bytes():
            os.kill(pid, signal.SIGKILL)
sys.exit(failed)
EOF
cd "$dir/work"
echo "gemini-cli $(../node/node_modules/.bin/gemini --version), Node.js $(node --version)"
python3 "$dir/try.py"
