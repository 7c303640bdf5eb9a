"""A CrewAI crew that asks before each call of the model and of a tool."""

import os

from crewai import LLM, Agent, Crew, Task
from crewai.hooks import before_llm_call, before_tool_call
from crewai.tools import tool

from machineid_sidecar import Gate


@tool("population")
def population(city: str) -> str:
    """How many people live in a city."""
    print(f"tool: population of {city}", flush=True)
    return "755,000"


# CrewAI catches an exception of a hook and continues; it does not catch SystemExit.
gate = Gate(exits=True)


def ask(context):
    gate.check()


before_llm_call(ask)
before_tool_call(ask)


def main():
    model = LLM(model=f"openai/{os.environ.get('MODEL', 'gpt-5-mini')}")
    clerk = Agent(role="clerk", goal="answer questions", backstory="knows cities", llm=model, tools=[population], max_iter=1_000_000)
    task = Task(description="How many people live in Amsterdam?", expected_output="a number", agent=clerk)
    print(f"answer: {Crew(agents=[clerk], tasks=[task]).kickoff()}")


if __name__ == "__main__":
    main()
