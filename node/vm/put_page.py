"""Dropping a reference to a frame; the last one gives it back (Linux: mm/swap.c, __folio_put)."""

from typing import TYPE_CHECKING

from node.counters import Panic
from node.joints import free_huge_page
from node.phys.page import PageFlag
from node.phys.page_alloc import compound_head, free_pages
from node.reclaim.lru import lru_del
from node.vm.mlock_page import clear_mlocked
from shared.jit import bug_on, kernel

if TYPE_CHECKING:
    from node.state import State


@kernel
def put_page(state: "State", pfn: int) -> None:
    """Drop one reference to frame ``pfn``, or to the huge page that it is part of.

    The last one takes it off the LRU and frees it. A frame that KSM merged needs no more: its stable node
    finds, when it looks, that the frame's ``mapping`` is no longer itself.
    """
    pfn = compound_head(state, pfn)
    page = state.page[pfn]
    page.refcount -= 1
    bug_on(state, page.refcount < 0, Panic.REFCOUNT, pfn)
    if page.refcount == 0:
        if page.page_flags & PageFlag.HUGE:
            free_huge_page(state, pfn)
            return
        bug_on(state, page.mapcount != 0, Panic.MAPCOUNT, pfn)
        if page.page_flags & PageFlag.LRU:
            lru_del(state, pfn)
        clear_mlocked(state, pfn)
        free_pages(state, pfn, 0)
