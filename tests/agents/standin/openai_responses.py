"""OpenAI's Responses API: POST …/responses."""

from __future__ import annotations

import json
from typing import Iterable

from .conversation import Call, Conversation, Json, Reply, Tool, words
from .stream import Event, named

USAGE = {
    "input_tokens": 1,
    "input_tokens_details": {"cached_tokens": 0},
    "output_tokens": 1,
    "output_tokens_details": {"reasoning_tokens": 0},
    "total_tokens": 2,
}


def tools(offered: Iterable[Json]) -> Iterable[Tool]:
    for tool in offered:
        match tool.get("type"):
            case "function":
                yield Tool(tool["name"], tool.get("parameters") or {})
            case "namespace":
                yield from tools(tool.get("tools") or ())


def read(request: Json) -> Conversation:
    conversation = Conversation(system=words(request.get("instructions")), tools=list(tools(request.get("tools") or ())))
    given = request.get("input") or []
    items = [{"role": "user", "content": given}] if isinstance(given, str) else given
    for item in items:
        if item.get("type") == "function_call":
            conversation.model_calls()
        elif item.get("role") == "user":
            conversation.user_says(words(item.get("content")))
        elif item.get("role") in ("system", "developer"):
            conversation.system += words(item.get("content"))
    form = (request.get("text") or {}).get("format") or {}
    if form.get("type") == "json_schema":
        conversation.answer_schema = form.get("schema") or {}
    return conversation


def item(reply: Reply) -> Json:
    if isinstance(reply, Call):
        return {
            "type": "function_call",
            "id": f"fc_{reply.id}",
            "call_id": reply.id,
            "name": reply.tool,
            "arguments": json.dumps(reply.arguments),
            "status": "completed",
        }
    text = {"type": "output_text", "text": reply.text, "annotations": []}
    return {"type": "message", "id": "msg_1", "role": "assistant", "status": "completed", "content": [text]}


def whole(reply: Reply, request: Json) -> Json:
    return {
        "id": "resp_1",
        "object": "response",
        "created_at": 1,
        "status": "completed",
        "model": request.get("model", "standin"),
        "output": [item(reply)],
        "usage": USAGE,
        "parallel_tool_calls": False,
        "tool_choice": "auto",
        "tools": [],
        "error": None,
        "incomplete_details": None,
        "instructions": None,
        "metadata": {},
        "temperature": 1.0,
        "top_p": 1.0,
    }


def stream(reply: Reply, request: Json) -> list[Event]:
    response = whole(reply, request)
    done = response["output"][0]
    place = {"item_id": done["id"], "output_index": 0}
    if isinstance(reply, Call):
        begun = {**done, "arguments": "", "status": "in_progress"}
        said = [
            {"type": "response.function_call_arguments.delta", "delta": done["arguments"], **place},
            {"type": "response.function_call_arguments.done", "arguments": done["arguments"], "name": reply.tool, **place},
        ]
    else:
        begun = {**done, "content": [], "status": "in_progress"}
        part = {"content_index": 0, **place}
        said = [
            {"type": "response.content_part.added", "part": {**done["content"][0], "text": ""}, **part},
            {"type": "response.output_text.delta", "delta": reply.text, "logprobs": [], **part},
            {"type": "response.output_text.done", "text": reply.text, "logprobs": [], **part},
            {"type": "response.content_part.done", "part": done["content"][0], **part},
        ]
    events: list[Json] = [
        {"type": "response.created", "response": {**response, "status": "in_progress", "output": [], "usage": None}},
        {"type": "response.output_item.added", "output_index": 0, "item": begun},
        *said,
        {"type": "response.output_item.done", "output_index": 0, "item": done},
        {"type": "response.completed", "response": response},
    ]
    return named({**event, "sequence_number": number} for number, event in enumerate(events))
