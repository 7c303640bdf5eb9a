"""Draws what real agents leave behind: python3 docs/pictures/leftovers.py FIGURES > docs/pictures/leftovers.svg

FIGURES is what `tests/agents/run --all --json FIGURES` measured. Each square is one of the processes that an agent's shell tool had
started: filled when it lived on after the agent's end.
"""

import html
import json
import sys

COLUMNS = (
    ("SIGTERM", "TERM", None, 5),
    ("SIGKILL", "KILL", None, 5),
    ("normal end", "end", None, 4),
    ("machineid-run, revoke", "revoke", "auto", 5),
)
WIDTH, LEFT, STEP, LINE, SQUARE = 896, 230, 160, 26, 12


def text(x, y, words, kind):
    return f'<text x="{x}" y="{y}" class="{kind}" xml:space="preserve">{html.escape(words)}</text>'


def squares(x, y, figure, of):
    """One cell: a square for each process, and whether the agent itself lives on."""
    drawn = []
    for number in range(of):
        kind = "lives" if number < figure["survivors"] else "ended"
        drawn.append(
            f'<rect x="{x + number * (SQUARE + 4)}" y="{y - SQUARE + 2}" width="{SQUARE}" height="{SQUARE}" rx="2" class="{kind}"/>'
        )
    if figure["agent"]:
        daemon = all("daemon" in name or "server" in name for name in figure["agent"])
        drawn.append(text(x + of * (SQUARE + 4) + 4, y, "+ daemon" if daemon else "+ agent", "stop"))
    return drawn


def main():
    with open(sys.argv[1]) as file:
        whole = json.load(file)
    measured = whole["matrix"]
    figures = {
        (one["cell"]["program"], one["cell"]["ending"], one["cell"]["containment"]): one for one in measured if not one["failure"]
    }
    versions = {one["cell"]["program"]: one["version"] for one in measured if not one["failure"]}
    names = sorted(versions)
    height = (len(names) + 2) * LINE + 16
    title = "What real agents leave behind: of five processes that an agent's shell tool started, those that outlive the agent"
    style = (
        "text{font:13px ui-monospace,Menlo,Consolas,monospace;fill:#d6dde6}.pane{fill:#14181f}.title{fill:#8b98a9}.stop{fill:#ffb86b}"
        ".lives{fill:#ffb86b}.ended{fill:none;stroke:#4a5563}"
    )
    print(
        f'<svg xmlns="http://www.w3.org/2000/svg" width="{WIDTH}" height="{height}" role="img"><title>{title}</title><style>{style}</style>'
    )
    print(f'<rect x="0" y="0" width="{WIDTH}" height="{height}" rx="8" class="pane"/>')
    print(text(12, LINE, "the agent is ended by", "title"))
    for number, (heading, *_) in enumerate(COLUMNS):
        print(text(LEFT + number * STEP, LINE, heading, "title"))
    for row, name in enumerate(names):
        y = (row + 2) * LINE
        print(text(12, y, f"{name} {versions[name]}", "said"))
        for number, (_, ending, containment, of) in enumerate(COLUMNS):
            if figure := figures.get((name, ending, containment)):
                print("\n".join(squares(LEFT + number * STEP, y, figure, of)))
    y = (len(names) + 2) * LINE
    print(f'<rect x="12" y="{y - SQUARE + 2}" width="{SQUARE}" height="{SQUARE}" rx="2" class="lives"/>')
    print(text(30, y, f"a process of the agent's shell tool that lives on; measured on {whole['date']}", "title"))
    print("</svg>")


main()
