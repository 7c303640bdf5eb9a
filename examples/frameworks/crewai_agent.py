"""A CrewAI crew that asks before each call of the model and of a tool."""

import os
import sys

from crewai import LLM, Agent, Crew, Task
from crewai.hooks import before_llm_call, before_tool_call
from crewai.tools import tool

from gate import Denied, Undecided, gate


@tool("population")
def population(city: str) -> str:
    """How many people live in a city."""
    print(f"tool: population of {city}", flush=True)
    return "755,000"


def gate_or_leave(context):
    # CrewAI catches an exception of a hook and continues; it does not catch SystemExit.
    try:
        gate()
    except Denied as error:
        sys.exit(print(f"denied: {error}", file=sys.stderr) or 77)
    except Undecided as error:
        sys.exit(print(f"could not find out whether to go on: {error}", file=sys.stderr) or 75)


before_llm_call(gate_or_leave)
before_tool_call(gate_or_leave)


def main():
    model = LLM(model=f"openai/{os.environ.get('MODEL', 'gpt-5-mini')}")
    clerk = Agent(role="clerk", goal="answer questions", backstory="knows cities", llm=model, tools=[population], max_iter=1_000_000)
    task = Task(description="How many people live in Amsterdam?", expected_output="a number", agent=clerk)
    print(f"answer: {Crew(agents=[clerk], tasks=[task]).kickoff()}")


if __name__ == "__main__":
    main()
