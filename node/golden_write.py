"""Our counters of a workload in the form of a recording, so that a check can read them.

    key                  the counters that the recording watched, as far as they are compared; bare numbers: one run
    delta_from_previous  every counter that changed
    level                gauges that are not 0, and all that are KSM's, zswap's, a file's or a process's; at boot, all

The workload is what was run: of a recording that is compared in part, the commands up to its end, loops unrolled and
without what was passed over, so that what is written here needs no list of parts.
"""

from collections.abc import Iterable
from typing import TYPE_CHECKING, Any, Final

from node.golden_file import FORMAT, Golden
from node.golden_kernel import SLAB_GROWTH, slab_growth
from node.golden_layout import PER_CPU_PAGES, recorded_start
from node.golden_memory import recorded_zones
from node.phys.zone import ZONE_NAMES, ZoneId
from node.program.text import Command

if TYPE_CHECKING:
    from node.state import State

DELTA: Final = " (delta)"
KERNEL: Final = "pagefleet's model of Linux version 6.1."
ALWAYS: Final = ("ksm.", "zswap.", "mincore.", "proc.")
EVENTS: Final = (
    "vmstat.nr_vmscan",
    "vmstat.nr_tlb",
    "vmstat.nr_foll_pin",
)  # which count, though they begin so
# What a machine is built from.
INPUTS: Final = (
    "cpus",
    "swap",
    "swap_rotational",
    "thp_enabled",
    "thp_defrag",
    "lru_gen_enabled",
    "fault_around_bytes",
    "sysctl_vm",
)

Values = dict[str, int]


def value_of(counter: str, values: Values, previous: Values) -> int | None:
    """Return a counter, or its change since the previous snapshot if it is called so; None: there is none."""
    if not counter.endswith(DELTA):
        return values.get(counter)
    name = counter.removesuffix(DELTA)
    # A process that was just made had no counters before.
    return values[name] - previous.get(name, 0) if name in values else None


def written_golden(golden: Golden, state: "State", snapshots: list[tuple[str, Values]]) -> Golden:
    """Return our counters of a recording's workload as a recording."""
    written: Golden = {
        name: golden[name]
        for name in ("name", "group", "description", "header", "workload")
        if name in golden
    }
    written |= {"runs": 1, "format": FORMAT, "machine": _machine(golden, state)}
    written["snapshots"] = []
    previous: Values = {}
    for recorded, (name, values) in zip(golden["snapshots"], snapshots, strict=False):
        written["snapshots"].append(_snapshot(recorded, name, values, previous))
        previous = values
    watched = {counter for snapshot in written["snapshots"] for counter in snapshot.get("key", ())}
    return written | {"deterministic_watched": sorted(watched), "noisy_watched": {}}


def _snapshot(recorded: dict[str, Any], name: str, values: Values, previous: Values) -> dict[str, Any]:
    snapshot: dict[str, Any] = {"name": name}
    if "key" in recorded:
        pairs = ((counter, value_of(counter, values, previous)) for counter in recorded["key"])
        snapshot["key"] = {counter: value for counter, value in pairs if value is not None}
    changes = {counter: value - previous.get(counter, 0) for counter, value in values.items()}
    first = not previous
    snapshot["delta_from_previous"] = (
        {} if first else {name: by for name, by in sorted(changes.items()) if by}
    )
    snapshot["level"] = {
        counter: value
        for counter, value in sorted(values.items())
        if (value if first else _is_level(counter, value))
    }
    return snapshot


def _is_level(counter: str, value: int) -> bool:
    if counter.startswith(ALWAYS):
        return True
    if counter.startswith("vmstat."):
        return value != 0 and counter.startswith("vmstat.nr_") and not counter.startswith(EVENTS)
    return value != 0


def _machine(golden: Golden, state: "State") -> dict[str, Any]:
    recorded = golden.get("machine", {})
    free = recorded_zones(golden)
    zones = [
        {
            "zone": ZONE_NAMES[kind],
            "min": int(state.zone[kind].min_wmark),
            "low": int(state.zone[kind].low),
            "high": int(state.zone[kind].high),
            "managed": int(state.zone[kind].managed),
            **({"pages_free": free[ZoneId(kind)].free} if kind in free else {}),
        }
        for kind in ZoneId
        if state.zone[kind].managed
    ]
    inputs = {name: recorded[name] for name in INPUTS if name in recorded}
    start = recorded_start(golden)
    if start is not None:
        inputs |= {"initial_pagetypeinfo": list(start.pagetypeinfo), PER_CPU_PAGES: start.nr_on_lists}
    return {"kernel": KERNEL, **inputs, SLAB_GROWTH: slab_growth(golden), "zones": zones}


def workload_of(commands: Iterable[Command]) -> list[str]:
    """Return commands as the lines of a workload."""
    lines = []
    for command in commands:
        who = f"{command.process}{'&' if command.background else ''}: " if command.process else ""
        options = (f"{name}={text}" for name, text in command.options.items())
        lines.append(who + " ".join((command.verb, *command.words, *options)))
    return lines
