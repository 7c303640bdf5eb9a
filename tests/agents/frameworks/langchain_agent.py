"""An agent of LangChain with one tool, a shell: python langchain_agent.py PROMPT"""

import subprocess
import sys

from langchain.agents import create_agent
from langchain_core.tools import tool
from langchain_openai import ChatOpenAI


@tool
def shell(command: str) -> str:
    """Run a shell command and return its output."""
    return subprocess.run(command, shell=True, capture_output=True, text=True).stdout


agent = create_agent(ChatOpenAI(model="standin"), tools=[shell])
print(agent.invoke({"messages": [("user", sys.argv[1])]})["messages"][-1].content)
