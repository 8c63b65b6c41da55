"""Fragmentation indices, against Linux's formulas worked out by hand."""

import pytest

from node.build import build_state
from node.phys.buddy import NR_ORDERS
from node.phys.fragmentation import fragmentation_index, free_blocks, unusable_index
from node.spec import MachineSpec
from shared.constants import MIB


def blocks(**counts: int) -> list[int]:
    found = [0] * NR_ORDERS
    for name, count in counts.items():
        found[int(name.removeprefix("order"))] = count
    return found


@pytest.mark.parametrize(
    ("order", "index"), [(0, 0), (1, 0), (2, 0), (3, 250), (4, 500), (5, 1000), (10, 1000)]
)
def test_the_unusable_index_is_the_share_in_smaller_blocks(order: int, index: int) -> None:
    # 4 + 4 frames in blocks of 4, 8 in one of 8, 16 in one of 16.
    assert unusable_index(blocks(order2=2, order3=1, order4=1), order) == index


def test_without_free_memory_all_of_it_is_unusable_and_nothing_is_fragmented() -> None:
    assert unusable_index(blocks(), 0) == 1000
    assert fragmentation_index(blocks(), 9) == 0


def test_the_fragmentation_index_tells_pieces_from_lack() -> None:
    assert fragmentation_index(blocks(order4=1), 4) == -1000
    # 512 single frames: 1000 - (1000 + 512 * 1000 / 512) / 512, each division rounded down.
    assert fragmentation_index(blocks(order0=512), 9) == 997
    # 1 frame: 1000 - (1000 + 1000 / 512) / 1.
    assert fragmentation_index(blocks(order0=1), 9) == -1
    # 3 + 4 frames in 5 blocks: 1000 - (1000 + 7 * 1000 / 16) / 5.
    assert fragmentation_index(blocks(order0=3, order1=2), 4) == 713


@pytest.mark.three_ways
def test_the_blocks_of_a_machine_are_its_free_frames() -> None:
    state = build_state(MachineSpec(64 * MIB))
    counts = free_blocks(state)
    assert sum(count << order for order, count in enumerate(counts)) == sum(state.zone["nr_free"].tolist())
    assert unusable_index(counts, 9) < 200
