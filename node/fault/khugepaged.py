"""khugepaged: the kernel thread that makes huge pages of small ones, a little at a time.

    each address space that ever might have had a huge page -> each area that may -> each aligned 2 MiB: collapse.py

It looks at pages_to_scan pages, sleeps scan_sleep_millisecs, and goes on where it was. Without memory for a huge page
it sleeps alloc_sleep_millisecs.

Linux: mm/khugepaged.c (khugepaged_scan_mm_slot, khugepaged_do_scan, khugepaged_wait_work).
# Differs from Linux: address spaces come in the order of their records, not of their arrival; the second failure of
an allocation in one scan does not end it; an area counts from its first fault or advice, not from mmap.
"""

from typing import TYPE_CHECKING

from node.counters import Current, Knob
from node.fault.collapse import Scan, collapse
from node.hw.cost import Cost
from node.kthread import ASLEEP, Kthread
from node.pool import Pool
from node.vm.thp import ThpMode, area_may_have_huge
from node.vm.vma import find_vma
from shared.constants import ENTRIES_PER_TABLE, HUGE_PAGE_SIZE, NIL, PS_PER_MS
from shared.jit import entry, kernel

if TYPE_CHECKING:
    from node.state import State


@kernel
def _next_mm(state: "State", behind: int) -> int:
    """Return the next address space to scan behind record ``behind``, or 0."""
    for index in range(behind + 1, state.pool[Pool.MM].mark):
        mm = state.mm[index]
        if mm.alive and mm.hugepage:
            return index
    return 0


@kernel
def _go_on_to(state: "State", mm_index: int) -> None:
    state.current[Current.KHUGEPAGED_MM] = mm_index
    state.current[Current.KHUGEPAGED_VADDR] = 0


@kernel
def _scan_next(state: "State") -> int:
    """Look at what comes next of the present address space: 2 MiB, or an area to pass over; return a Scan."""
    mm_index = state.current[Current.KHUGEPAGED_MM]
    mm = state.mm[mm_index]
    thread = state.kthread[Kthread.KHUGEPAGED]
    vaddr = state.current[Current.KHUGEPAGED_VADDR]
    thread.order += 1
    vma_index = find_vma(state, mm_index, vaddr) if mm.alive and mm.hugepage else NIL
    if vma_index == NIL:
        _go_on_to(state, _next_mm(state, mm_index))
        return Scan.FAIL
    vma = state.vma[vma_index]
    first = -(-vma.start // HUGE_PAGE_SIZE) * HUGE_PAGE_SIZE
    vaddr = max(vaddr, first)
    if not vma.anon_vma or not area_may_have_huge(state, vma_index) or vaddr + HUGE_PAGE_SIZE > vma.end:
        state.current[Current.KHUGEPAGED_VADDR] = vma.end
        return Scan.FAIL
    state.current[Current.KHUGEPAGED_VADDR] = vaddr + HUGE_PAGE_SIZE
    thread.order += ENTRIES_PER_TABLE - 1
    state.current[Current.CLOCK_PS] += state.cost[Cost.RECLAIM_SCAN]
    return collapse(state, mm_index, vaddr)


@kernel
def _sleep(state: "State", knob: int) -> None:
    thread = state.kthread[Kthread.KHUGEPAGED]
    thread.order = 0
    thread.failures = 0
    thread.clock_ps = state.current[Current.CLOCK_PS] + max(state.knob[knob], 1) * PS_PER_MS


@entry
def khugepaged_slice(state: "State", limit_ps: int) -> int:
    """Let khugepaged scan until it has done its share or its clock passes ``limit_ps``; return 0.

    In its kthread record, ``order`` is how many pages it has looked at, ``failures`` whether it began from the start.
    """
    thread = state.kthread[Kthread.KHUGEPAGED]
    if state.knob[Knob.THP_ENABLED] == ThpMode.NEVER or _next_mm(state, 0) == 0:
        _go_on_to(state, 0)
        thread.clock_ps = ASLEEP
        return 0
    while thread.order < state.knob[Knob.KHUGEPAGED_PAGES_TO_SCAN]:
        if state.current[Current.CLOCK_PS] >= limit_ps:
            thread.clock_ps = state.current[Current.CLOCK_PS]
            return 0
        if state.current[Current.KHUGEPAGED_MM] == 0:
            if thread.failures:  # all have been looked at since it woke
                break
            thread.failures = 1
            _go_on_to(state, _next_mm(state, 0))
        if _scan_next(state) == Scan.ALLOC_HUGE_PAGE_FAIL:
            _sleep(state, Knob.KHUGEPAGED_ALLOC_SLEEP_MILLISECS)
            return 0
    _sleep(state, Knob.KHUGEPAGED_SCAN_SLEEP_MILLISECS)
    return 0
