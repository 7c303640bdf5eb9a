"""Writes the software bill of materials of the programs: CycloneDX 1.5, JSON.

    packaging/sbom.py FILE

It lists what is linked into the programs, with the checksum of each crate from Cargo.lock. The same commit makes the same bytes.
Needs nothing but cargo, as licenses.py does.
"""

import json
import pathlib
import sys
import tomllib
import uuid

# No directory of compiled files in the checkout.
sys.dont_write_bytecode = True

from licenses import TOP, linked  # noqa: E402


def checksums():
    lock = tomllib.loads((TOP / "Cargo.lock").read_text())
    return {(one["name"], one["version"]): one.get("checksum") for one in lock["package"]}


def component(package, checksum):
    purl = f"pkg:cargo/{package['name']}@{package['version']}"
    about = {
        "type": "library",
        "bom-ref": purl,
        "name": package["name"],
        "version": package["version"],
        "purl": purl,
        # SPDX writes OR where cargo once wrote a slash.
        "licenses": [{"expression": (package["license"] or "NOASSERTION").replace("/", " OR ")}],
    }
    if checksum:
        about["hashes"] = [{"alg": "SHA-256", "content": checksum}]
    return about


def bill():
    known = checksums()
    version = tomllib.loads((TOP / "Cargo.toml").read_text())["workspace"]["package"]["version"]
    components = [component(one, known.get((one["name"], one["version"]))) for one in linked()]
    program = {"type": "application", "bom-ref": "machineid-sidecar", "name": "machineid-sidecar", "version": version,
               "licenses": [{"license": {"id": "Apache-2.0"}}]}
    content = json.dumps([program, components], sort_keys=True)
    return {
        "bomFormat": "CycloneDX",
        "specVersion": "1.5",
        # Of the content, not random: two builds must have the same bytes.
        "serialNumber": f"urn:uuid:{uuid.uuid5(uuid.NAMESPACE_URL, content)}",
        "version": 1,
        "metadata": {"component": program},
        "components": components,
        "dependencies": [{"ref": "machineid-sidecar", "dependsOn": [one["bom-ref"] for one in components]}],
    }


if __name__ == "__main__":
    if len(sys.argv) != 2:
        sys.exit(__doc__)
    made = bill()
    pathlib.Path(sys.argv[1]).write_text(json.dumps(made, indent=1) + "\n")
    print(f"{len(made['components'])} components")
