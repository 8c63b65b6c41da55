"""ksmd's list of address spaces, and its place in it.

    first_mm -> A -> B -> C -> (head)        scan.mm is where ksmd is; 0, the head, between two full scans

A newcomer goes in just behind the cursor, so that it is scanned last; one that exits while ksmd holds items
of it moves right before the cursor's next step, so that they are soon freed.

Linux: mm/ksm.c (__ksm_enter, __ksm_exit).
"""

from typing import TYPE_CHECKING, Final

from node.counters import Current, Knob, KsmRun
from node.kthread import ASLEEP, Kthread
from node.vm.mm import drop_mm
from shared.constants import NIL
from shared.jit import entry, kernel

if TYPE_CHECKING:
    from node.state import State

HEAD: Final = 0


@kernel
def insert_mm(state: "State", mm_index: int, before: int) -> None:
    """Put the address space on the list in front of ``before`` (HEAD: at the end)."""
    scan = state.ksm_scan[0]
    mm = state.mm[mm_index]
    previous = scan.last_mm if before == HEAD else state.mm[before].ksm_prev
    mm.ksm_prev = previous
    mm.ksm_next = NIL if before == HEAD else before
    if previous == NIL:
        scan.first_mm = mm_index
    else:
        state.mm[previous].ksm_next = mm_index
    if before == HEAD:
        scan.last_mm = mm_index
    else:
        state.mm[before].ksm_prev = mm_index


@kernel
def unlink_mm(state: "State", mm_index: int) -> None:
    """Take the address space off the list, but keep it mergeable."""
    scan = state.ksm_scan[0]
    mm = state.mm[mm_index]
    if mm.ksm_prev == NIL:
        scan.first_mm = mm.ksm_next
    else:
        state.mm[mm.ksm_prev].ksm_next = mm.ksm_next
    if mm.ksm_next == NIL:
        scan.last_mm = mm.ksm_prev
    else:
        state.mm[mm.ksm_next].ksm_prev = mm.ksm_prev


@kernel
def next_mm(state: "State", mm_index: int) -> int:
    """Return the address space behind ``mm_index`` on the list, from HEAD the first, at the end HEAD."""
    following = state.ksm_scan[0].first_mm if mm_index == HEAD else state.mm[mm_index].ksm_next
    return HEAD if following == NIL else following


@kernel
def remove_mm(state: "State", mm_index: int) -> None:
    """Forget the address space, which has no items any more."""
    unlink_mm(state, mm_index)
    state.mm[mm_index].mergeable = 0
    drop_mm(state, mm_index)


@entry
def ksm_enter(state: "State", mm_index: int) -> int:
    """Put an address space with its first mergeable area on ksmd's list; return 0."""
    scan = state.ksm_scan[0]
    run = state.knob[Knob.KSM_RUN]
    if scan.first_mm == NIL and run == KsmRun.MERGE and state.kthread[Kthread.KSMD].clock_ps == ASLEEP:
        state.kthread[Kthread.KSMD].clock_ps = state.current[Current.CLOCK_PS]
    # While merges are being undone it must not be missed: at the end, ahead of the cursor.
    insert_mm(state, mm_index, HEAD if run == KsmRun.UNMERGE else scan.mm)
    state.mm[mm_index].mergeable = 1
    return 0


@entry
def ksm_exit(state: "State", mm_index: int) -> int:
    """Take a process that ends off ksmd's list, or leave that to ksmd if it has items of it; return 0."""
    scan = state.ksm_scan[0]
    mm = state.mm[mm_index]
    if not mm.mergeable or scan.mm == mm_index:
        return 0
    unlink_mm(state, mm_index)
    if mm.ksm_rmap_list == NIL:
        mm.mergeable = 0  # the record itself is dropped at the end of exit
    else:
        insert_mm(state, mm_index, next_mm(state, scan.mm))
    return 0
