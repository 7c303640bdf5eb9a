"""What the four APIs have in common: the words of the user, the calls that the model made, and the tools that it may call."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, Iterable

Json = dict[str, Any]


@dataclass(frozen=True)
class Tool:
    """A tool that the agent offers, with the JSON schema of its arguments."""

    name: str
    schema: Json


@dataclass(frozen=True)
class Text:
    """The model says this, and its turn ends."""

    text: str


@dataclass(frozen=True)
class Call:
    """The model calls this tool."""

    tool: str
    arguments: Json
    # Distinct within one conversation: agents refuse a second result for the same call.
    number: int

    @property
    def id(self) -> str:
        return f"call_{self.number:04}"


Reply = Text | Call


@dataclass
class Conversation:
    """A request, read. `calls_since` counts the model's tool calls after each text of the user."""

    tools: list[Tool] = field(default_factory=list)
    system: str = ""
    texts: list[str] = field(default_factory=list)
    calls_since: list[int] = field(default_factory=list)
    # The schema that the answer must have, where the agent asks for JSON and not for a turn of the agent's work.
    answer_schema: Json | None = None

    def user_says(self, text: str) -> None:
        self.texts.append(text)
        self.calls_since.append(0)

    def model_calls(self, times: int = 1) -> None:
        self.calls_since = [calls + times for calls in self.calls_since]


def words(content: Any) -> str:
    """All text in a message's content: a string, a part, or a list of parts."""
    if isinstance(content, str):
        return content
    if isinstance(content, dict):
        return words(content.get("text") or content.get("content") or content.get("parts") or "")
    if isinstance(content, list):
        return "\n".join(filter(None, (words(part) for part in content)))
    return ""


def parts(content: Any) -> Iterable[Json]:
    """The parts of a message's content that are objects."""
    return (part for part in content if isinstance(part, dict)) if isinstance(content, list) else ()
