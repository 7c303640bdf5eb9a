"""Which of an agent's tools runs a shell command, and how it is asked to. Pure."""

from __future__ import annotations

from typing import Any, Iterable

from .conversation import Json, Tool
from .schema import smallest, type_of

# Names of known agents' shell tools, best first: some agents offer more than one.
NAMES = (
    "Bash", "exec_command", "shell_command", "shell", "local_shell", "run_shell_command", "bash", "run_commands",
    "execute_command", "run_command", "terminal", "execute_bash",
)  # fmt: skip
COMMAND_PROPERTIES = ("command", "cmd", "commands", "script", "code")
# Time limits of the tool call itself: the command must not be ended by them.
LIMITS = {"timeout": 600_000, "timeout_ms": 600_000, "yield_time_ms": 30_000}


def shell_of(tools: Iterable[Tool]) -> Tool | None:
    by_name = {tool.name: tool for tool in tools}
    return next((by_name[name] for name in NAMES if name in by_name), None)


def command_value(name: str, schema: Json, command: str) -> Any:
    if type_of(schema) != "array":
        return command
    # Several shell lines, or one line as its words.
    return [command] if name == "commands" else ["bash", "-lc", command]


def arguments(schema: Json, command: str) -> Json:
    """The arguments with which this tool runs the command, and all others at their smallest."""
    properties: Json = schema.get("properties") or {}
    given: Json = smallest({**schema, "type": "object"})
    name = next((name for name in COMMAND_PROPERTIES if name in properties), "command")
    given[name] = command_value(name, properties.get(name, {}), command)
    given.update({limit: value for limit, value in LIMITS.items() if limit in properties})
    return given
