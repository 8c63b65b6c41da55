"""Finding a free slot, so that pages that leave together lie together.

    flash   each CPU fills a cluster of 256 slots of its own, then takes the first free one; when no cluster
            is wholly free, it searches slot by slot
    disk    all CPUs fill a run of 256 free slots, as near to the start of the area as one is found; when
            there is none, the next free slot is as good as any

Once swap is more than half full, a slot whose page has been read back and is only kept in case it stays
clean counts as free: its page loses it.

Linux: mm/swapfile.c (scan_swap_map_slots, scan_swap_map_try_ssd_cluster, scan_swap_map_ssd_cluster_conflict).
# Differs from Linux: slots are asked for one at a time, not in batches of 64 for a CPU's cache of them; a CPU
that passes a border of 64 MiB goes on there, not in another such part drawn at random.
"""

from typing import TYPE_CHECKING

from node.counters import Current
from node.swap.cached_page import reclaim_slot
from node.swap.slots import (
    SWAPFILE_CLUSTER,
    SWAPFILE_CLUSTER_SHIFT,
    nr_free_slots,
    slot_in_use,
    take_slot,
    vm_swap_full,
)
from shared.constants import NIL
from shared.jit import kernel

if TYPE_CHECKING:
    from node.state import State


@kernel
def _try_slot(state: "State", slot: int, swap_full: int) -> int:
    """Return whether the slot is free, or was made free."""
    if not slot_in_use(state, slot):
        return 1
    if swap_full and state.swap_slot[slot].nr_users == 0:
        return reclaim_slot(state, slot)
    return 0


@kernel
def _scan(state: "State", start: int) -> int:
    """Return the first free slot from ``start`` on, around the end of the area; or NIL."""
    area = state.swap_area[0]
    if area.highest_free == 0:
        # Nothing is free, though slots that only the swap cache holds could be made so: as Linux, give up.
        return NIL
    if start < area.lowest_free or start > area.highest_free:
        start = area.lowest_free
    swap_full = vm_swap_full(state)
    for slot in range(start, area.highest_free + 1):
        if _try_slot(state, slot, swap_full):
            return slot
    for slot in range(area.lowest_free, start):
        if _try_slot(state, slot, swap_full):
            return slot
    return NIL


@kernel
def _next_of_cluster(state: "State") -> int:
    """Return the next free slot of this CPU's cluster, or of the first free cluster; NIL if none is left."""
    own = state.swap_cpu[state.current[Current.CPU]]
    area = state.swap_area[0]
    while True:
        if own.cluster == 0:
            if area.first_free_cluster == 0:
                return NIL
            own.cluster = area.first_free_cluster
            own.next = own.cluster << SWAPFILE_CLUSTER_SHIFT
        end = min(area.nr_slots, (own.cluster + 1) << SWAPFILE_CLUSTER_SHIFT)
        slot = own.next
        while slot < end and slot_in_use(state, slot):
            slot += 1
        if slot < end:
            own.next = slot + 1
            return slot
        own.cluster = 0


@kernel
def _find_in_clusters(state: "State") -> int:
    own = state.swap_cpu[state.current[Current.CPU]]
    while True:
        slot = _next_of_cluster(state)
        if slot == NIL:
            slot = _scan(state, own.scan_next)
            break
        index = slot >> SWAPFILE_CLUSTER_SHIFT
        if not state.swap_cluster[index].is_free or index == state.swap_area[0].first_free_cluster:
            break
        # Emptied since this CPU took it, so it waits for its turn on the list: take another.
        own.cluster = 0
    if slot != NIL:
        own.scan_next = slot + 1
    return slot


@kernel
def _find_run(state: "State") -> int:
    """Return the first slot of the first run of 256 free ones, or NIL."""
    area = state.swap_area[0]
    length = 0
    for slot in range(area.lowest_free, area.highest_free + 1):
        length = 0 if slot_in_use(state, slot) else length + 1
        if length == SWAPFILE_CLUSTER:
            return slot - SWAPFILE_CLUSTER + 1
    return NIL


@kernel
def _find_next_fit(state: "State") -> int:
    area = state.swap_area[0]
    start = area.cluster_next
    if area.cluster_left != 0:
        area.cluster_left -= 1
    else:
        area.cluster_left = SWAPFILE_CLUSTER - 1
        if nr_free_slots(state) >= SWAPFILE_CLUSTER:
            start = _find_run(state)
            if start == NIL:
                start = area.lowest_free
    slot = _scan(state, start)
    if slot != NIL:
        area.cluster_next = slot + 1
    return slot


@kernel
def get_swap_slot(state: "State", pfn: int) -> int:
    """Hand out a slot for frame ``pfn``, which enters the swap cache now; NIL if the area is full."""
    area = state.swap_area[0]
    if nr_free_slots(state) == 0:
        return NIL
    slot = _find_next_fit(state) if area.rotational else _find_in_clusters(state)
    if slot != NIL:
        take_slot(state, slot, pfn)
    return slot
