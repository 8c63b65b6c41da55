"""Zonelists: which zones a request tries, in which order, on machines of one to four nodes, and how that is counted."""

import pytest

from node.build import build_state
from node.counters import Current, VmEvent
from node.phys.gfp import gfp_zone
from node.phys.numa import node_orders
from node.phys.page_alloc import alloc_pages
from node.phys.zone import NR_ZONES, ZoneId
from node.spec import MachineSpec, NumaSpec
from node.state import State
from shared.constants import MIB, NIL
from shared.gfp_flags import GFP_DMA, GFP_DMA32, GFP_HIGHUSER_MOVABLE, GFP_KERNEL, GFP_NOWAIT, Gfp
from shared.jit import entry

pytestmark = pytest.mark.three_ways


@entry
def take(state: State, order: int, gfp: int) -> int:
    return alloc_pages(state, order, gfp)


def zonelist(state: State, nid: int, highest: int) -> list[tuple[int, str]]:
    """Return the zones of a list: node and kind."""
    stride = len(state.zone) + 1
    row = state.zonelist[(nid * NR_ZONES + highest) * stride :][:stride].tolist()
    return [(index // NR_ZONES, ZoneId(index % NR_ZONES).name) for index in row[: row.index(NIL)]]


def four_nodes() -> State:
    return build_state(MachineSpec(512 * MIB, cpus=4, numa=NumaSpec(4)))


def far(nodes: int, remote: int = 20) -> list[list[int]]:
    return [[10 if one == other else remote for other in range(nodes)] for one in range(nodes)]


def test_one_node_tries_its_zones_from_the_highest_down() -> None:
    state = build_state(MachineSpec(512 * MIB, movablecore_bytes=64 * MIB))
    assert zonelist(state, 0, ZoneId.MOVABLE) == [(0, "MOVABLE"), (0, "DMA32"), (0, "DMA")]
    assert zonelist(state, 0, ZoneId.NORMAL) == [(0, "DMA32"), (0, "DMA")]
    assert zonelist(state, 0, ZoneId.DMA) == [(0, "DMA")]


@pytest.mark.parametrize(
    ("distances", "orders"),
    [
        # Of equally far nodes the next higher comes first (lower ones have one more), and each first choice is
        # a little less attractive to the next node.
        (far(2), [[0, 1], [1, 0]]),
        (far(3), [[0, 1, 2], [1, 2, 0], [2, 0, 1]]),
        (far(4), [[0, 1, 2, 3], [1, 2, 3, 0], [2, 3, 0, 1], [3, 0, 1, 2]]),
        # A ring of four: both neighbours, then the opposite one.
        (
            [[10, 16, 22, 16], [16, 10, 16, 22], [22, 16, 10, 16], [16, 22, 16, 10]],
            [[0, 1, 3, 2], [1, 2, 0, 3], [2, 3, 1, 0], [3, 0, 2, 1]],
        ),
    ],
)
def test_the_nearest_node_comes_first(distances: list[list[int]], orders: list[list[int]]) -> None:
    assert node_orders(distances, [True] * len(distances)) == orders


def test_a_node_without_cpus_is_preferred_among_the_equally_far() -> None:
    assert node_orders(far(3), [True, True, False])[0] == [0, 2, 1]


def test_every_node_lists_its_own_zones_and_then_the_others() -> None:
    state = four_nodes()
    assert zonelist(state, 2, ZoneId.MOVABLE) == [
        (2, "DMA32"),
        (3, "DMA32"),
        (0, "DMA32"),
        (0, "DMA"),
        (1, "DMA32"),
    ]


def numa(state: State, nid: int) -> tuple[int, int, int, int]:
    """Return hits, misses, foreign and other of a node's DMA32."""
    zone = state.zone[nid * NR_ZONES + ZoneId.DMA32]
    return int(zone.numa_hit), int(zone.numa_miss), int(zone.numa_foreign), int(zone.numa_other)


def test_a_request_that_its_node_serves_is_a_hit() -> None:
    state = four_nodes()
    state.current[Current.CPU] = 1
    before = numa(state, 1)
    pfn = take(state, 0, GFP_HIGHUSER_MOVABLE)
    assert state.zone[NR_ZONES + ZoneId.DMA32].start_pfn <= pfn < state.zone[NR_ZONES + ZoneId.DMA32].end_pfn
    hit, miss, foreign, other = (after - was for after, was in zip(numa(state, 1), before, strict=True))
    assert (hit, miss, foreign, other) == (1, 0, 0, 0)


def test_a_full_node_s_requests_are_misses_of_the_next_and_foreign_to_it() -> None:
    state = four_nodes()
    state.current[Current.CPU] = 1
    # Not below low: what is lent by another node comes before that.
    while (
        state.zone[NR_ZONES + ZoneId.DMA32].start_pfn
        <= take(state, 6, GFP_NOWAIT)
        < state.zone[NR_ZONES + ZoneId.DMA32].end_pfn
    ):
        pass
    assert numa(state, 2) == (0, 1, 0, 1)
    assert numa(state, 1)[2] == 1


def test_thisnode_gets_nothing_from_other_nodes() -> None:
    state = four_nodes()
    state.current[Current.CPU] = 1
    home = state.zone[NR_ZONES + ZoneId.DMA32]
    while (pfn := take(state, 6, GFP_NOWAIT | Gfp.THISNODE)) != NIL:
        assert home.start_pfn <= pfn < home.end_pfn
    failed = int(state.vm_event[VmEvent.ALLOC_FAILED])
    assert take(state, 0, GFP_DMA | Gfp.THISNODE) == NIL  # only node 0 has that zone
    assert state.vm_event[VmEvent.ALLOC_FAILED] == failed + 1


def test_dma_from_another_node_s_cpu_counts_as_other() -> None:
    state = four_nodes()
    state.current[Current.CPU] = 3
    for _ in range(2):  # off the buddy lists, then off the CPU's
        assert take(state, 0, GFP_DMA | Gfp.KSWAPD_RECLAIM) != NIL
    zone = state.zone[ZoneId.DMA]
    assert (zone.numa_hit, zone.numa_miss, zone.numa_other) == (2, 0, 2)


@pytest.mark.parametrize("order", [11, 12, 60, -1])
def test_an_order_that_no_block_has_is_nil_and_counted(order: int) -> None:
    state = four_nodes()
    failed = int(state.vm_event[VmEvent.ALLOC_FAILED])
    assert take(state, order, GFP_KERNEL) == NIL
    assert state.vm_event[VmEvent.ALLOC_FAILED] == failed + 1


def test_modifiers_name_the_highest_zone() -> None:
    @entry
    def highest(state: State, gfp: int) -> int:
        return gfp_zone(gfp)

    state = four_nodes()
    expected = {
        GFP_DMA: ZoneId.DMA,
        GFP_DMA32: ZoneId.DMA32,
        GFP_KERNEL: ZoneId.NORMAL,
        int(Gfp.MOVABLE): ZoneId.NORMAL,
        int(Gfp.HIGHMEM): ZoneId.HIGHMEM,
        GFP_HIGHUSER_MOVABLE: ZoneId.MOVABLE,
    }
    assert {gfp: highest(state, gfp) for gfp in expected} == expected
