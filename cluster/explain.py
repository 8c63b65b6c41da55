"""``pagefleet explain translate``: from SPEC and ADDRESS to one machine that is asked about one access.

    lab.yaml:box               a machine of a scenario      --set and --seed as for run
    lab.yaml                   its only one
    zen4,memory=1GiB,cpus=2    keys of a machine            --set by the same keys
        |
    the member's spec, as run would build it --build, run up to --at--> Machine.explain_translation(question)

A machine that is written out gets one process with a little memory, so that there is something to ask about.
What the answer holds is the machine's to say (docs/explain.md); ``explain_text`` writes it for people.
"""

import os
import re
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Final

from cluster.allocations import with_allocations
from cluster.config import Machine, Scenario
from cluster.errors import InputError, one_line
from cluster.plan import Plan, make_plan, real_bytes_needed
from cluster.progress import say
from cluster.scenario_file import load_scenario, set_key, validate_model
from shared.constants import NS_PER_S
from shared.unit_digest import cache_home
from shared.units import format_size, parse_duration

Spec = dict[str, Any]

KERNELS: Final = "node.explain.entries"  # the unit that only this command needs
MACHINE: Final = "--machine"
KERNEL: Final = "kernel"
SUFFIXES: Final = (".yaml", ".yml")
NAME: Final = "m0"
MAX_NAMED: Final = 8  # names that an error lists
MAX_AT_NS: Final = 3600 * NS_PER_S
_NUMBER: Final = r"0[xX][0-9A-Fa-f_]{1,24}|[0-9_]{1,24}"
_ADDRESS: Final = re.compile(
    rf"(?P<base>{_NUMBER}|[A-Za-z][A-Za-z0-9-]*)(?:\+(?P<offset>{_NUMBER}))?", re.ASCII
)
_ADDRESS_END: Final = 1 << 64
# Small enough to be written within a millisecond, so that --at 1ms finds all of it mapped.
PROCESS: Final[Spec] = {
    "workload": "sequential",
    "memory": "1MiB",
    "operations": 0,
    "write_percent": 100,
    "think_ns": 1000,
}
DEFAULTS: Final[Spec] = {"name": NAME, "memory": "512MiB"}


@dataclass(frozen=True, slots=True)
class ExplainRequest:
    """What the user asked for, as it was written."""

    machine: str
    address: str
    access: str = "read"
    mode: str | None = None
    process: str | None = None
    cpu: int | None = None
    at: str | None = None
    ac: bool = False
    repeat: int = 0
    settings: tuple[str, ...] = ()
    seed: int | None = None


def explain_translate(request: ExplainRequest) -> Spec:
    """Build the machine, run it up to ``--at``, and return the explanation with the machine's name in it.

    Raises ``InputError`` for whatever is wrong with the request.
    """
    question = _question(request)
    at_ns = _read_time(request.at)
    plan, file = _plan(request)
    spec = _choose(plan, file, request.machine)
    if spec["kind"] == "host" and at_ns:
        raise InputError(f"--at {request.at}: a host runs only with its guests; leave --at out")
    _check_memory(plan, spec)
    _announce_compiling()
    from node.machine import build_machine

    try:
        machine = build_machine(with_allocations(spec))
        now_ns = 0
        # In the epochs of the scenario, as run does.
        while now_ns < at_ns and not machine.finished:
            now_ns = min(now_ns + spec["epoch_ns"], at_ns)
            machine.run_until(now_ns)
        said = machine.explain_translation(question)
    except ValueError as error:
        raise InputError(one_line(error)) from None
    said["machine"] = {"name": spec["id"], **said["machine"]}
    return said


def _announce_compiling() -> None:
    """Say on stderr that this will take a while, if no machine was ever asked before."""
    is_compiled = os.environ.get("NUMBA_DISABLE_JIT") != "1"
    if is_compiled and next(cache_home().glob(f"{KERNELS}-*"), None) is None:
        say("compiling kernels: half a minute, this once")


# --- the question ---------------------------------------------------------------------------------------


def _question(request: ExplainRequest) -> Spec:
    base, offset = _read_address(request.address)
    return {
        "base": base,
        "offset": offset,
        "access": request.access,
        "mode": request.mode,
        "process": _read_process(request.process),
        "cpu": request.cpu,
        "ac": request.ac,
        "repeat": request.repeat,
    }


def _read_address(text: str) -> tuple[int | str, int]:
    """Return base and offset of an address: numbers, or the name of a place for the machine to look up."""
    match = _ADDRESS.fullmatch(text)
    if match is None:
        hint = f"; write it as 0x{text}" if re.fullmatch("[0-9A-Fa-f]{1,16}", text) else ""
        raise InputError(
            f"ADDRESS {text[:40]!r}: not a hexadecimal (0x...) or decimal number, or a place{hint}"
        )
    base = _read_number(match["base"])
    offset = _read_number(match["offset"] or "0")
    if isinstance(base, str) and re.fullmatch("[0-9A-Fa-f]{5,16}", base):
        raise InputError(f"ADDRESS {text!r}: not a number; write it as 0x{base}")
    assert isinstance(offset, int)
    if (base if isinstance(base, int) else 0) + offset >= _ADDRESS_END:
        raise InputError(f"ADDRESS {text}: more than 64 bits")
    return base, offset


def _read_number(text: str) -> int | str:
    if text[0].isdigit() or text[0] == "_":
        try:
            return int(text, 16 if text[:2].lower() == "0x" else 10)
        except ValueError:
            raise InputError(f"ADDRESS {text}: not a number") from None
    return text.lower()


def _read_process(text: str | None) -> int | str | None:
    if text is None or text == KERNEL:
        return text
    if not re.fullmatch("[0-9]{1,9}", text, re.ASCII):
        raise InputError(f"--process {text!r}: neither a number, counted from 0, nor {KERNEL}")
    return int(text)


def _read_time(text: str | None) -> int:
    if text is None:
        return 0
    try:
        at_ns = parse_duration(text)
    except ValueError as error:
        raise InputError(f"--at: {one_line(error)}") from None
    if at_ns > MAX_AT_NS:
        raise InputError(f"--at {text}: more than an hour")
    return at_ns


# --- the machine ----------------------------------------------------------------------------------------


def _plan(request: ExplainRequest) -> tuple[Plan, str]:
    """Return the fleet that SPEC is of, and the file, or "" if there is none."""
    file = _file_of(request.machine)
    if file:
        path = Path(file)
        return make_plan(load_scenario(path, request.settings, request.seed), path), file
    return make_plan(_written_out(request), Path(MACHINE)), ""


def _file_of(text: str) -> str:
    """Return the part of SPEC that names a file, or ""."""
    before, colon, _ = text.rpartition(":")
    for candidate in (text, before if colon else ""):
        if candidate and (candidate.endswith(SUFFIXES) or Path(candidate).is_file()):
            return candidate
    return ""


def _written_out(request: ExplainRequest) -> Scenario:
    """Return a scenario of the one machine that ``zen4,memory=1GiB`` and ``--set`` describe."""
    document = {**DEFAULTS, "processes": [dict(PROCESS)]}
    places = {}
    for part in _split(request.machine):
        setting = part if "=" in part else f"hw.processor={part}"
        try:
            places[set_key(document, setting)] = f"{MACHINE} {part}"
        except InputError as error:
            raise InputError(str(error).replace("--set", MACHINE, 1)) from None
    for setting in request.settings:
        places[set_key(document, setting)] = f"--set {setting}"
    machine = validate_model(Machine, document, MACHINE, places)
    scenario: Spec = {"name": machine.name, "duration": "1s", "machines": (machine,)}
    if request.seed is not None:
        scenario["seed"] = request.seed
    return Scenario.model_validate(scenario)


def _split(text: str) -> list[str]:
    """Split at the commas that stand in no braces or brackets."""
    parts = [""]
    depth = 0
    for letter in text:
        depth += (letter in "{[") - (letter in "}]")
        if letter == "," and depth == 0:
            parts.append("")
        else:
            parts[-1] += letter
    return [part.strip() for part in parts]


def _choose(plan: Plan, file: str, text: str) -> Spec:
    """Return the spec of the member that SPEC names, or of the only one that has page tables."""
    machines = [spec for spec in plan.specs if spec["kind"] != "image"]
    _, colon, name = text.removeprefix(file).partition(":") if file else ("", "", "")
    if colon:
        found = next((spec for spec in plan.specs if spec["id"] == name), None)
        if found is None:
            raise InputError(f"{MACHINE} {text}: no machine {name!r} there; there are {_names(machines)}")
        return found
    if file and len(machines) != 1:
        raise InputError(
            f"{MACHINE} {text}: say which of its {len(machines)} machines as {file}:NAME ({_names(machines)})"
        )
    return machines[0]


def _names(specs: list[Spec]) -> str:
    names = [spec["id"] for spec in specs]
    more = [f"and {len(names) - MAX_NAMED} more"] if len(names) > MAX_NAMED else []
    return ", ".join(names[:MAX_NAMED] + more)


def _check_memory(plan: Plan, spec: Spec) -> None:
    from cluster.run import available_bytes

    needed, there = real_bytes_needed(replace(plan, specs=(spec,))), available_bytes()
    if needed > there:
        raise InputError(
            f"{spec['id']}: takes about {format_size(needed)} of real memory, {format_size(there)} is available"
        )
