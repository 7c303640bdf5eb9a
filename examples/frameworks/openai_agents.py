"""An agent of the OpenAI Agents SDK that asks before each call of the model and of a tool."""

import asyncio
import os

from agents import Agent, RunHooks, Runner, UserError, function_tool, set_default_openai_api, set_tracing_disabled

from machineid_sidecar import NotAllowed, acheck


@function_tool
def population(city: str) -> str:
    """How many people live in a city."""
    print(f"tool: population of {city}", flush=True)
    return "755,000"


class Gate(RunHooks):
    async def on_llm_start(self, context, agent, system_prompt, input_items):
        await acheck()

    async def on_tool_start(self, context, agent, tool):
        await acheck()


async def main():
    set_default_openai_api("chat_completions")
    set_tracing_disabled(True)
    clerk = Agent(name="clerk", model=os.environ.get("MODEL", "gpt-5-mini"), tools=[population])
    result = await Runner.run(clerk, "How many people live in Amsterdam?", hooks=Gate(), max_turns=1_000_000)
    print(f"answer: {result.final_output}")


if __name__ == "__main__":
    try:
        try:
            asyncio.run(main())
        except UserError as error:
            # The SDK wraps what a tool's hook raises.
            raise error.__cause__ or error
    except NotAllowed as no:
        no.exit()
