"""The check of SLOB's pages finds what is wrong with them."""

from collections.abc import Callable

import pytest

from node.build import build_state
from node.counters import Knob
from node.joints import slob_kfree, slob_kmalloc
from node.kalloc.kmem_cache import Allocator
from node.kalloc.slob_check import check_slob, free_blocks
from node.kalloc.slob_lists import SlobList
from node.phys.page import PageFlag
from node.spec import MachineSpec
from node.state import State
from shared.constants import MIB, PAGE_SHIFT
from shared.gfp_flags import GFP_KERNEL

pytestmark = pytest.mark.three_ways


def machine() -> tuple[State, int]:
    """Return a machine with two pages of SLOB's, and the one that has holes."""
    state = build_state(MachineSpec(memory_bytes=72 * MIB, allocator="slob"))
    blocks = [slob_kmalloc(state, 100, GFP_KERNEL) for _ in range(40)]
    for block in blocks[2:20:4]:
        assert slob_kfree(state, block) == 0
    return state, blocks[0] >> PAGE_SHIFT


def miscount_units(state: State, pfn: int) -> None:
    state.page[pfn].private -= 1


def lose_the_first(state: State, pfn: int) -> None:
    state.page[pfn].index = free_blocks(state, pfn)[1][0]


def touch_neighbours(state: State, pfn: int) -> None:
    (first, _), (second, _) = free_blocks(state, pfn)[:2]
    units = state.slab_word[pfn << 9 : (pfn + 1) << 9].view("i2")
    units[first] = second - first


def unflag(state: State, pfn: int) -> None:
    state.page[pfn].page_flags &= ~PageFlag.SLOB_FREE


def miscount_pages(state: State, pfn: int) -> None:
    del pfn
    state.slob_list[SlobList.SMALL].nr_pages += 1


def other_list(state: State, pfn: int) -> None:
    state.page[pfn].order = SlobList.LARGE


def share(state: State, pfn: int) -> None:
    state.page[pfn].refcount = 2


def break_the_ring(state: State, pfn: int) -> None:
    state.page[pfn].prev = 5


BREAKS: list[tuple[Callable[[State, int], None], str]] = [
    (miscount_units, "free units"),
    (lose_the_first, "free units"),
    (touch_neighbours, "overlaps or touches"),
    (unflag, "SLOB_FREE"),
    (miscount_pages, "and they differ"),
    (other_list, "says that it is on list"),
    (share, "references"),
    (break_the_ring, "has another before it"),
]


@pytest.mark.parametrize(("damage", "said"), BREAKS, ids=[damage.__name__ for damage, _ in BREAKS])
def test_damage_is_found(damage: Callable[[State, int], None], said: str) -> None:
    state, pfn = machine()
    assert check_slob(state) == []
    damage(state, pfn)
    assert any(said in line for line in check_slob(state)), check_slob(state)


def test_no_check_is_made_of_a_machine_with_another_allocator() -> None:
    state, pfn = machine()
    miscount_units(state, pfn)
    state.knob[Knob.ALLOCATOR] = Allocator.SLUB
    assert check_slob(state) == []
