"""The interface of the allocators: caches made, shared and ended; kmalloc by size; /proc/slabinfo."""

import pytest

from node.counters import Knob, VmStat
from node.kalloc.cache_list import caches, create_cache, kmem_cache_destroy, kmem_cache_shrink
from node.kalloc.calls import kfree, kmalloc, kmem_cache_alloc, ksize
from node.kalloc.kmem_cache import (
    KMALLOC_MAX_SIZE,
    MAX_CACHES,
    Allocator,
    SlabError,
    SlabFlag,
    cache_name,
    pack_name,
)
from node.kalloc.slabinfo import slabinfo
from node.kalloc.slub import slub_boot
from node.kalloc.slub_stats import large_stats
from node.phys.zone import DMA_END_PFN
from shared.constants import NIL, PAGE_SHIFT
from shared.gfp_flags import GFP_DMA, GFP_KERNEL, Gfp
from tests.node.kalloc.slub_machine import SlubMachine

pytestmark = pytest.mark.three_ways


@pytest.fixture
def machine() -> SlubMachine:
    return SlubMachine()


# --- caches ---------------------------------------------------------------------------------------------


def test_a_name_is_kept(machine: SlubMachine) -> None:
    for name in ("a", "vm_area_struct", "x" * 32):
        assert cache_name(machine.state, machine.create(64, SlabFlag.NO_MERGE, name)) == name


@pytest.mark.parametrize("name", ["", "x" * 33, "a b", "ä", "a\n"])
def test_a_name_that_slabinfo_could_not_show_is_refused(name: str) -> None:
    with pytest.raises(ValueError, match=r"must have 1\.\.32 ASCII characters"):
        pack_name(name)


@pytest.mark.parametrize(
    ("size", "align"),
    [(0, 0), (-8, 0), (KMALLOC_MAX_SIZE + 1, 0), (1 << 40, 0), (64, 3), (64, -8), (64, 1 << 23)],
)
def test_a_size_or_alignment_that_cannot_be_is_refused(machine: SlubMachine, size: int, align: int) -> None:
    assert create_cache(machine.state, "none", size, align) == NIL
    assert caches(machine.state) == []


def test_the_largest_object_is_a_block_of_its_own(machine: SlubMachine) -> None:
    cache = machine.create(KMALLOC_MAX_SIZE)
    assert machine.state.kmem_cache[cache].order == 10
    assert machine.state.kmem_cache[cache].objects_per_slab == 1


def test_a_full_table_of_caches_is_an_answer(machine: SlubMachine) -> None:
    made = [create_cache(machine.state, f"c{i}", 64, 0, SlabFlag.NO_MERGE) for i in range(MAX_CACHES)]
    assert made == [*range(1, MAX_CACHES), NIL]
    assert kmem_cache_destroy(machine.state, 7) == 0
    assert create_cache(machine.state, "new", 64) == 7
    assert caches(machine.state)[0] == 7


# Sizes 184 and 192 need strides of 184 and 192: 8 apart, so they are not shared (Linux: less than a word apart).
@pytest.mark.parametrize(
    ("first", "second", "shared"),
    [
        ((192, 0, 0), (190, 0, 0), True),
        ((192, 0, 0), (192, 0, 0), True),
        ((192, 0, 0), (184, 0, 0), False),
        ((190, 0, 0), (193, 0, 0), False),
        ((192, 0, 0), (180, 64, 0), True),
        ((200, 0, 0), (196, 64, 0), False),
        ((192, 0, 0), (150, 0, SlabFlag.HWCACHE_ALIGN), True),
        ((192, 0, 0), (192, 0, SlabFlag.RECLAIM_ACCOUNT), False),
        ((192, 0, SlabFlag.CACHE_DMA), (192, 0, 0), False),
        ((192, 0, SlabFlag.RECLAIM_ACCOUNT), (192, 0, SlabFlag.RECLAIM_ACCOUNT), True),
        ((192, 0, SlabFlag.POISON), (192, 0, SlabFlag.POISON), False),
        ((192, 0, 0), (192, 0, SlabFlag.STORE_USER), False),
        ((192, 0, SlabFlag.NO_MERGE), (192, 0, 0), False),
    ],
)
def test_caches_are_shared_as_linux_does(
    machine: SlubMachine, first: tuple[int, int, int], second: tuple[int, int, int], shared: bool
) -> None:
    one = create_cache(machine.state, "one", *first)
    other = create_cache(machine.state, "other", *second)
    assert (one == other) == shared
    assert machine.state.kmem_cache[one].users == 1 + shared


def test_a_shared_cache_has_the_first_name_and_the_largest_size_and_ends_with_its_last_user(
    machine: SlubMachine,
) -> None:
    cache = machine.create(185, name="one")
    assert machine.create(191, name="other") == cache
    assert cache_name(machine.state, cache) == "one"
    assert machine.state.kmem_cache[cache].object_size == 191
    paddr = machine.alloc(cache)
    assert kmem_cache_destroy(machine.state, cache) == 0
    assert kmem_cache_destroy(machine.state, cache) == 1
    machine.free(cache, paddr)
    assert kmem_cache_destroy(machine.state, cache) == 0
    assert kmem_cache_destroy(machine.state, cache) == NIL


def test_the_oldest_cache_that_suits_is_shared(machine: SlubMachine) -> None:
    spare = machine.create(64, name="spare")
    old = machine.create(192, SlabFlag.RECLAIM_ACCOUNT, name="old")
    kmem_cache_destroy(machine.state, spare)
    young = machine.create(192, SlabFlag.NO_MERGE, name="young")
    assert young == spare
    assert machine.create(192, SlabFlag.RECLAIM_ACCOUNT, name="third") == old


@pytest.mark.parametrize("cache", [0, -1, NIL, 5, MAX_CACHES, 1 << 40])
def test_what_is_no_cache_is_neither_shrunk_nor_ended(machine: SlubMachine, cache: int) -> None:
    assert kmem_cache_shrink(machine.state, cache) == 0
    assert kmem_cache_destroy(machine.state, cache) == NIL


# --- kmalloc --------------------------------------------------------------------------------------------

CLASSES = [8, 16, 32, 64, 96, 128, 192, 256, 512, 1024, 2048, 4096, 8192]


@pytest.mark.parametrize("size", CLASSES)
def test_each_size_is_served_by_the_smallest_class_that_holds_it(machine: SlubMachine, size: int) -> None:
    below = max((other for other in CLASSES if other < size), default=0)
    for wanted in (below + 1, size):
        assert ksize(machine.state, machine.kmalloc(wanted)) == size
    machine.check()


def test_requests_for_dma_and_reclaimable_memory_have_caches_of_their_own(machine: SlubMachine) -> None:
    names = {}
    for gfp in (GFP_KERNEL, GFP_KERNEL | Gfp.RECLAIMABLE, GFP_DMA, GFP_DMA | Gfp.RECLAIMABLE):
        paddr = machine.kmalloc(1000, gfp)
        names[gfp] = cache_name(machine.state, machine.state.page[paddr >> PAGE_SHIFT].mapping or 0)
        assert (paddr >> PAGE_SHIFT < DMA_END_PFN) == bool(gfp & Gfp.DMA)
    assert list(names.values()) == ["kmalloc-1k", "kmalloc-rcl-1k", "dma-kmalloc-1k", "dma-kmalloc-1k"]
    machine.check()


def test_powers_of_two_are_aligned_to_themselves(machine: SlubMachine) -> None:
    for size in CLASSES:
        align = size & -size if size & (size - 1) == 0 else 8
        assert all(machine.kmalloc(size) % align == 0 for _ in range(10))


def test_kmallocs_caches_are_shared_with_no_other(machine: SlubMachine) -> None:
    slub_boot(machine.state)
    assert len(caches(machine.state)) == 3 * len(CLASSES)
    cache = machine.create(64)
    assert cache_name(machine.state, cache) == "test"


@pytest.mark.parametrize(("size", "order"), [(8193, 2), (16384, 2), (16385, 3), (KMALLOC_MAX_SIZE, 10)])
def test_more_than_8_kib_is_a_block_of_frames(machine: SlubMachine, size: int, order: int) -> None:
    paddr = machine.kmalloc(size)
    assert ksize(machine.state, paddr) == 4096 << order
    assert machine.state.vm_stat[VmStat.NR_SLAB_UNRECLAIMABLE] == 1 << order
    machine.check()
    assert machine.kfree(paddr + 4096) == SlabError.FOREIGN_ADDRESS
    assert machine.kfree(paddr) == 0
    assert large_stats(machine.state) == {"allocated": 1, "freed": 1, "frames": 0, "failed": 0}
    assert machine.kfree(paddr) == SlabError.FOREIGN_ADDRESS
    machine.check()


@pytest.mark.parametrize("size", [0, -1, KMALLOC_MAX_SIZE + 1, 1 << 62])
def test_there_is_nothing_of_an_impossible_size(machine: SlubMachine, size: int) -> None:
    assert kmalloc(machine.state, size, GFP_KERNEL) == NIL
    assert large_stats(machine.state)["failed"] == 1


def test_kfree_and_ksize_know_what_is_not_theirs(machine: SlubMachine) -> None:
    paddr = machine.kmalloc(64)
    assert kfree(machine.state, 0) == 0  # a null pointer
    assert ksize(machine.state, 0) == 0
    for foreign in (-8, 1 << 62, 0x1000):
        assert kfree(machine.state, foreign) == SlabError.FOREIGN_ADDRESS
        assert ksize(machine.state, foreign) == 0
    assert kfree(machine.state, paddr) == 0
    machine.check()


# --- /proc/slabinfo -------------------------------------------------------------------------------------


def test_slabinfo_is_as_linux_prints_it(machine: SlubMachine) -> None:
    few = machine.create(512, SlabFlag.RECLAIM_ACCOUNT, "inode_cache")
    machine.create(40, name="a_name_longer_than_the_column")
    objects = machine.take(few, 40)
    machine.free(few, *objects[:10])
    kmem_cache_shrink(machine.state, few)
    assert slabinfo(machine.state) == (
        "slabinfo - version: 2.1\n"
        "# name            <active_objs> <num_objs> <objsize> <objperslab> <pagesperslab> : tunables <limit>"
        " <batchcount> <sharedfactor> : slabdata <active_slabs> <num_slabs> <sharedavail>\n"
        "a_name_longer_than_the_column      0      0     40  102    1 : tunables    0    0    0"
        " : slabdata      0      0      0\n"
        "inode_cache           30     48    512   16    2 : tunables    0    0    0"
        " : slabdata      3      3      0\n"
    )


def test_objects_on_a_cpus_side_count_as_active(machine: SlubMachine) -> None:
    cache = machine.create(512)
    machine.alloc(cache)
    assert slabinfo(machine.state).splitlines()[2].split()[1:3] == ["16", "16"]


def test_slob_has_no_slabinfo(machine: SlubMachine) -> None:
    machine.state.knob[Knob.ALLOCATOR] = Allocator.SLOB
    assert slabinfo(machine.state) == ""


def test_an_allocation_that_fails_is_an_answer(machine: SlubMachine) -> None:
    cache = machine.create(KMALLOC_MAX_SIZE)
    got = [kmem_cache_alloc(machine.state, cache, 0) for _ in range(20)]
    assert got[-1] == NIL
    machine.check()
