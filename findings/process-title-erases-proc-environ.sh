#!/bin/sh
# Linux: a program that changes its title (the name that ps shows) can erase what /proc/PID/environ shows. The kernel reads arguments
# and environment from the process's memory, where the one lies behind the other. Perl's $0 and Python's setproctitle use the space of
# both for the title, and overwrite the environment even when the title is shorter than the old one. The program still has its
# variables, and its children get them. Node.js's process.title leaves the environment's space alone, and so does setproctitle
# with SPT_NOENV=1.
#
# So a search for processes by a variable in /proc/PID/environ, by which a supervisor may look for what an agent has left behind, can
# miss such a process and find its children. Ancestry, session and control group have no such gap.
#
# Seen with Perl 5.36.0, setproctitle 1.3.8, Node.js 20.20.2, Linux 6.18:
#   Perl, its own title: shown, known to the program, shown at its child
#   Perl, $0 = 'it': not shown, known to the program, shown at its child
#   Python, its own title: shown, known to the program, shown at its child
#   Python, setproctitle('it'): not shown, known to the program, shown at its child
#   Python, the same with SPT_NOENV=1: shown, known to the program, shown at its child
#   Node.js, process.title = 'it': shown, known to the program, shown at its child
# Exit code 1 when this has changed. Needs perl, node and python3-venv. About 2 s after the installation.
set -eu
dir=$(mktemp -d)
trap 'rm -rf "$dir"' EXIT
trap 'exit 1' HUP INT TERM
export HOME="$dir"
cd "$dir"
python3 -m venv venv
venv/bin/pip install --quiet --disable-pip-version-check --no-cache-dir setproctitle==1.3.8
perl -e 'printf "Perl %vd, Linux %s", $^V, `uname -r`'
echo "Node.js $(node --version)"
cat >try.py <<'EOF'
import os
import subprocess
import sys
from pathlib import Path

# Each program starts a child, writes the variable's value and the child's process id, and waits for the end of its input.
PERL = r"""
%s
$child = fork();
if (!$child) { close(STDOUT); exec('sleep', '300'); }
$| = 1;
print("$ENV{MARK} $child\n");
<STDIN>;
"""
PYTHON = """
import os, subprocess, sys
%s
child = subprocess.Popen(["sleep", "300"], stdout=subprocess.DEVNULL)
print(os.environ["MARK"], child.pid, flush=True)
sys.stdin.read()
"""
NODE = """
%s
const child = require('child_process').spawn('sleep', ['300'], {stdio: 'ignore'});
child.on('spawn', () => console.log(process.env.MARK, child.pid));
process.stdin.on('end', () => process.exit(0)).resume();
"""
TITLE = "import setproctitle; setproctitle.setproctitle('it')"


def shown(pid):
    return "shown" if b"MARK=yes" in Path(f"/proc/{pid}/environ").read_bytes().split(b"\0") else "not shown"


def look(argv, more):
    environment = {name: value for name, value in os.environ.items() if name != "SPT_NOENV"} | {"MARK": "yes"} | more
    with subprocess.Popen(argv, env=environment, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as program:
        child = 0
        try:
            value, child = program.stdout.readline().split()
            # A child that has not called exec yet shows its parent's memory.
            while Path(f"/proc/{child}/comm").read_text() != "sleep\n":
                pass
            known = "known" if value == "yes" else "not known"
            return f"{shown(program.pid)}, {known} to the program, {shown(child)} at its child"
        finally:
            if child:
                os.kill(int(child), 9)
            program.stdin.close()


python = sys.executable
failed = False
for what, argv, more, expected in (
    ("Perl, its own title", ["perl", "-e", PERL % ""], {}, "shown"),
    ("Perl, $0 = 'it'", ["perl", "-e", PERL % "$0 = 'it';"], {}, "not shown"),
    ("Python, its own title", [python, "-c", PYTHON % ""], {}, "shown"),
    ("Python, setproctitle('it')", [python, "-c", PYTHON % TITLE], {}, "not shown"),
    ("Python, the same with SPT_NOENV=1", [python, "-c", PYTHON % TITLE], {"SPT_NOENV": "1"}, "shown"),
    ("Node.js, process.title = 'it'", ["node", "-e", NODE % "process.title = 'it'"], {}, "shown"),
):
    seen = look(argv, more)
    print(f"{what}: {seen}", flush=True)
    failed |= seen != f"{expected}, known to the program, shown at its child"
sys.exit(failed)
EOF
venv/bin/python try.py
