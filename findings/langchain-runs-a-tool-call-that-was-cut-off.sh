#!/bin/sh
# LangChain with OpenAI's chat model: when a streamed answer ends in the middle of a tool call, the agent runs the tool with the part
# of the arguments that has arrived. LangChain completes the unfinished JSON: '{"path": "/srv' becomes {"path": "/srv"}, and a call
# that would have been for "/srv/build/old" is carried out on "/srv". Neither a finish_reason nor [DONE] is needed. The stream only
# has to end in the way in which HTTP bodies end: with the last chunk, or, without a length, with the connection. A proxy or
# gateway that is stopped, or ends streams at a limit, may end them like this. When a chunked body breaks off instead, the client
# raises an error and no tool runs. Without streaming, the same unfinished arguments are an invalid call, and no tool runs.
# Issue 39275 of langchain-ai/langchain reports the parsing, and is closed; it is as described in the versions below.
#
# So a component that stops a stream between a model and an agent must break it (a reset, or a chunked body without its last
# chunk), not end it.
#
# Seen with langchain 1.5.2, langchain-core 1.8.3, langchain-openai 1.7.4, openai 3.57.0:
#   the stream ends with its last chunk: delete(/srv)
#   the stream ends with its connection: delete(/srv)
#   the stream breaks off: no tool, OpenAIConnectionError
#   not a stream, the same arguments: no tool
# Exit code 1 when this has changed. Needs python3-venv. About 10 s after the installation.
set -eu
dir=$(mktemp -d)
trap 'rm -rf "$dir"' EXIT
trap 'exit 1' HUP INT TERM
export HOME="$dir"
cd "$dir"
python3 -m venv venv
venv/bin/pip install --quiet --disable-pip-version-check --no-cache-dir \
    langchain==1.5.2 langchain-core==1.8.3 langchain-openai==1.7.4 openai==3.57.0
cat >try.py <<'EOF'
import json
import sys
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from importlib.metadata import version

from langchain.agents import create_agent
from langchain_openai import ChatOpenAI

# The model's whole call would be {"path": "/srv/build/old"}.
CALL = {"index": 0, "id": "call_1", "type": "function", "function": {"name": "delete", "arguments": '{"path": "/srv'}}


class Model(BaseHTTPRequestHandler):
    """Answers a question with the first half of a tool call, and a tool's result with a word."""

    protocol_version = "HTTP/1.1"

    def log_message(self, *_):
        pass

    def do_POST(self):
        asked = json.loads(self.rfile.read(int(self.headers["content-length"])))
        how = self.path.split("/")[1]
        answered = asked["messages"][-1]["role"] == "tool"
        message = {"role": "assistant", "content": "done" if answered else None}
        if not answered:
            message["tool_calls"] = [CALL]
        kind = "chat.completion.chunk" if asked.get("stream") else "chat.completion"
        answer = {"id": "1", "object": kind, "created": 1, "model": "m"}
        if not asked.get("stream"):
            choice = {"index": 0, "message": message, "finish_reason": "stop" if answered else "tool_calls"}
            body = json.dumps(answer | {"choices": [choice]}).encode()
            self.send_response(200)
            self.send_header("content-type", "application/json")
            self.send_header("content-length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)
            return
        choice = {"index": 0, "delta": message, "finish_reason": "stop" if answered else None}
        event = f"data: {json.dumps(answer | {'choices': [choice]})}\n\n".encode()
        self.close_connection = True
        self.send_response(200)
        self.send_header("content-type", "text/event-stream")
        self.send_header(*(("connection", "close") if how == "close" else ("transfer-encoding", "chunked")))
        self.end_headers()
        if how == "close":
            self.wfile.write(event)
            return
        self.wfile.write(b"%x\r\n%s\r\n" % (len(event), event))
        if how == "last-chunk":
            self.wfile.write(b"0\r\n\r\n")


server = ThreadingHTTPServer(("127.0.0.1", 0), Model)
server.daemon_threads = True
threading.Thread(target=server.serve_forever, daemon=True).start()
print(", ".join(f"{name} {version(name)}" for name in ("langchain", "langchain-core", "langchain-openai", "openai")))


def agent(how, stream):
    """What an agent with one tool does."""
    calls = []

    def delete(path: str) -> str:
        """Delete a folder."""
        calls.append(f"delete({path})")
        return "deleted"

    model = ChatOpenAI(
        base_url=f"http://127.0.0.1:{server.server_port}/{how}",
        api_key="none", model="m", max_retries=0, streaming=stream, use_responses_api=False,
    )
    try:
        create_agent(model, [delete]).invoke({"messages": "Delete /srv/build/old"})
        error = ""
    except Exception as raised:
        error = f", {type(raised).__name__}"
    return (" ".join(calls) or "no tool") + error


failed = False
for what, how, stream, expected in (
    ("the stream ends with its last chunk", "last-chunk", True, "delete(/srv)"),
    ("the stream ends with its connection", "close", True, "delete(/srv)"),
    ("the stream breaks off", "break", True, "no tool, OpenAIConnectionError"),
    ("not a stream, the same arguments", "whole", False, "no tool"),
):
    seen = agent(how, stream)
    print(f"{what}: {seen}")
    failed |= seen != expected
sys.exit(failed)
EOF
LANGSMITH_TRACING=false venv/bin/python try.py
