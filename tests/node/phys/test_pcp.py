"""Per-CPU frame lists: refilled and drained in batches, hot frames first."""

import pytest

from node.counters import Current
from node.joints import drain_all_pages
from node.phys.frames_check import check_frames
from node.phys.page_alloc import alloc_pages, free_pages, page_is_free
from node.phys.zone import NR_ZONES, ZoneId
from node.state import State
from shared.gfp_flags import GFP_DMA, GFP_HIGHUSER_MOVABLE, Gfp
from shared.jit import entry
from tests.node.vm_machine import VmMachine

pytestmark = pytest.mark.three_ways

BATCH = 4
HIGH = 10


@pytest.fixture
def state() -> State:
    state = VmMachine(cpus=2).state
    for index in range(len(state.pcp)):
        state.pcp[index].batch = BATCH
        state.pcp[index].high = HIGH
        state.pcp[index].limit = HIGH
    return state


def count(state: State, cpu: int = 0, zone: int = ZoneId.DMA32) -> int:
    return int(state.pcp[cpu * NR_ZONES + zone].count)


@entry
def take_frame(state: State, gfp: int) -> int:
    return alloc_pages(state, 0, gfp)


def take(state: State, gfp: int = GFP_HIGHUSER_MOVABLE) -> int:
    """Allocate a frame as whoever allocates does: with a reference."""
    return take_frame(state, gfp)


@entry
def give(state: State, pfn: int) -> int:
    free_pages(state, pfn, 0)
    return 0


def test_an_empty_list_takes_a_batch_from_the_buddy_system(state: State) -> None:
    free_before = state.zone[ZoneId.DMA32].nr_free
    pfn = take(state)
    assert count(state) == BATCH - 1
    assert state.zone[ZoneId.DMA32].nr_free == free_before - BATCH
    assert not page_is_free(state, pfn)


def test_the_frame_freed_last_is_handed_out_first(state: State) -> None:
    frames = [take(state) for _ in range(3)]
    for pfn in frames:
        give(state, pfn)
    assert [take(state) for _ in range(3)] == frames[::-1]


def test_above_high_a_batch_of_the_coldest_goes_back(state: State) -> None:
    frames = [take(state) for _ in range(2 * BATCH)]
    assert count(state) == 0
    for pfn in frames:
        give(state, pfn)
    assert count(state) == 2 * BATCH
    extra = [take(state, GFP_DMA | Gfp.MOVABLE) for _ in range(2)]
    for pfn in extra:
        give(state, pfn)
    assert count(state, zone=ZoneId.DMA) == BATCH  # zones have lists of their own
    more = [take(state) for _ in range(2 * BATCH)]
    last = [take(state) for _ in range(2)]
    for pfn in more + last:
        give(state, pfn)
    assert count(state) == HIGH - BATCH + 2  # two stayed of the batch that ``last`` came from
    assert check_frames(state) == []


def test_a_batch_goes_back_with_the_frame_that_reaches_high(state: State) -> None:
    frames = [take(state) for _ in range(3 * BATCH)]
    assert count(state) == 0
    held = []
    for pfn in frames[:HIGH]:
        give(state, pfn)
        held.append(count(state))
    assert held == [*range(1, HIGH), HIGH - BATCH]
    assert check_frames(state) == []


def test_each_cpu_has_lists_of_its_own(state: State) -> None:
    pfn = take(state)
    state.current[Current.CPU] = 1
    give(state, pfn)
    assert count(state, cpu=0) == BATCH - 1
    assert count(state, cpu=1) == 1
    assert take(state) == pfn


def test_draining_gives_every_list_back(state: State) -> None:
    free_at_boot = int(state.zone["nr_free"].sum())
    for cpu in range(2):
        state.current[Current.CPU] = cpu
        give(state, take(state))
        give(state, take(state, GFP_DMA | Gfp.MOVABLE))
    drain_all_pages(state)
    assert int(state.pcp["count"].sum()) == 0
    assert int(state.zone["nr_free"].sum()) == free_at_boot
    assert check_frames(state) == []
