"""Kernel threads, ksmd, kswapd, kcompactd, khugepaged, SLAB's reaper: tasks with clocks of their own, not the CPUs'.

A thread's ``clock_ps`` is the time at which it runs next: the end of its sleep, or where its last slice
ended, or ASLEEP until somebody wakes it. The one that is furthest behind runs, until it passes the next by
the machine's quantum, so their interleaving is a function of the state alone.

# Differs from Linux: a kernel thread takes no CPU time from the workloads of the same machine.
"""

from enum import IntEnum
from typing import TYPE_CHECKING, Final

import numpy as np

from node.counters import Current, Knob
from node.joints import kcompactd_slice, khugepaged_slice, ksmd_slice, kswapd_slice, slab_reap_slice
from shared.constants import INT64_MAX, NIL
from shared.jit import entry, kernel

if TYPE_CHECKING:
    from node.state import State

KTHREAD = np.dtype(
    [
        ("clock_ps", np.int64),  # when it runs next, or ASLEEP
        ("busy_ps", np.int64),  # how long it has run
        ("order", np.int32),  # kswapd, kcompactd: largest order asked for
        ("highest_zone", np.int32),  # kswapd: highest ZoneId asked for since it last began
        ("failures", np.int32),  # kswapd: runs in a row that reclaimed nothing
    ],
    align=True,
)
ASLEEP: Final = INT64_MAX


class Kthread(IntEnum):
    """The kernel threads; at equal clocks the first goes first."""

    KSWAPD = 0
    KSMD = 1
    SLAB_REAP = 2  # the work that each CPU's events thread does for node/kalloc/slab_reap.py
    KCOMPACTD = 3
    KHUGEPAGED = 4


NR_KTHREADS: Final = len(Kthread)


@kernel
def _run_slice(state: "State", which: int, limit_ps: int) -> None:
    clock_before = state.current[Current.CLOCK_PS]
    cpu_before = state.current[Current.CPU]
    mm_before = state.current[Current.MM]
    stall_before = state.current[Current.STALL_PS]
    thread = state.kthread[which]
    begin = thread.clock_ps
    state.current[Current.CLOCK_PS] = begin
    state.current[Current.CPU] = 0
    state.current[Current.MM] = 0
    if which == Kthread.KSWAPD:
        kswapd_slice(state, limit_ps)
    elif which == Kthread.KSMD:
        ksmd_slice(state, limit_ps)
    elif which == Kthread.SLAB_REAP:
        slab_reap_slice(state, limit_ps)
    elif which == Kthread.KCOMPACTD:
        kcompactd_slice(state, limit_ps)
    else:
        khugepaged_slice(state, limit_ps)
    thread.busy_ps += state.current[Current.CLOCK_PS] - begin
    state.current[Current.CLOCK_PS] = clock_before
    state.current[Current.CPU] = cpu_before
    state.current[Current.MM] = mm_before
    state.current[Current.STALL_PS] = stall_before


@kernel
def kthread_clock(state: "State", but: int) -> int:
    """Return the smallest clock of all kernel threads but one; ``but`` may be NIL."""
    clock_ps = ASLEEP
    for which in range(NR_KTHREADS):
        if which != but:
            clock_ps = min(clock_ps, state.kthread[which].clock_ps)
    return clock_ps


@kernel
def _furthest_behind(state: "State") -> int:
    found = 0
    for which in range(1, NR_KTHREADS):
        if state.kthread[which].clock_ps < state.kthread[found].clock_ps:
            found = which
    return found


@entry
def run_kthreads(state: "State", until_ps: int) -> int:
    """Run the kernel threads, whichever is behind first, up to ``until_ps``; return 0."""
    quantum_ps = state.knob[Knob.QUANTUM_PS]
    while kthread_clock(state, NIL) < until_ps:
        which = _furthest_behind(state)
        other_ps = kthread_clock(state, which)
        limit_ps = until_ps
        if other_ps < until_ps:
            limit_ps = min(until_ps, other_ps + quantum_ps)
        _run_slice(state, which, limit_ps)
    return 0
