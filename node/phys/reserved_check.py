"""What must hold of reserved frames at any time: nobody can allocate them, reclaim them, or swap them out."""

from typing import TYPE_CHECKING

import numpy as np

from node.findings import each
from node.phys.frames_check import free_block_cover
from node.phys.page import PageFlag

if TYPE_CHECKING:
    from node.state import State


def check_reserved(state: "State") -> list[str]:
    """Return one line for each reserved frame that is free, on an LRU list, in the swap cache or under writeback."""
    page_flags = np.asarray(state.page["page_flags"])
    reserved = page_flags & PageFlag.RESERVED != 0
    free = free_block_cover(state, PageFlag.BUDDY | PageFlag.PCP) > 0
    on_lru = page_flags & (PageFlag.LRU | PageFlag.ACTIVE) != 0
    swapped = page_flags & (PageFlag.SWAPCACHE | PageFlag.WRITEBACK) != 0
    wrong = each(
        np.flatnonzero(reserved & free), lambda pfn: f"frame {pfn}: is reserved, yet in a free block"
    )
    wrong += each(
        np.flatnonzero(reserved & on_lru), lambda pfn: f"frame {pfn}: is reserved, yet on an LRU list"
    )
    return wrong + each(
        np.flatnonzero(reserved & swapped), lambda pfn: f"frame {pfn}: is reserved, yet on its way to swap"
    )
