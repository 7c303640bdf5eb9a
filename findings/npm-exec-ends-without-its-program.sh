#!/bin/sh
# npm 11 ("npm exec", "npx" and "npm run", by which agents and MCP servers are often started): on SIGTERM, npm ends as if it had been
# terminated with everything below it, but the program continues and never gets a signal. npm forwards SIGTERM and SIGINT, but only
# to the "sh -c" between itself and the program. Where sh is dash (Debian, Ubuntu and their images), this shell is a process of
# its own: SIGTERM ends the shell and then npm, and the program becomes an orphan. SIGINT ends none of the three. bash replaces
# itself by the program; so with script-shell=bash both signals arrive, and npm waits and ends with the program's exit code.
# Issue 5776 of npm/cli describes this for scripts with shell syntax; with dash it holds for a plain program as well.
#
# So a supervisor that stops "npx agent" by its pid sees "ended by SIGTERM" while the agent continues. Signal the process group or
# the control group, start the program itself, or set script-shell.
#
# Seen with npm 11.19.1, Node.js 20.20.2, dash 0.5.12:
#   npm exec, SIGTERM: npm ended by SIGTERM, program runs, got nothing
#   npm exec, SIGINT: npm runs, program runs, got nothing
#   npm run, SIGTERM: npm ended by SIGTERM, program runs, got nothing
#   npm exec with bash, SIGTERM: npm ended with 7, program has ended, got SIGTERM
#   npm exec with bash, SIGINT: npm ended with 7, program has ended, got SIGINT
# Exit code 1 when this has changed. Needs npm, node, python3, bash, and dash as /bin/sh. About 15 s after the installation.
set -eu
case $(readlink -f /bin/sh) in */dash) ;; *) echo 'SKIPPED: /bin/sh is not dash'; exit 0 ;; esac
dir=$(mktemp -d)
trap 'rm -rf "$dir"' EXIT
trap 'exit 1' HUP INT TERM
export HOME="$dir/home"
mkdir "$HOME" "$dir/npm" "$dir/work"
cd "$dir/npm"
npm install --no-audit --no-fund --loglevel=error npm@11.19.1 >"$dir/npm.log" 2>&1 || { cat "$dir/npm.log"; exit 1; }
cd "$dir/work"
echo '{ "name": "work", "version": "1.0.0", "bin": { "agent": "agent.js" }, "scripts": { "agent": "node agent.js" } }' >package.json
cat >agent.js <<'EOF'
#!/usr/bin/env node
const fs = require('fs');
for (const name of ['SIGTERM', 'SIGINT']) process.on(name, () => { fs.writeFileSync('got', name); process.exit(7); });
setTimeout(() => {}, 300000);
fs.writeFileSync('pid', `${process.pid} `);
EOF
chmod +x agent.js
cat >try.py <<'EOF'
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

# The shell that started this script may have it ignore SIGINT, and the programs would inherit that.
signal.signal(signal.SIGINT, signal.default_int_handler)
# So that what was started is ended.
signal.signal(signal.SIGTERM, lambda *_: sys.exit(1))
pid_file, got = Path("pid"), Path("got")


def runs(pid):
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] not in "ZX"
    except OSError:
        return False


def after(name, arguments):
    """What has become of npm and of its program 3 s after this signal to npm."""
    pid_file.unlink(missing_ok=True)
    got.unlink(missing_ok=True)
    # A session of its own, by which this script ends all of it.
    npm = subprocess.Popen(["node", "../npm/node_modules/npm/bin/npm-cli.js", *arguments],
                           stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, start_new_session=True)
    try:
        limit = time.monotonic() + 60
        while not (pid_file.exists() and pid_file.read_text().endswith(" ")):
            if npm.poll() is not None or time.monotonic() > limit:
                sys.exit("npm did not start the program")
            time.sleep(0.1)
        program = int(pid_file.read_text())
        npm.send_signal(getattr(signal, name))
        time.sleep(3)
        code = npm.poll()
        end = "runs" if code is None else f"ended by {signal.Signals(-code).name}" if code < 0 else f"ended with {code}"
        return f"npm {end}, program {'runs' if runs(program) else 'has ended'}, got {got.read_text() if got.exists() else 'nothing'}"
    finally:
        try:
            os.killpg(npm.pid, signal.SIGKILL)
        except ProcessLookupError:
            pass
        npm.wait()


failed = False
exec_bash = ["exec", "--offline", "--script-shell=bash", "agent"]
for what, name, arguments, expected in (
    ("npm exec", "SIGTERM", ["exec", "--offline", "agent"], "npm ended by SIGTERM, program runs, got nothing"),
    ("npm exec", "SIGINT", ["exec", "--offline", "agent"], "npm runs, program runs, got nothing"),
    ("npm run", "SIGTERM", ["run", "agent"], "npm ended by SIGTERM, program runs, got nothing"),
    ("npm exec with bash", "SIGTERM", exec_bash, "npm ended with 7, program has ended, got SIGTERM"),
    ("npm exec with bash", "SIGINT", exec_bash, "npm ended with 7, program has ended, got SIGINT"),
):
    seen = after(name, arguments)
    print(f"{what}, {name}: {seen}", flush=True)
    failed |= seen != expected
sys.exit(failed)
EOF
echo "npm $(node ../npm/node_modules/npm/bin/npm-cli.js --version), Node.js $(node --version)"
python3 try.py
