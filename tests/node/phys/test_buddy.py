"""The buddy system, against a model that derives the blocks from the free frames."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from node.counters import VmStat
from node.phys.buddy import MAX_ORDER, NR_ORDERS, buddy_free, count_free, rmqueue_smallest
from node.phys.frames_check import check_frames
from node.phys.migrate_type import NR_MIGRATE_TYPES, MigrateType
from node.phys.page import PageFlag
from node.phys.pcp import NR_PCP_LISTS
from node.phys.zone import NR_ZONES, ZoneId
from node.state import State
from shared.constants import NIL
from shared.jit import entry
from tests.models.buddy import BuddyModel

pytestmark = pytest.mark.three_ways

NR_FRAMES = 64


@entry
def take(state: State, order: int) -> int:
    """Return a movable block of zone DMA, or NIL, as a zone's own allocation does."""
    pfn = rmqueue_smallest(state, ZoneId.DMA, order, MigrateType.MOVABLE)
    if pfn != NIL:
        count_free(state, ZoneId.DMA, -(1 << order))
    return pfn


def machine_with(free: list[int], nr_frames: int = NR_FRAMES) -> State:
    """Return a state with one zone, in which ``free`` frames are free and the others allocated."""
    lengths = dict.fromkeys(State.LAYOUT, 1)
    lengths |= {
        "panic": 4,
        "request": 1,
        "vm_stat": VmStat.NR,
        "page": nr_frames,
        "zone": NR_ZONES,
        "free_area": NR_ZONES * NR_ORDERS,
        "free_list": NR_ZONES * NR_ORDERS * NR_MIGRATE_TYPES,
        "pcp_list": NR_PCP_LISTS,
    }
    state = State(**lengths)
    for name in ("first", "last"):
        state.free_list[name][:] = NIL
        state.pcp_list[name][:] = NIL
    state.pageblock["migrate_type"][:] = MigrateType.MOVABLE
    state.zone[ZoneId.DMA].end_pfn = nr_frames
    state.zone[ZoneId.DMA].managed = nr_frames
    for pfn in free:
        buddy_free(state, pfn, 0, 0)
    return state


def blocks(state: State) -> list[tuple[int, int]]:
    heads = np.flatnonzero(state.page["page_flags"] & PageFlag.BUDDY)
    return [(int(pfn), int(state.page["order"][pfn])) for pfn in heads]


def test_a_block_is_split_to_serve_and_its_halves_stay_free() -> None:
    state = machine_with(list(range(8)), nr_frames=8)
    assert blocks(state) == [(0, 3)]
    assert take(state, 0) == 0
    assert blocks(state) == [(1, 0), (2, 1), (4, 2)]
    assert state.zone[ZoneId.DMA].nr_free == state.vm_stat[VmStat.NR_FREE_PAGES] == 7


def test_freeing_merges_with_every_free_buddy() -> None:
    state = machine_with([1, 2, 3, 4, 5, 6, 7], nr_frames=8)
    assert blocks(state) == [(1, 0), (2, 1), (4, 2)]
    buddy_free(state, 0, 0, 0)
    assert blocks(state) == [(0, 3)]


def test_a_block_that_is_likely_to_merge_goes_to_the_tail() -> None:
    # Frame 1 is taken, but 2 and 3 are free: frame 0 may soon be merged into 0..3, so 5 goes first.
    state = machine_with([5, 2, 3, 0], nr_frames=8)
    assert take(state, 0) == 5
    assert take(state, 0) == 0


def test_a_zone_without_a_large_enough_block_says_so() -> None:
    state = machine_with([0, 1, 4, 5])
    assert take(state, 2) == NIL
    assert take(state, 1) != NIL


@given(st.lists(st.tuples(st.booleans(), st.integers(0, 3), st.integers(0, 63)), max_size=60))
def test_blocks_follow_from_which_frames_are_free(steps: list[tuple[bool, int, int]]) -> None:
    state = machine_with(list(range(NR_FRAMES)))
    model = BuddyModel(0, NR_FRAMES, MAX_ORDER, set(range(NR_FRAMES)))
    held: list[tuple[int, int]] = []
    for allocate, order, which in steps:
        if allocate or not held:
            pfn = take(state, order)
            if pfn == NIL:
                assert all(found < order for _, found in model.blocks())
                continue
            assert {*range(pfn, pfn + (1 << order))} <= model.free
            model.free -= {*range(pfn, pfn + (1 << order))}
            held.append((pfn, order))
        else:
            pfn, freed_order = held.pop(which % len(held))
            buddy_free(state, pfn, freed_order, which & 1)
            model.free |= {*range(pfn, pfn + (1 << freed_order))}
        assert blocks(state) == model.blocks()
        assert check_frames(state) == []
