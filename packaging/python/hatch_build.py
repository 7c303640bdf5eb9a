"""Puts the programs into the wheel, and gives it the tags that they allow.

MACHINEID_PROGRAMS names the directory of the built programs; MACHINEID_SBOM, if set, their bill of materials.
"""

from __future__ import annotations

import os
import pathlib
import struct
from typing import Any

from hatchling.builders.hooks.plugin.interface import BuildHookInterface

PROGRAMS = ("machineid-run", "machineid-sidecar", "machineid", "machineid-authority")
MACHINES = {62: "x86_64", 183: "aarch64"}
PT_INTERP = 3


def examine(program: pathlib.Path) -> tuple[str, bool]:
    """The machine that an ELF program is for, and whether it runs without any library of the host."""
    with program.open("rb") as file:
        head = file.read(64)
        if head[:6] != b"\x7fELF\x02\x01":
            raise ValueError(f"{program} is no 64-bit little-endian ELF program")
        (machine,) = struct.unpack_from("<H", head, 18)
        (headers_at,) = struct.unpack_from("<Q", head, 32)
        size, count = struct.unpack_from("<HH", head, 54)
        file.seek(headers_at)
        headers = file.read(size * count)
    if machine not in MACHINES:
        raise ValueError(f"{program} is for the ELF machine {machine}; the packages are for {', '.join(MACHINES.values())}")
    kinds = [struct.unpack_from("<I", headers, size * number)[0] for number in range(count)]
    return MACHINES[machine], PT_INTERP not in kinds


def platform_tag(programs: list[pathlib.Path]) -> str:
    """The tags that these programs allow. A static program needs no C library, so it fits glibc and musl alike; any other one fits
    hosts like the one that built it, and an index does not take it."""
    examined = [examine(program) for program in programs]
    machines = {machine for machine, _ in examined}
    if len(machines) != 1:
        raise ValueError(f"the programs are for different machines: {', '.join(sorted(machines))}")
    machine = machines.pop()
    if all(static for _, static in examined):
        return f"manylinux_2_17_{machine}.manylinux2014_{machine}.musllinux_1_1_{machine}"
    return f"linux_{machine}"


class ProgramsHook(BuildHookInterface):  # type: ignore[type-arg]
    def initialize(self, version: str, build_data: dict[str, Any]) -> None:
        directory = pathlib.Path(os.environ["MACHINEID_PROGRAMS"]).resolve()
        programs = [directory / name for name in PROGRAMS]
        build_data["pure_python"] = False
        build_data["tag"] = f"py3-none-{platform_tag(programs)}"
        build_data["shared_scripts"].update({str(program): program.name for program in programs})
        if bill := os.environ.get("MACHINEID_SBOM"):
            build_data["sbom_files"].append(bill)
