"""The HTTP side: a request's path says which API it is of."""

from __future__ import annotations

import gzip
import json
import sys
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from types import ModuleType
from typing import TextIO

from . import anthropic, gemini, openai_chat, openai_responses
from .conversation import Json
from .script import next_reply

MODELS = ("standin", "gpt-5", "claude-sonnet-4-5", "gemini-2.5-pro")
# No agent's request is near this.
LARGEST_REQUEST = 64 << 20


def api_of(path: str, request: Json) -> tuple[ModuleType, bool] | None:
    """The API that a path belongs to, and whether the answer is streamed."""
    streamed = request.get("stream") is True
    if path.endswith("/messages"):
        return anthropic, streamed
    if path.endswith("/chat/completions"):
        return openai_chat, streamed
    if path.endswith("/responses"):
        return openai_responses, streamed
    if path.endswith(":generateContent"):
        return gemini, False
    if path.endswith(":streamGenerateContent"):
        return gemini, True
    return None


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    log: TextIO | None = None

    def do_GET(self) -> None:
        """The list of models; agents that ask for anything else go on with an empty answer."""
        data = [{"id": name, "object": "model", "created": 1, "owned_by": "standin"} for name in MODELS]
        self.note("GET", self.path)
        self.answer({"object": "list", "data": data} if self.path.partition("?")[0].endswith("/models") else {})

    def do_HEAD(self) -> None:
        self.answer({})

    def do_POST(self) -> None:
        try:
            request = json.loads(self.body())
        except ValueError as error:
            self.note("POST", self.path, f"not understood: {error}")
            return self.answer({"error": {"message": str(error)}}, 400)
        path = self.path.partition("?")[0]
        found = api_of(path, request) if isinstance(request, dict) else None
        if found is None:
            self.note("POST", path, "counted or ignored")
            # Agents that count tokens first.
            return self.answer({"input_tokens": 1, "totalTokens": 1})
        api, streamed = found
        conversation = api.read(request)
        reply = next_reply(conversation)
        self.note("POST", path, f"{len(conversation.tools)} tools", repr(reply))
        if streamed:
            self.answer_stream(b"".join(event.bytes() for event in api.stream(reply, request)))
        else:
            self.answer(api.whole(reply, request))

    def body(self) -> bytes:
        if self.headers.get("transfer-encoding", "").lower() == "chunked":
            body = b""
            while size := int(self.rfile.readline().split(b";")[0], 16):
                if len(body) + size > LARGEST_REQUEST:
                    raise ValueError("the request is too large")
                body += self.rfile.read(size)
                self.rfile.readline()
            self.rfile.readline()
        else:
            size = int(self.headers.get("content-length") or 0)
            if size > LARGEST_REQUEST:
                raise ValueError("the request is too large")
            body = self.rfile.read(size)
        return gzip.decompress(body) if self.headers.get("content-encoding") == "gzip" else body

    def answer(self, body: Json, status: int = 200) -> None:
        self.send(json.dumps(body).encode(), "application/json", status)

    def answer_stream(self, body: bytes) -> None:
        self.send(body, "text/event-stream", 200)

    def send(self, body: bytes, kind: str, status: int) -> None:
        self.send_response(status)
        self.send_header("content-type", kind)
        self.send_header("content-length", str(len(body)))
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body)

    def note(self, *words: str) -> None:
        if self.log is not None:
            print(*words, file=self.log, flush=True)

    def log_message(self, *_: object) -> None:
        pass


class Server(ThreadingHTTPServer):
    daemon_threads = True

    def handle_error(self, request: object, client_address: object) -> None:
        """An agent that is killed in the middle of an answer is no error of this server."""
        if not isinstance(sys.exception(), ConnectionError):
            super().handle_error(request, client_address)  # type: ignore[arg-type]


def serve(port: int, log: TextIO | None) -> Server:
    """The server, bound to loopback and not yet serving."""
    handler = type("LoggingHandler", (Handler,), {"log": log})
    return Server(("127.0.0.1", port), handler)
