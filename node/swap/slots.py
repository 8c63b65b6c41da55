"""The swap area: which slots are free, who uses the others, and what they hold.

    slot     0        1 ............ 255   256 ........... 511   512 ...
           header   [    cluster 0     ] [     cluster 1     ] [ ...
                                           free: on a list, from which each CPU takes a whole cluster

A slot is in use while page-table entries refer to it (``nr_users``) or a frame of the swap cache stands for
it (``cached_pfn``); Linux keeps both in one byte of swap_map, the second as SWAP_HAS_CACHE. Slot 0 holds the
header that mkswap wrote and is never handed out. ``lowest_free`` and ``highest_free`` bound the free slots
loosely: no free slot lies outside. On a rotational device there are no clusters (node/swap/allocate.py).

Linux: mm/swapfile.c (swap_range_alloc, swap_range_free, alloc_cluster, free_cluster, setup_clusters...).
# Differs from Linux: one swap area; no per-CPU caches of slots (mm/swap_slots.c), no discard, no bad pages.
"""

from typing import TYPE_CHECKING, Final

import numpy as np

from node.counters import Panic, VmStat
from shared.jit import bug_on, entry, kernel

if TYPE_CHECKING:
    from node.state import State

SWAP_AREA = np.dtype(
    [
        ("nr_slots", np.int64),  # the header's included; 0: the machine has no swap
        ("nr_used", np.int64),
        ("rotational", np.int64),  # 1: next-fit in runs and cluster readahead; 0: clusters and VMA readahead
        ("cluster_next", np.int64),  # rotational: where the search goes on
        ("cluster_left", np.int64),  # rotational: slots left of the run that was found last
        ("lowest_free", np.int64),
        ("highest_free", np.int64),  # 0: none is free
        ("first_write", np.int64),  # of the writes under way: position of the oldest in ``state.writeback``
        ("nr_writes", np.int64),
        ("ra_hits", np.int64),  # cluster readahead: pages it brought that were used since it last ran
        ("ra_previous_slot", np.int64),
        ("ra_last_pages", np.int64),
        ("first_free_cluster", np.int32),  # 0: none; cluster 0 is never free, for the header is in it
        ("last_free_cluster", np.int32),
        (
            "map_vaddr",
            np.int64,
        ),  # where vmalloc put swap_map and cluster_info (node/swap/swap_map.py); 0: nowhere
        ("cluster_vaddr", np.int64),
    ],
    align=True,
)
SWAP_CLUSTER = np.dtype(
    [
        ("nr_used", np.int32),  # slots in use, those behind the area's end included
        ("next", np.int32),  # next free cluster, or 0
        ("is_free", np.int32),  # 1: on the list of free clusters
    ],
    align=True,
)
SWAP_CPU = np.dtype(
    [
        ("cluster", np.int32),  # the one this CPU hands out slots of, or 0
        ("next", np.int32),  # slot at which it goes on there
        ("scan_next", np.int32),  # where it searches when no cluster is free
    ],
    align=True,
)
SWAP_SLOT = np.dtype(
    [
        ("content", np.int64),  # what was written to it: content id
        ("ready_ps", np.int64),  # when its frame has been read from the device, and is unlocked
        ("word", np.int32),
        ("nr_users", np.int32),  # swap entries in page tables
        ("cached_pfn", np.int32),  # frame in the swap cache that holds this slot's page, or 0
        ("is_table", np.int32),  # 1: holds a page table, whose entries are in ``state.slot_word``
    ],
    align=True,
)

SWAPFILE_CLUSTER_SHIFT: Final = 8
SWAPFILE_CLUSTER: Final = 1 << SWAPFILE_CLUSTER_SHIFT
SWAP_CLUSTER_COLUMNS: Final = 64  # SWAP_CLUSTER_COLS: clusters of one 64 MiB swap address space
FIRST_RA_HITS: Final = 4


def nr_clusters(nr_slots: int) -> int:
    """Return how many clusters an area of ``nr_slots`` has: the length of ``state.swap_cluster``."""
    return -(-nr_slots // SWAPFILE_CLUSTER)


def setup_swap_area(state: "State", nr_slots: int, rotational: int) -> None:
    """Make an empty swap area of ``nr_slots`` (mkswap, swapon); it takes at least the header and one slot.

    Free clusters are listed in columns of 64, so that CPUs fill different swap address spaces.
    # Differs from Linux: the first column and the first slots searched are not drawn at random.
    """
    area = state.swap_area[0]
    area.nr_slots = nr_slots
    area.rotational = rotational
    area.ra_hits = FIRST_RA_HITS
    area.cluster_next = 1
    area.lowest_free = 1
    area.highest_free = nr_slots - 1
    if not rotational:
        list_free_clusters(state)


@entry
def list_free_clusters(state: "State") -> None:
    """Put every cluster of a new area on the free list, but for the header's and one cut off at the end."""
    area = state.swap_area[0]
    count = (area.nr_slots + SWAPFILE_CLUSTER - 1) >> SWAPFILE_CLUSTER_SHIFT
    state.swap_cluster[0].nr_used = 1
    state.swap_cluster[count - 1].nr_used += count * SWAPFILE_CLUSTER - area.nr_slots
    for column in range(SWAP_CLUSTER_COLUMNS):
        for index in range(column, count, SWAP_CLUSTER_COLUMNS):
            if state.swap_cluster[index].nr_used == 0:
                _list_cluster(state, index)


@kernel
def nr_free_slots(state: "State") -> int:
    """Return how many slots can still be handed out."""
    area = state.swap_area[0]
    return max(area.nr_slots - 1, 0) - area.nr_used


@kernel
def vm_swap_full(state: "State") -> int:
    """Return whether more than half of the swap area is used: then pages in memory should not hold slots."""
    return 1 if nr_free_slots(state) * 2 < state.swap_area[0].nr_slots - 1 else 0


@kernel
def slot_in_use(state: "State", slot: int) -> int:
    """Return whether the slot is handed out."""
    entry = state.swap_slot[slot]
    return 1 if entry.nr_users != 0 or entry.cached_pfn != 0 else 0


@kernel
def _list_cluster(state: "State", index: int) -> None:
    """Add a cluster without a used slot to the free ones."""
    area = state.swap_area[0]
    cluster = state.swap_cluster[index]
    cluster.is_free = 1
    cluster.next = 0
    if area.first_free_cluster == 0:
        area.first_free_cluster = index
    else:
        state.swap_cluster[area.last_free_cluster].next = index
    area.last_free_cluster = index


@kernel
def _take_from_cluster(state: "State", index: int) -> None:
    area = state.swap_area[0]
    cluster = state.swap_cluster[index]
    if cluster.is_free:
        bug_on(state, area.first_free_cluster != index, Panic.LIST, index)
        area.first_free_cluster = cluster.next
        cluster.is_free = 0
    cluster.nr_used += 1


@kernel
def take_slot(state: "State", slot: int, pfn: int) -> None:
    """Hand out a free slot for frame ``pfn``, which enters the swap cache."""
    area = state.swap_area[0]
    state.swap_slot[slot].cached_pfn = pfn
    state.swap_slot[slot].ready_ps = 0
    if not area.rotational:
        _take_from_cluster(state, slot >> SWAPFILE_CLUSTER_SHIFT)
    area.nr_used += 1
    state.vm_stat[VmStat.NR_SWAP_USED] += 1
    if slot == area.lowest_free:
        area.lowest_free += 1
    if slot == area.highest_free:
        area.highest_free -= 1
    if area.nr_used == area.nr_slots - 1:
        area.lowest_free = area.nr_slots
        area.highest_free = 0


@kernel
def free_slot(state: "State", slot: int) -> None:
    """Take back a slot that nothing refers to any more."""
    area = state.swap_area[0]
    bug_on(state, slot_in_use(state, slot), Panic.SWAP_COUNT, slot)
    area.nr_used -= 1
    state.vm_stat[VmStat.NR_SWAP_USED] -= 1
    area.lowest_free = min(area.lowest_free, slot)
    area.highest_free = max(area.highest_free, slot)
    if not area.rotational:
        index = slot >> SWAPFILE_CLUSTER_SHIFT
        cluster = state.swap_cluster[index]
        bug_on(state, cluster.nr_used == 0, Panic.SWAP_COUNT, slot)
        cluster.nr_used -= 1
        if cluster.nr_used == 0:
            _list_cluster(state, index)
