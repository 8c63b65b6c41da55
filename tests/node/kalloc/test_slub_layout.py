"""SLUB's formulas: orders, objects, alignment and limits, against values worked out by hand from mm/slub.c."""

import pytest

from node.kalloc.cache_list import create_cache
from node.kalloc.kmem_cache import SlabFlag
from shared.constants import NIL, PAGE_SHIFT
from tests.node.kalloc.slub_machine import SlubMachine

pytestmark = pytest.mark.three_ways

CPUS = (1, 2, 4, 8, 16, 64)
# On so many CPUs a slab has at least 8, 12, 16, 20, 24, 32 objects: four for each bit of their number, and four more.
# Order of a slab for each of CPUS. Powers of two leave nothing over: the order is that of min_objects * size, no
# more than 3. 96: 4096 = 42 * 96 + 64, 64 <= 256. 192: at order 0, 4096 = 21 * 192 + 64 fits up to 20 objects;
# 24 and 32 of them need order 1 (4608, 6144 bytes), 8192 = 42 * 192 + 128, 128 <= 512.
ORDERS = {
    8: (0, 0, 0, 0, 0, 0),
    16: (0, 0, 0, 0, 0, 0),
    32: (0, 0, 0, 0, 0, 0),
    64: (0, 0, 0, 0, 0, 0),
    96: (0, 0, 0, 0, 0, 0),
    128: (0, 0, 0, 0, 0, 0),
    192: (0, 0, 0, 0, 1, 1),
    256: (0, 0, 0, 1, 1, 1),
    512: (0, 1, 1, 2, 2, 2),
    1024: (1, 2, 2, 3, 3, 3),
    2048: (2, 3, 3, 3, 3, 3),
    4096: (3, 3, 3, 3, 3, 3),
    8192: (3, 3, 3, 3, 3, 3),
    # 700, a stride of 704: 1 CPU 5632 bytes, order 1: 8192 = 11 * 704 + 448, 448 <= 512; 2 CPUs: 8448, order 2:
    # 16384 = 23 * 704 + 192; 4: 11264, 2; 8: 14080, 2; 16: 16896, order 3: 32768 = 46 * 704 + 384; 64: 22528, 3.
    700: (1, 2, 2, 2, 3, 3),
    # 3000: at most 10 in order 3. 1 CPU: 8 need 24000, order 3: 32768 = 10 * 3000 + 2768, more than a sixteenth
    # (2048), not more than an eighth (4096).
    3000: (3, 3, 3, 3, 3, 3),
    # 40000: none in order 3, one in order 4 (65536).
    40000: (4, 4, 4, 4, 4, 4),
    4 << 20: (10, 10, 10, 10, 10, 10),
}
# (objects a slab on each of CPUS, min_partial, objects meant for a CPU's partial list, slabs that makes on each).
# min_partial is ilog2(size) / 2, 5 to 10: 6 from 4096 on. Slabs: twice the objects by those of a slab, rounded up.
LIMITS = {
    8: ((512, 512, 512, 512, 512, 512), 5, 120, (1, 1, 1, 1, 1, 1)),
    16: ((256, 256, 256, 256, 256, 256), 5, 120, (1, 1, 1, 1, 1, 1)),
    32: ((128, 128, 128, 128, 128, 128), 5, 120, (2, 2, 2, 2, 2, 2)),
    64: ((64, 64, 64, 64, 64, 64), 5, 120, (4, 4, 4, 4, 4, 4)),
    96: ((42, 42, 42, 42, 42, 42), 5, 120, (6, 6, 6, 6, 6, 6)),
    128: ((32, 32, 32, 32, 32, 32), 5, 120, (8, 8, 8, 8, 8, 8)),
    192: ((21, 21, 21, 21, 42, 42), 5, 120, (12, 12, 12, 12, 6, 6)),
    256: ((16, 16, 16, 32, 32, 32), 5, 52, (7, 7, 7, 4, 4, 4)),
    512: ((8, 16, 16, 32, 32, 32), 5, 52, (13, 7, 7, 4, 4, 4)),
    1024: ((8, 16, 16, 32, 32, 32), 5, 24, (6, 3, 3, 2, 2, 2)),
    2048: ((8, 16, 16, 16, 16, 16), 5, 24, (6, 3, 3, 3, 3, 3)),
    4096: ((8, 8, 8, 8, 8, 8), 6, 6, (2, 2, 2, 2, 2, 2)),
    8192: ((4, 4, 4, 4, 4, 4), 6, 6, (3, 3, 3, 3, 3, 3)),
}


@pytest.mark.parametrize("which", range(len(CPUS)))
def test_a_slabs_order_is_linuxs(which: int) -> None:
    machine = SlubMachine(cpus=CPUS[which])
    for size, orders in ORDERS.items():
        cache = machine.create(size, SlabFlag.NO_MERGE)
        record = machine.state.kmem_cache[cache]
        assert (record.object_size, record.order) == (size, orders[which])


@pytest.mark.parametrize("which", range(len(CPUS)))
def test_what_is_kept_of_each_class_of_kmalloc_is_linuxs(which: int) -> None:
    machine = SlubMachine(cpus=CPUS[which])
    for size, (objects, min_partial, cpu_partial, cpu_partial_slabs) in LIMITS.items():
        cache = machine.state.page[machine.state.page[machine.kmalloc(size) >> PAGE_SHIFT].word].mapping
        record = machine.state.kmem_cache[cache]
        slub = machine.state.slub_cache[cache]
        assert (record.stride, record.objects_per_slab) == (size, objects[which])
        assert record.align == (8 if size in (96, 192) else size)
        assert (slub.min_partial, slub.cpu_partial) == (min_partial, cpu_partial)
        assert slub.cpu_partial_slabs == cpu_partial_slabs[which]


def test_nothing_is_laid_out_that_no_block_holds() -> None:
    assert create_cache(SlubMachine().state, "large", 4 << 20, 0, SlabFlag.RED_ZONE) == NIL


# (size, min_partial, objects meant for a CPU's partial list): the borders between them.
BORDERS = (
    (248, 5, 120),
    (256, 5, 52),
    (1016, 5, 52),
    (1024, 5, 24),
    (4088, 5, 24),
    (4096, 6, 6),
    (1 << 14, 7, 6),
    ((1 << 20) - 8, 9, 6),
    (1 << 20, 10, 6),
    (4 << 20, 10, 6),
)


def test_the_limits_change_where_linuxs_do() -> None:
    machine = SlubMachine()
    for size, min_partial, cpu_partial in BORDERS:
        slub = machine.state.slub_cache[machine.create(size, SlabFlag.NO_MERGE)]
        assert (slub.min_partial, slub.cpu_partial) == (min_partial, cpu_partial)


def test_a_slab_may_be_as_small_as_one_object_allows() -> None:
    machine = SlubMachine(cpus=8)
    for size, order, objects in ((8, 0, 512), (4096, 0, 1), (4104, 1, 1), (8192, 1, 1), (8200, 2, 1)):
        slub = machine.state.slub_cache[machine.create(size, SlabFlag.NO_MERGE)]
        assert (slub.min_order, slub.min_objects) == (order, objects)


@pytest.mark.parametrize(
    ("flags", "align", "size", "expected"),
    [
        (0, 0, 1, 8),
        (0, 4, 100, 8),
        (0, 128, 100, 128),
        (SlabFlag.HWCACHE_ALIGN, 0, 100, 64),
        (SlabFlag.HWCACHE_ALIGN, 0, 33, 64),
        (SlabFlag.HWCACHE_ALIGN, 0, 32, 32),
        (SlabFlag.HWCACHE_ALIGN, 0, 12, 16),
        (SlabFlag.HWCACHE_ALIGN, 0, 5, 8),
        (SlabFlag.HWCACHE_ALIGN, 128, 12, 128),
    ],
)
def test_objects_are_aligned_to_words_lines_or_as_asked(
    flags: int, align: int, size: int, expected: int
) -> None:
    machine = SlubMachine()
    cache = machine.create(size, flags, align=align)
    assert machine.state.kmem_cache[cache].align == expected


# Worked through calculate_sizes: object, its red zone to the next word (or a word of it), link, two marks of 32
# bytes, 4 bytes of kmalloc's, a word, the left red zone; then the alignment.
@pytest.mark.parametrize(
    ("flags", "size", "align", "expected"),
    [  # (stride, link, what is kept from, left red zone)
        (0, 100, 0, (104, 48, 104, 0)),
        (0, 8, 0, (8, 0, 8, 0)),
        (SlabFlag.RED_ZONE, 100, 0, (120, 48, 104, 8)),
        (SlabFlag.RED_ZONE, 104, 0, (128, 48, 112, 8)),
        (SlabFlag.RED_ZONE, 4, 0, (32, 8, 8, 8)),
        (SlabFlag.POISON, 100, 0, (112, 104, 104, 0)),
        (SlabFlag.STORE_USER, 100, 0, (168, 48, 104, 0)),
        (SlabFlag.RED_ZONE | SlabFlag.POISON | SlabFlag.STORE_USER, 64, 64, (256, 72, 72, 64)),
    ],
)
def test_what_stands_around_an_object(
    flags: int, size: int, align: int, expected: tuple[int, int, int, int]
) -> None:
    machine = SlubMachine()
    cache = machine.create(size, flags, align=align)
    slub = machine.state.slub_cache[cache]
    stride = machine.state.kmem_cache[cache].stride
    assert (stride, slub.link_offset, slub.inuse_bytes, slub.red_left) == expected


def test_kmalloc_has_room_for_the_size_that_was_asked_for() -> None:
    machine = SlubMachine(debug=SlabFlag.RED_ZONE | SlabFlag.POISON | SlabFlag.STORE_USER)
    cache = machine.state.page[machine.kmalloc(96) >> PAGE_SHIFT].mapping
    assert machine.state.kmem_cache[cache].stride == 200  # 96 + 8 + 8 + 64 + 4 + 8 + 8, to a word
