"""Runs a command on a terminal of its own and prints what an emulator (pyte) shows at the end, as JSON."""

import json
import os
import re
import sys

import pyte

screen = pyte.Screen(80, 24)
stream = pyte.ByteStream(screen)
child, line = os.forkpty()
if child == 0:
    os.environ["TERM"] = "xterm-256color"
    os.execvp(sys.argv[1], sys.argv[1:])
received = b""
while True:
    try:
        part = os.read(line, 4096)
    except OSError:  # EIO: the last process has closed the terminal.
        part = b""
    if not part:
        break
    received += part
os.waitpid(child, 0)
# pyte 0.8.2 takes only `?` and `>` for the beginning of a private sequence, and writes the rest of others to the screen;
# ECMA-48 (5.4.1) has `<` and `=` as well. These are the kitty keyboard's.
stream.feed(re.sub(rb"\x1b\[[<=][0-9;]*u", b"", received))
print(json.dumps({
    "lines": [row.rstrip() for row in screen.display],
    "cursor": [screen.cursor.x, screen.cursor.y],
    "hidden": screen.cursor.hidden,
    "modes": sorted(mode >> 5 for mode in screen.mode if mode >= 1 << 5),
    "underlined": sorted({y for y, row in screen.buffer.items() for cell in row.values() if cell.underscore}),
    "pops": received.count(b"\x1b[<9u"),
}))
