"""An agent of the Claude Agent SDK: python claude_agent.py PROMPT

It asks before each tool call if there is a module `machineid_hook`, as `machineid hook install claude-agent-sdk` prints it.
"""

import asyncio
import importlib.util
import sys

from claude_agent_sdk import ClaudeAgentOptions, query


async def main() -> None:
    if importlib.util.find_spec("machineid_hook"):
        from machineid_hook import options
    else:
        options = ClaudeAgentOptions()
    options.permission_mode = "bypassPermissions"
    async for message in query(prompt=sys.argv[1], options=options):
        print(message, flush=True)


asyncio.run(main())
