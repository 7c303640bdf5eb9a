"""An agent of smolagents with one tool, a shell: python smol_agent.py PROMPT"""

import os
import subprocess
import sys

from smolagents import OpenAIServerModel, ToolCallingAgent, tool


@tool
def shell(command: str) -> str:
    """Run a shell command and return its output.

    Args:
        command: the command line
    """
    return subprocess.run(command, shell=True, capture_output=True, text=True).stdout


model = OpenAIServerModel(model_id="standin", api_base=os.environ["OPENAI_BASE_URL"], api_key="none")
print(ToolCallingAgent(tools=[shell], model=model).run(sys.argv[1]))
