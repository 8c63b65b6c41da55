"""The machine that a recording describes: its spec, what of it is not modelled, and how well its zones agree.

What a recording says of a sysctl goes to the spec's field of the same name, ``page-cluster`` to ``page_cluster``: all
that a spec has are taken. One that the workload's header sets and that has no field is not modelled.

Page-table isolation: Linux turns it on where the CPU is vulnerable to Meltdown (arch/x86/kernel/cpu/common.c,
cpu_set_bug_bits), which no AMD CPU is, and QEMU's ``qemu64`` is one, without PCIDs (QEMU, target/i386/cpu.c). The
command line overrides both: pti=on, nopcid (arch/x86/mm/pti.c, pti_check_boottime_disable).
"""

import re
from dataclasses import fields
from typing import TYPE_CHECKING, Any, Final

from node.golden_file import Golden
from node.phys.zone import ZONE_NAMES, ZoneId
from node.program.text import parse_number
from node.spec import MachineSpec, SwapSpec

if TYPE_CHECKING:
    from node.state import State

DEFAULT_MEMORY: Final = "512M"
KERNEL: Final = "Linux version 6.1."
# CPUs of QEMU: whether they are vulnerable to Meltdown.
MELTDOWN: Final = {"qemu64": False}
CMDLINE: Final = {"pti=on": True, "pti=off": False, "nopti": False}  # and nopcid
# What a header may set besides sysctls, with Linux's default, which is as good as not set.
SETTINGS: Final = {"thp": "never", "zswap": "off", "fault_around": "65536", "ra_kb": "128"}
FIELD_OF: Final = {"thp": "thp_enabled", "fault_around": "fault_around_bytes"}  # else the setting's own name
ZONE_TOLERANCE: Final = (
    50  # one part in so many, 2 %, or a page: how much kernels of one version keep differs
)
_CHOSEN: Final = re.compile(r"\[([a-z+]+)\]")


def machine_of(golden: Golden) -> MachineSpec:
    """Return the machine that a recording describes, as far as it is modelled.

    Raises ValueError, in one line, for a setting that is not what it should be.
    """
    header = golden.get("header", {})
    machine = golden.get("machine", {})
    swap = str(header.get("swap", "none"))
    return MachineSpec(
        memory_bytes=_setting(header, "mem", DEFAULT_MEMORY),
        cpus=_setting(header, "smp", "1"),
        swap=_disk(swap, header, machine) if swap.startswith("disk:") else None,
        **_sysctls(golden),
        **_settings(golden),
    ).with_hw(pti=_has_pti(header), pcid=False)


def _setting(header: dict[str, Any], name: str, default: str) -> int:
    try:
        return parse_number(str(header.get(name, default)))
    except ValueError as error:
        raise ValueError(f"header.{name}: {error}") from None


def _disk(swap: str, header: dict[str, Any], machine: dict[str, Any]) -> SwapSpec:
    size = _setting({"swap": swap.partition(":")[2]}, "swap", "")
    rotational = machine.get("swap_rotational") or header.get("rotational", "1")
    return SwapSpec(size, "ssd" if str(rotational) == "0" else "hdd")


def _has_pti(header: dict[str, Any]) -> bool:
    pti = MELTDOWN.get(header.get("cpu", "qemu64"), False)
    for word in str(header.get("cmdline", "")).split():
        pti = CMDLINE.get(word, pti)
    return pti


def _asked(header: dict[str, Any]) -> dict[str, str]:
    """Return the sysctls that the workload's header sets, without "vm."."""
    pairs = (word.partition("=") for word in str(header.get("sysctl", "")).split())
    return {name.removeprefix("vm."): value for name, _, value in pairs}


def _sysctls(golden: Golden) -> dict[str, Any]:
    given = golden.get("machine", {}).get("sysctl_vm", {}) | _asked(golden.get("header", {}))
    known = {field.name: field.default for field in fields(MachineSpec)}
    taken: dict[str, Any] = {}
    for name, text in given.items():
        own = name.replace("-", "_")
        if own not in known:
            continue
        try:
            numbers = tuple(int(word) for word in str(text).split())
        except ValueError:
            raise ValueError(f"machine.sysctl_vm.{name}: {text!r} is not a number") from None
        if isinstance(known[own], tuple):
            taken[own] = numbers
        elif len(numbers) == 1:
            taken[own] = numbers[0]
        else:
            raise ValueError(f"machine.sysctl_vm.{name}: {text!r} is not one number")
    return taken


def _settings(golden: Golden) -> dict[str, Any]:
    """Return what is no sysctl and has a field."""
    machine = golden.get("machine", {})
    given: dict[str, Any] = {}
    for name in ("thp_enabled", "thp_defrag"):
        if chosen := _CHOSEN.search(str(machine.get(name, ""))):
            given[name] = chosen[1]
    if "fault_around_bytes" in machine:
        given["fault_around_bytes"] = int(machine["fault_around_bytes"])
    known = {field.name for field in fields(MachineSpec)}
    return {name: value for name, value in given.items() if name in known}


def unmodelled_settings(golden: Golden) -> list[str]:
    """Return the names of what the recorded machine had and ours cannot have."""
    header = golden.get("header", {})
    known = {field.name for field in fields(MachineSpec)}
    names = []
    swap = str(header.get("swap", "none")).partition(":")[0]
    if swap not in ("none", "disk"):
        names.append(f"swap {swap}")
    for name, default in SETTINGS.items():
        value = str(header.get(name, default))
        if value != default and FIELD_OF.get(name, name) not in known:
            names.append(f"{name} {value}")
    names += [f"sysctl vm.{name}" for name in _asked(header) if name.replace("-", "_") not in known]
    words = str(header.get("cmdline", "")).split()
    names += [f"cmdline {word}" for word in words if word not in CMDLINE and word != "nopcid"]
    if header.get("cpu", "qemu64") not in MELTDOWN and not any(word in CMDLINE for word in words):
        names.append(f"cpu {header['cpu']}")
    if int(str(golden.get("machine", {}).get("lru_gen_enabled", "0")), 0):
        names.append("lru_gen")
    return names


def warnings_of(golden: Golden, state: "State") -> list[str]:
    """Return in what the built machine differs from the recorded one by more than kernels of a version do."""
    machine = golden.get("machine", {})
    kernel = str(machine.get("kernel", KERNEL))
    warnings = [] if KERNEL in kernel else [f"recorded on {kernel}; what is modelled is {KERNEL}x"]
    recorded = {zone["zone"]: zone for zone in machine.get("zones", ()) if zone.get("managed")}
    for kind in ZoneId:
        zone = state.zone[kind]
        ours = {
            "managed": int(zone.managed),
            "min": int(zone.min_wmark),
            "low": int(zone.low),
            "high": int(zone.high),
        }
        theirs = recorded.pop(ZONE_NAMES[kind], None)
        if theirs is None:
            if ours["managed"] and recorded:
                warnings.append(f"zone {ZONE_NAMES[kind]}: not recorded, ours has {ours['managed']} pages")
            continue
        warnings += [
            f"zone {ZONE_NAMES[kind]}: {name} {theirs[name]} pages, ours {value}"
            for name, value in ours.items()
            if name in theirs and abs(value - theirs[name]) > max(theirs[name] // ZONE_TOLERANCE, 1)
        ]
    warnings += [f"zone {name}: recorded, ours has no such zone" for name in recorded]
    return warnings
