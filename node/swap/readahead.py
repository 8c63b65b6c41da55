"""Swap-in readahead: pages that are likely to be wanted soon are read together with the one that is.

    disk    the aligned block of 2**n slots around the wanted one: no seek between them
    flash   the swapped pages at the addresses around the fault, in its VMA and its page table, wherever
            their slots are; ahead of, behind or around it as the last two faults suggest

The window grows with the pages of earlier windows that were used (hits), up to 2**page_cluster, shrinks by
half at most, and is one page when neither hits nor an adjacent fault speak for more.

Linux: mm/swap_state.c (__swapin_nr_pages, swap_cluster_readahead, swap_vma_readahead, swap_ra_info).
"""

from typing import TYPE_CHECKING, Final

from node.counters import Current, Knob, VmEvent
from node.hw.disk import disk_io
from node.hw.page_table import pte_position
from node.hw.pte import is_swap_pte, swap_pte_slot
from node.joints import alloc_frames
from node.phys.page import PageFlag
from node.reclaim.lru import LruList, lru_add
from node.swap.cached_page import link_to_slot
from node.swap.slots import FIRST_RA_HITS
from node.vm.put_page import put_page
from shared.constants import HUGE_PAGE_SHIFT, NIL, PAGE_SHIFT
from shared.gfp_flags import GFP_HIGHUSER_MOVABLE
from shared.jit import kernel

if TYPE_CHECKING:
    from node.state import State

# Of vma.swap_ra: the page last faulted in, the last window, and the hits of it; all in one word, as in Linux.
RA_WINDOW_SHIFT: Final = 6
RA_HITS_MASK: Final = (1 << RA_WINDOW_SHIFT) - 1
RA_WINDOW_ORDER_MAX: Final = 5  # SWAP_RA_ORDER_CEILING
MIN_GUESS: Final = 2  # without hits
MIN_WINDOW: Final = 4  # with hits
PMD_PAGES_SHIFT: Final = HUGE_PAGE_SHIFT - PAGE_SHIFT


@kernel
def readahead_pages(adjacent: int, hits: int, max_pages: int, last_pages: int) -> int:
    """Return how many pages to read (__swapin_nr_pages)."""
    if hits == 0:
        pages = MIN_GUESS if adjacent else 1
    else:
        pages = MIN_WINDOW
        while pages < hits + MIN_GUESS:
            pages *= 2
    return max(min(pages, max_pages), last_pages // 2)


@kernel
def _issue_read(state: "State", slot: int) -> int:
    """Ask the device for a slot; return when it is there, in ps.

    For a fault that a host serves ahead of its time (node/guest/host_guests.py) the request is noted, the page is
    there at once, and whoever noted it waits later; unless too many are noted already.
    """
    nr_late = state.current[Current.NR_LATE_READS]
    if not state.current[Current.READS_ARE_LATE] or nr_late == len(state.late_read):
        return disk_io(state, slot, 1, 0)
    state.late_read[nr_late].gfn = slot
    state.current[Current.NR_LATE_READS] = nr_late + 1
    return state.current[Current.CLOCK_PS]


@kernel
def read_slot(state: "State", slot: int) -> int:
    """Start to read ``slot`` into a new frame of the swap cache, locked until the device is done.

    Returns the frame, with a reference for the caller; NIL if there is no memory, or nobody wants the slot
    any more after reclaim ran to get some.
    """
    pfn = alloc_frames(state, 0, GFP_HIGHUSER_MOVABLE)
    if pfn == NIL:
        return NIL
    entry = state.swap_slot[slot]
    if entry.nr_users == 0 or entry.cached_pfn != 0:
        put_page(state, pfn)
        return NIL
    page = state.page[pfn]
    page.content = entry.content
    page.word = entry.word
    link_to_slot(state, pfn, slot)
    lru_add(state, LruList.INACTIVE_ANON, pfn)
    entry.ready_ps = _issue_read(state, slot)
    state.vm_event[VmEvent.PSWPIN] += 1
    return pfn


@kernel
def _read_in_window(state: "State", slot: int, wanted: int) -> None:
    """Read a slot of the window, unless it is free or cached; any but the wanted one counts as readahead."""
    entry = state.swap_slot[slot]
    if entry.nr_users == 0 or entry.cached_pfn != 0:
        return
    pfn = read_slot(state, slot)
    if pfn == NIL:
        return
    if not wanted:
        state.page[pfn].page_flags |= PageFlag.READAHEAD
        state.vm_event[VmEvent.SWAP_RA] += 1
    put_page(state, pfn)


@kernel
def _read_cluster(state: "State", slot: int) -> None:
    """Read the aligned block of slots around ``slot``; nothing if the window is one page."""
    area = state.swap_area[0]
    max_pages = 1 << state.knob[Knob.PAGE_CLUSTER]
    if max_pages == 1:
        return
    distance = slot - area.ra_previous_slot
    adjacent = 1 if distance * distance == 1 else 0
    hits = area.ra_hits
    pages = readahead_pages(adjacent, hits, max_pages, area.ra_last_pages)
    area.ra_hits = 0
    area.ra_last_pages = pages
    if hits == 0:
        area.ra_previous_slot = slot
    if pages == 1:
        return
    # As Linux: a mask, even where halving the last window left no power of two.
    mask = pages - 1
    for near in range(max(slot & ~mask, 1), min(slot | mask, area.nr_slots - 1) + 1):
        _read_in_window(state, near, near == slot)


@kernel
def _window_start(vpn: int, previous: int, window: int) -> int:
    """Return the first page of a window, by the direction of the last two faults."""
    if vpn == previous + 1:
        return vpn
    if vpn == previous - 1:
        return vpn - window + 1
    return vpn - (window - 1) // 2


@kernel
def _read_around_vaddr(state: "State", vma_index: int, vaddr: int) -> None:
    """Read the swapped pages at the addresses around ``vaddr``; nothing if the window is one page."""
    max_pages = 1 << min(state.knob[Knob.PAGE_CLUSTER], RA_WINDOW_ORDER_MAX)
    if max_pages == 1:
        return
    vma = state.vma[vma_index]
    seen = vma.swap_ra if vma.swap_ra != 0 else FIRST_RA_HITS
    vpn = vaddr >> PAGE_SHIFT
    previous = seen >> PAGE_SHIFT
    adjacent = 1 if (vpn - previous) * (vpn - previous) == 1 else 0
    window = readahead_pages(
        adjacent, seen & RA_HITS_MASK, max_pages, (seen >> RA_WINDOW_SHIFT) & RA_HITS_MASK
    )
    vma.swap_ra = (vpn << PAGE_SHIFT) | (window << RA_WINDOW_SHIFT)
    if window == 1:
        return
    start = _window_start(vpn, previous, window)
    end = start + window
    table = vpn >> PMD_PAGES_SHIFT
    start = max(start, vma.start >> PAGE_SHIFT, table << PMD_PAGES_SHIFT)
    end = min(end, vma.end >> PAGE_SHIFT, (table + 1) << PMD_PAGES_SHIFT)
    position = pte_position(state, state.mm[vma.mm].pgd_pfn, start << PAGE_SHIFT)
    for near in range(start, end):
        pte = state.pt_word[position + near - start]
        if is_swap_pte(pte):
            _read_in_window(state, swap_pte_slot(pte), near == vpn)


@kernel
def read_ahead(state: "State", vma_index: int, vaddr: int, slot: int) -> None:
    """Read what the window around a swapped page holds, the page itself included unless it is alone."""
    if state.swap_area[0].rotational:
        _read_cluster(state, slot)
    elif vma_index != NIL:
        _read_around_vaddr(state, vma_index, vaddr)


@kernel
def note_cache_hit(state: "State", pfn: int, vma_index: int, vaddr: int) -> None:
    """Note that a fault found its page in the swap cache: if readahead brought it, it was right (once)."""
    page = state.page[pfn]
    read_ahead_hit = 1 if page.page_flags & PageFlag.READAHEAD else 0
    page.page_flags &= ~PageFlag.READAHEAD
    state.vm_event[VmEvent.SWAP_RA_HIT] += read_ahead_hit
    area = state.swap_area[0]
    if area.rotational:
        area.ra_hits += read_ahead_hit
    elif vma_index != NIL:
        vma = state.vma[vma_index]
        seen = vma.swap_ra if vma.swap_ra != 0 else FIRST_RA_HITS
        hits = min((seen & RA_HITS_MASK) + read_ahead_hit, RA_HITS_MASK)
        window = seen & (RA_HITS_MASK << RA_WINDOW_SHIFT)
        vma.swap_ra = (vaddr >> PAGE_SHIFT << PAGE_SHIFT) | window | hits
