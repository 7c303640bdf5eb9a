"""Runs a real revoke and draws the output of two terminals: python3 docs/pictures/revoke.py PROGRAM > docs/pictures/revoke.svg

PROGRAM is a built machineid-sidecar. The left terminal runs the agent, the right one revokes it.
"""

import html
import os
import pty
import re
import select
import subprocess
import sys
import time

AGENT = os.path.join(os.path.dirname(__file__), "../../examples/agent.py")
COLUMNS, WIDTH, LINE = 100, 8.4, 19


class Terminal:
    """A program on a terminal, and what it has shown so far."""

    def __init__(self, *command):
        leader, follower = pty.openpty()
        self.leader, self.text = leader, ""
        self.process = subprocess.Popen(command, stdin=follower, stdout=follower, stderr=follower, start_new_session=True)
        os.close(follower)

    def read(self, seconds):
        ready, _, _ = select.select([self.leader], [], [], seconds)
        try:
            got = os.read(self.leader, 4096) if ready else b""
        except OSError:
            got = b""
        self.text += re.sub(r"\r|\x1b\[[0-9;]*m", "", got.decode())
        return bool(got)

    def wait_for(self, pattern):
        deadline = time.monotonic() + 60
        while not (found := re.search(pattern, self.text)):
            assert time.monotonic() < deadline, f"{pattern!r} never came in:\n{self.text}"
            self.read(0.1)
        return found

    def end(self):
        code = self.process.wait(timeout=60)
        while self.read(0.1):
            pass
        return code


def pane(title, lines, top):
    height = (len(lines) + 2) * LINE
    drawn = [
        f'<rect x="0" y="{top}" width="{COLUMNS * WIDTH + 24:.0f}" height="{height}" rx="8" class="pane"/>',
        f'<text x="12" y="{top + LINE:.0f}" class="title">{html.escape(title)}</text>',
    ]
    for number, line in enumerate(lines):
        kind = "typed" if line.startswith("$ ") else "stop" if "stopped" in line or "SIGTERM" in line else "said"
        text = html.escape(line[:COLUMNS])
        drawn.append(f'<text x="12" y="{top + (number + 2) * LINE:.0f}" class="{kind}" xml:space="preserve">{text}</text>')
    return drawn, height


def main():
    program = sys.argv[1]
    first = Terminal(program, "--dev", "--", "python3", AGENT)
    operator = first.wait_for(r"(/\S+/machineid) revoke (\S+)")
    first.wait_for(r"task 2")
    revoke = [operator[1], "revoke", operator[2]]
    second = Terminal(*revoke)
    second.end()
    code = first.end()
    said = first.text[re.search(r"^agent \d+:", first.text, re.M).start() :].rstrip().split("\n")
    # The daemon's own log lines, which go to the same terminal, are left out.
    agent = [line for line in said if not re.match(r"\d{4}-\d\d-\d\dT", line)]
    left = ["$ machineid-sidecar --dev -- python3 examples/agent.py", "  …", *agent, "$ echo $?", str(code)]
    right = [f"$ machineid revoke {operator[2]}", *second.text.rstrip().split("\n")]
    drawn, height = pane("the agent", left, 0)
    more, further = pane("the operator", right, height + 10)
    size = f'width="{COLUMNS * WIDTH + 24:.0f}" height="{height + further + 10}"'
    style = (
        "text{font:13px ui-monospace,Menlo,Consolas,monospace;fill:#d6dde6}.pane{fill:#14181f}.title{fill:#8b98a9}"
        ".typed{fill:#8fd0ff}.stop{fill:#ffb86b}"
    )
    title = "A revoke in one terminal stops the agent in the other"
    print(f'<svg xmlns="http://www.w3.org/2000/svg" {size} role="img"><title>{title}</title><style>{style}</style>')
    print("\n".join([*drawn, *more, "</svg>"]))


main()
