"""Checks the licences of everything that is linked into the programs against deny.toml, and collects their texts.

    packaging/licenses.py [FILE]        with FILE: writes the texts there

Needs nothing but cargo, which knows the crates, and has their sources.
"""

import json
import pathlib
import re
import subprocess
import sys
import tomllib

TOP = pathlib.Path(__file__).resolve().parent.parent
ALLOWED = set(tomllib.loads((TOP / "deny.toml").read_text())["licenses"]["allow"])
TEXTS = re.compile(r"^(licen[cs]e|copying|notice|unlicense|copyright)", re.IGNORECASE)


def linked():
    """The packages that go into a binary: normal dependencies, their own, and so on."""
    host = re.search(r"^host: (.*)$", subprocess.check_output(["rustc", "-vV"], text=True), re.MULTILINE)[1]
    command = ["cargo", "metadata", "--locked", "--format-version=1", "--filter-platform", host]
    about = json.loads(subprocess.check_output(command, cwd=TOP))
    packages = {package["id"]: package for package in about["packages"]}
    below = {node["id"]: node["deps"] for node in about["resolve"]["nodes"]}
    # Those of this repository are ours.
    ours = set(about["workspace_members"])
    root = about["resolve"]["root"]
    todo, seen = [root], {root}
    while todo:
        for dependency in below[todo.pop()]:
            normal = any(kind["kind"] is None for kind in dependency["dep_kinds"])
            if normal and dependency["pkg"] not in seen:
                seen.add(dependency["pkg"])
                todo.append(dependency["pkg"])
    return sorted((packages[one] for one in seen - ours), key=lambda p: (p["name"], p["version"]))


def allowed(expression):
    """Whether an SPDX expression can be met by what is allowed: every part of an AND, one of an OR."""
    if not expression:
        return False
    words = re.findall(r"\(|\)|AND|OR|[^\s()]+(?:\s+WITH\s+[^\s()]+)?", expression.replace("/", " OR "))

    def either(position):
        met, position = both(position)
        while position < len(words) and words[position] == "OR":
            other, position = both(position + 1)
            met = met or other
        return met, position

    def both(position):
        met, position = one(position)
        while position < len(words) and words[position] == "AND":
            other, position = one(position + 1)
            met = met and other
        return met, position

    def one(position):
        if words[position] == "(":
            met, position = either(position + 1)
            return met, position + 1
        return words[position] in ALLOWED, position + 1

    return either(0)[0]


def main():
    packages = linked()
    refused = [package for package in packages if not allowed(package["license"])]
    for package in refused:
        print(f"{package['name']} {package['version']}: {package['license']} is not in deny.toml", file=sys.stderr)
    if len(sys.argv) > 1:
        parts = ["The libraries that are linked into machineid-sidecar, each with its licence.\n"]
        known = {}
        for package in packages:
            parts.append(f"{'=' * 78}\n{package['name']} {package['version']}: {package['license']}\n")
            directory = pathlib.Path(package["manifest_path"]).parent
            for text in sorted(path for path in directory.iterdir() if path.is_file() and TEXTS.match(path.name)):
                words = text.read_text(errors="replace").strip()
                if words in known:
                    parts.append(f"--- {text.name}: as for {known[words]}\n")
                    continue
                known[words] = f"{package['name']} {package['version']}, {text.name}"
                parts.append(f"--- {text.name}\n{words}\n")
        pathlib.Path(sys.argv[1]).write_text("\n".join(parts))
    print(f"{len(packages)} libraries, {len(refused)} refused")
    return 1 if refused else 0


if __name__ == "__main__":
    sys.exit(main())
