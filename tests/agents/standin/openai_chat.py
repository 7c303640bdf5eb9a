"""OpenAI's chat completions: POST …/chat/completions."""

from __future__ import annotations

import json
from typing import Any

from .conversation import Call, Conversation, Json, Reply, Tool, words
from .stream import Event

USAGE = {"prompt_tokens": 1, "completion_tokens": 1, "total_tokens": 2}


def read(request: Json) -> Conversation:
    conversation = Conversation()
    for tool in request.get("tools") or ():
        function = tool.get("function") or {}
        if "name" in function:
            conversation.tools.append(Tool(function["name"], function.get("parameters") or {}))
    for message in request.get("messages") or ():
        match message.get("role"):
            case "system" | "developer":
                conversation.system += words(message.get("content"))
            case "user":
                conversation.user_says(words(message.get("content")))
            case "assistant":
                # smolagents repeats its model's calls as a text.
                as_text = words(message.get("content")).startswith("Calling tools:")
                conversation.model_calls(len(message.get("tool_calls") or ()) or int(as_text))
    form = request.get("response_format") or {}
    if form.get("type") == "json_schema":
        conversation.answer_schema = form.get("json_schema", {}).get("schema") or {}
    return conversation


def tool_call(call: Call) -> Json:
    function = {"name": call.tool, "arguments": json.dumps(call.arguments)}
    return {"id": call.id, "type": "function", "function": function}


def message(reply: Reply) -> Json:
    if isinstance(reply, Call):
        return {"role": "assistant", "content": None, "tool_calls": [tool_call(reply)]}
    return {"role": "assistant", "content": reply.text}


def finish(reply: Reply) -> str:
    return "tool_calls" if isinstance(reply, Call) else "stop"


def envelope(request: Json, kind: str, choices: list[Json], **more: Any) -> Json:
    return {
        "id": "chatcmpl-1",
        "object": kind,
        "created": 1,
        "model": request.get("model", "standin"),
        "choices": choices,
        **more,
    }


def whole(reply: Reply, request: Json) -> Json:
    choice = {"index": 0, "message": message(reply), "finish_reason": finish(reply)}
    return envelope(request, "chat.completion", [choice], usage=USAGE)


def stream(reply: Reply, request: Json) -> list[Event]:
    said = message(reply)
    if isinstance(reply, Call):
        said["tool_calls"] = [{"index": 0, **tool_call(reply)}]
    kind = "chat.completion.chunk"
    chunks = [
        envelope(request, kind, [{"index": 0, "delta": said, "finish_reason": None}]),
        envelope(request, kind, [{"index": 0, "delta": {}, "finish_reason": finish(reply)}]),
        envelope(request, kind, [], usage=USAGE),
    ]
    return [*(Event(json.dumps(chunk)) for chunk in chunks), Event("[DONE]")]
