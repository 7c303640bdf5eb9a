"""A LangChain agent that asks before each call of the model and of a tool."""

import os

from langchain.agents import create_agent
from langchain.agents.middleware import AgentMiddleware
from langchain_core.tools import tool
from langchain_openai import ChatOpenAI

from machineid_sidecar import NotAllowed, check


@tool
def population(city: str) -> str:
    """How many people live in a city."""
    print(f"tool: population of {city}", flush=True)
    return "755,000"


class Gate(AgentMiddleware):
    def before_model(self, state, runtime):
        check()

    def wrap_tool_call(self, request, handler):
        check()
        return handler(request)


def main():
    model = ChatOpenAI(model=os.environ.get("MODEL", "gpt-5-mini"), use_responses_api=False)
    agent = create_agent(model, tools=[population], middleware=[Gate()])
    question = {"role": "user", "content": "How many people live in Amsterdam?"}
    # No limit of steps: check() decides whether the agent continues.
    result = agent.invoke({"messages": [question]}, {"recursion_limit": 1_000_000})
    print(f"answer: {result['messages'][-1].content}")


if __name__ == "__main__":
    try:
        main()
    except NotAllowed as no:
        no.exit()
