"""The stand-in model: what it says to a marker, in every API. python3 -m unittest test_standin, from tests/agents."""

from __future__ import annotations

import json
import threading
import unittest
import urllib.error
import urllib.request
from typing import Any

from standin import openai_chat
from standin.conversation import Call, Conversation, Text, Tool
from standin.schema import smallest
from standin.script import leftover_arguments, next_reply
from standin.server import serve
from standin.shell_tool import arguments, shell_of

SCHEMA = {"type": "object", "properties": {"command": {"type": "string"}}, "required": ["command"]}
PROMPT = "Please. [[call 2: touch mark-%n]]"


def conversation(text: str, calls: int = 0, *tools: Tool) -> Conversation:
    made = Conversation(tools=[Tool("Bash", SCHEMA), *tools])
    made.user_says(text)
    made.model_calls(calls)
    return made


class Script(unittest.TestCase):
    def test_calls_come_in_turn_and_then_a_text(self) -> None:
        commands = [next_reply(conversation(PROMPT, done)) for done in range(3)]
        self.assertEqual([c.arguments["command"] for c in commands[:2] if isinstance(c, Call)], ["touch mark-1", "touch mark-2"])
        self.assertIsInstance(commands[2], Text)

    def test_the_last_marker_counts_and_its_calls_only(self) -> None:
        made = conversation(PROMPT, 2)
        made.user_says("[[call 1: true]]")
        self.assertEqual(next_reply(made), Call("Bash", {"command": "true"}, 1))

    def test_five_processes_are_known_by_their_arguments(self) -> None:
        reply = next_reply(conversation("[[leave 7000000]]"))
        assert isinstance(reply, Call)
        for argument in leftover_arguments(7_000_000):
            self.assertIn(f"sleep {argument}", reply.arguments["command"])

    def test_without_a_marker_or_a_shell_it_only_talks(self) -> None:
        self.assertIsInstance(next_reply(conversation("Hello")), Text)
        talk = Conversation(tools=[Tool("read_file", {})])
        talk.user_says(PROMPT)
        self.assertIsInstance(next_reply(talk), Text)

    def test_a_tool_for_the_end_is_called_at_the_end(self) -> None:
        reply = next_reply(conversation(PROMPT, 2, Tool("final_answer", {})))
        self.assertEqual(reply, Call("final_answer", {"answer": "Done."}, 3))

    def test_an_answer_with_a_schema_has_its_form(self) -> None:
        made = conversation(PROMPT)
        made.answer_schema = {"type": "OBJECT", "properties": {"next": {"enum": ["user"]}}, "required": ["next"]}
        self.assertEqual(next_reply(made), Text('{"next": "user"}'))


class Schemas(unittest.TestCase):
    def test_a_list_of_words_and_a_list_of_commands_are_told_apart(self) -> None:
        words = {"properties": {"command": {"type": "array"}}}
        lines = {"properties": {"commands": {"anyOf": [{"type": "null"}, {"type": "array"}]}}}
        self.assertEqual(arguments(words, "true"), {"command": ["bash", "-lc", "true"]})
        self.assertEqual(arguments(lines, "true"), {"commands": ["true"]})

    def test_what_is_required_is_given_and_limits_are_wide(self) -> None:
        schema = {"properties": {"cmd": {}, "why": {"type": "string"}, "timeout": {"type": "number"}}, "required": ["cmd", "why"]}
        given = arguments(schema, "true")
        self.assertEqual((given["cmd"], given["timeout"]), ("true", 600_000))
        self.assertTrue(given["why"])

    def test_the_best_known_shell_is_taken(self) -> None:
        found = shell_of([Tool("write_stdin", {}), Tool("shell", {}), Tool("exec_command", {})])
        self.assertEqual(found and found.name, "exec_command")

    def test_smallest_of_everything(self) -> None:
        schema = {"type": ["null", "object"], "properties": {"a": {"type": "integer"}, "b": {}}, "required": ["a"]}
        self.assertEqual(smallest(schema), {"a": 1})


class Apis(unittest.TestCase):
    """Each API, over HTTP: the first request is answered with a call, one with the call's result with the second call."""

    def setUp(self) -> None:
        self.server = serve(0, None)
        threading.Thread(target=self.server.serve_forever, args=[0.02], daemon=True).start()

    def tearDown(self) -> None:
        self.server.shutdown()
        self.server.server_close()

    def post(self, path: str, body: Any) -> bytes:
        url = f"http://127.0.0.1:{self.server.server_port}{path}"
        with urllib.request.urlopen(urllib.request.Request(url, json.dumps(body).encode())) as answer:
            return bytes(answer.read())

    def check(self, path: str, first: dict[str, Any], second: dict[str, Any]) -> None:
        self.assertIn(b"touch mark-1", self.post(path, first))
        self.assertIn(b"touch mark-2", self.post(path, second))

    def test_anthropic(self) -> None:
        tools = [{"name": "Bash", "input_schema": SCHEMA}, {"type": "web_search", "name": "web_search"}]
        asked = {"role": "user", "content": [{"type": "text", "text": PROMPT}]}
        called = {"role": "assistant", "content": [{"type": "tool_use", "id": "1", "name": "Bash", "input": {}}]}
        result = {"role": "user", "content": [{"type": "tool_result", "tool_use_id": "1", "content": "ok"}]}
        for stream in (False, True):
            base = {"tools": tools, "stream": stream}
            self.check("/v1/messages", {**base, "messages": [asked]}, {**base, "messages": [asked, called, result]})

    def test_chat_completions(self) -> None:
        tools = [{"type": "function", "function": {"name": "bash", "parameters": SCHEMA}}]
        asked = {"role": "user", "content": PROMPT}
        called = {"role": "assistant", "content": None, "tool_calls": [{"id": "1", "function": {"name": "bash"}}]}
        result = {"role": "tool", "tool_call_id": "1", "content": "ok"}
        for stream in (False, True):
            base = {"tools": tools, "stream": stream}
            self.check("/v1/chat/completions", {**base, "messages": [asked]}, {**base, "messages": [asked, called, result]})

    def test_calls_that_are_repeated_as_a_text_count(self) -> None:
        asked = {"role": "user", "content": PROMPT}
        called = {"role": "assistant", "content": [{"type": "text", "text": "Calling tools:\n[…]"}]}
        seen = {"role": "user", "content": "Observation: ok"}
        self.assertEqual(openai_chat.read({"messages": [asked, called, seen]}).calls_since, [1, 0])

    def test_responses(self) -> None:
        tools = [{"type": "namespace", "tools": [{"type": "function", "name": "exec_command", "parameters": SCHEMA}]}]
        asked = {"role": "user", "content": [{"type": "input_text", "text": PROMPT}]}
        called = {"type": "function_call", "call_id": "1", "name": "exec_command", "arguments": "{}"}
        result = {"type": "function_call_output", "call_id": "1", "output": "ok"}
        for stream in (False, True):
            base = {"tools": tools, "stream": stream}
            self.check("/v1/responses", {**base, "input": [asked]}, {**base, "input": [asked, called, result]})

    def test_gemini(self) -> None:
        tools = [{"functionDeclarations": [{"name": "run_shell_command", "parametersJsonSchema": SCHEMA}]}]
        asked = {"role": "user", "parts": [{"text": PROMPT}]}
        called = {"role": "model", "parts": [{"functionCall": {"name": "run_shell_command", "args": {}}}]}
        result = {"role": "user", "parts": [{"functionResponse": {"name": "run_shell_command"}}]}
        for method in ("generateContent", "streamGenerateContent"):
            path = f"/v1beta/models/x:{method}?alt=sse"
            self.check(path, {"tools": tools, "contents": [asked]}, {"tools": tools, "contents": [asked, called, result]})

    def test_a_request_that_is_no_json_is_refused(self) -> None:
        url = f"http://127.0.0.1:{self.server.server_port}/v1/messages"
        with self.assertRaises(urllib.error.HTTPError) as refused:
            urllib.request.urlopen(urllib.request.Request(url, b"{"))
        self.assertEqual(refused.exception.code, 400)
        refused.exception.close()


if __name__ == "__main__":
    unittest.main()
