"""An agent of OpenAI's Agents SDK with one tool, a shell: python openai_agents.py PROMPT"""

import subprocess
import sys

from agents import Agent, Runner, function_tool


@function_tool
def shell(command: str) -> str:
    """Run a shell command and return its output."""
    return subprocess.run(command, shell=True, capture_output=True, text=True).stdout


agent = Agent(name="worker", instructions="Use the shell.", tools=[shell], model="standin")
print(Runner.run_sync(agent, sys.argv[1]).final_output)
