"""The frame descriptor: one 64-byte record for each 4 KiB frame (Linux: struct page).

What every fault, free and scan reads stands in the first half; list links and what only reclaim and KSM
read stand behind it. A record of zeroes is a frame that nobody uses and that is on no list, so a machine
of any size is built without writing its descriptors.

    content, word   what the frame holds: see node/content.py
    mapping, index  whose page it is: an anon_vma and the page's number in it, a stable node of KSM, or an
                    inode and the page's number in the file
    mapcount        entries of the last level that point here: one more than Linux's _mapcount, whose -1 means none
    next, prev      its place on the one list it is on: a buddy list, a per-CPU list, or an LRU list
"""

from enum import IntEnum

import numpy as np

PAGE = np.dtype(
    [
        ("content", np.int64),  # content id; 0 for a page of zeroes
        ("index", np.int64),  # virtual page number at which an anonymous page was first mapped
        ("page_flags", np.int32),  # PageFlag bits
        ("refcount", np.int32),  # users: page-table entries, the swap cache, a kernel path
        ("mapcount", np.int32),  # page-table entries that point here
        ("mapping", np.int32),  # anon_vma, or stable node if KSM; 0 for none (index 0 of both is never used)
        ("word", np.int32),  # what was written over the start of the page; 0 is the pattern itself
        ("private", np.int32),  # swap slot while in the swap cache
        ("next", np.int32),  # next frame on its list, or NIL
        ("prev", np.int32),  # previous frame on its list, or NIL
        ("order", np.int8),  # of a free block, and of one that was allocated: log2 of its frames
        ("migrate_type", np.int8),  # of a free block: whose list it is on (node/phys/migrate_type.py)
        ("mlock_count", np.int16),  # while on the unevictable list: locked areas that map it, or fewer
        ("head", np.int32),  # of the other frames of a transparent huge page: its first frame; else 0
        ("huge_mapcount", np.int32),  # of that first frame: entries of the PMD level that map the whole page
    ],
    align=True,
)


class PageFlag(IntEnum):
    """Bits of ``page_flags``, by Linux's names where it has them."""

    RESERVED = 1 << 0  # not managed: firmware, the kernel image, the descriptors
    BUDDY = 1 << 1  # first frame of a block on a buddy list
    PCP = 1 << 2  # on a per-CPU list
    PAGE_TABLE = 1 << 3  # its 512 entries are in state.pt_word
    ANON = 1 << 4
    KSM = 1 << 5
    LRU = 1 << 6
    ACTIVE = 1 << 7
    REFERENCED = 1 << 8
    DIRTY = 1 << 9  # differs from its swap slot
    SWAPCACHE = 1 << 10
    WRITEBACK = 1 << 11
    ANON_EXCLUSIVE = 1 << 12  # one process's own: a write may reuse it
    ZERO_PAGE = 1 << 13  # the shared page of zeroes
    KERNEL = 1 << 14  # allocated by the kernel for itself
    UNEVICTABLE = 1 << 15
    READAHEAD = 1 << 16  # brought in by swap readahead, and not asked for yet
    HUGETLB = 1 << 17  # part of a block that is mapped as one huge page
    UNPAGED = 1 << 18  # part of a process's block on a machine without paging
    SLAB = 1 << 19  # its bytes, in state.slab_word, are an object allocator's
    SLOB_FREE = 1 << 20  # one of SLOB's with free units
    VMALLOC = 1 << 21  # part of a vmalloc area
    ISOLATED = 1 << 22  # off its LRU list, or off the buddy lists, for compaction
    COMPOUND = 1 << 23  # first of a block that stays one; its order is that of the block
    DMA = 1 << 24  # held by a device's driver
    SWAPBACKED = 1 << 25  # anonymous or shared memory: reclaim writes it to swap
    CACHED = 1 << 26  # in the page cache: of inode ``mapping``, page ``index``
    MLOCKED = 1 << 27  # in an area that is locked in memory
    HUGE = 1 << 28  # one of the 512 frames of a transparent huge page
    DOUBLE_MAP = 1 << 29  # a huge page that entries of both levels map; each mapcount has one for the PMD's
    WORKINGSET = 1 << 30
