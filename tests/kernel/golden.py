"""Runs of a workload, merged into a golden: a bare number was the same in all, ``[min, median, max]`` varied.

The format is that of tests/golden/README.md, plus ``harness``: what the driver itself costs
(node/golden_harness.py), measured on the same kernel.
"""

import re
from collections.abc import Mapping, Sequence
from fnmatch import fnmatchcase
from statistics import median_low
from typing import Any, Final

from tests.kernel.errors import BootError
from tests.kernel.recording import Run, Snapshot, meminfo
from tests.kernel.script import Workload

FORMAT: Final = "a bare number = identical in all runs; [min, median, max] = it varied"
DELTA: Final = " (delta)"
MAX_RANGES: Final = 200
# vmstat's counts of events; all others of its names begin with nr_.
EVENTS: Final = frozenset({"vmstat.nr_dirtied", "vmstat.nr_written", "ksm.full_scans"})
# Groups whose zeroes a snapshot's level lists too.
ALL_LEVELS: Final = ("ksm.", "mincore.", "proc.")
SETTINGS: Final = ("ksm.sleep_millisecs", "ksm.run")

Value = int | list[int]


def merge(values: Sequence[int]) -> Value:
    """Return the one value that all runs have, or [min, median, max]."""
    if len(set(values)) == 1:
        return values[0]
    return [min(values), median_low(values), max(values)]


def is_event(name: str) -> bool:
    """Return whether a counter counts events, so that its change is what matters."""
    if name in EVENTS:
        return True
    if name.startswith("proc."):
        return name.endswith((".minflt", ".majflt"))
    return name.startswith("blk.") or (name.startswith("vmstat.") and not name.startswith("vmstat.nr_"))


def is_watched(name: str, watch: Sequence[str]) -> bool:
    """Return whether a pattern of the header's watch: line matches; one without a group's name is vmstat's."""
    return any(
        fnmatchcase(name, pattern if "." in pattern else f"vmstat.{pattern}")
        or fnmatchcase(name, f"proc.{pattern}")
        for pattern in watch
    )


def make_golden(
    workload: Workload, runs: Sequence[Run], wall_s: Sequence[float], harness: Mapping[str, int]
) -> dict[str, Any]:
    """Return the golden of a workload's runs. Raises ``BootError`` if they did not take the same snapshots."""
    names = [[snapshot.name for snapshot in run.snapshots] for run in runs]
    if any(some != ["boot", *workload.snapshots] for some in names):
        raise BootError("the runs did not take the workload's snapshots")
    snapshots = [
        _merged(
            workload,
            [run.snapshots[i] for run in runs],
            [run.snapshots[i - 1] for run in runs] if i else None,
        )
        for i in range(len(names[0]))
    ]
    events = [run.deaths for run in runs]
    return {
        "name": workload.name,
        "group": workload.header.get("group", ""),
        "description": workload.header.get("desc", ""),
        "split": workload.header.get("split", "own"),
        "note": "",
        "runs": len(runs),
        "wall_s": [round(seconds, 1) for seconds in wall_s],
        "header": {key: value for key, value in workload.header.items() if key not in ("desc", "watch")},
        "workload": list(workload.lines),
        "machine": machine(runs[0], workload),
        "harness": dict(harness),
        "format": FORMAT,
        **_summary(snapshots),
        "events_run1": events[0],
        "events_same_in_all_runs": all(some == events[0] for some in events),
        "snapshots": snapshots,
    }


def _merged(workload: Workload, now: list[Snapshot], before: list[Snapshot] | None) -> dict[str, Any]:
    present = set.intersection(*(set(snapshot.values) for snapshot in now))
    level = {name: merge([snapshot.values[name] for snapshot in now]) for name in sorted(present)}
    result: dict[str, Any] = {"name": now[0].name, "t_ms": merge([snapshot.t_ms for snapshot in now])}
    changes: dict[str, Value] = {}
    if before is not None:
        changes = {
            name: merge([a.values[name] - b.values.get(name, 0) for a, b in zip(now, before, strict=True)])
            for name in sorted(present)
        }
        result["key"] = dict(
            sorted(
                (f"{name}{DELTA}", changes[name]) if is_event(name) else (name, level[name])
                for name in present
                if is_watched(name, workload.watch)
            )
        )
    result["delta_from_previous"] = {name: value for name, value in changes.items() if value != 0}
    result["level"] = {
        name: value
        for name, value in level.items()
        if (before is None or not is_event(name) or name.startswith(ALL_LEVELS))
        and (value != 0 or name.startswith(ALL_LEVELS))
    }
    if now[0].resident:
        result["mincore"] = {
            path: {
                "resident": merge([sum(length for _, length in some.resident[path]) for some in now]),
                "same_bitmap_in_all_runs": all(some.resident[path] == ranges for some in now),
                "runs_start_len_of_run1": ranges[:MAX_RANGES],
            }
            for path, ranges in now[0].resident.items()
        }
    return result


def _summary(snapshots: list[dict[str, Any]]) -> dict[str, Any]:
    noisy: dict[str, dict[str, Any]] = {}
    names: set[str] = set()
    for snapshot in snapshots:
        for name, value in snapshot.get("key", {}).items():
            names.add(name)
            if isinstance(value, list) and value[2] - value[0] > noisy.get(name, {}).get("spread", 0):
                spread = value[2] - value[0]
                relative = round(spread / max(abs(value[1]), 1), 4)
                noisy[name] = {
                    "at": snapshot["name"],
                    "min_med_max": value,
                    "spread": spread,
                    "rel": relative,
                }
    return {"deterministic_watched": sorted(names - set(noisy)), "noisy_watched": dict(sorted(noisy.items()))}


# --- the machine ----------------------------------------------------------------------------------------


def machine(run: Run, workload: Workload) -> dict[str, Any]:
    """Return the machine that the first run was made on, as the goldens describe it."""
    found = run.machine

    def text(folder: str, name: str) -> str:
        return "\n".join(found.get(("machine", folder, name), []))

    def folder(kind: str) -> dict[str, str]:
        return {key[1]: "\n".join(lines) for key, lines in sorted(found.items()) if key[0] == kind}

    swap_disk = "vdb" if workload.has_data else "vda"
    thp = folder("thp")
    return {
        "kernel": text("/proc", "version"),
        "cmdline": text("/proc", "cmdline"),
        "qemu_memory": workload.header["mem"],
        "cpus": int(workload.header["smp"]),
        "cpu_model": f"{workload.header['cpu']} (TCG)",
        "swap": workload.header["swap"],
        "zswap": workload.header["zswap"],
        "thp_enabled": thp.get("enabled", ""),
        "thp_defrag": thp.get("defrag", ""),
        "lru_gen_enabled": text("/sys/kernel/mm/lru_gen", "enabled"),
        "read_ahead_kb": text("/sys/block/vda/queue", "read_ahead_kb") if workload.has_data else "",
        "swap_rotational": text(f"/sys/block/{swap_disk}/queue", "rotational") if workload.swap_bytes else "",
        "fault_around_bytes": text("/sys/kernel/debug", "fault_around_bytes"),
        "zswap_parameters": folder("zswap_parameters"),
        "khugepaged": folder("khugepaged"),
        "sysctl_vm": {"stat_refresh": "", **folder("sysctl")},
        "zones": zones(found.get(("machine", "/proc", "zoneinfo"), [])),
        "initial_buddyinfo": found.get(("machine", "/proc", "buddyinfo"), []),
        "initial_pagetypeinfo": found.get(("machine", "/proc", "pagetypeinfo"), []),
        "initial_meminfo_kb": meminfo(found.get(("machine", "/proc", "meminfo"), [])),
    }


ZONE_FIELDS: Final = {
    "pages free": "pages_free",
    "boost": "boost",
    "min": "min",
    "low": "low",
    "high": "high",
    "spanned": "spanned",
    "present": "present",
    "managed": "managed",
    "high:": "pcp_high",
    "batch:": "pcp_batch",
    "start_pfn:": "start_pfn",
}


def zones(zoneinfo: Sequence[str]) -> list[dict[str, Any]]:
    """Return watermarks, sizes and per-CPU list sizes of each zone that has pages, from /proc/zoneinfo."""
    result: list[dict[str, Any]] = []
    for line in zoneinfo:
        if match := re.match(r"Node \d+, zone\s+(\S+)", line):
            result.append({"zone": match[1]})
        elif match := re.match(r"\s+protection: \((.*)\)", line):
            result[-1]["protection"] = [int(word) for word in match[1].split(",")]
        elif match := re.match(r"\s+(pages free|[a-z_]+:?)\s+(\d+)$", line):
            name = ZONE_FIELDS.get(match[1])
            if name and name not in result[-1]:
                result[-1][name] = int(match[2])
    return [zone for zone in result if zone.get("managed")]
