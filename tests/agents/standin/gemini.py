"""Gemini's API: POST …/models/NAME:generateContent, and :streamGenerateContent."""

from __future__ import annotations

import json

from .conversation import Call, Conversation, Json, Reply, Tool, parts, words
from .stream import Event


def read(request: Json) -> Conversation:
    conversation = Conversation(system=words(request.get("systemInstruction")))
    for tool in request.get("tools") or ():
        for function in tool.get("functionDeclarations") or ():
            schema = function.get("parametersJsonSchema") or function.get("parameters") or {}
            conversation.tools.append(Tool(function["name"], schema))
    for content in request.get("contents") or ():
        said = list(parts(content.get("parts")))
        if content.get("role") == "model":
            conversation.model_calls(sum("functionCall" in part for part in said))
        elif any("text" in part for part in said):
            conversation.user_says(words([part for part in said if "text" in part]))
    wanted = request.get("generationConfig") or {}
    if wanted.get("responseMimeType") == "application/json":
        conversation.answer_schema = wanted.get("responseJsonSchema") or wanted.get("responseSchema") or {}
    return conversation


def whole(reply: Reply, request: Json) -> Json:
    if isinstance(reply, Call):
        part: Json = {"functionCall": {"id": reply.id, "name": reply.tool, "args": reply.arguments}}
    else:
        part = {"text": reply.text}
    return {
        "candidates": [{"content": {"role": "model", "parts": [part]}, "finishReason": "STOP", "index": 0}],
        "usageMetadata": {"promptTokenCount": 1, "candidatesTokenCount": 1, "totalTokenCount": 2},
        "modelVersion": "standin",
        "responseId": "1",
    }


def stream(reply: Reply, request: Json) -> list[Event]:
    return [Event(json.dumps(whole(reply, request)))]
