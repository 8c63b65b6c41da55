"""Gathering: pages that an unmapping takes away are freed together, after the TLBs have been flushed.

    batch      8       510       510   ...   510      at most 19 beside the first, each in a frame of its own
             |....|  |....|    |....|       |..  |
    when all are full, or no frame is to be had: flush the TLBs, free what is in them, begin again, in the same frames
    behind a page table with a dirty entry of a file's page: the same, for the page may be written back from now on

A frame may be given to somebody else only when no TLB translates to it any more, and a flush for each page would be
dear. Page tables that go are gathered with the pages. Each batch is freed in reverse order, which decides which
frame is found first when one is allocated again. The frames of the batches themselves come from whoever has some at
hand, without waiting (GFP_NOWAIT).

One unmapping is under way at a time, so its gathering is the machine's.

Linux: mm/mmu_gather.c (tlb_next_batch, tlb_batch_pages_flush, tlb_finish_mmu), mm/swap_state.c
(free_pages_and_swap_cache), mm/swap.c (release_pages), include/asm-generic/tlb.h.
"""

from typing import TYPE_CHECKING, Final

from node.counters import Current, Panic
from node.joints import alloc_frames, flush_tlb_range, free_huge_page, try_to_free_swap
from node.phys.page import PageFlag
from node.phys.page_alloc import free_pages
from node.reclaim.lru import lru_del
from node.vm.mlock_page import clear_mlocked
from shared.constants import NIL
from shared.gfp_flags import GFP_NOWAIT
from shared.jit import bug_on, cold_kernel, kernel

if TYPE_CHECKING:
    from node.state import State

FIRST_BATCH: Final = 8  # MMU_GATHER_BUNDLE
BATCH_PAGES: Final = 510  # MAX_GATHER_BATCH: pointers in a frame, beside its head of 16 bytes
MAX_BATCHES: Final = 19  # MAX_GATHER_BATCH_COUNT: 10,000 pages
GATHER_PAGES: Final = FIRST_BATCH + MAX_BATCHES * BATCH_PAGES
# Of these, a page that needs no more than to leave its list has LRU alone.
NOT_PLAIN: Final = PageFlag.LRU | PageFlag.SWAPCACHE | PageFlag.HUGE | PageFlag.MLOCKED


@kernel
def gather_begin(state: "State", mm_index: int, start: int, end: int) -> None:
    """Begin an unmapping of [start, end). ``mm_index`` 0: nobody can run there any more, so TLBs need no flush."""
    state.current[Current.NR_GATHERED] = 0
    state.current[Current.NR_GATHER_BATCHES] = 0
    state.current[Current.GATHER_LIMIT] = FIRST_BATCH
    state.current[Current.GATHER_MM] = mm_index
    state.current[Current.GATHER_START] = start
    state.current[Current.GATHER_END] = end


@kernel
def is_gathering(state: "State") -> int:
    """Return whether an unmapping is under way."""
    return 1 if state.current[Current.GATHER_LIMIT] != 0 else 0


@cold_kernel
def _leave_page(state: "State", pfn: int) -> int:
    """Drop a reference to a page that is not just an LRU page's last; return whether its frame is to be freed."""
    page = state.page[pfn]
    if page.mapcount == 0 and page.page_flags & PageFlag.SWAPCACHE:
        try_to_free_swap(state, pfn)
    page.refcount -= 1
    bug_on(state, page.refcount < 0, Panic.REFCOUNT, pfn)
    if page.refcount != 0:
        return 0
    if page.page_flags & PageFlag.HUGE:
        free_huge_page(state, pfn)
        return 0
    bug_on(state, page.mapcount != 0, Panic.MAPCOUNT, pfn)
    if page.page_flags & PageFlag.LRU:
        lru_del(state, pfn)
    clear_mlocked(state, pfn)
    return 1


@kernel
def _free_batch(state: "State", first: int, behind: int) -> None:
    """Drop the references of gathered pages [first, behind): slots and LRU lists in order, then frames in reverse."""
    for at in range(first, behind):
        pfn = state.gathered[at]
        page = state.page[pfn]
        if page.page_flags & NOT_PLAIN == PageFlag.LRU and page.refcount == 1 and page.mapcount == 0:
            page.refcount = 0
            lru_del(state, pfn)
        elif not _leave_page(state, pfn):
            state.gathered[at] = NIL
    for at in range(behind - 1, first - 1, -1):
        if state.gathered[at] != NIL:
            free_pages(state, state.gathered[at], 0)


@kernel
def _free_gathered(state: "State") -> None:
    count = state.current[Current.NR_GATHERED]
    first = 0
    behind = FIRST_BATCH
    while first < count:
        _free_batch(state, first, min(behind, count))
        first = behind
        behind += BATCH_PAGES
    state.current[Current.NR_GATHERED] = 0
    state.current[Current.GATHER_LIMIT] = FIRST_BATCH


@kernel
def gather_flush(state: "State", start: int, end: int) -> None:
    """Flush [start, end) and free what was gathered; the unmapping goes on (tlb_flush_mmu)."""
    if state.current[Current.GATHER_MM] != 0:
        flush_tlb_range(state, state.current[Current.GATHER_MM], start, end, 0)
    _free_gathered(state)


@cold_kernel
def _next_batch(state: "State") -> None:
    """Go on with another batch; without one, flush and free what was gathered (tlb_next_batch)."""
    limit = state.current[Current.GATHER_LIMIT]
    nr_batches = state.current[Current.NR_GATHER_BATCHES]
    if limit == FIRST_BATCH + nr_batches * BATCH_PAGES:
        pfn = alloc_frames(state, 0, GFP_NOWAIT) if nr_batches < MAX_BATCHES else NIL
        if pfn == NIL:
            gather_flush(state, state.current[Current.GATHER_START], state.current[Current.GATHER_END])
            return
        state.gather_batch[nr_batches] = pfn
        state.current[Current.NR_GATHER_BATCHES] = nr_batches + 1
    state.current[Current.GATHER_LIMIT] = limit + BATCH_PAGES


@kernel
def gather_page(state: "State", pfn: int) -> None:
    """Take over a reference to a page, or to a page table, until the TLBs are flushed (tlb_remove_page)."""
    count = state.current[Current.NR_GATHERED]
    bug_on(state, state.current[Current.GATHER_LIMIT] == 0, Panic.PROTOCOL, pfn)
    state.gathered[count] = pfn
    state.current[Current.NR_GATHERED] = count + 1
    if count + 1 == state.current[Current.GATHER_LIMIT]:
        _next_batch(state)


@kernel
def gather_finish(state: "State") -> None:
    """Free what was gathered, and the batches; whoever had to be told that pages went has been (tlb_finish_mmu)."""
    _free_gathered(state)
    for at in range(state.current[Current.NR_GATHER_BATCHES]):
        free_pages(state, state.gather_batch[at], 0)
    state.current[Current.NR_GATHER_BATCHES] = 0
    state.current[Current.GATHER_LIMIT] = 0
