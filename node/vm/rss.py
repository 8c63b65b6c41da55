"""Resident pages as the kernel reads them: a task's own share of the counts comes late.

    fault 1 .. 65        counted in the task; the address space's counters stay
    fault 66             first the 65 are added to the address space, then the fault is served
    an unmapping         adds them too, before it takes away what it found

A counter that all threads of a process shared would be fought over at every fault. So each task gathers what its own
faults bring, and what reads the counters, as the OOM killer and /proc/PID/status do, sees up to 65 pages too few.

``mm.nr_anon`` and its like are exact here; ``mm.late_rss`` is what of them is not in the counters yet.

Linux: mm/memory.c (add_mm_counter_fast, check_sync_rss_stat, sync_mm_rss, add_mm_rss_vec), include/linux/mm.h
(get_mm_rss).
# Differs from Linux: one number for all kinds of pages; each address space has one task.
"""

from typing import TYPE_CHECKING, Final

from node.counters import Current
from shared.jit import kernel

if TYPE_CHECKING:
    from node.state import State

EVENTS_BEFORE_SYNC: Final = 64  # TASK_RSS_EVENTS_THRESH


@kernel
def sync_mm_rss(state: "State", mm_index: int) -> None:
    """Bring an address space's counters up to date."""
    mm = state.mm[mm_index]
    mm.late_rss = 0
    mm.rss_events = 0


@kernel
def check_sync_rss_stat(state: "State") -> None:
    """Count a fault of the current task; after so many, bring its counters up to date."""
    current = state.current[Current.MM]
    if current == 0:
        return
    mm = state.mm[current]
    mm.rss_events += 1
    if mm.rss_events > EVENTS_BEFORE_SYNC + 1:
        sync_mm_rss(state, current)


@kernel
def note_late_page(state: "State", mm_index: int) -> None:
    """Note that a fault gave an address space a page: of the current task's own it is counted late."""
    if mm_index == state.current[Current.MM]:
        state.mm[mm_index].late_rss += 1


@kernel
def sync_before_unmapping(state: "State", mm_index: int) -> None:
    """Bring the counters up to date if it is the current task that unmaps (add_mm_rss_vec)."""
    if mm_index == state.current[Current.MM]:
        sync_mm_rss(state, mm_index)


@kernel
def get_mm_rss(state: "State", mm_index: int) -> int:
    """Return the resident pages of all kinds, as the counters have them: below 0 they count as 0 (get_mm_counter)."""
    mm = state.mm[mm_index]
    return max(mm.nr_anon + mm.nr_file + mm.nr_shmem - mm.late_rss, 0)
