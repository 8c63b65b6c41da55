"""Out of memory: nothing can be reclaimed, so a process ends.

Badness is what ending a process gives back: its pages, its swapped pages, its page tables, and
``oom_score_adj`` thousandths of all memory. The worst goes; of equals the one with the higher number, and
none with an adjustment of -1000.

A process is not torn down under its own page fault. If the task that asks for memory is the victim, it is
marked, its allocation fails, and who serves the fault ends it (VmFault.OOM). A kernel thread, which may be
in the middle of anybody's memory, calls for no victim: its allocation fails.

Linux: mm/oom_kill.c (oom_badness, select_bad_process, out_of_memory).
# Differs from Linux: the victim's memory comes back at once, and its page tables with it; a guest's process
is a machine, so its end is the guest's.
"""

from typing import TYPE_CHECKING, Final

from node.counters import Current, Knob, VmEvent
from node.joints import exit_mmap
from node.pool import Pool
from shared.constants import NIL
from shared.jit import kernel

if TYPE_CHECKING:
    from node.state import State

OOM_SCORE_ADJ_MIN: Final = -1000
OOM_SCORE_UNITS: Final = 1000


@kernel
def total_pages(state: "State") -> int:
    """Return the pages of memory and swap together."""
    total = max(state.swap_area[0].nr_slots - 1, 0)
    for zone in range(len(state.zone)):
        total += state.zone[zone].managed
    return total


@kernel
def oom_badness(state: "State", mm_index: int, nr_total: int) -> int:
    """Return the points of a process, in pages."""
    mm = state.mm[mm_index]
    return mm.nr_anon + mm.nr_swap + mm.nr_page_tables + mm.oom_score_adj * (nr_total // OOM_SCORE_UNITS)


@kernel
def select_victim(state: "State") -> int:
    """Return the address space with the most points, or NIL if none may end."""
    nr_total = total_pages(state)
    victim = NIL
    most = 0
    for index in range(1, state.pool[Pool.MM].mark):
        mm = state.mm[index]
        if not mm.alive or mm.oom_score_adj == OOM_SCORE_ADJ_MIN:
            continue
        points = oom_badness(state, index, nr_total)
        if victim == NIL or points >= most:
            victim = index
            most = points
    return victim


@kernel
def out_of_memory(state: "State") -> int:
    """End the worst process; return 1 if memory came back, 0 if the current allocation has to fail."""
    current = state.current[Current.MM]
    if current == 0 or state.mm[current].oom_victim:
        return 0
    victim = select_victim(state)
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
