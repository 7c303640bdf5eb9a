"""What the model says next: decided by a marker in the prompt. Pure.

    [[call 6: touch /tmp/marks/%n]]   six tool calls, one after the other; %n is the number of the call, from 1
    [[leave 7123450]]                 one call that starts five processes, and stays in the foreground with the fifth:
                                      sleep 900.7123450 &, setsid sleep 900.7123451 &, nohup sleep 900.7123452 &,
                                      sleep 900.7123453 detached twice, and sleep 900.7123454
    [[leave-behind 7123450]]          the first four, with nothing of the tool's input and output, and then the call returns

The number identifies the processes: they are found by their argument, wherever they went, and end by themselves after a quarter of an
hour. The last marker of the conversation counts. A request without a marker or without a shell tool (a title for the session, a
summary) is answered with a text.
"""

from __future__ import annotations

import json
import re

from .conversation import Call, Conversation, Reply, Text
from .schema import smallest
from .shell_tool import arguments, shell_of

MARKER = re.compile(
    r"\[\[(?:call (?P<times>\d+): (?P<command>.+?)|leave (?P<leave>\d+)|leave-behind (?P<behind>\d+))\]\]", re.DOTALL
)

# Tools by which an agent wants to be told that the work is done; a text alone makes these agents ask again.
FINISHING = {"final_answer": "answer", "attempt_completion": "result", "submit_and_exit": "summary", "finish": "message"}
# mini-swe-agent is finished by a command that prints this.
FINISHING_WORDS = "COMPLETE_TASK_AND_SUBMIT_FINAL_OUTPUT"


def leftover_arguments(base: int) -> list[str]:
    """What the five processes are known by: the argument of `sleep`."""
    return [f"900.{base + number}" for number in range(5)]


def leftovers(base: int, foreground: bool) -> str:
    """The command line that leaves processes in each way that shells offer."""
    plain, session, nohup, detached, last = leftover_arguments(base)
    quiet = " >/dev/null 2>&1 </dev/null"
    rest = "" if foreground else quiet
    # Not `sleep` first: Claude Code refuses a command that begins by waiting.
    line = (
        f"setsid sleep {session}{rest} & sleep {plain}{rest} & nohup sleep {nohup}{quiet} & "
        f"(setsid sh -c 'sleep {detached} &'{rest})"
    )
    return f"{line}; sleep {last}" if foreground else f"{line}; touch {started_mark(base)}; echo started"


def started_mark(base: int) -> str:
    """The file, in the agent's working directory, that tells that a tool call has left its processes and returned."""
    return f"started-{base}"


def commands(marker: re.Match[str]) -> list[str]:
    """The commands that a marker asks for, in their order."""
    if marker["leave"]:
        return [leftovers(int(marker["leave"]), foreground=True)]
    if marker["behind"]:
        return [leftovers(int(marker["behind"]), foreground=False)]
    return [marker["command"].replace("%n", str(number)) for number in range(1, int(marker["times"]) + 1)]


def next_reply(conversation: Conversation) -> Reply:
    """The model's answer to this conversation."""
    if conversation.answer_schema is not None:
        return Text(json.dumps(smallest(conversation.answer_schema)))
    asked = [
        (marker, calls) for text, calls in zip(conversation.texts, conversation.calls_since) for marker in MARKER.finditer(text)
    ]
    shell = shell_of(conversation.tools)
    if not asked or shell is None:
        return Text("Hello.")
    marker, done = asked[-1]
    wanted = commands(marker)
    if done < len(wanted):
        return Call(shell.name, arguments(shell.schema, wanted[done]), done + 1)
    for tool in conversation.tools:
        if tool.name in FINISHING:
            return Call(tool.name, {FINISHING[tool.name]: "Done."}, done + 1)
    if FINISHING_WORDS in conversation.system + "".join(conversation.texts):
        return Call(shell.name, arguments(shell.schema, f"echo {FINISHING_WORDS}"), done + 1)
    return Text("Done.")
