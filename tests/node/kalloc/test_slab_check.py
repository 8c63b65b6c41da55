"""The check of SLAB's invariants finds every table that was broken on purpose."""

from collections.abc import Callable

import pytest

from node.counters import Era, Knob, VmStat
from node.kalloc.kmem_cache import Allocator, SlabFlag
from node.kalloc.slab_check import check_slab
from node.kalloc.slab_lists import NR_SLAB_LISTS
from node.phys.page import PageFlag
from node.state import State
from shared.constants import PAGE_SHIFT
from tests.models.slab_machine import alloc_on, create_cache, slab_machine

pytestmark = pytest.mark.three_ways

Break = Callable[[], None]


def broken(state: State, cache: int, slab: int) -> dict[str, Break]:
    array = state.slab_array[cache * 2]
    chain = state.slab_list[cache * NR_SLAB_LISTS + 1]
    page = state.page[slab]
    return {
        "is on no list that fits": lambda: setattr(page, "word", 0),
        "frame is not flagged": lambda: setattr(page, "page_flags", page.page_flags & ~PageFlag.SLAB),
        "cache is another": lambda: setattr(page, "mapping", cache - 1),
        "reference too many": lambda: setattr(page, "refcount", 2),
        "list is lost": lambda: setattr(chain, "first", chain.first + 1),
        "list miscounts": lambda: setattr(chain, "nr_slabs", 7),
        "object twice in an array": lambda: state.slab_entry.__setitem__(
            array.first_entry, int(state.slab_entry[array.first_entry + 1])
        ),
        "stray object in an array": lambda: state.slab_entry.__setitem__(array.first_entry, 8),
        "array too long": lambda: setattr(array, "avail", 1000),
        "object twice on the free list": lambda: state.slab_word.view("u1").__setitem__(
            int(page.index) + 18, int(state.slab_word.view("u1")[int(page.index) + 19])
        ),
        "free list elsewhere": lambda: setattr(page, "index", page.index - 4096),
        "objects in use miscounted": lambda: setattr(state.kmem_cache[cache], "nr_objects", 77),
        "objects out miscounted": lambda: setattr(state.slab_cache[cache], "num_active", 77),
        "free objects miscounted": lambda: setattr(state.slab_node[cache], "free_objects", 77),
        "slabs miscounted": lambda: setattr(state.slab_node[cache], "total_slabs", 77),
        "slabs of the cache miscounted": lambda: setattr(state.kmem_cache[cache], "nr_slabs", 77),
        "frames miscounted": lambda: state.vm_stat.__setitem__(VmStat.NR_SLAB_UNRECLAIMABLE, 77),
        "large frames miscounted": lambda: state.slab_stat.__setitem__(2, 77),
    }


NAMES = (
    "is on no list that fits",
    "frame is not flagged",
    "cache is another",
    "reference too many",
    "list is lost",
    "list miscounts",
    "object twice in an array",
    "stray object in an array",
    "array too long",
    "object twice on the free list",
    "free list elsewhere",
    "objects in use miscounted",
    "objects out miscounted",
    "free objects miscounted",
    "slabs miscounted",
    "slabs of the cache miscounted",
    "frames miscounted",
    "large frames miscounted",
)


def prepared() -> tuple[State, int, int]:
    state = slab_machine()
    cache = create_cache(state, "checked", 200, slab_flags=SlabFlag.NO_MERGE)
    paddr = alloc_on(state, 0, cache)  # 20 objects a slab, 16 of them in the array now
    assert check_slab(state) == []
    return state, cache, paddr >> PAGE_SHIFT


@pytest.mark.parametrize("name", NAMES)
def test_what_was_broken_is_found(name: str) -> None:
    state, cache, slab = prepared()
    breaks = broken(state, cache, slab)
    assert tuple(breaks) == NAMES
    breaks[name]()
    assert check_slab(state) != []


def test_a_free_list_off_its_slab_must_be_an_object_in_use() -> None:
    state = slab_machine(era=Era.LECTURE)
    cache = create_cache(state, "off", 1024, slab_flags=SlabFlag.NO_MERGE)
    slab = alloc_on(state, 0, cache) >> PAGE_SHIFT
    assert check_slab(state) == []
    state.page[slab].index += 64
    assert check_slab(state) != []


def test_no_check_is_made_of_a_machine_with_another_allocator() -> None:
    state, cache, _ = prepared()
    state.kmem_cache[cache].nr_slabs = 77
    state.knob[Knob.ALLOCATOR] = Allocator.SLUB
    assert check_slab(state) == []
