"""How slabs are laid out, against values worked out by hand from the rules (docs/fidelity.md has the table)."""

import pytest

from node.counters import Era, Knob
from node.kalloc.kmem_cache import SlabFlag
from node.kalloc.slab_layout import Placement
from node.kalloc.slab_numbers import slab_slabinfo
from node.state import State
from shared.constants import CACHE_LINE_BYTES, NIL, PAGE_SHIFT, PAGE_SIZE
from tests.models.slab_machine import alloc_on, create_cache, slab_machine

pytestmark = pytest.mark.three_ways

ON, OBJECT, OFF = Placement.ON, Placement.OBJECT, Placement.OFF

# size: order, objects, where the free list is, colours
GENERAL_6_1 = {
    32: (0, 124, ON, 0),
    64: (0, 64, OBJECT, 0),
    128: (0, 32, OBJECT, 0),
    256: (0, 16, OBJECT, 0),
    512: (0, 8, OBJECT, 0),
    1024: (0, 4, OBJECT, 0),
    2048: (0, 2, OBJECT, 0),
    4096: (0, 1, OBJECT, 0),
    8192: (1, 1, OBJECT, 0),
    16384: (2, 1, OBJECT, 0),
    32768: (3, 1, OBJECT, 0),
    65536: (4, 1, OBJECT, 0),
    131072: (5, 1, OBJECT, 0),
}
GENERAL_LECTURE = {
    32: (0, 112, ON, 0),
    64: (0, 59, ON, 0),
    128: (0, 30, ON, 1),
    256: (0, 15, ON, 2),
    512: (0, 8, OFF, 0),
    1024: (0, 4, OFF, 0),
    2048: (0, 2, OFF, 0),
    4096: (0, 1, OFF, 0),
    8192: (1, 1, OFF, 0),
    16384: (2, 1, OFF, 0),
    32768: (3, 1, OFF, 0),
    65536: (4, 1, OFF, 0),
    131072: (5, 1, OFF, 0),
}
# size: limit, batchcount, shared factor on several CPUs
TUNABLES = {
    32: (120, 60, 8),
    64: (120, 60, 8),
    128: (120, 60, 8),
    256: (120, 60, 8),
    512: (54, 27, 8),
    1024: (54, 27, 8),
    2048: (24, 12, 8),
    4096: (24, 12, 8),
    8192: (8, 4, 0),
    16384: (8, 4, 0),
    32768: (8, 4, 0),
    65536: (8, 4, 0),
    131072: (8, 4, 0),
}
# size, flags: stride, order, objects, where, colours
OTHERS_6_1 = {
    (8, 0): (16, 0, 240, ON, 0),
    (40, SlabFlag.HWCACHE_ALIGN): (64, 0, 63, ON, 0),
    (96, 0): (96, 0, 42, OBJECT, 1),
    (200, 0): (200, 0, 20, OBJECT, 1),
    (600, 0): (600, 0, 6, OBJECT, 7),
    (1500, 0): (1504, 1, 5, OBJECT, 10),
    (1500, SlabFlag.RECLAIM_ACCOUNT): (1504, 0, 2, OBJECT, 17),
    (3000, 0): (3000, 1, 2, OBJECT, 34),
    (12000, 0): (12000, 2, 1, OBJECT, 68),
    (200, SlabFlag.RED_ZONE): (216, 0, 18, OBJECT, 3),
    (200, SlabFlag.RED_ZONE | SlabFlag.STORE_USER | SlabFlag.POISON): (224, 0, 18, OBJECT, 1),
    (64, SlabFlag.RED_ZONE | SlabFlag.STORE_USER | SlabFlag.HWCACHE_ALIGN): (192, 0, 21, OBJECT, 1),
    (4096, SlabFlag.RED_ZONE | SlabFlag.STORE_USER): (4096, 0, 1, OBJECT, 0),
}
OTHERS_LECTURE = {
    (8, 0): (8, 0, 337, ON, 0),
    (200, 0): (200, 0, 19, ON, 2),
    (600, 0): (600, 0, 6, ON, 6),
    (700, 0): (704, 1, 11, ON, 5),
    (1500, 0): (1504, 1, 5, ON, 9),
}


def layout(state: State, cache: int) -> tuple[int, int, int, int]:
    record = state.kmem_cache[cache]
    chosen = state.slab_cache[cache]
    return record.order, record.objects_per_slab, chosen.placement, chosen.colours


@pytest.mark.parametrize(("era", "expected"), [(Era.LINUX_6_1, GENERAL_6_1), (Era.LECTURE, GENERAL_LECTURE)])
def test_general_caches_are_laid_out_as_worked_out_by_hand(
    era: Era, expected: dict[int, tuple[int, ...]]
) -> None:
    state = slab_machine(cpus=2, era=era)
    for dma in range(2):
        found = {
            size: layout(state, int(state.slab_general[dma * 13 + at])) for at, size in enumerate(expected)
        }
        assert found == expected


def test_arrays_are_sized_as_worked_out_by_hand() -> None:
    for cpus in (1, 2):
        state = slab_machine(cpus=cpus)
        for at, (size, (limit, batchcount, shared)) in enumerate(TUNABLES.items()):
            info = slab_slabinfo(state, int(state.slab_general[at]))
            assert (info.objsize, info.limit, info.batchcount) == (size, limit, batchcount)
            assert info.sharedfactor == (shared if cpus == 2 else 0)


@pytest.mark.parametrize(("era", "expected"), [(Era.LINUX_6_1, OTHERS_6_1), (Era.LECTURE, OTHERS_LECTURE)])
def test_other_caches_are_laid_out_as_worked_out_by_hand(
    era: Era, expected: dict[tuple[int, int], tuple[int, ...]]
) -> None:
    state = slab_machine(era=era)
    for (size, flags), wanted in expected.items():
        cache = create_cache(state, f"c{size}-{flags:x}", size, slab_flags=flags | SlabFlag.NO_MERGE)
        assert (state.kmem_cache[cache].stride, *layout(state, cache)) == wanted, (size, flags)


def test_a_small_machine_does_not_use_blocks_of_two_frames() -> None:
    state = slab_machine(mib=64)
    assert layout(state, create_cache(state, "c1500", 1500)) == (0, 2, OBJECT, 17)


def test_debugging_makes_arrays_small() -> None:
    state = slab_machine()
    cache = create_cache(state, "debugged", 200, slab_flags=SlabFlag.POISON)
    assert (slab_slabinfo(state, cache).limit, slab_slabinfo(state, cache).batchcount) == (32, 16)


def test_knob_slab_debug_reaches_every_cache() -> None:
    state = slab_machine()
    state.knob[Knob.SLAB_DEBUG] = SlabFlag.RED_ZONE
    assert state.kmem_cache[create_cache(state, "c", 200)].stride == 216


@pytest.mark.parametrize("era", Era)
def test_each_new_slab_has_the_next_colour_and_begins_again_after_the_last(era: Era) -> None:
    state = slab_machine(era=era)
    cache = create_cache(state, "coloured", 600)  # one slab is 6 objects, with 7 or 6 colours
    nr_colours = state.slab_cache[cache].colours
    begins = []
    for _ in range(2 * nr_colours):
        slab = [alloc_on(state, 0, cache) for _ in range(6)]
        begins.append(min(slab) & (PAGE_SIZE - 1))
    first = 72 if era == Era.LECTURE else 0  # the lecture's descriptor
    colours = [*range(1, nr_colours), 0]
    assert begins == [first + CACHE_LINE_BYTES * colour for colour in colours] * 2


def test_the_free_list_is_really_in_memory() -> None:
    state = slab_machine()
    on = create_cache(state, "on", 32)
    slab = alloc_on(state, 0, on) >> PAGE_SHIFT
    numbers = state.slab_word.view("u1")[slab * PAGE_SIZE :][PAGE_SIZE - 124 : PAGE_SIZE].tolist()
    assert numbers == list(range(124))
    inside = create_cache(
        state, "inside", 1000, slab_flags=SlabFlag.NO_MERGE
    )  # four objects, the last holds it
    paddr = alloc_on(state, 0, inside)
    slab = paddr >> PAGE_SHIFT
    assert state.page[slab].word == 4
    assert state.page[slab].index == NIL  # all four went into the array
    lecture = slab_machine(era=Era.LECTURE)
    off = create_cache(lecture, "off", 1024)
    used = lecture.kmem_cache[int(lecture.slab_general[1])].nr_objects
    slab = alloc_on(lecture, 0, off) >> PAGE_SHIFT
    descriptor = lecture.page[slab].index
    assert lecture.page[descriptor >> PAGE_SHIFT].mapping == lecture.slab_general[1]
    assert lecture.kmem_cache[int(lecture.slab_general[1])].nr_objects == used + 1


def test_what_no_slab_can_hold_is_no_cache() -> None:
    assert create_cache(slab_machine(), "huge", (1 << 22) + 1) == NIL
    assert create_cache(slab_machine(), "largest", 1 << 22) != NIL
