"""Out of memory: nothing can be reclaimed, so a process ends.

    badness   resident pages + swapped pages + page tables, and oom_score_adj thousandths of all memory and swap
    victim    the worst; of equals the one that came last; none with an adjustment of -1000

        score of /proc/PID/oom_score:   0 ... 666 ... 1333        at an adjustment of -1000 ... 0 ... 1000

A process is not torn down under its own page fault. If the task that asks for memory is the victim, it is
marked, its allocation fails, and who serves the fault ends it (VmFault.OOM). While a victim is on its way out,
no other is chosen. A kernel thread, which may be in the middle of anybody's memory, calls for no victim: its
allocation fails.

``vm.oom_kill_allocating_task`` lets the task that asks be the victim without a look at the others; ``vm.panic_on_oom``
ends the machine instead.

Linux: mm/oom_kill.c (oom_badness, select_bad_process, oom_evaluate_task, __oom_kill_process, out_of_memory),
fs/proc/base.c (proc_oom_score).
# Differs from Linux: the victim's memory comes back at once, and its page tables with it: it is as if it ran to its
end before the next allocation, so the reaper, which waits two seconds for that, never has to; a guest's process is a
machine, so its end is the guest's. With nobody to kill, the allocation fails where Linux panics.
"""

from typing import TYPE_CHECKING, Final

from node.counters import Current, Knob, Panic, VmEvent
from node.joints import exit_mmap
from node.pool import Pool
from node.vm.rss import get_mm_rss
from shared.constants import INT64_MAX, NIL
from shared.jit import bug_on, entry, kernel

if TYPE_CHECKING:
    from node.state import State

OOM_SCORE_ADJ_MIN: Final = -1000
OOM_SCORE_UNITS: Final = 1000
UNKILLABLE: Final = -INT64_MAX  # points of a process that may not end


@kernel
def total_pages(state: "State") -> int:
    """Return the pages of memory and swap together."""
    total = max(state.swap_area[0].nr_slots - 1, 0)
    for zone in range(len(state.zone)):
        total += state.zone[zone].managed
    return total


@kernel
def oom_badness(state: "State", mm_index: int, nr_total: int) -> int:
    """Return the points of a process, in pages, or UNKILLABLE."""
    mm = state.mm[mm_index]
    if not mm.alive or mm.oom_score_adj == OOM_SCORE_ADJ_MIN:
        return UNKILLABLE
    adjusted = mm.oom_score_adj * (nr_total // OOM_SCORE_UNITS)
    return get_mm_rss(state, mm_index) + mm.nr_swap + mm.nr_page_tables + adjusted


@entry
def oom_score(state: "State", mm_index: int) -> int:
    """Return what /proc/PID/oom_score shows of a process; 0 if it may not end (proc_oom_score)."""
    nr_total = total_pages(state)
    points = oom_badness(state, mm_index, nr_total)
    if points == UNKILLABLE:
        return 0
    # C divides towards zero: points may be negative.
    thousandths = abs(points) * OOM_SCORE_UNITS // nr_total
    if points < 0:
        thousandths = -thousandths
    return (OOM_SCORE_UNITS + thousandths) * 2 // 3


@kernel
def select_victim(state: "State") -> int:
    """Return the address space with the most points, or NIL if none may end, or one is about to."""
    nr_total = total_pages(state)
    victim = NIL
    most = UNKILLABLE
    for index in range(1, state.pool[Pool.MM].mark):
        mm = state.mm[index]
        if not mm.alive:
            continue
        if mm.oom_victim:
            return NIL
        points = oom_badness(state, index, nr_total)
        if points == UNKILLABLE or points < most:
            continue
        # Linux looks at the oldest first: of equals it keeps the last. A higher ctx_id is a younger process.
        if victim == NIL or points > most or mm.ctx_id > state.mm[victim].ctx_id:
            victim = index
            most = points
    return victim


@kernel
def _choose(state: "State", current: int) -> int:
    """Return who ends: the worst, or the task that asks if the sysctl says so; or NIL."""
    if state.knob[Knob.OOM_KILL_ALLOCATING_TASK] and state.mm[current].oom_score_adj != OOM_SCORE_ADJ_MIN:
        return current
    return select_victim(state)


@kernel
def out_of_memory(state: "State") -> int:
    """End the worst process; return 1 if memory came back, 0 if the current allocation has to fail."""
    current = state.current[Current.MM]
    if current == 0 or state.mm[current].oom_victim:
        return 0
    bug_on(state, state.knob[Knob.PANIC_ON_OOM] != 0, Panic.OUT_OF_MEMORY, current)
    victim = _choose(state, current)
    if victim == NIL:
        return 0
    mm = state.mm[victim]
    state.vm_event[VmEvent.OOM_KILL] += 1
    if state.knob[Knob.IS_HOST] and mm.guest != NIL:
        state.guest[mm.guest].killed = 1
    mm.oom_victim = 1
    if victim == current:
        return 0
    exit_mmap(state, victim)
    return 1
