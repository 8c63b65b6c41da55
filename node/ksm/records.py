"""What ksmd remembers: one rmap_item for each page it scans, one stable node for each merged page.

Linux: mm/ksm.c (struct ksm_rmap_item, ksm_stable_node, ksm_scan).
"""

from enum import IntEnum

import numpy as np

KSM_SCAN = np.dtype(
    [
        ("address", np.int64),  # next virtual address to look at in ``mm``
        ("seqnr", np.int64),  # full scans so far
        ("batch_left", np.int64),  # pages still to scan before ksmd sleeps
        ("mm", np.int32),  # being scanned; 0 is the head of the list
        ("rmap_item", np.int32),  # last item given out in this mm, or NIL: at the start of its list
        ("first_mm", np.int32),  # list of address spaces, NIL at its ends
        ("last_mm", np.int32),
        ("spare", np.int32),
    ],
    align=True,
)

RMAP_ITEM = np.dtype(
    [
        ("vaddr", np.int64),
        ("checksum", np.int32),  # of the page when it was last scanned (oldchecksum)
        ("seqnr", np.int32),  # of the scan that put it into the unstable tree
        ("mm", np.int32),
        ("next_in_mm", np.int32),  # rmap_list: the mm's items by ascending address
        ("stable_node", np.int32),  # whose sharer it is, or 0
        ("where", np.int8),  # ItemPlace
        ("age", np.int8),  # smart_scan of 6.18: scans since it last changed
        ("remaining_skips", np.int8),
        ("spare", np.int8),
    ],
    align=True,
)
# An item's ``rb_node`` is its place in the unstable tree (key: its virtual page number; pfn and owner: the
# frame and the anon_vma that it had when it was put there), or else, as in Linux's union, its place among the
# sharers of a stable node (left and right: the next and the previous; owner: the anon_vma that it holds).

STABLE_NODE = np.dtype(
    [
        ("key", np.int64),  # what its page, or a chain's pages, compare by
        ("chain_prune_ps", np.int64),
        ("pfn", np.int32),  # kpfn; NIL for a chain
        ("first_sharer", np.int32),  # rmap_items, newest first; of a chain: its dups; NIL: none
        ("nr_sharers", np.int32),  # rmap_hlist_len; IS_CHAIN for a chain
        ("chain", np.int32),  # of a dup: the chain it hangs on, or 0
        ("next_dup", np.int32),
        ("prev_dup", np.int32),
    ],
    align=True,
)


class ItemPlace(IntEnum):
    """Where an rmap_item is."""

    NOWHERE = 0
    UNSTABLE_TREE = 1
    STABLE_NODE = 2


class KsmModel(IntEnum):
    """Whose ksmd: ``ksm.model``."""

    LINUX_6_1 = 0
    LINUX_6_18 = 1


class KsmChecksum(IntEnum):
    """What says that a page is calm: ``ksm.checksum``."""

    XXHASH = 0
    JHASH2 = 1


class KsmCompare(IntEnum):
    """When two pages are deemed equal: ``ksm.compare``."""

    CONTENT = 0
    HASH = 1
