"""Drives an authority with the official client, unmodified: python drive.py BASE_URL < ORG_KEY

Every method of its class is called. Each call prints one JSON line: its name and what the client returned. The Rust test
reads the lines; nothing is judged here, but for the errors that the client itself raises before it asks.
"""

import inspect
import json
import os
import sys

from machineid import MachineID

BASE_URL = sys.argv[1]
KEY = sys.stdin.readline().strip()
called = set()


def tell(step, value):
    print(json.dumps({"step": step, "value": value}), flush=True)


class Recorder:
    """Passes every call on and remembers which methods were called."""

    def __init__(self, client):
        self.client = client

    def __getattr__(self, name):
        called.add(name)
        return getattr(self.client, name)


os.environ["MACHINEID_ORG_KEY"] = KEY
client = Recorder(MachineID.from_env(base_url=BASE_URL + "/"))
called.add("from_env")

tell("register", client.register("  agent:a  "))
tell("register again", client.register("agent:a"))
tell("validate", client.validate("agent:a"))
tell("revoke", client.revoke("agent:a"))
tell("validate revoked", client.validate("agent:a"))
tell("register revoked", client.register("agent:a"))
tell("unrevoke", client.unrevoke("agent:a"))
tell("validate unrevoked", client.validate("agent:a"))
tell("revoke again", client.revoke("agent:a"))
tell("restore", client.restore("agent:a"))
tell("register b", client.register("agent:b"))
tell("register c", client.register("agent:c"))
tell("register full", client.register("agent:d"))
tell("validate full", client.validate("agent:d"))
tell("usage", client.usage())
tell("list", client.list_devices())
tell("revoke b", client.revoke("agent:b"))
tell("register d", client.register("agent:d"))
tell("unrevoke full", client.unrevoke("agent:b"))
tell("remove", client.remove("agent:c"))
tell("validate removed", client.validate("agent:c"))
tell("remove again", client.remove("agent:c"))
tell("revoke unknown", client.revoke("agent:x"))
tell("validate invalid", client.validate("not valid"))
tell("register invalid", client.register("not valid"))
tell("wrong key", MachineID("org_wrong", base_url=BASE_URL).validate("agent:a"))
tell("wrong key usage", MachineID("org_wrong", base_url=BASE_URL).usage())

methods = {name for name, _ in inspect.getmembers(MachineID, callable) if not name.startswith("_")}
tell("not called", sorted(methods - called))
