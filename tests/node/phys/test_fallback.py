"""Falling back: when a pageblock changes hands, to the frame. One pageblock of 512 frames, all others taken."""

import pytest

from node.counters import Knob, VmEvent, VmStat
from node.phys.buddy import NR_ORDERS, buddy_free
from node.phys.fallback import rmqueue
from node.phys.migrate_type import NR_MIGRATE_TYPES, MigrateType
from node.phys.page import PageFlag
from node.phys.pcp import NR_PCP_LISTS
from node.phys.zone import NR_ZONES, PAGEBLOCK_PAGES, ZoneId
from node.state import State
from shared.constants import NIL
from shared.jit import entry

pytestmark = pytest.mark.three_ways


@entry
def take(state: State, order: int, migrate_type: int) -> int:
    return rmqueue(state, ZoneId.DMA, order, migrate_type)


def pageblock(free: int, on_lru: int, of_type: int = MigrateType.MOVABLE) -> State:
    """Return a zone of one pageblock: its first frames free, its last ones on an LRU list, the others the kernel's."""
    lengths = dict.fromkeys(State.LAYOUT, 1)
    lengths |= {
        "panic": 4,
        "knob": Knob.NR,
        "vm_stat": VmStat.NR,
        "vm_event": VmEvent.NR,
        "page": PAGEBLOCK_PAGES,
        "zone": NR_ZONES,
        "free_area": NR_ZONES * NR_ORDERS,
        "free_list": NR_ZONES * NR_ORDERS * NR_MIGRATE_TYPES,
        "pcp_list": NR_PCP_LISTS,
    }
    state = State(**lengths)
    for name in ("first", "last"):
        state.free_list[name][:] = NIL
        state.pcp_list[name][:] = NIL
    state.pageblock["migrate_type"][:] = of_type
    state.zone[ZoneId.DMA].end_pfn = PAGEBLOCK_PAGES
    state.zone[ZoneId.DMA].managed = PAGEBLOCK_PAGES
    state.page["page_flags"][PAGEBLOCK_PAGES - on_lru :] = PageFlag.LRU
    for pfn in range(free):
        buddy_free(state, pfn, 0, 0)
    return state


def free_frames_of(state: State, migrate_type: int) -> int:
    heads = (state.page["page_flags"] & PageFlag.BUDDY != 0) & (state.page["migrate_type"] == migrate_type)
    return int((1 << state.page["order"][heads].astype(int)).sum())


@pytest.mark.parametrize(
    ("free", "on_lru", "claimed"),
    [
        (256, 256, True),
        (255, 257, False),
        (255, 256, True),
        (200, 256, True),
        (200, 257, False),
        (1, 256, True),
    ],
)
def test_an_unmovable_request_claims_a_movable_pageblock_that_is_half_free_or_unmovable(
    free: int, on_lru: int, claimed: bool
) -> None:
    state = pageblock(free, on_lru)
    assert take(state, 0, MigrateType.UNMOVABLE) != NIL
    assert state.pageblock[0].migrate_type == (MigrateType.UNMOVABLE if claimed else MigrateType.MOVABLE)
    # Claimed or not, all that was free in it is the request's from now on.
    assert free_frames_of(state, MigrateType.UNMOVABLE) == free - 1
    assert free_frames_of(state, MigrateType.MOVABLE) == 0
    assert state.vm_event[VmEvent.MM_PAGE_ALLOC_EXTFRAG] == 1


@pytest.mark.parametrize(("free", "on_lru", "claimed"), [(128, 128, True), (128, 127, False), (256, 0, True)])
def test_a_large_movable_request_counts_movable_pages_as_its_own(
    free: int, on_lru: int, claimed: bool
) -> None:
    state = pageblock(free, on_lru, MigrateType.UNMOVABLE)
    assert take(state, 7, MigrateType.MOVABLE) == 0
    assert state.pageblock[0].migrate_type == (MigrateType.MOVABLE if claimed else MigrateType.UNMOVABLE)


@pytest.mark.parametrize(("free", "claimed"), [(256, True), (255, False)])
def test_between_unmovable_and_reclaimable_only_what_is_free_counts(free: int, claimed: bool) -> None:
    state = pageblock(free, 0, MigrateType.RECLAIMABLE)
    assert take(state, 0, MigrateType.UNMOVABLE) != NIL
    assert (state.pageblock[0].migrate_type == MigrateType.UNMOVABLE) == claimed


def test_a_small_movable_request_takes_the_smallest_block_and_nothing_else() -> None:
    # Of order 3 at most: blocks of order 4 and more are taken over with their pageblock.
    state = pageblock(0, 0, MigrateType.UNMOVABLE)
    for first, size in ((0, 8), (16, 2)):
        for pfn in range(first, first + size):
            buddy_free(state, pfn, 0, 0)
    assert take(state, 0, MigrateType.MOVABLE) == 16
    assert free_frames_of(state, MigrateType.MOVABLE) == 1
    assert free_frames_of(state, MigrateType.UNMOVABLE) == 8
    assert state.pageblock[0].migrate_type == MigrateType.UNMOVABLE


def test_nobody_falls_back_to_reserved_or_isolated_frames() -> None:
    for of_type in (MigrateType.HIGHATOMIC, MigrateType.ISOLATE):
        state = pageblock(512, 0, of_type)
        assert [take(state, 0, kind) for kind in range(3)] == [NIL] * 3
