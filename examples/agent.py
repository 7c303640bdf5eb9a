#!/usr/bin/env python3
"""A small agent, to be run under machineid-run: it works for ever, and starts a helper of its own.

It knows nothing of MachineID. Whether it cooperates makes no difference: when its device is denied it gets SIGTERM,
and what is left of it after the grace is killed, helper included.
"""

import itertools
import os
import signal
import subprocess
import sys
import time

HELPER = """
import time
while True:
    time.sleep(1)
"""


def say(text):
    print(f"agent {os.getpid()}: {text}", flush=True)


def main():
    # Coding agents start every tool in a session of its own. So does this one.
    helper = subprocess.Popen([sys.executable, "-c", HELPER], start_new_session=True)
    say(f"started, with a helper (pid {helper.pid}), as device {os.environ.get('MACHINEID_DEVICE_ID', 'unknown')}")

    def wind_up(number, _frame):
        say(f"got {signal.Signals(number).name}, putting the work away")
        sys.exit(0)

    signal.signal(signal.SIGTERM, wind_up)

    for task in itertools.count(1):
        say(f"task {task}: {sum(n * n for n in range(200_000)) % 1_000_003}")
        time.sleep(1)


if __name__ == "__main__":
    try:
        main()
    except KeyboardInterrupt:
        say("interrupted")
        sys.exit(130)
