"""Swapping out: what reclaim asks of swap for one page, in this order.

    add_to_swap      a slot, and a place in the swap cache
    (try_to_unmap)   its page-table entries become swap entries
    swap_writepage   the write to the device starts; the page is WRITEBACK until it is done
    remove_mapping   clean and unused, the frame leaves the swap cache: what is left is the slot

Linux: mm/swap_state.c (add_to_swap), mm/page_io.c (swap_writepage), mm/vmscan.c (__remove_mapping,
reclaim_throttle).
"""

from typing import TYPE_CHECKING, Final

from node.counters import Current, VmEvent
from node.hw.cost import Cost
from node.hw.disk import disk_io
from node.phys.page import PageFlag
from node.swap.allocate import get_swap_slot
from node.swap.cached_page import delete_from_swap_cache, free_swap, is_locked, link_to_slot
from node.swap.slots import vm_swap_full
from node.swap.writeback import begin_write, end_due_writes, wait_for_room, wait_for_writes
from shared.constants import NIL
from shared.jit import entry

if TYPE_CHECKING:
    from node.state import State

CACHE_AND_CALLER: Final = 2  # references to a page that nobody but the swap cache and reclaim holds


@entry
def add_to_swap(state: "State", pfn: int) -> int:
    """Give a frame a slot and put it into the swap cache, DIRTY; return the slot, or NIL if swap is full."""
    slot = get_swap_slot(state, pfn)
    if slot != NIL:
        link_to_slot(state, pfn, slot)
        state.page[pfn].page_flags |= PageFlag.DIRTY
    return slot


@entry
def swap_writepage(state: "State", pfn: int) -> int:
    """Start to write a frame of the swap cache to its slot; return 0.

    It is WRITEBACK afterwards; or, if no page-table entry refers to the slot, out of the swap cache and
    DIRTY. Waits while the block layer holds as many writes as it takes.
    """
    page = state.page[pfn]
    page.page_flags &= ~PageFlag.DIRTY
    if free_swap(state, pfn):
        return 0
    state.current[Current.CLOCK_PS] += state.cost[Cost.SWAP_PATH]
    wait_for_room(state)
    slot = state.swap_slot[page.private]
    slot.content = page.content
    slot.word = page.word
    begin_write(state, pfn, disk_io(state, page.private, 1, 1))
    state.vm_event[VmEvent.PSWPOUT] += 1
    return 0


@entry
def remove_mapping(state: "State", pfn: int) -> int:
    """Take a frame out of the swap cache if it is clean and nobody else uses it; return 1 if it was.

    The caller's reference is then the only one.
    """
    page = state.page[pfn]
    if not page.page_flags & PageFlag.SWAPCACHE or page.refcount != CACHE_AND_CALLER:
        return 0
    if page.page_flags & (PageFlag.DIRTY | PageFlag.WRITEBACK):
        return 0
    delete_from_swap_cache(state, pfn)
    return 1


@entry
def free_swap_if_full(state: "State", pfn: int) -> int:
    """Free the slot of a frame that is going to stay, if swap is more than half full; return 1 if it did."""
    if not vm_swap_full(state):
        return 0
    return free_swap(state, pfn)


@entry
def page_is_locked(state: "State", pfn: int) -> int:
    """Return whether the frame is still being read from the device."""
    return is_locked(state, pfn)


@entry
def end_page_writebacks(state: "State") -> int:
    """Complete all writes whose time has come by the current clock; return 0."""
    end_due_writes(state)
    return 0


@entry
def sleep_until_written(state: "State", nr_writes: int, timeout_ps: int) -> int:
    """Let the current task sleep until ``nr_writes`` more writes are done, or for ``timeout_ps``; 0."""
    wait_for_writes(state, nr_writes, timeout_ps)
    return 0
