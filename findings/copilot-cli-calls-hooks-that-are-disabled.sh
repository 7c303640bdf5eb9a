#!/bin/sh
# GitHub Copilot CLI 1.0.102: "copilot help config" says of disableAllHooks, a setting of ~/.copilot/settings.json, "whether to disable all
# hooks (repo-level and user-level)". In a session with -p it disables none that stands in a file of ~/.copilot/hooks: "copilot config
# --list" shows the setting as true, and the hook is called before each tool all the same. The same key in the hook's own file disables it.
#
# So to turn off a hook for a while, by hand or by a tool, write the key into the file of the hook, or move the file away; and a tool that
# looks whether a hook is on must look there.
#
# Seen with Copilot CLI 1.0.102, Node.js 20.20.2, a model provider on loopback, a session with two calls of the shell (calls of the hook):
#   no setting: 2
#   disableAllHooks: true in ~/.copilot/settings.json: 2
#   disableAllHooks: true in ~/.copilot/hooks/count.json, which holds the hook: 0
# Exit code 1 when this has changed. Needs npm, node and python3. About 20 s after the installation.
set -eu
dir=$(mktemp -d)
trap 'rm -rf "$dir"' EXIT
trap 'exit 1' HUP INT TERM
export HOME="$dir/home" TMPDIR="$dir/tmp"
mkdir -p "$TMPDIR" "$HOME" "$dir/node" "$dir/work"
cd "$dir/node"
npm install --no-audit --no-fund --loglevel=error @github/copilot@1.0.102 >"$dir/npm.log" 2>&1 || { cat "$dir/npm.log"; exit 1; }
cat >"$dir/try.py" <<'EOF'
import json
import os
import shutil
import subprocess
import sys
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

CALLS = 2
DIR = Path(os.environ["HOME"]).parent


class Model(BaseHTTPRequestHandler):
    """Chat completions: asks for `true` in the shell until it was called often enough."""

    def do_GET(self):
        self.answer(b'{"data": []}', "application/json")

    def do_POST(self):
        request = json.loads(self.rfile.read(int(self.headers["content-length"])))
        done = sum(message["role"] == "tool" for message in request["messages"])
        if done < CALLS:
            function = {"name": "bash", "arguments": json.dumps({"command": "true", "description": "nothing"})}
            delta = {"role": "assistant", "tool_calls": [{"index": 0, "id": f"call_{done}", "type": "function", "function": function}]}
            finish = "tool_calls"
        else:
            delta, finish = {"role": "assistant", "content": "Done."}, "stop"
        head = {"id": "c", "object": "chat.completion.chunk", "created": 1, "model": "any"}
        usage = {"prompt_tokens": 1, "completion_tokens": 1, "total_tokens": 2}
        if request.get("stream"):
            chunks = [{**head, "choices": [{"index": 0, "delta": delta, "finish_reason": None}]},
                      {**head, "choices": [{"index": 0, "delta": {}, "finish_reason": finish}]},
                      {**head, "choices": [], "usage": usage}]
            text = "".join(f"data: {json.dumps(chunk)}\n\n" for chunk in chunks) + "data: [DONE]\n\n"
            return self.answer(text.encode(), "text/event-stream")
        for call in delta.get("tool_calls", ()):
            del call["index"]
        whole = {**head, "object": "chat.completion", "choices": [{"index": 0, "message": delta, "finish_reason": finish}], "usage": usage}
        self.answer(json.dumps(whole).encode(), "application/json")

    def answer(self, body, kind):
        self.send_response(200)
        self.send_header("content-type", kind)
        self.send_header("content-length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_):
        pass


def session(server, settings, own):
    """How often the hook was called, and whether the agent says that hooks are disabled."""
    home = DIR / "home/.copilot"
    shutil.rmtree(home, ignore_errors=True)
    (home / "hooks").mkdir(parents=True)
    count = DIR / "count"
    count.write_text("")
    hook = {"type": "command", "bash": f"echo called >>'{count}'"}
    (home / "hooks/count.json").write_text(json.dumps({"version": 1, **own, "hooks": {"preToolUse": [hook]}}))
    (home / "settings.json").write_text(json.dumps(settings))
    environment = {
        "PATH": os.environ["PATH"], "HOME": os.environ["HOME"], "TMPDIR": os.environ["TMPDIR"], "TERM": "dumb", "NO_PROXY": "127.0.0.1",
        "COPILOT_PROVIDER_BASE_URL": f"http://127.0.0.1:{server.server_port}/v1", "COPILOT_PROVIDER_API_KEY": "none",
        "COPILOT_MODEL": "any", "COPILOT_OFFLINE": "true",
    }
    copilot = str(DIR / "node/node_modules/.bin/copilot")
    listed = subprocess.run([copilot, "config", "--list"], env=environment, cwd=DIR / "work", capture_output=True, text=True, timeout=120)
    ran = subprocess.run([copilot, "--allow-all-tools", "-p", "Please."], env=environment, cwd=DIR / "work",
                         stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=120)
    if ran.returncode != 0:
        sys.exit(f"the session failed: {ran.stdout}{ran.stderr}")
    return len(count.read_text().split()), "disableAllHooks=true" in listed.stdout.replace(" ", "")


server = ThreadingHTTPServer(("127.0.0.1", 0), Model)
threading.Thread(target=server.serve_forever, daemon=True).start()
without, _ = session(server, {}, {})
disabled, says_so = session(server, {"disableAllHooks": True}, {})
in_file, _ = session(server, {}, {"disableAllHooks": True})
print(f"no setting: {without}")
print(f"disableAllHooks: true in ~/.copilot/settings.json: {disabled}; copilot config --list shows it: {says_so}")
print(f"disableAllHooks: true in ~/.copilot/hooks/count.json, which holds the hook: {in_file}")
sys.exit((without, disabled, says_so, in_file) != (CALLS, CALLS, True, 0))
EOF
python3 -B "$dir/try.py"
