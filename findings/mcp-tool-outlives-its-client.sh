#!/bin/sh
# MCP over stdio with the Python SDK: when the client is killed during a tool call, the fate of the call depends on how the tool is
# written. In both cases the server reads the end of its input. A tool that is an "async def" is cancelled, and the server ends. A
# tool that is a plain "def" runs in a thread, which cannot be cancelled: the server carries the call out to its end, although it has
# no client any more, and ends only then. When the client closes the session in order, its SDK terminates the server after a short
# time in both cases, so a test with an orderly end does not show the difference.
#
# So when an agent was killed, its MCP servers may still work: end their processes too, or wait for them. A tool that must stop with
# its client should be an "async def".
#
# Seen with mcp 2.3.0, tools that take 12 s, the client killed or closed 1 s after their begin:
#   client killed, async def: server has ended within 6 s, call not carried out
#   client killed, def: server runs 6 s later, call carried out
#   client closed, def: server has ended within 6 s, call not carried out
# Exit code 1 when this has changed. Needs python3-venv. About 45 s after the installation.
set -eu
dir=$(mktemp -d)
trap 'rm -rf "$dir"' EXIT
trap 'exit 1' HUP INT TERM
export HOME="$dir"
cd "$dir"
python3 -m venv venv
venv/bin/pip install --quiet --disable-pip-version-check --no-cache-dir mcp==2.3.0
cat >server.py <<'EOF'
import os
import time
from pathlib import Path

import anyio
from mcp.server import MCPServer

server = MCPServer("slow")


@server.tool()
def plain() -> str:
    """A slow tool."""
    Path("begun").write_text(f"{os.getpid()} ")
    time.sleep(12)
    Path("carried-out").touch()
    return "done"


@server.tool()
async def asynchronous() -> str:
    """A slow tool."""
    Path("begun").write_text(f"{os.getpid()} ")
    await anyio.sleep(12)
    Path("carried-out").touch()
    return "done"


server.run()
EOF
cat >client.py <<'EOF'
import asyncio
import sys

from mcp import ClientSession, StdioServerParameters
from mcp.client.stdio import stdio_client


async def main(tool):
    async with stdio_client(StdioServerParameters(command=sys.executable, args=["server.py"])) as streams:
        async with ClientSession(*streams) as session:
            await session.initialize()
            call = asyncio.create_task(session.call_tool(tool))
            # A line on the standard input has the client close the session.
            await asyncio.to_thread(sys.stdin.readline)
            call.cancel()


asyncio.run(main(sys.argv[1]))
EOF
cat >try.py <<'EOF'
import importlib.metadata
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

begun, carried_out = Path("begun"), Path("carried-out")
print("mcp", importlib.metadata.version("mcp"))

# So that what was started is ended.
signal.signal(signal.SIGTERM, lambda *_: sys.exit(1))


def runs(pid):
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] not in "ZX"
    except OSError:
        return False


def after(end, tool):
    begun.unlink(missing_ok=True)
    carried_out.unlink(missing_ok=True)
    server = 0
    client = subprocess.Popen([sys.executable, "client.py", tool], stdin=subprocess.PIPE, stderr=open("log", "w"), text=True)
    try:
        limit = time.monotonic() + 60
        while not (begun.exists() and begun.read_text().endswith(" ")):
            if client.poll() is not None or time.monotonic() > limit:
                sys.exit("the client did not call the tool: " + Path("log").read_text())
            time.sleep(0.1)
        server = int(begun.read_text())
        time.sleep(1)
        if end == "killed":
            client.kill()
        else:
            client.stdin.write("close\n")
            client.stdin.flush()
        limit = time.monotonic() + 6
        while runs(server) and time.monotonic() < limit:
            time.sleep(0.1)
        state = "runs 6 s later" if runs(server) else "has ended within 6 s"
        limit = time.monotonic() + 20
        while runs(server) and time.monotonic() < limit:
            time.sleep(0.1)
        return f"server {state}, call {'' if carried_out.exists() else 'not '}carried out"
    finally:
        client.kill()
        client.wait()
        if server and runs(server):
            os.kill(server, signal.SIGKILL)


failed = False
for end, tool, name, expected in (
    ("killed", "asynchronous", "async def", "server has ended within 6 s, call not carried out"),
    ("killed", "plain", "def", "server runs 6 s later, call carried out"),
    ("closed", "plain", "def", "server has ended within 6 s, call not carried out"),
):
    seen = after(end, tool)
    print(f"client {end}, {name}: {seen}", flush=True)
    failed |= seen != expected
sys.exit(failed)
EOF
venv/bin/python try.py
