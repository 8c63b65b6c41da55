"""Swap entries: what page faults, fork and unmapping do with the slot that a page-table entry names.

    fault     swap_in: the frame from the swap cache, or read from the device with its neighbours
    fork      dup_swap_entry: one more entry refers to the slot
    unmap     free_swap_entry: one less; the last frees the slot, unless its frame is being read or written

Linux: mm/swapfile.c (swap_duplicate, free_swap_and_cache), mm/swap_state.c (swapin_readahead,
swap_cache_get_folio), mm/memory.c (do_swap_page).
# Differs from Linux: the swap cache is used for every device (SWP_SYNCHRONOUS_IO is for zram and the like);
no workingset shadows, so a refault does not activate its page.
"""

from typing import TYPE_CHECKING

from node.counters import Current, Panic, Request
from node.hw.cost import Cost
from node.hw.pte import swap_pte_slot
from node.swap.cached_page import free_swap, reclaim_slot
from node.swap.readahead import note_cache_hit, read_ahead, read_slot
from node.swap.slots import free_slot, vm_swap_full
from node.vm.vma import vma_at
from shared.constants import NIL
from shared.jit import bug_on, entry, kernel

if TYPE_CHECKING:
    from node.state import State


@kernel
def _wait_until_read(state: "State", slot: int) -> None:
    """Wait, as for the page lock, until the frame of ``slot`` has been read."""
    wait_ps = state.swap_slot[slot].ready_ps - state.current[Current.CLOCK_PS]
    if wait_ps > 0:
        state.current[Current.CLOCK_PS] += wait_ps
        state.current[Current.STALL_PS] += wait_ps


@kernel
def _swap_in(state: "State", slot: int, vma_index: int, vaddr: int) -> int:
    """As ``swap_in``, of a slot; ``vma_index`` is NIL if it is of no area."""
    slot_record = state.swap_slot[slot]
    bug_on(state, slot_record.nr_users == 0, Panic.SWAP_COUNT, slot)
    state.current[Current.CLOCK_PS] += state.cost[Cost.SWAP_PATH]
    pfn = slot_record.cached_pfn
    major = 1 if pfn == 0 else 0
    if pfn != 0:
        note_cache_hit(state, pfn, vma_index, vaddr)
    else:
        read_ahead(state, vma_index, vaddr, slot)
        pfn = slot_record.cached_pfn
    if pfn != 0:
        state.page[pfn].refcount += 1
    else:
        pfn = read_slot(state, slot)
    state.request[Request.R0] = major
    if pfn != NIL:
        _wait_until_read(state, slot)
    return pfn


@entry
def swap_in(state: "State", mm_index: int, vaddr: int, pte: int) -> int:
    """Bring the page of swap entry ``pte`` at ``vaddr`` into a frame of the swap cache and wait for it.

    Returns the frame, with a reference for the caller, or NIL if there is no memory. Request.R0 is 1 if the
    page had to be read from the device (a major fault), else 0.
    """
    return _swap_in(state, swap_pte_slot(pte), vma_at(state, mm_index, vaddr), vaddr)


@entry
def swap_in_slot(state: "State", slot: int) -> int:
    """Do what ``swap_in`` does for a slot that holds no page of an area: a page table."""
    return _swap_in(state, slot, NIL, 0)


@entry
def try_to_free_swap(state: "State", pfn: int) -> int:
    """Free the slot of a frame in the swap cache, if no page-table entry refers to it; return 1 if it did.

    The frame is DIRTY then, having no copy. The caller holds a reference to it.
    """
    return free_swap(state, pfn)


@entry
def free_swap_entry(state: "State", slot: int) -> int:
    """Note that a page-table entry no longer refers to ``slot``; return 0.

    With the last entry the slot is freed. Its frame in the swap cache loses it too if nobody else holds the
    frame, which is then freed, or if swap is filling up. A frame that is being read or written keeps its
    slot until reclaim comes to it.
    """
    entry_slot = state.swap_slot[slot]
    bug_on(state, entry_slot.nr_users <= 0, Panic.SWAP_COUNT, slot)
    entry_slot.nr_users -= 1
    if entry_slot.nr_users != 0:
        return 0
    pfn = entry_slot.cached_pfn
    if pfn == 0:
        free_slot(state, slot)
    elif state.page[pfn].refcount == 1 or vm_swap_full(state):
        reclaim_slot(state, slot)
    return 0


@entry
def dup_swap_entry(state: "State", slot: int) -> int:
    """Note that one more page-table entry refers to ``slot``; return 0."""
    state.swap_slot[slot].nr_users += 1
    return 0
