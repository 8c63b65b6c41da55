"""Kernel threads, ksmd and kswapd: tasks with clocks of their own, beside those of the CPUs.

A thread's ``clock_ps`` is the time at which it runs next: the end of its sleep, or where its last slice
ended, or ASLEEP until somebody wakes it. The one that is furthest behind runs, until it passes the other by
the machine's quantum, so their interleaving is a function of the state alone.

# Differs from Linux: a kernel thread takes no CPU time from the workloads of the same machine.
"""

from enum import IntEnum
from typing import TYPE_CHECKING, Final

import numpy as np

from node.counters import Current, Knob
from node.joints import ksmd_slice, kswapd_slice
from shared.constants import INT64_MAX
from shared.jit import entry, kernel

if TYPE_CHECKING:
    from node.state import State

KTHREAD = np.dtype(
    [
        ("clock_ps", np.int64),  # when it runs next, or ASLEEP
        ("busy_ps", np.int64),  # how long it has run
        ("order", np.int32),  # kswapd: largest order asked for
        ("failures", np.int32),  # kswapd: runs in a row that reclaimed nothing
    ],
    align=True,
)
ASLEEP: Final = INT64_MAX


class Kthread(IntEnum):
    """The kernel threads; at equal clocks the first goes first."""

    KSWAPD = 0
    KSMD = 1


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
    else:
        ksmd_slice(state, limit_ps)
    thread.busy_ps += state.current[Current.CLOCK_PS] - begin
    state.current[Current.CLOCK_PS] = clock_before
    state.current[Current.CPU] = cpu_before
    state.current[Current.MM] = mm_before
    state.current[Current.STALL_PS] = stall_before


@entry
def run_kthreads(state: "State", until_ps: int) -> int:
    """Run ksmd and kswapd, whichever is behind first, up to ``until_ps``; return 0."""
    kswapd = state.kthread[Kthread.KSWAPD]
    ksmd = state.kthread[Kthread.KSMD]
    quantum_ps = state.knob[Knob.QUANTUM_PS]
    while min(kswapd.clock_ps, ksmd.clock_ps) < until_ps:
        which = Kthread.KSWAPD if kswapd.clock_ps <= ksmd.clock_ps else Kthread.KSMD
        other_ps = max(kswapd.clock_ps, ksmd.clock_ps)
        limit_ps = until_ps
        if other_ps < until_ps:
            limit_ps = min(until_ps, other_ps + quantum_ps)
        _run_slice(state, which, limit_ps)
    return 0
