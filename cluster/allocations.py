"""Allocation traces on their way from a scenario to a machine: named by the plan, made where the machine is built.

A member's spec says only which trace it is, in a few bytes: a pattern with its demand, or a file's path. The
server that builds the member makes the trace of it (``with_allocations``), from (seed, machine, process) alone, or
from a seed of the trace's own.
"""

from pathlib import Path
from typing import Any

from cluster.config_allocations import Allocations
from scenarios.alloc_events import Demand, Draws
from scenarios.alloc_patterns import generate
from shared.alloc_traces import AllocTrace, load_alloc_trace

Spec = dict[str, Any]


def allocations_spec(process: Allocations, path: Path | None) -> Spec:
    """Return a process of a member's spec; ``path`` is that of a recorded trace."""
    if path is not None:
        source: Spec = {"path": str(path)}
    else:
        source = {
            "pattern": process.allocations,
            "operations": process.operations,
            "cpus": list(process.cpus),
            "live": process.nr_live,
            "trace_seed": process.trace_seed,
        }
    return {"allocations": source, "loops": process.loops, "think_ns": process.think_ns}


def with_allocations(spec: Spec) -> Spec:
    """Return a member's spec with the traces of its processes instead of their names.

    Raises ``ValueError``, in one line, for a file that can no longer be read.
    """
    if not any("allocations" in process for process in spec.get("processes", ())):
        return spec
    return spec | {
        "processes": [
            process | {"allocations": _trace(spec, index, process["allocations"])}
            if "allocations" in process
            else process
            for index, process in enumerate(spec["processes"])
        ]
    }


def _trace(spec: Spec, index: int, source: Spec) -> AllocTrace:
    if "path" in source:
        return load_alloc_trace(Path(source["path"]))
    demand = Demand(source["operations"], tuple(source["cpus"]), source["live"])
    seed = source["trace_seed"]
    draws = Draws(spec["seed"], spec["machine"], index) if seed is None else Draws(seed, 0, 0)
    return generate(source["pattern"], demand, draws)
