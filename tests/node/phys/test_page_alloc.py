"""Allocation of frames: which zone serves, what a frame looks like, and when the answer is NIL."""

import pytest

from node.counters import Current, VmEvent
from node.joints import drain_all_pages
from node.phys.page import PageFlag
from node.phys.page_alloc import alloc_pages, free_pages, get_page, page_is_free
from node.phys.watermarks import watermark_ok
from node.phys.zone import DMA_END_PFN, ZoneId
from node.state import State
from node.vm.put_page import put_page
from shared.constants import NIL
from shared.gfp_flags import Gfp
from tests.node.vm_machine import VmMachine

pytestmark = pytest.mark.three_ways


MOVABLE = Gfp.HIGHMEM | Gfp.MOVABLE  # does not wait


@pytest.fixture
def state() -> State:
    return VmMachine().state


def allocate_until(state: State, order: int, gfp: int) -> list[int]:
    """Return what can be allocated until the answer is NIL."""
    frames = []
    while (pfn := alloc_pages(state, order, gfp)) != NIL:
        frames.append(pfn)
    return frames


def test_a_frame_is_empty_referenced_once_and_counted(state: State) -> None:
    pfn = alloc_pages(state, 0, Gfp.DIRECT_RECLAIM)
    page = state.page[pfn]
    assert (page.refcount, page.mapcount, page.content, page.word, page.page_flags) == (1, 0, 0, 0, 0)
    assert state.vm_event[VmEvent.PGALLOC_DMA32] == 1
    free_pages(state, pfn, 0)
    assert state.vm_event[VmEvent.PGFREE] == 1
    assert page_is_free(state, pfn)


def test_the_last_reference_frees(state: State) -> None:
    pfn = alloc_pages(state, 0, 0)
    get_page(state, pfn)
    put_page(state, pfn)
    assert not page_is_free(state, pfn)
    put_page(state, pfn)
    assert page_is_free(state, pfn)


def test_the_highest_zone_serves_first_and_the_lowest_keeps_its_reserve(state: State) -> None:
    frames = allocate_until(state, 0, MOVABLE)
    zones = [pfn >= DMA_END_PFN for pfn in frames]
    first_low = zones.index(False)
    assert zones[0]
    # The higher zone goes down to low, then the lower one; then both down to min.
    dma, dma32 = state.zone[ZoneId.DMA], state.zone[ZoneId.DMA32]
    assert first_low <= dma32.managed - dma32.low
    assert dma.nr_free <= dma.min_wmark + state.lowmem_reserve[ZoneId.MOVABLE]
    assert dma32.nr_free <= dma32.min_wmark
    assert state.vm_event[VmEvent.PGALLOC_DMA] == zones.count(False)


def test_blocks_come_aligned_and_go_back_whole(state: State) -> None:
    free_at_boot = int(state.zone["nr_free"].sum())
    frames = [alloc_pages(state, order, 0) for order in range(1, 8)]
    assert all(pfn % (1 << order) == 0 for order, pfn in enumerate(frames, 1))
    held = int(state.zone["nr_free"].sum() + state.pcp["count"].sum())
    assert held == free_at_boot - sum(1 << order for order in range(1, 8))
    for order, pfn in enumerate(frames, 1):
        free_pages(state, pfn, order)
    drain_all_pages(state)
    assert state.zone["nr_free"].sum() == free_at_boot


def test_high_requests_and_reclaim_itself_may_go_deeper(state: State) -> None:
    allocate_until(state, 0, MOVABLE)
    assert alloc_pages(state, 0, MOVABLE) == NIL
    assert allocate_until(state, 0, MOVABLE | Gfp.HIGH)
    state.current[Current.MEMALLOC] = 1
    assert allocate_until(state, 0, MOVABLE)
    assert int(state.zone["nr_free"].sum()) + int(state.pcp["count"].sum()) == 0


def test_a_watermark_counts_the_block_that_is_asked_for(state: State) -> None:
    zone = state.zone[ZoneId.DMA32]
    mark = int(zone.nr_free) - 8
    assert watermark_ok(state, ZoneId.DMA32, 0, mark, ZoneId.MOVABLE)
    assert watermark_ok(state, ZoneId.DMA32, 3, mark, ZoneId.MOVABLE)  # keeps nr_free - 7
    assert not watermark_ok(state, ZoneId.DMA32, 3, mark + 1, ZoneId.MOVABLE)
    assert not watermark_ok(state, ZoneId.DMA32, 0, mark + 8, ZoneId.MOVABLE)


def test_an_allocated_frame_keeps_no_flag_of_its_last_owner(state: State) -> None:
    pfn = alloc_pages(state, 0, 0)
    state.page[pfn].page_flags |= PageFlag.DIRTY | PageFlag.REFERENCED
    free_pages(state, pfn, 0)
    assert state.page[pfn].page_flags == PageFlag.PCP
    assert alloc_pages(state, 0, 0) == pfn
    assert state.page[pfn].page_flags == 0
