"""Second-level page tables that go to swap themselves, where ``vm.pageable_tables`` says so (32-bit paging).

    in memory     PGD entry --P=1--> frame:  [ page | empty | swap | swap | ... ]
                                                 | reclaim takes the last page that it maps
                                                 v
    swapped out   PGD entry, P=0: slot --->  slot:   [ swap | empty | swap | swap | ... ]

An access then meets a PGD entry whose P is 0. The kernel reads the table, and the access is tried again: it meets
an entry whose P is 0, and the kernel reads the page. Where one disk read was, there are two, and two faults.

On its way out a table is a page like any other: it takes a slot, enters the swap cache, is written, and its frame is
freed when reclaim meets it clean. Until then a fault finds it in the swap cache. ``state.slot_word`` holds the
entries while its slot does. A table stays while a fault or a fork works on it (``hold_table``), as reclaim may run
in the middle of either.

To unmap what a swapped-out table maps, the kernel has to read it, for only the table says which slots that were. It
does so through a frame of its own, since a process must be able to end when no memory is left.

Reclaim never takes the shared page of zeroes, so a table with an entry for it stays in memory.

The counters of both ways are ``pswpout`` and ``pswpin`` with the pages, ``table_swapout`` and ``table_swapin`` alone.

Sources: Tanenbaum, Bos, Modern Operating Systems, 3.3.4 (why second-level tables need not be in memory); the VAX,
whose process page tables are pageable (Levy, Lipman, Virtual Memory Management in the VAX/VMS Operating System,
IEEE Computer 15(3), 1982).
# Differs from Linux: page tables are never swapped there; without ``vm.pageable_tables`` they are not here either.
"""

from typing import TYPE_CHECKING, Final

from node.content import PATTERN_TABLE, generated, set_content
from node.counters import Current, HwEvent, Knob, Panic, VmEvent
from node.hw.cost import Cost
from node.hw.disk import disk_io
from node.hw.page_table import entry_position, pte_position
from node.hw.pte import TABLE_BITS, Pte, is_swap_pte, make_pte, make_swap_pte, pte_pfn, swap_pte_slot
from node.joints import (
    add_to_swap,
    dup_swap_entry,
    end_page_writebacks,
    flush_tlb_range,
    free_swap_entry,
    sleep_until_written,
    swap_in_slot,
    swap_writepage,
    try_to_free_swap,
)
from node.phys.page import PageFlag
from node.reclaim.lru import LruList, lru_add, lru_del
from node.vm.page_tables import count_tables, set_table
from node.vm.put_page import put_page
from shared.constants import NIL, PAGE_SHIFT, PAGE_SIZE, PS_PER_S
from shared.jit import bug_on, entry, kernel

if TYPE_CHECKING:
    from node.state import State

TOP: Final = 0  # levels of 32-bit paging
SECOND: Final = 1
# Longer than a device takes for the write that ends next: it is that write which ends the wait.
WRITE_TIMEOUT_PS: Final = PS_PER_S


@kernel
def _pgd_position(state: "State", mm_index: int, vaddr: int) -> int:
    return entry_position(state, state.mm[mm_index].pgd_pfn, vaddr, TOP)


# --- staying in memory ----------------------------------------------------------------------------------


@kernel
def hold_table(state: "State", mm_index: int, vaddr: int) -> int:
    """Keep the table with the last level's entry for ``vaddr`` in memory; return its frame, NIL if there is none."""
    position = pte_position(state, state.mm[mm_index].pgd_pfn, vaddr)
    if position == NIL:
        return NIL
    table = position >> state.knob[Knob.TABLE_SHIFT]
    state.page[table].refcount += 1
    return table


@kernel
def release_table(state: "State", table: int) -> None:
    """Undo ``hold_table``; ``table`` is what it returned."""
    if table != NIL:
        state.page[table].refcount -= 1


# --- out ------------------------------------------------------------------------------------------------


@kernel
def _maps_nothing(state: "State", table: int, vaddr: int) -> int:
    """Return whether no entry of a second-level table is present.

    Looks from the entry of ``vaddr`` on: reclaim mostly goes upwards, so the next one decides.
    """
    base = table << state.knob[Knob.TABLE_SHIFT]
    mask = state.paging_level[SECOND].index_mask
    first = vaddr >> PAGE_SHIFT
    for step in range(mask + 1):
        if state.pt_word[base + ((first + step) & mask)] & Pte.PRESENT:
            return 0
    return 1


@kernel
def _keep_words(state: "State", slot: int, table: int) -> None:
    """Let a slot hold the entries of the table in frame ``table``."""
    shift = state.knob[Knob.TABLE_SHIFT]
    for index in range(1 << shift):
        state.slot_word[(slot << shift) + index] = state.pt_word[(table << shift) + index]
    state.swap_slot[slot].is_table = 1


@entry
def swap_out_table(state: "State", mm_index: int, vaddr: int) -> int:
    """Swap out the second-level table for ``vaddr``, which is in memory, if it maps nothing; return 1 if it goes.

    It stays if somebody holds it, or swap is full. The write is under way when this returns.
    """
    position = _pgd_position(state, mm_index, vaddr)
    table = pte_pfn(state.pt_word[position])
    page = state.page[table]
    if page.refcount != 1 or not _maps_nothing(state, table, vaddr):
        return 0
    slot = add_to_swap(state, table)
    if slot == NIL:
        return 0
    _keep_words(state, slot, table)
    set_table(state, TOP, position, make_swap_pte(slot, 0))
    dup_swap_entry(state, slot)
    count_tables(state, mm_index, SECOND, -1)
    # One page is enough for what caches the way through the table; Linux frees its tables so too.
    flush_tlb_range(state, mm_index, vaddr, vaddr + PAGE_SIZE, 1)
    page.page_flags &= ~PageFlag.PAGE_TABLE
    page.refcount -= 1  # the swap cache's is left
    lru_add(state, LruList.INACTIVE_ANON, table)
    swap_writepage(state, table)
    state.hw_event[HwEvent.TABLE_SWAPOUT] += 1
    return 1


# --- in -------------------------------------------------------------------------------------------------


@kernel
def _take_from_swap_cache(state: "State", pfn: int, slot: int) -> None:
    """Make a frame of the swap cache the caller's alone, who holds a reference; its slot is free then.

    Waits if it is still being written: the device reads the frame until then.
    """
    page = state.page[pfn]
    end_page_writebacks(state)
    begin_ps = state.current[Current.CLOCK_PS]
    while page.page_flags & PageFlag.WRITEBACK:
        sleep_until_written(state, 1, WRITE_TIMEOUT_PS)
    state.current[Current.STALL_PS] += state.current[Current.CLOCK_PS] - begin_ps
    free_swap_entry(state, slot)
    try_to_free_swap(state, pfn)
    bug_on(state, page.page_flags & PageFlag.SWAPCACHE != 0 or page.refcount != 1, Panic.REFCOUNT, pfn)
    lru_del(state, pfn)


@entry
def swap_in_table(state: "State", mm_index: int, vaddr: int) -> int:
    """Bring the second-level table for ``vaddr`` back into memory if it is swapped out.

    Returns 1 if it came, 0 if it need not, NIL if there is no memory. With 1, Request.R0 says whether it was read
    from the device, as after ``swap_in``; the wait is in the clock and the stall.
    """
    position = _pgd_position(state, mm_index, vaddr)
    word = state.pt_word[position]
    if not is_swap_pte(word):
        return 0
    slot = swap_pte_slot(word)
    pfn = swap_in_slot(state, slot)
    if pfn == NIL:
        return NIL
    if state.pt_word[position] != word:
        put_page(state, pfn)
        return 1
    shift = state.knob[Knob.TABLE_SHIFT]
    for index in range(1 << shift):
        state.pt_word[(pfn << shift) + index] = state.slot_word[(slot << shift) + index]
    state.swap_slot[slot].is_table = 0
    _take_from_swap_cache(state, pfn, slot)
    state.page[pfn].page_flags = PageFlag.PAGE_TABLE
    # As of any table in this frame (node/vm/page_tables.py).
    set_content(state, pfn, generated(PATTERN_TABLE, state.knob[Knob.CONTENT_KEY], pfn))
    set_table(state, TOP, position, make_pte(pfn, TABLE_BITS))
    count_tables(state, mm_index, SECOND, 1)
    state.hw_event[HwEvent.TABLE_SWAPIN] += 1
    return 1


# --- unmapping what a table on the device maps ----------------------------------------------------------


@kernel
def _read_to_unmap(state: "State", slot: int) -> None:
    """Wait until the kernel has read a swapped-out table into its own frame, or found it in the swap cache."""
    state.current[Current.CLOCK_PS] += state.cost[Cost.SWAP_PATH]
    record = state.swap_slot[slot]
    ready_ps = record.ready_ps
    if record.cached_pfn == 0:
        ready_ps = disk_io(state, slot, 1, 0)
        state.vm_event[VmEvent.PSWPIN] += 1
    wait_ps = ready_ps - state.current[Current.CLOCK_PS]
    if wait_ps > 0:
        state.current[Current.CLOCK_PS] += wait_ps
        state.current[Current.STALL_PS] += wait_ps


@kernel
def _write_changed(state: "State", slot: int) -> None:
    """Let the device have the new entries of a table that stays swapped out: at once, or with its frame's write."""
    cached = state.swap_slot[slot].cached_pfn
    if cached != 0:
        state.page[cached].page_flags |= PageFlag.DIRTY
        return
    disk_io(state, slot, 1, 1)
    state.vm_event[VmEvent.PSWPOUT] += 1


@kernel
def _free_entries(state: "State", first: int, behind: int) -> int:
    """Empty the swap entries at [first, behind) of ``slot_word``; return how many there were."""
    nr_freed = 0
    for at in range(first, behind):
        pte = state.slot_word[at]
        if pte != 0:
            state.slot_word[at] = 0
            free_swap_entry(state, swap_pte_slot(pte))
            nr_freed += 1
    return nr_freed


@kernel
def _is_empty(state: "State", slot: int) -> int:
    shift = state.knob[Knob.TABLE_SHIFT]
    for at in range(slot << shift, (slot + 1) << shift):
        if state.slot_word[at] != 0:
            return 0
    return 1


@entry
def zap_swapped_table(state: "State", mm_index: int, start: int, end: int) -> int:
    """Empty every entry for [start, end), within one table, if that is swapped out; return how many pages it was.

    A table that nothing is left in gives back its slot.
    """
    position = _pgd_position(state, mm_index, start)
    word = state.pt_word[position]
    if not is_swap_pte(word):
        return 0
    slot = swap_pte_slot(word)
    _read_to_unmap(state, slot)
    shift = state.knob[Knob.TABLE_SHIFT]
    first = (slot << shift) + (start >> PAGE_SHIFT & state.paging_level[SECOND].index_mask)
    nr_freed = _free_entries(state, first, first + ((end - start) >> PAGE_SHIFT))
    state.mm[mm_index].nr_swap -= nr_freed
    if _is_empty(state, slot):
        state.swap_slot[slot].is_table = 0
        set_table(state, TOP, position, 0)
        free_swap_entry(state, slot)
    elif nr_freed:
        _write_changed(state, slot)
    return nr_freed
