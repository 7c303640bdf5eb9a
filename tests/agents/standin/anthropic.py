"""Anthropic's Messages API: POST …/messages."""

from __future__ import annotations

import json

from .conversation import Call, Conversation, Json, Reply, Tool, parts, words
from .stream import Event, named

USAGE = {"input_tokens": 1, "output_tokens": 1, "cache_creation_input_tokens": 0, "cache_read_input_tokens": 0}


def read(request: Json) -> Conversation:
    conversation = Conversation(system=words(request.get("system")))
    for tool in request.get("tools") or ():
        # Tools of the server's own (web search) have a type and no schema.
        if "input_schema" in tool:
            conversation.tools.append(Tool(tool["name"], tool["input_schema"]))
    for message in request.get("messages") or ():
        content = message.get("content")
        if message.get("role") == "assistant":
            conversation.model_calls(sum(part.get("type") == "tool_use" for part in parts(content)))
        elif not isinstance(content, list):
            conversation.user_says(words(content))
        else:
            said = [part for part in parts(content) if part.get("type") == "text"]
            if said:
                conversation.user_says(words(said))
    return conversation


def block(reply: Reply) -> Json:
    if isinstance(reply, Call):
        return {"type": "tool_use", "id": f"toolu_{reply.id}", "name": reply.tool, "input": reply.arguments}
    return {"type": "text", "text": reply.text}


def whole(reply: Reply, request: Json) -> Json:
    return {
        "id": "msg_1",
        "type": "message",
        "role": "assistant",
        "model": request.get("model", "standin"),
        "content": [block(reply)],
        "stop_reason": "tool_use" if isinstance(reply, Call) else "end_turn",
        "stop_sequence": None,
        "usage": USAGE,
    }


def stream(reply: Reply, request: Json) -> list[Event]:
    message = whole(reply, request)
    if isinstance(reply, Call):
        empty: Json = {**block(reply), "input": {}}
        delta = {"type": "input_json_delta", "partial_json": json.dumps(reply.arguments)}
    else:
        empty = {"type": "text", "text": ""}
        delta = {"type": "text_delta", "text": reply.text}
    ending = {"stop_reason": message["stop_reason"], "stop_sequence": None}
    return named(
        [
            {"type": "message_start", "message": {**message, "content": [], "stop_reason": None}},
            {"type": "content_block_start", "index": 0, "content_block": empty},
            {"type": "content_block_delta", "index": 0, "delta": delta},
            {"type": "content_block_stop", "index": 0},
            {"type": "message_delta", "delta": ending, "usage": {"output_tokens": 1}},
            {"type": "message_stop"},
        ]
    )
