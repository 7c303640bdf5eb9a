"""An agent of OpenAI's Agents SDK with one tool, a shell: python openai_agents.py PROMPT

It asks before each tool call if there is a module `machineid_hook`, as `machineid hook install openai-agents` prints it.
"""

import importlib.util
import subprocess
import sys

from agents import Agent, Runner, function_tool


@function_tool
def shell(command: str) -> str:
    """Run a shell command and return its output."""
    return subprocess.run(command, shell=True, capture_output=True, text=True).stdout


agent = Agent(name="worker", instructions="Use the shell.", tools=[shell], model="standin")
hooks = None
if importlib.util.find_spec("machineid_hook"):
    from machineid_hook import MachineidHooks

    hooks = MachineidHooks()
print(Runner.run_sync(agent, sys.argv[1], hooks=hooks).final_output)
