"""The four kinds of frames as reclaim sees them, and what each frame is that makes it one of a kind.

    unreclaimable   free, reserved, of the kernel's own, held by a driver or for moving, locked in memory
    swappable       anonymous pages of processes, shared memory (tmpfs)     must be written to swap first
    syncable        pages of files, mapped or only cached                   must agree with the disk first
    discardable     slabs of which no object is in use                      nothing to save

A frame is the first that it is of in the order of ``FrameUse``. A page of a process or a file is also one of: anonymous
or a file's; mapped by nobody, by one entry, or by several (shared).

The categories are those of D. Bovet and M. Cesati, Understanding the Linux Kernel, 3rd edition, chapter 17 ("Page Frame
Reclaiming", table 17-1). There are no kernel mode stacks, block device buffers, inode cache and dentry cache here yet:
no count of them exists.

Only memory in use costs time: free blocks of the largest order are counted whole.

Linux: mm/vmscan.c (shrink_page_list, which keeps what it may not take), include/linux/page-flags.h.
"""

from enum import IntEnum
from typing import TYPE_CHECKING, Final

import numpy as np

from node.findings import Ints
from node.kalloc.slab_blocks import slab_heads, slab_is_unused
from node.phys.page import PageFlag
from node.phys.zone import PAGEBLOCK_ORDER
from node.proc.kpageflags import mapcounts
from node.proc.zones import populated_zones, used_ranges

if TYPE_CHECKING:
    from node.state import State

PREFIX: Final = "frames."


class FrameKind(IntEnum):
    """What reclaim has to do to get a frame."""

    UNRECLAIMABLE = 0
    SWAPPABLE = 1
    SYNCABLE = 2
    DISCARDABLE = 3


class FrameUse(IntEnum):
    """What a frame is; of several that fit, the first."""

    FREE = 0
    RESERVED = 1
    UNUSED_SLAB = 2
    KERNEL = 3  # page tables, slabs, vmalloc, hugetlbfs: all that is handed out and is no page of those below
    LOCKED = 4  # by a device's driver, or taken off its list to be moved or merged
    MLOCKED = 5
    ANON = 6
    TMPFS = 7
    MAPPED_FILE = 8
    PAGE_CACHE = 9


KIND_OF: Final = {
    FrameUse.FREE: FrameKind.UNRECLAIMABLE,
    FrameUse.RESERVED: FrameKind.UNRECLAIMABLE,
    FrameUse.UNUSED_SLAB: FrameKind.DISCARDABLE,
    FrameUse.KERNEL: FrameKind.UNRECLAIMABLE,
    FrameUse.LOCKED: FrameKind.UNRECLAIMABLE,
    FrameUse.MLOCKED: FrameKind.UNRECLAIMABLE,
    FrameUse.ANON: FrameKind.SWAPPABLE,
    FrameUse.TMPFS: FrameKind.SWAPPABLE,
    FrameUse.MAPPED_FILE: FrameKind.SYNCABLE,
    FrameUse.PAGE_CACHE: FrameKind.SYNCABLE,
}
_KIND_OF_USE: Final = np.array([KIND_OF[use] for use in FrameUse], np.int64)
_USER: Final = PageFlag.ANON | PageFlag.KSM | PageFlag.CACHED
_MAPPINGS: Final = ("unmapped", "mapped", "shared")  # by none, one, several entries
# Kinds that pages of processes and files can be of, and whose pages those are.
_CROSSED: Final = (
    (FrameKind.UNRECLAIMABLE, "anonymous"),
    (FrameKind.UNRECLAIMABLE, "file"),
    (FrameKind.SWAPPABLE, "anonymous"),
    (FrameKind.SWAPPABLE, "file"),
    (FrameKind.SYNCABLE, "file"),
)


def frame_kinds(state: "State") -> dict[str, int]:
    """Return how many frames of all zones are of each kind, each use, and each kind by whose page and how mapped."""
    uses = np.zeros(len(FrameUse), np.int64)
    crossed = np.zeros((len(FrameKind), 2, len(_MAPPINGS)), np.int64)  # 2: anonymous, a file's
    blocks = np.asarray(state.pageblock)["zone"]
    for zone in populated_zones(state):
        nr_between = 0
        for first, behind in used_ranges(state, zone)[1]:
            pfn = np.arange(first, behind, dtype=np.int64)
            of_zone = blocks[first >> PAGEBLOCK_ORDER : ((behind - 1) >> PAGEBLOCK_ORDER) + 1] == zone.index
            if not of_zone.all():
                pfn = pfn[blocks[pfn >> PAGEBLOCK_ORDER] == zone.index]
            _count_frames(state, pfn, uses, crossed)
            nr_between += behind - first
        uses[FrameUse.FREE] += zone.spanned - nr_between
    kinds = np.bincount(_KIND_OF_USE, weights=uses, minlength=len(FrameKind)).astype(np.int64)
    counts = {f"{PREFIX}{kind.name.lower()}": int(kinds[kind]) for kind in FrameKind}
    counts |= {f"{PREFIX}use.{use.name.lower()}": int(uses[use]) for use in FrameUse}
    for kind, whose in _CROSSED:
        of_kind = crossed[kind, 0 if whose == "anonymous" else 1]
        for mapping, count in zip(_MAPPINGS, of_kind.tolist(), strict=True):
            counts[f"{PREFIX}{kind.name.lower()}.{whose}.{mapping}"] = count
    return counts


def _count_frames(state: "State", pfn: Ints, uses: Ints, crossed: Ints) -> None:
    """Add these frames, which ascend and split no free block, to the counts of each use and of ``_CROSSED``."""
    flags = np.asarray(state.page)["page_flags"][pfn]
    users = np.flatnonzero(flags & _USER)
    mapped = mapcounts(state, pfn[users])
    use = _frame_uses(state, pfn, flags, users, mapped)
    uses += np.bincount(use, minlength=len(FrameUse))
    of_user = use[users]
    is_page = of_user >= FrameUse.LOCKED
    kind = _KIND_OF_USE[of_user[is_page]]
    of_file = (flags[users[is_page]] & (PageFlag.ANON | PageFlag.KSM)) == 0
    how = np.minimum(mapped[is_page], len(_MAPPINGS) - 1)
    cell = np.ravel_multi_index((kind, of_file.astype(np.int64), how), crossed.shape)
    crossed += np.bincount(cell, minlength=crossed.size).reshape(crossed.shape)


def _frame_uses(state: "State", pfn: Ints, flags: Ints, users: Ints, mapped: Ints) -> Ints:
    """Return the FrameUse of each frame; ``users`` are the places of those with a page, and ``mapped`` its entries."""
    pages = np.asarray(state.page)
    flags = flags.copy()
    huge = np.flatnonzero(flags & PageFlag.HUGE)
    flags[huge] |= pages["page_flags"][pages["head"][pfn[huge]]] & PageFlag.MLOCKED  # the head's, for all
    use = np.full(len(pfn), FrameUse.KERNEL, np.int8)
    of_user = flags[users]
    use_of_user = np.where(mapped > 0, np.int8(FrameUse.MAPPED_FILE), np.int8(FrameUse.PAGE_CACHE))
    use_of_user[(of_user & PageFlag.SWAPBACKED) != 0] = FrameUse.TMPFS
    use_of_user[(of_user & (PageFlag.ANON | PageFlag.KSM)) != 0] = FrameUse.ANON
    use[users] = use_of_user
    use[(flags & (PageFlag.MLOCKED | PageFlag.UNEVICTABLE)) != 0] = FrameUse.MLOCKED
    use[(flags & (PageFlag.DMA | PageFlag.ISOLATED)) != 0] = FrameUse.LOCKED
    slabs = np.flatnonzero(flags & PageFlag.SLAB)
    unused = slab_is_unused(state, slab_heads(state, pfn[slabs]))
    use[slabs] = np.where(unused, FrameUse.UNUSED_SLAB, FrameUse.KERNEL)
    use[(flags & (PageFlag.RESERVED | PageFlag.ZERO_PAGE)) != 0] = FrameUse.RESERVED
    use[((flags & PageFlag.PCP) != 0) | _in_free_blocks(state, pfn, flags)] = FrameUse.FREE
    return use


def _in_free_blocks(state: "State", pfn: Ints, flags: Ints) -> Ints:
    """Return which frames are in a block on a buddy list."""
    heads = np.flatnonzero(flags & PageFlag.BUDDY)
    sizes = 1 << np.asarray(state.page)["order"][pfn[heads]].astype(np.int64)
    borders = np.zeros(len(pfn) + 1, np.int8)
    borders[heads] += 1
    borders[heads + sizes] -= 1  # no two blocks end at one place
    inside: Ints = np.cumsum(borders[:-1], dtype=np.int8) > 0
    return inside
