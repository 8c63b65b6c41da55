"""Starting allocation traces: their tables of events and objects, their caches, and a workload for each CPU.

    trace of process 1, on CPUs 0 and 2    -> alloc_event   [ CPU 0's events | CPU 2's events ]
                                              alloc_object  [ one for each allocation ]
                                              work[1]       CPU 0's;   work[nr_processes + 0]  CPU 2's

Objects of caches come from a cache for each size, as Linux would merge them (node/kalloc/cache_list.py), named
``trace-SIZE`` in /proc/slabinfo. The caches are made before the run begins.

A trace that is replayed more than once gives back all it has left at its end, on the CPU that allocated it;
one that is replayed once leaves it allocated, to be looked at.
"""

from collections.abc import Sequence
from typing import TYPE_CHECKING, Final

import numpy as np

from node.alloc_trace import AllocStat
from node.kalloc.cache_list import create_cache
from node.spec import WorkSpec
from node.work import WorkKind
from shared.alloc_kind import AllocKind
from shared.alloc_traces import AllocTrace, check_cpus
from shared.constants import NIL, PS_PER_NS
from shared.gfp_flags import Gfp

if TYPE_CHECKING:
    from node.state import State

KNOWN_GFP: Final = sum(Gfp)  # what the frames' allocator looks at; a recording may have more


def replayed(work: WorkSpec) -> AllocTrace | None:
    """Return the trace as a workload replays it, or None if it replays none."""
    trace = work.allocations
    return trace if trace is None or work.loops == 1 else trace.closed()


def alloc_trace_lengths(works: Sequence[WorkSpec]) -> dict[str, int]:
    """Return the lengths of the tables that hold all allocation traces of a machine's processes."""
    traces = [trace for trace in map(replayed, works) if trace is not None]
    return {
        "alloc_event": sum(trace.nr_events for trace in traces),
        "alloc_object": sum(trace.nr_allocations for trace in traces),
        "alloc_stat": AllocStat.NR,
    }


def nr_work_records(works: Sequence[WorkSpec]) -> int:
    """Return how many records of ``state.work`` the processes take: one each, or one a CPU of their trace."""
    return sum(1 if work.allocations is None else len(work.allocations.cpus) for work in works)


def start_alloc_traces(state: "State", works: Sequence[WorkSpec]) -> None:
    """Fill in the tables of all allocation traces, and make their caches and workloads.

    Raises ``ValueError``, in one line, for a trace that uses a CPU which the machine lacks, or if there is no room
    for its caches.
    """
    first_event = first_object = 0
    further = len(works)  # where the workloads of CPUs after the first stand
    for index, work in enumerate(works):
        trace = replayed(work)
        if trace is None:
            continue
        check_cpus(f"processes.{index}.allocations", trace, len(state.cpu))
        order = np.argsort(trace.cpu, kind="stable")
        events = np.asarray(state.alloc_event)[first_event : first_event + trace.nr_events]
        caches = _caches(state, index, trace)
        for field, column in (
            ("position", np.arange(trace.nr_events)),
            ("number", trace.number),
            ("bytes_or_order", trace.size),
            ("gfp", trace.gfp & KNOWN_GFP),
            ("op", trace.op),
            ("kind", trace.kind),
            ("cache", caches),
        ):
            events[field] = column[order]
        at = first_event
        for position, cpu in enumerate(trace.cpus):
            nr_events = int(np.count_nonzero(trace.cpu == cpu))
            record = state.work[index if position == 0 else further]
            further += position != 0
            record.kind = WorkKind.ALLOCATIONS
            record.cpu = cpu
            record.first_run = at
            record.nr_runs = nr_events
            record.first_page = first_object
            record.nr_pages = trace.nr_allocations
            record.operations = work.loops * nr_events
            record.lap_events = trace.nr_events
            record.think_ps = work.think_ns * PS_PER_NS
            at += nr_events
        first_event = at
        first_object += trace.nr_allocations


def _caches(state: "State", index: int, trace: AllocTrace) -> np.ndarray[tuple[int], np.dtype[np.int64]]:
    """Return for each event the cache of its object, 0 for none; caches that are missing are made."""
    is_object = trace.kind == AllocKind.OBJECT
    sizes, which = np.unique(trace.size[is_object], return_inverse=True)
    made = np.zeros(len(sizes), np.int64)
    for position, size in enumerate(sizes.tolist()):
        made[position] = create_cache(state, f"trace-{size}", size)
        if made[position] == NIL:
            raise ValueError(
                f"processes.{index}.allocations: the machine has no room for a cache of {size} bytes,"
                f" the {position + 1}. of {len(sizes)}"
            )
    caches = np.zeros(trace.nr_events, np.int64)
    caches[is_object] = made[which]
    return caches
