"""Buddy lists, migrate types, falling back, the reserve and per-CPU lists against an obvious model, step by step.

The zone is DMA of a small machine: 3840 frames in eight pageblocks, the first half reserved. After each step every
list has to hold the same blocks in the same order.
"""

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from node.build import build_state
from node.counters import Knob
from node.joints import drain_all_pages
from node.phys.alloc_slowpath import _rmqueue
from node.phys.buddy import NR_ORDERS, buddy_free
from node.phys.fallback import (
    FLAGS_SHIFT,
    AllocFlag,
    reserve_highatomic_pageblock,
    unreserve_highatomic_pageblock,
)
from node.phys.frames_check import check_frames
from node.phys.migrate_type import NR_MIGRATE_TYPES, MigrateType
from node.phys.page import PageFlag
from node.phys.pcp import NR_PCP_LISTS, is_pcp_order
from node.phys.pcp_batch import free_block_to_lists
from node.phys.zone import NR_ZONES, PAGEBLOCK_ORDER, ZoneId
from node.spec import MachineSpec
from node.state import State
from shared.constants import MIB, NIL
from shared.jit import entry
from tests.models.zone_lists import MOVABLE, RECLAIMABLE, UNMOVABLE, CpuLists, ZoneLists

pytestmark = pytest.mark.three_ways

ZONE = ZoneId.DMA
BATCH = 4
LIMIT = 160  # room for five doublings of a batch
TYPES = st.sampled_from([UNMOVABLE, MOVABLE, MOVABLE, RECLAIMABLE])
ORDERS = st.sampled_from([0, 0, 1, 2, 3, 4, 5, 6, 7, 8, 8, 9, 10])


@entry
def take(state: State, order: int, type_and_flags: int) -> int:
    return _rmqueue(state, ZONE, order, type_and_flags)


@entry
def give(state: State, pfn: int, order: int) -> int:
    for frame in range(pfn, pfn + (1 << order)):
        state.page[frame].page_flags = 0
    if is_pcp_order(order):
        free_block_to_lists(state, pfn, order)
    else:
        buddy_free(state, pfn, order, 0)
    return 0


@entry
def reserve(state: State, pfn: int) -> int:
    reserve_highatomic_pageblock(state, pfn)
    return 0


@entry
def unreserve(state: State, migrate_type: int, force: int) -> int:
    return unreserve_highatomic_pageblock(state, ZONE, migrate_type, force)


def members(state: State, first: int) -> list[int]:
    found = []
    while first != NIL:
        found.append(first)
        first = int(state.page[first].next)
    return found


def buddy_lists(state: State) -> dict[tuple[int, int], list[int]]:
    lists = {}
    for order in range(NR_ORDERS):
        for kind in range(NR_MIGRATE_TYPES):
            index = (ZONE * NR_ORDERS + order) * NR_MIGRATE_TYPES + kind
            lists[order, kind] = members(state, int(state.free_list[index].first))
    return {key: found for key, found in lists.items() if found}


class ZoneMachine(RuleBasedStateMachine):
    """A zone and its model."""

    def __init__(self) -> None:
        super().__init__()
        state = build_state(MachineSpec(96 * MIB))
        state.knob[Knob.WATERMARK_BOOST_FACTOR] = 15_000
        state.pcp[ZONE].batch = BATCH
        state.pcp[ZONE].high = state.pcp[ZONE].limit = LIMIT
        zone = state.zone[ZONE]
        zone.high = 1000  # so that boosting has steps
        types = dict.fromkeys(range(int(zone.end_pfn) >> PAGEBLOCK_ORDER), MOVABLE)
        self.state = state
        self.zone = ZoneLists(int(zone.start_pfn), int(zone.end_pfn), int(zone.managed), 1500, types)
        self.zone.lists = buddy_lists(state)
        self.cpu = CpuLists(self.zone, BATCH, LIMIT)
        self.held: list[tuple[int, int]] = []
        self.frames: set[int] = set()

    @rule(order=ORDERS, kind=TYPES, kswapd=st.booleans(), nofragment=st.booleans(), count=st.integers(1, 40))
    def allocate(self, order: int, kind: int, kswapd: bool, nofragment: bool, count: int) -> None:
        flags = (AllocFlag.KSWAPD if kswapd else 0) | (AllocFlag.NOFRAGMENT if nofragment else 0)
        self.allocate_blocks(order, kind, flags, count)

    def allocate_blocks(self, order: int, kind: int, flags: int, count: int) -> None:
        kswapd, nofragment = bool(flags & AllocFlag.KSWAPD), bool(flags & AllocFlag.NOFRAGMENT)
        for _ in range(count):
            expected = None
            if order <= 3 or order == PAGEBLOCK_ORDER:
                expected = self.cpu.take(order, kind, kswapd=kswapd, nofragment=nofragment)
            if expected is None:
                expected = self.zone.take(order, kind, kswapd=kswapd, nofragment=nofragment)
            self.zone.boosted = False  # noted and passed on to kswapd
            pfn = take(self.state, order, kind | flags << FLAGS_SHIFT)
            assert pfn == (NIL if expected is None else expected)
            if pfn == NIL:
                return
            block = set(range(pfn, pfn + (1 << order)))
            assert not block & self.frames
            self.frames |= block
            self.held.append((pfn, order))
            self.state.page["page_flags"][pfn : pfn + (1 << order)] = 0
            if kind == MOVABLE:
                self.state.page["page_flags"][pfn] |= PageFlag.LRU
                self.zone.lru.add(pfn)

    @precondition(lambda self: self.held)
    @rule(which=st.integers(0, 999), count=st.sampled_from([1, 5, 40, 200, 200]))
    def release(self, which: int, count: int) -> None:
        for _ in range(min(count, len(self.held))):
            self.release_block(*self.held.pop(which % len(self.held)))

    def release_block(self, pfn: int, order: int) -> None:
        self.frames -= set(range(pfn, pfn + (1 << order)))
        self.zone.lru.discard(pfn)
        if order <= 3 or order == PAGEBLOCK_ORDER:
            self.cpu.give(pfn, order)
        else:
            self.zone.free(pfn, order, self.zone.types[pfn >> PAGEBLOCK_ORDER])
        give(self.state, pfn, order)

    @rule(order=st.integers(4, 8), kind=TYPES, keep=st.integers(2, 3))
    def use_up_and_keep_some(self, order: int, kind: int, keep: int) -> None:
        """Take blocks until there are no more, and give most of them back: pageblocks are mixed then."""
        before = len(self.held)
        self.allocate_blocks(order, kind, 0, 1000)
        taken = self.held[before:]
        del self.held[before:]
        for at, block in enumerate(taken):
            if at % keep == 0:
                self.held.append(block)
            else:
                self.release_block(*block)

    @rule()
    def drain(self) -> None:
        self.cpu.drain()
        drain_all_pages(self.state)

    @precondition(lambda self: self.held)
    @rule(which=st.integers(0, 999))
    def reserve(self, which: int) -> None:
        pfn, _ = self.held[which % len(self.held)]
        self.zone.reserve(pfn)
        reserve(self.state, pfn)

    @rule(kind=TYPES, force=st.booleans())
    def unreserve(self, kind: int, force: bool) -> None:
        expected = self.zone.unreserve(kind, force=force)
        assert unreserve(self.state, kind, int(force)) == expected

    @invariant()
    def lists_are_the_models(self) -> None:
        state = self.state
        assert buddy_lists(state) == {key: found for key, found in self.zone.lists.items() if found}
        lists = state.pcp[ZONE]
        assert (lists.count, lists.free_factor) == (self.cpu.count, self.cpu.factor)
        for number in range(NR_PCP_LISTS):
            first = int(state.pcp_list[ZONE * NR_PCP_LISTS + number].first)
            assert members(state, first) == [pfn for pfn, _ in self.cpu.lists[number]]

    @invariant()
    def the_zone_is_the_models(self) -> None:
        zone = self.state.zone[ZONE]
        assert (zone.boost, zone.nr_reserved_highatomic) == (self.zone.boost, self.zone.reserved)
        types = self.state.pageblock["migrate_type"][: len(self.zone.types)].tolist()
        assert types == list(self.zone.types.values())
        free = sum(1 << order for order, _ in self.zone.free_blocks().values())
        assert free + self.cpu.count + len(self.frames) == zone.managed
        assert zone.nr_free == free
        counted = [
            sum(order == at for order, _ in self.zone.free_blocks().values()) for at in range(NR_ORDERS)
        ]
        assert self.state.free_area["nr_free"][ZONE * NR_ORDERS : (ZONE + 1) * NR_ORDERS].tolist() == counted

    @invariant()
    def nothing_contradicts_itself(self) -> None:
        assert check_frames(self.state) == []


def checked(machine: ZoneMachine) -> None:
    machine.lists_are_the_models()
    machine.the_zone_is_the_models()
    machine.nothing_contradicts_itself()


@pytest.mark.parametrize("kind", [UNMOVABLE, MOVABLE, RECLAIMABLE])
def test_huge_blocks_have_lists_of_their_own(kind: int) -> None:
    machine = ZoneMachine()
    machine.allocate_blocks(PAGEBLOCK_ORDER, kind, 0, 3)
    checked(machine)
    machine.release(1, 2)
    checked(machine)
    machine.allocate_blocks(PAGEBLOCK_ORDER, kind, 0, 4)
    checked(machine)
    machine.release(0, 40)
    machine.drain()
    checked(machine)


@pytest.mark.parametrize("kind", [UNMOVABLE, RECLAIMABLE, MOVABLE])
@pytest.mark.parametrize("keep", [2, 3, 5])
@pytest.mark.parametrize("order", [3, 5, 8])
def test_what_is_stolen_depends_on_who_else_is_in_the_pageblock(kind: int, keep: int, order: int) -> None:
    machine = ZoneMachine()
    for used in (MOVABLE, UNMOVABLE, RECLAIMABLE):
        machine.use_up_and_keep_some(6, used, keep)
        checked(machine)
        machine.allocate_blocks(order, kind, AllocFlag.KSWAPD, 6)
        checked(machine)


def test_the_models_types_are_the_kernels() -> None:
    assert (UNMOVABLE, MOVABLE, RECLAIMABLE) == (
        MigrateType.UNMOVABLE,
        MigrateType.MOVABLE,
        MigrateType.RECLAIMABLE,
    )
    assert ZONE < NR_ZONES


TestZoneMachine = ZoneMachine.TestCase
TestZoneMachine.settings = settings(max_examples=12, stateful_step_count=15, deadline=None)
