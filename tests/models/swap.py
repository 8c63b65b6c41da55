"""The swap area as a dictionary, and what must hold between slots, clusters and the swap cache of a state."""

from dataclasses import dataclass, field

import numpy as np

from node.counters import VmStat
from node.phys.page import PageFlag
from node.state import State
from node.swap.slots import SWAPFILE_CLUSTER, nr_clusters


@dataclass
class Slot:
    """A slot in use."""

    users: int = 0
    pfn: int | None = None


@dataclass
class SwapModel:
    """An area of ``nr_slots``, the header's included."""

    nr_slots: int
    used: dict[int, Slot] = field(default_factory=dict)

    def full(self) -> bool:
        """Say whether more than half is used."""
        total = self.nr_slots - 1
        return (total - len(self.used)) * 2 < total

    def may_hand_out(self, slot: int) -> bool:
        """Say whether the slot is free, or held by the swap cache only while swap is filling up."""
        assert 1 <= slot < self.nr_slots
        return slot not in self.used or (self.full() and self.used[slot].users == 0)

    def slot_of(self, pfn: int) -> int | None:
        """Return the slot whose page a frame holds."""
        return next((slot for slot, what in self.used.items() if what.pfn == pfn), None)

    def drop_user(self, slot: int) -> None:
        """Remove a swap entry; frames in the cache have a second user here, so they are never freed."""
        self.used[slot].users -= 1
        if self.used[slot].users == 0 and (self.used[slot].pfn is None or self.full()):
            del self.used[slot]

    def uncache(self, pfn: int) -> None:
        """Take a frame out of the cache."""
        slot = self.slot_of(pfn)
        assert slot is not None
        self.used[slot].pfn = None
        if self.used[slot].users == 0:
            del self.used[slot]


def slots_of(state: State) -> dict[int, Slot]:
    """Return the slots in use."""
    slots = state.swap_slot
    return {
        int(i): Slot(int(slots["nr_users"][i]), int(slots["cached_pfn"][i]) or None)
        for i in np.flatnonzero((slots["nr_users"] != 0) | (slots["cached_pfn"] != 0))
    }


def check_area(state: State) -> None:
    """Check counts, bounds, clusters and their free list, and both directions of the swap cache."""
    area = state.swap_area[0]
    used = slots_of(state)
    assert 0 not in used
    assert area.nr_used == len(used) == state.vm_stat[VmStat.NR_SWAP_USED]
    free = [slot for slot in range(1, area.nr_slots) if slot not in used]
    assert all(area.lowest_free <= slot <= area.highest_free for slot in free)
    if not area.rotational:
        _check_clusters(state, used)
    cached = {what.pfn: slot for slot, what in used.items() if what.pfn is not None}
    flags = state.page["page_flags"]
    assert set(cached) == set(np.flatnonzero(flags & PageFlag.SWAPCACHE).tolist())
    assert all(state.page[pfn].private == slot for pfn, slot in cached.items())
    assert state.vm_stat[VmStat.NR_SWAPCACHED] == len(cached)
    assert (
        state.vm_stat[VmStat.NR_WRITEBACK] == area.nr_writes == np.count_nonzero(flags & PageFlag.WRITEBACK)
    )


def _check_clusters(state: State, used: dict[int, Slot]) -> None:
    area = state.swap_area[0]
    listed = []
    index = area.first_free_cluster
    while index:
        listed.append(index)
        assert state.swap_cluster[index].is_free
        index = state.swap_cluster[index].next
    assert len(set(listed)) == len(listed)
    for index in range(nr_clusters(area.nr_slots)):
        first = index * SWAPFILE_CLUSTER
        behind = first + SWAPFILE_CLUSTER
        inside = sum(first <= slot < behind for slot in used)
        inside += max(behind - max(area.nr_slots, first), 0) + (index == 0)
        assert state.swap_cluster[index].nr_used == inside
        assert state.swap_cluster[index].is_free == (inside == 0) == (index in listed)
