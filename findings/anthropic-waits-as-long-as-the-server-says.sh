#!/bin/sh
# The Python clients of Anthropic and OpenAI have the same structure and options, but obey Retry-After differently. When the answer is
# 429 or 5xx, anthropic waits as long as the server says (up to 49 days), inside the call, before each of its two repetitions.
# The option timeout does not bound the wait, because it counts for each attempt alone: one server that answers "Retry-After: 3600"
# holds a call with timeout=1 for two hours. openai waits up to 120 s, and does not repeat the request when the server asks for more.
# Both repeat even a 403 when the answer has the header x-should-retry: true, and repeat nothing with x-should-retry: false.
#
# So a proxy that refuses an agent's requests should send x-should-retry: false and no long Retry-After, and a caller needs a
# deadline of its own around the call.
#
# Seen with anthropic 2.14.0 and openai 3.57.0, timeout=1 (the time that the client would wait before each repetition, in seconds):
#   503, Retry-After: 4: anthropic 4 4, openai 4 4
#   503, Retry-After: 121: anthropic 121 121, openai none
#   429, Retry-After: 86400: anthropic 86400 86400, openai none
#   403: anthropic none, openai none
#   403, Retry-After: 4, x-should-retry: true: anthropic 4 4, openai 4 4
#   429, Retry-After: 4, x-should-retry: false: anthropic none, openai none
#   the first of these for real: anthropic 8 s, openai 8 s
# Exit code 1 when this has changed. Needs python3-venv. About 20 s after the installation.
set -eu
dir=$(mktemp -d)
trap 'rm -rf "$dir"' EXIT
trap 'exit 1' HUP INT TERM
export HOME="$dir"
cd "$dir"
python3 -m venv venv
venv/bin/pip install --quiet --disable-pip-version-check --no-cache-dir anthropic==2.14.0 openai==3.57.0
cat >try.py <<'EOF'
import sys
import threading
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import anthropic
import openai


class Refuses(BaseHTTPRequestHandler):
    """Refuses every request with the status and the headers that its path names: /STATUS/RETRY_AFTER/SHOULD_RETRY/…"""

    protocol_version = "HTTP/1.1"

    def log_message(self, *_):
        pass

    def do_POST(self):
        self.rfile.read(int(self.headers["content-length"]))
        status, after, again = self.path.split("/")[1:4]
        self.send_response(int(status))
        for name, value in (("retry-after", after), ("x-should-retry", again)):
            if value != "-":
                self.send_header(name, value)
        self.send_header("content-length", "2")
        self.end_headers()
        self.wfile.write(b"{}")


server = ThreadingHTTPServer(("127.0.0.1", 0), Refuses)
server.daemon_threads = True
threading.Thread(target=server.serve_forever, daemon=True).start()


def ask(name, path):
    url = f"http://127.0.0.1:{server.server_port}/{path}"
    try:
        if name == "anthropic":
            anthropic.Anthropic(base_url=url, api_key="none", timeout=1).messages.create(model="m", max_tokens=1, messages=[])
        else:
            openai.OpenAI(base_url=url, api_key="none", timeout=1).chat.completions.create(model="m", messages=[])
        sys.exit("the server did not refuse")
    except (anthropic.APIStatusError, openai.APIStatusError):
        pass


print(f"anthropic {anthropic.__version__}, openai {openai.__version__}")
failed = False


def expect(what, seen, expected):
    global failed
    print(f"{what}: {seen}", flush=True)
    failed |= seen != expected


# The clients wait with time.sleep. It only notes the time here, except in the last case, which shows that the notes are true.
sleep = time.sleep
waits = []
time.sleep = waits.append


def waited(name, path):
    waits.clear()
    ask(name, path)
    # A client may add a part of a second by chance.
    return f"{name} {' '.join(str(round(wait)) for wait in waits) or 'none'}"


for what, path, expected in (
    ("503, Retry-After: 4", "503/4/-", "anthropic 4 4, openai 4 4"),
    ("503, Retry-After: 121", "503/121/-", "anthropic 121 121, openai none"),
    ("429, Retry-After: 86400", "429/86400/-", "anthropic 86400 86400, openai none"),
    ("403", "403/-/-", "anthropic none, openai none"),
    ("403, Retry-After: 4, x-should-retry: true", "403/4/true", "anthropic 4 4, openai 4 4"),
    ("429, Retry-After: 4, x-should-retry: false", "429/4/false", "anthropic none, openai none"),
):
    expect(what, ", ".join(waited(name, path) for name in ("anthropic", "openai")), expected)

time.sleep = sleep
took = {}
for name in ("anthropic", "openai"):
    begun = time.monotonic()
    ask(name, "503/4/-")
    took[name] = time.monotonic() - begun
print("the first of these for real: " + ", ".join(f"{name} {seconds:.0f} s" for name, seconds in took.items()))
failed |= not all(8 <= seconds < 16 for seconds in took.values())
sys.exit(failed)
EOF
venv/bin/python try.py
