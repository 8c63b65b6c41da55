"""/proc/PID/pagemap: one 64-bit word for each page of the address space, and what counts of mappings are read from it.

    63 present | 62 swapped | 61 of a file, or shared | 56 mapped once | 55 soft-dirty | 54..0 frame
                                                                                    or 54..5 slot, 4..0 swap area

The word of page n is at byte 8 n. Every page of an area is soft-dirty: an area is so from its start until somebody
writes to /proc/PID/clear_refs, which nobody here does.

Linux: fs/proc/task_mmu.c (pagemap_read, pte_to_pagemap_entry, pagemap_pmd_range, pagemap_hugetlb_range), with
CONFIG_MEM_SOFT_DIRTY as Debian has it, read by root.
"""

from typing import TYPE_CHECKING, Final

import numpy as np

from node.findings import Ints
from node.phys.page import PageFlag
from node.proc.areas import Names, areas_of
from node.proc.kpageflags import Kpf, flag_words, mapcounts
from node.proc.process_pages import process_pages
from node.vm.hugetlb import HUGE_PAGE_ORDER
from shared.constants import PAGE_SHIFT

if TYPE_CHECKING:
    from node.state import State

SOFT_DIRTY: Final = 1 << 55
MAPPED_ONCE: Final = 1 << 56
FILE: Final = 1 << 61
SWAPPED: Final = 1 << 62
PRESENT: Final = -(1 << 63)  # bit 63 of an int64
FRAME_MASK: Final = (1 << 55) - 1
SWAP_SLOT_SHIFT: Final = 5  # behind the number of the swap area, which is 0

# What is counted of the frames that a mapping has, by Kpf.
_COUNTED: Final = {
    "ksm": Kpf.KSM,
    "thp": Kpf.THP,
    "zero_page": Kpf.ZERO_PAGE,
    "anon": Kpf.ANON,
    "active": Kpf.ACTIVE,
    "referenced": Kpf.REFERENCED,
    "lru": Kpf.LRU,
    "unevictable": Kpf.UNEVICTABLE,
    "swapcache": Kpf.SWAPCACHE,
    "swapbacked": Kpf.SWAPBACKED,
    "dirty": Kpf.DIRTY,
}


def pagemap(state: "State", mm_index: int, first: int, nr_pages: int) -> bytes:
    """Return the words of pages ``first`` on as they stand in /proc/PID/pagemap."""
    words = np.zeros(nr_pages, np.int64)
    for area in areas_of(state, mm_index, Names()):
        start = max((area.start >> PAGE_SHIFT) - first, 0)
        end = min((area.end >> PAGE_SHIFT) - first, nr_pages)
        if start < end:
            words[start:end] = SOFT_DIRTY
    vpn, entries = page_words(state, mm_index)
    inside = (vpn >= first) & (vpn < first + nr_pages)
    words[vpn[inside] - first] |= entries[inside]
    return words.astype("<i8").tobytes()


def page_words(state: "State", mm_index: int) -> tuple[Ints, Ints]:
    """Return the pages that have an entry, ascending, and of each its word but for SOFT_DIRTY."""
    pages = process_pages(state, mm_index)
    words = np.where(pages.present, PRESENT | pages.pfn, SWAPPED | pages.slot << SWAP_SLOT_SHIFT)
    flags = np.asarray(state.page)["page_flags"][pages.pfn]
    # The page of zeroes is no page to Linux (vm_normal_page); the huge one is, and not an anonymous one.
    is_page = pages.present & (~pages.zero | pages.large)
    is_file = is_page & ((flags & (PageFlag.ANON | PageFlag.KSM)) == 0)
    words[is_file] |= FILE
    # A huge entry's pages are all as its first (pagemap_pmd_range asks for that one's count).
    counted = np.where(pages.large, pages.pfn >> HUGE_PAGE_ORDER << HUGE_PAGE_ORDER, pages.pfn)
    words[is_page & (mapcounts(state, counted) == 1)] |= MAPPED_ONCE
    return pages.vpn, words


def mapping_pages(state: "State", mm_index: int, start: int, end: int) -> dict[str, int]:
    """Return how the pages of [start, end) of an address space stand, by their words of pagemap and kpageflags."""
    vpn, words = page_words(state, mm_index)
    words = words[(vpn >= start >> PAGE_SHIFT) & (vpn < end >> PAGE_SHIFT)]
    present = words[(words & PRESENT) != 0]
    flags = flag_words(state, present & FRAME_MASK)

    def of(bit: int) -> int:
        return int(np.count_nonzero(words & bit))

    counts = {
        "pages": (end - start) >> PAGE_SHIFT,
        "present": len(present),
        "swapped": of(SWAPPED),
        "file_or_shared": of(FILE),
        "exclusive": of(MAPPED_ONCE),
    }
    return counts | {name: int(np.count_nonzero(flags & 1 << bit)) for name, bit in _COUNTED.items()}
