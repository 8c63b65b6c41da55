"""/proc/kpageflags and /proc/kpagecount: one 64-bit word for each frame, of flags and of mappings.

    word of frame n at byte 8 n      bits of Kpf, or how many page-table entries map the frame

A huge page shows as Linux's descriptors do: what belongs to the whole page (LRU, DIRTY, SWAPBACKED) is a flag of its
first frame alone, what is asked through that one (ANON, SWAPCACHE, MMAP) of all.

Linux: fs/proc/page.c (stable_page_flags, kpagecount_read), include/uapi/linux/kernel-page-flags.h,
include/linux/kernel-page-flags.h, include/linux/page-flags.h (flags that share a bit), mm/util.c (page_mapcount).
# Differs from Linux: nothing is LOCKED, ERROR, IDLE, OFFLINE or HWPOISON, since a machine is read between two steps and
# no frame is bad; contents in memory are always UPTODATE.
"""

from enum import IntEnum
from typing import TYPE_CHECKING, Final

import numpy as np

from node.counters import Current
from node.findings import Ints
from node.kalloc.slab_blocks import slab_heads
from node.phys.buddy import MAX_ORDER
from node.phys.page import PageFlag
from node.phys.zone import PAGEBLOCK_ORDER
from node.vm.hugetlb import HUGE_PAGE_ORDER
from shared.constants import ENTRIES_PER_TABLE, NIL

if TYPE_CHECKING:
    from node.state import State

SECTION_ORDER: Final = 15  # SECTION_SIZE_BITS less PAGE_SHIFT: memory is online by 128 MiB


class Kpf(IntEnum):
    """Numbers of the bits of a word of /proc/kpageflags."""

    REFERENCED = 2
    UPTODATE = 3
    DIRTY = 4
    LRU = 5
    ACTIVE = 6
    SLAB = 7
    WRITEBACK = 8
    RECLAIM = 9
    BUDDY = 10
    MMAP = 11
    ANON = 12
    SWAPCACHE = 13
    SWAPBACKED = 14
    COMPOUND_HEAD = 15
    COMPOUND_TAIL = 16
    HUGE = 17
    UNEVICTABLE = 18
    NOPAGE = 20
    KSM = 21
    THP = 22
    ZERO_PAGE = 24
    PGTABLE = 26
    RESERVED = 32
    MLOCKED = 33
    MAPPEDTODISK = 34
    PRIVATE = 35
    OWNER_PRIVATE = 37


# Bits of a frame's own descriptor: Kpf, and which of ours mean it. Linux's PG_readahead is PG_reclaim, which reclaim's
# own writes have too; PG_anon_exclusive is PG_mappedtodisk, PG_slob_free PG_private, PG_swapcache PG_owner_priv_1.
_OWN: Final = (
    (Kpf.REFERENCED, PageFlag.REFERENCED),
    (Kpf.UPTODATE, PageFlag.ANON | PageFlag.KSM | PageFlag.CACHED),
    (Kpf.DIRTY, PageFlag.DIRTY),
    (Kpf.LRU, PageFlag.LRU),
    (Kpf.ACTIVE, PageFlag.ACTIVE),
    (Kpf.WRITEBACK, PageFlag.WRITEBACK),
    (Kpf.RECLAIM, PageFlag.READAHEAD | PageFlag.WRITEBACK),
    (Kpf.SWAPBACKED, PageFlag.SWAPBACKED),
    (Kpf.UNEVICTABLE, PageFlag.UNEVICTABLE),
    (Kpf.RESERVED, PageFlag.RESERVED),
    (Kpf.MLOCKED, PageFlag.MLOCKED),
    (Kpf.PRIVATE, PageFlag.SLOB_FREE),
    (Kpf.OWNER_PRIVATE, PageFlag.SWAPCACHE),
)
# Bits that are asked of the whole page.
_OF_HEAD: Final = (
    (Kpf.ANON, PageFlag.ANON | PageFlag.KSM),
    (Kpf.KSM, PageFlag.KSM),
    (Kpf.SWAPCACHE, PageFlag.SWAPCACHE),
)
_OF_USERS: Final = PageFlag.ANON | PageFlag.KSM | PageFlag.CACHED | PageFlag.HUGE | PageFlag.LRU


def flag_words(state: "State", pfn: Ints) -> Ints:
    """Return the word of /proc/kpageflags of each of these frames."""
    pages = np.asarray(state.page)
    pfn = pfn.astype(np.int64)
    flags = pages["page_flags"][pfn].astype(np.int64)
    compound, heads = _compound_heads(state, pfn, flags)
    of_head = pages["page_flags"][heads].astype(np.int64)
    is_tail = compound & (heads != pfn)
    is_huge = (flags & PageFlag.HUGE) != 0
    is_zero = ((of_head & PageFlag.ZERO_PAGE) != 0) | huge_zero(state, pfn)
    words = np.zeros(len(pfn), np.int64)

    def put(bit: Kpf, where: Ints) -> None:
        words[where] |= 1 << bit

    for bit, means in _OWN:
        put(bit, ((flags & means) != 0) & ~is_tail)
    for bit, means in _OF_HEAD:
        put(bit, (of_head & means) != 0)
    put(Kpf.MAPPEDTODISK, (flags & PageFlag.ANON_EXCLUSIVE) != 0)
    put(Kpf.SLAB, (flags & PageFlag.SLAB) != 0)
    put(Kpf.PGTABLE, (flags & PageFlag.PAGE_TABLE) != 0)
    put(Kpf.COMPOUND_HEAD, compound & ~is_tail)
    put(Kpf.COMPOUND_TAIL, is_tail)
    put(Kpf.HUGE, (flags & PageFlag.HUGETLB) != 0)
    put(Kpf.THP, is_huge | huge_zero(state, pfn))
    put(Kpf.ZERO_PAGE, is_zero)
    put(Kpf.MMAP, _is_mapped(state, pfn, flags, heads))
    put(Kpf.BUDDY, _is_free(state, pfn, flags))
    words[_is_nowhere(state, pfn)] = 1 << Kpf.NOPAGE
    return words


def mapcounts(state: "State", pfn: Ints) -> Ints:
    """Return how many entries map each of these frames, alone or with its huge page (page_mapcount)."""
    pages = np.asarray(state.page)
    pfn = pfn.astype(np.int64)
    flags = pages["page_flags"][pfn]
    of_hugetlb = np.where((flags & PageFlag.HUGETLB) != 0, pfn >> HUGE_PAGE_ORDER << HUGE_PAGE_ORDER, pfn)
    counts = pages["mapcount"][of_hugetlb].astype(np.int64)
    where = np.flatnonzero(flags & PageFlag.HUGE)
    heads = _huge_heads(state, pfn[where])
    counts[where] += pages["huge_mapcount"][heads]
    counts[where] -= (pages["page_flags"][heads] & PageFlag.DOUBLE_MAP) != 0
    return counts


def huge_zero(state: "State", pfn: Ints) -> Ints:
    """Return which of these frames are of the huge page of zeroes."""
    first = int(state.current[Current.HUGE_ZERO_PFN])
    return (pfn >= first) & (pfn < first + ENTRIES_PER_TABLE) & (first > 0)


def kpageflags(state: "State", first: int, nr_frames: int) -> bytes:
    """Return the words of frames ``first`` on as they stand in /proc/kpageflags; fewer at the end of memory."""
    return _as_bytes(flag_words(state, _frames(state, first, nr_frames)))


def kpagecount(state: "State", first: int, nr_frames: int) -> bytes:
    """Return how often each frame from ``first`` on is mapped, as in /proc/kpagecount; fewer at the end of memory."""
    pfn = _frames(state, first, nr_frames)
    flags = np.asarray(state.page)["page_flags"][pfn]
    typed = PageFlag.SLAB | PageFlag.BUDDY | PageFlag.PAGE_TABLE
    counts = mapcounts(state, pfn)
    counts[(flags & typed) != 0] = 0
    return _as_bytes(counts)


def _frames(state: "State", first: int, nr_frames: int) -> Ints:
    return np.arange(first, min(first + nr_frames, len(state.page)), dtype=np.int64)


def _as_bytes(words: Ints) -> bytes:
    return words.astype("<i8").tobytes()


def _huge_heads(state: "State", pfn: Ints) -> Ints:
    head: Ints = np.asarray(state.page)["head"][pfn].astype(np.int64)
    return np.where(head != 0, head, pfn)


def _compound_heads(state: "State", pfn: Ints, flags: Ints) -> tuple[Ints, Ints]:
    """Return which frames are part of a block that is one page to Linux, and each frame's first (else itself)."""
    pages = np.asarray(state.page)
    heads = pfn.copy()
    compound = np.zeros(len(pfn), bool)
    where = np.flatnonzero((flags & PageFlag.HUGE) != 0)
    heads[where] = _huge_heads(state, pfn[where])
    compound[where] = True
    where = np.flatnonzero((flags & PageFlag.HUGETLB) != 0)
    heads[where] = pfn[where] >> HUGE_PAGE_ORDER << HUGE_PAGE_ORDER
    compound[where] = True
    where = np.flatnonzero((flags & PageFlag.SLAB) != 0)
    heads[where] = slab_heads(state, pfn[where])
    compound[where] = (heads[where] != pfn[where]) | (pages["order"][pfn[where]] > 0)
    where = np.flatnonzero((flags & (PageFlag.SLAB | PageFlag.HUGETLB | _OF_USERS)) == 0)
    found, of_block = _in_blocks(state, pfn[where], PageFlag.COMPOUND)
    heads[where[found]] = of_block[found]
    compound[where[found]] = True
    return compound, heads


def _in_blocks(state: "State", pfn: Ints, flag: PageFlag) -> tuple[Ints, Ints]:
    """Return which frames lie in a block whose first frame has ``flag``, as blocks of the buddy system are aligned."""
    pages = np.asarray(state.page)
    heads = pfn.copy()
    found = np.zeros(len(pfn), bool)
    left = np.arange(len(pfn))
    for order in range(MAX_ORDER, -1, -1):
        head = pfn[left] >> order << order
        here = ((pages["page_flags"][head] & flag) != 0) & (pages["order"][head] >= order)
        heads[left[here]] = head[here]
        found[left[here]] = True
        left = left[~here]
    return found, heads


def _is_free(state: "State", pfn: Ints, flags: Ints) -> Ints:
    """Return which frames are in a free block of the buddy system; a CPU's own are not."""
    free = np.zeros(len(pfn), bool)
    where = np.flatnonzero((flags & ~(PageFlag.BUDDY | PageFlag.ISOLATED)) == 0)
    free[where] = _in_blocks(state, pfn[where], PageFlag.BUDDY)[0]
    return free


def _is_mapped(state: "State", pfn: Ints, flags: Ints, heads: Ints) -> Ints:
    """Return of which frames any page of the whole block is mapped (page_mapped)."""
    pages = np.asarray(state.page)
    mapped: Ints = (pages["mapcount"][pfn] > 0) & ((flags & (PageFlag.SLAB | PageFlag.PAGE_TABLE)) == 0)
    of_hugetlb = (flags & PageFlag.HUGETLB) != 0
    mapped[of_hugetlb] = pages["mapcount"][heads[of_hugetlb]] > 0
    where = np.flatnonzero(flags & PageFlag.HUGE)
    first, which = np.unique(heads[where], return_inverse=True)
    of_parts = pages["mapcount"][first[:, None] + np.arange(ENTRIES_PER_TABLE)] > 0
    mapped[where] = ((pages["huge_mapcount"][first] > 0) | of_parts.any(axis=1))[which]
    return mapped


def _is_nowhere(state: "State", pfn: Ints) -> Ints:
    """Return which frames lie in a section of memory of which no part is there."""
    blocks = np.asarray(state.pageblock)["zone"] != NIL
    to_section = SECTION_ORDER - PAGEBLOCK_ORDER
    starts = np.arange(0, len(blocks), 1 << to_section)
    offline = ~np.logical_or.reduceat(blocks, starts)
    nowhere: Ints = offline[pfn >> SECTION_ORDER]
    return nowhere
