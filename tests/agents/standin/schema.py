"""The smallest value that a JSON schema accepts, as far as agents' schemas go. Pure."""

from __future__ import annotations

from typing import Any

from .conversation import Json

EMPTY: dict[str, Any] = {"boolean": False, "integer": 1, "number": 1, "array": [], "null": None}


def type_of(schema: Json) -> str:
    """The schema's type; the first one that is not null, where it allows several. Gemini writes types in capitals."""
    for choice in schema.get("anyOf") or schema.get("oneOf") or ():
        if (found := type_of(choice)) != "null":
            return found
    kinds = schema.get("type", "object" if "properties" in schema else "string")
    kinds = [kinds] if isinstance(kinds, str) else kinds
    return next((kind.lower() for kind in kinds if kind.lower() != "null"), "null")


def smallest(schema: Json) -> Any:
    if schema.get("enum"):
        return schema["enum"][0]
    kind = type_of(schema)
    if kind == "object":
        properties: Json = schema.get("properties") or {}
        return {name: smallest(properties.get(name, {})) for name in schema.get("required") or ()}
    return EMPTY.get(kind, "the test's command")
