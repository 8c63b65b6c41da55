"""The swap cache: the frames that hold the page of a slot.

    slot.cached_pfn = pfn   <-->   page.private = slot, PageFlag.SWAPCACHE, one reference

A page enters on its way out, before its page-table entries are replaced, and on its way in, when it is read.
It leaves when its frame is freed, or when nothing refers to its slot any more and the slot is worth more
than a clean copy on the device. While it is in and DIRTY, the frame differs from the slot.

Linux: mm/swap_state.c (add_to_swap_cache, delete_from_swap_cache), mm/swapfile.c (folio_free_swap).
"""

from typing import TYPE_CHECKING

from node.counters import Current, VmStat
from node.phys.page import PageFlag
from node.swap.slots import free_slot
from node.swap.writeback import end_due_writes
from node.vm.put_page import put_page
from shared.jit import kernel

if TYPE_CHECKING:
    from node.state import State


@kernel
def link_to_slot(state: "State", pfn: int, slot: int) -> None:
    """Put a frame into the swap cache as the page of ``slot``, which is handed out already."""
    page = state.page[pfn]
    page.page_flags |= PageFlag.SWAPCACHE
    page.private = slot
    page.refcount += 1
    state.swap_slot[slot].cached_pfn = pfn
    state.vm_stat[VmStat.NR_SWAPCACHED] += 1


@kernel
def delete_from_swap_cache(state: "State", pfn: int) -> None:
    """Take a frame out of the swap cache; the caller holds a reference. An unused slot becomes free."""
    page = state.page[pfn]
    slot = page.private
    page.page_flags &= ~PageFlag.SWAPCACHE
    page.private = 0
    page.refcount -= 1
    state.vm_stat[VmStat.NR_SWAPCACHED] -= 1
    state.swap_slot[slot].cached_pfn = 0
    if state.swap_slot[slot].nr_users == 0:
        free_slot(state, slot)


@kernel
def is_locked(state: "State", pfn: int) -> int:
    """Return whether the frame is still being read from the device."""
    page = state.page[pfn]
    if not page.page_flags & PageFlag.SWAPCACHE:
        return 0
    return 1 if state.swap_slot[page.private].ready_ps > state.current[Current.CLOCK_PS] else 0


@kernel
def free_swap(state: "State", pfn: int) -> int:
    """Free the slot of a frame in the swap cache, if only the cache refers to it (folio_free_swap).

    The frame is the only copy then, so it is DIRTY. Returns 1 if it left the cache. The caller holds a
    reference.
    """
    page = state.page[pfn]
    if not page.page_flags & PageFlag.SWAPCACHE:
        return 0
    if page.page_flags & PageFlag.WRITEBACK:
        end_due_writes(state)
        if page.page_flags & PageFlag.WRITEBACK:
            return 0
    if state.swap_slot[page.private].nr_users != 0:
        return 0
    delete_from_swap_cache(state, pfn)
    page.page_flags |= PageFlag.DIRTY
    return 1


@kernel
def reclaim_slot(state: "State", slot: int) -> int:
    """Free a slot that only the swap cache refers to, and its frame if nobody else has it; return 1 if so.

    A frame that is being read or written is left alone (__try_to_reclaim_swap).
    """
    pfn = state.swap_slot[slot].cached_pfn
    if pfn == 0 or is_locked(state, pfn):
        return 0
    state.page[pfn].refcount += 1
    freed = free_swap(state, pfn)
    put_page(state, pfn)
    return freed
