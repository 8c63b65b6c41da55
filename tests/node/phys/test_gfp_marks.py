"""How deep each kind of request may go, on one zone: until the answer is NIL, nothing being reclaimable."""

import pytest

from node.build import build_state
from node.counters import Current, Knob
from node.joints import drain_all_pages
from node.phys.fallback import AllocFlag
from node.phys.page_alloc import alloc_pages, free_pages
from node.phys.watermarks import may_allocate
from node.phys.zone import NR_ZONES, ZoneId
from node.spec import MachineSpec
from node.state import State
from shared.constants import MIB, NIL
from shared.gfp_flags import GFP_ATOMIC, GFP_DMA, GFP_KERNEL, GFP_NOWAIT, Gfp
from shared.jit import entry

pytestmark = pytest.mark.three_ways

ZONE = ZoneId.DMA
MARK = 400
# Half of min is for HIGH; a quarter more of what is then left for who cannot wait as well.
HIGH_MARK = MARK - MARK // 2
ATOMIC_MARK = HIGH_MARK - HIGH_MARK // 4


@pytest.fixture
def state() -> State:
    """A machine whose zone DMA has round marks, no reserve for other zones, and lists of single frames."""
    state = build_state(MachineSpec(96 * MIB))
    zone = state.zone[ZONE]
    zone.min_wmark, zone.low, zone.high = MARK, 500, 600
    state.lowmem_reserve[ZONE * NR_ZONES + ZONE] = 0
    state.pcp[ZONE].batch = 1
    state.knob[Knob.WATERMARK_BOOST_FACTOR] = 0  # unmovable requests take over movable pageblocks here
    return state


@entry
def take_all(state: State, gfp: int) -> int:
    """Allocate until the answer is NIL; return how many frames are left."""
    while alloc_pages(state, 0, gfp) != NIL:
        pass
    return state.zone[ZONE].nr_free + state.pcp[ZONE].count


@entry
def take(state: State, order: int, gfp: int) -> int:
    return alloc_pages(state, order, gfp)


@entry
def give(state: State, pfn: int, order: int) -> int:
    free_pages(state, pfn, order)
    return 0


@entry
def may(state: State, gfp: int, alloc_flags: int) -> int:
    return may_allocate(state, ZONE, 0, gfp, alloc_flags)


@pytest.mark.parametrize(
    ("gfp", "left"),
    [
        (GFP_NOWAIT, MARK),
        (GFP_NOWAIT | Gfp.HIGH, ATOMIC_MARK),
        (GFP_ATOMIC, ATOMIC_MARK),
        (GFP_ATOMIC | Gfp.NOMEMALLOC, HIGH_MARK),
        (GFP_ATOMIC | Gfp.MEMALLOC, 0),
        (GFP_ATOMIC | Gfp.MEMALLOC | Gfp.NOMEMALLOC, HIGH_MARK),
        (GFP_KERNEL | Gfp.NORETRY, MARK),
        (GFP_KERNEL | Gfp.NORETRY | Gfp.HIGH, HIGH_MARK),
    ],
)
def test_each_kind_of_request_stops_at_its_mark(state: State, gfp: int, left: int) -> None:
    assert take_all(state, GFP_DMA | gfp) == left


def test_nofail_gets_frames_where_others_do_not(state: State) -> None:
    assert take_all(state, GFP_DMA | GFP_KERNEL | Gfp.NORETRY) == MARK
    assert take(state, 0, GFP_DMA | GFP_KERNEL | Gfp.NORETRY) == NIL
    assert take(state, 0, GFP_DMA | GFP_KERNEL | Gfp.NORETRY | Gfp.NOFAIL) != NIL


def test_a_task_that_reclaims_ignores_the_marks(state: State) -> None:
    state.current[Current.MEMALLOC] = 1
    assert take_all(state, GFP_DMA | GFP_NOWAIT) == 0


def test_what_is_freed_tops_the_reserve_up_first(state: State) -> None:
    held = []
    while (pfn := take(state, 0, GFP_DMA | GFP_ATOMIC)) != NIL:
        held.append(pfn)
    for pfn in held[-(MARK - ATOMIC_MARK) :]:
        give(state, pfn, 0)
    drain_all_pages(state)
    assert state.zone[ZONE].nr_free == MARK
    assert take(state, 0, GFP_DMA | GFP_NOWAIT) == NIL
    give(state, held[0], 0)
    drain_all_pages(state)
    assert take(state, 0, GFP_DMA | GFP_NOWAIT) != NIL


def test_a_boost_raises_all_marks_but_not_for_the_urgent(state: State) -> None:
    zone = state.zone[ZONE]
    zone.nr_free = MARK + 100
    zone.boost = 512
    flags = AllocFlag.WMARK_MIN
    assert not may(state, GFP_DMA | GFP_NOWAIT, flags)
    assert may(state, GFP_DMA | GFP_ATOMIC, flags)
    assert not may(state, GFP_DMA | GFP_ATOMIC, AllocFlag.WMARK_LOW)
    zone.boost = 0
    assert may(state, GFP_DMA | GFP_NOWAIT, flags)


def test_a_lower_zone_keeps_its_reserve_from_requests_for_higher_ones(state: State) -> None:
    zone = state.zone[ZONE]
    state.lowmem_reserve[ZONE * NR_ZONES + ZoneId.NORMAL] = 1000
    zone.nr_free = MARK + 1000
    assert may(state, GFP_DMA | GFP_NOWAIT, AllocFlag.WMARK_MIN)
    assert not may(state, GFP_NOWAIT, AllocFlag.WMARK_MIN)
    zone.nr_free += 1
    assert may(state, GFP_NOWAIT, AllocFlag.WMARK_MIN)


def test_the_reserve_for_large_blocks_is_not_free_to_all(state: State) -> None:
    zone = state.zone[ZONE]
    zone.nr_reserved_highatomic = 512
    zone.nr_free = MARK + 512
    assert not may(state, GFP_DMA | GFP_NOWAIT, AllocFlag.WMARK_MIN)
    assert may(state, GFP_DMA | GFP_ATOMIC, AllocFlag.WMARK_MIN | AllocFlag.MIN_RESERVE)


def test_no_zone_for_dma_is_nil_and_counted(state: State) -> None:
    state.zonelist[: len(state.zone) + 1] = NIL  # the list of node 0 and DMA
    assert take(state, 0, GFP_DMA | GFP_KERNEL) == NIL
