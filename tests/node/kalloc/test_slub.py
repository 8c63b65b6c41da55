"""SLUB's paths: which one an object takes, in what order objects come, and what is counted."""

import pytest

from node.checkpoint import digest, restore, snapshot
from node.counters import Current, VmStat
from node.hw.cost import Cost
from node.joints import alloc_frames, free_frames
from node.kalloc.cache_list import kmem_cache_destroy, kmem_cache_shrink
from node.kalloc.calls import kmem_cache_alloc, kmem_cache_free
from node.kalloc.kmem_cache import SlabError, SlabFlag
from node.kalloc.slab_report import nr_reports, slab_reports
from node.phys.page import PageFlag
from shared.constants import NIL, PAGE_SHIFT
from shared.gfp_flags import GFP_NOWAIT, Gfp
from tests.node.kalloc.slub_machine import SlubMachine

pytestmark = pytest.mark.three_ways

SIZE = 512  # on 2 CPUs: min_objects 12, so slabs of 16 objects, order 1; cpu_partial 52, 7 slabs
PER_SLAB = 16
CPU_PARTIAL_SLABS = 7
MIN_PARTIAL = 5  # log2(512) / 2 is 4, and 5 is the least


@pytest.fixture
def machine() -> SlubMachine:
    return SlubMachine()


@pytest.fixture
def cache(machine: SlubMachine) -> int:
    return machine.create(SIZE)


def test_a_new_slab_hands_out_its_objects_in_order(machine: SlubMachine, cache: int) -> None:
    first, *others = machine.take(cache, PER_SLAB)
    assert others == [first + SIZE * i for i in range(1, PER_SLAB)]
    assert machine.stats(cache) == {"alloc_slowpath": 1, "alloc_fastpath": PER_SLAB - 1, "alloc_slab": 1}
    assert machine.state.kmem_cache[cache].nr_objects == PER_SLAB
    assert machine.state.vm_stat[VmStat.NR_SLAB_UNRECLAIMABLE] == 2
    machine.check()


def test_the_object_freed_last_is_handed_out_first(machine: SlubMachine, cache: int) -> None:
    objects = machine.take(cache, 3)
    machine.free(cache, *objects)
    assert machine.take(cache, 3) == objects[::-1]
    assert machine.stats(cache)["free_fastpath"] == 3
    machine.check()


def test_the_fast_paths_cost_what_the_table_says(machine: SlubMachine, cache: int) -> None:
    paddr = machine.alloc(cache)
    before = machine.state.current[Current.CLOCK_PS]
    machine.free(cache, paddr)
    machine.alloc(cache)
    cost = machine.state.cost[Cost.SLUB_ALLOC_FAST] + machine.state.cost[Cost.SLUB_FREE_FAST]
    assert machine.state.current[Current.CLOCK_PS] == before + cost


def test_a_free_on_another_cpu_goes_to_the_frozen_slab_and_comes_back_by_a_refill(
    machine: SlubMachine, cache: int
) -> None:
    objects = machine.take(cache, PER_SLAB)
    machine.on(1)
    machine.free(cache, objects[3], objects[5])
    assert machine.stats(cache)["free_frozen"] == 2
    machine.check()
    machine.on(0)
    assert machine.take(cache, 2) == [objects[5], objects[3]]
    assert machine.stats(cache)["alloc_refill"] == 1
    assert machine.stats(cache)["alloc_slab"] == 1
    machine.check()


def test_a_full_slab_of_which_an_object_is_freed_goes_to_the_cpus_partial_list(
    machine: SlubMachine, cache: int
) -> None:
    objects = machine.take(cache, PER_SLAB + 1)
    assert machine.stats(cache)["deactivate_bypass"] == 1
    machine.free(cache, objects[0])
    assert machine.stats(cache)["cpu_partial_free"] == 1
    machine.check()
    machine.take(cache, PER_SLAB - 1)
    assert machine.alloc(cache) == objects[0]
    assert machine.stats(cache)["cpu_partial_alloc"] == 1
    machine.check()


def test_a_full_partial_list_of_a_cpu_goes_to_the_node(machine: SlubMachine, cache: int) -> None:
    objects = machine.take(cache, PER_SLAB * (CPU_PARTIAL_SLABS + 2))
    one_each = objects[::PER_SLAB][: CPU_PARTIAL_SLABS + 1]
    machine.free(cache, *one_each[:-1])
    assert "cpu_partial_drain" not in machine.stats(cache)
    machine.free(cache, one_each[-1])
    stats = machine.stats(cache)
    assert stats["cpu_partial_drain"] == 1
    assert stats["free_add_partial"] == CPU_PARTIAL_SLABS
    machine.check()


def test_a_cpu_takes_several_slabs_from_the_node(machine: SlubMachine, cache: int) -> None:
    objects = machine.take(cache, PER_SLAB * (CPU_PARTIAL_SLABS + 2))
    machine.free(cache, *objects[::PER_SLAB][: CPU_PARTIAL_SLABS + 1])
    machine.on(1)
    machine.alloc(cache)
    stats = machine.stats(cache)
    assert stats["alloc_from_partial"] == 1
    assert stats["cpu_partial_node"] == CPU_PARTIAL_SLABS // 2 + 1
    machine.check()


def test_empty_slabs_go_back_once_the_node_has_min_partial(machine: SlubMachine, cache: int) -> None:
    nr_slabs = 3 * CPU_PARTIAL_SLABS
    objects = machine.take(cache, PER_SLAB * nr_slabs)
    machine.free(cache, *objects)
    stats = machine.stats(cache)
    assert stats["free_slab"] == nr_slabs - machine.state.kmem_cache[cache].nr_slabs
    assert stats["free_slab"] > 0
    assert machine.state.kmem_cache[cache].nr_slabs >= MIN_PARTIAL
    assert machine.state.kmem_cache[cache].nr_objects == 0
    machine.check()


def test_shrink_gives_back_all_that_is_not_in_use_and_puts_the_fullest_first(
    machine: SlubMachine, cache: int
) -> None:
    objects = machine.take(cache, 4 * PER_SLAB)
    slabs = [objects[i * PER_SLAB : (i + 1) * PER_SLAB] for i in range(4)]
    machine.free(cache, *slabs[0][:4], *slabs[1], *slabs[2][:1], *slabs[3][:9])
    assert kmem_cache_shrink(machine.state, cache) == 2
    machine.check()
    listed = [machine.state.kmem_cache_node[cache].first]
    while (following := machine.state.page[listed[-1]].next) != NIL:
        listed.append(following)
    assert listed == [slabs[which][0] >> PAGE_SHIFT for which in (2, 0, 3)]


def test_destroy_refuses_while_objects_are_in_use(machine: SlubMachine, cache: int) -> None:
    objects = machine.take(cache, 20)
    assert kmem_cache_destroy(machine.state, cache) == 20
    assert nr_reports(machine.state) == 1
    machine.check()
    machine.free(cache, *objects)
    assert kmem_cache_destroy(machine.state, cache) == 0
    assert machine.state.kmem_cache[cache].object_size == 0
    assert machine.state.vm_stat[VmStat.NR_SLAB_UNRECLAIMABLE] == 0
    assert not (machine.state.page["page_flags"] & PageFlag.SLAB).any()
    assert not machine.state.page["mapping"].any()
    machine.check()


def test_reclaimable_caches_are_counted_apart(machine: SlubMachine) -> None:
    machine.alloc(machine.create(SIZE, SlabFlag.RECLAIM_ACCOUNT))
    assert machine.state.vm_stat[VmStat.NR_SLAB_RECLAIMABLE] == 2
    assert machine.state.vm_stat[VmStat.NR_SLAB_UNRECLAIMABLE] == 0
    machine.check()


IN_NEED = GFP_NOWAIT | Gfp.MEMALLOC  # whatever the watermarks say


def take_all_frames(machine: SlubMachine) -> list[int]:
    """Leave no free frame; return some single ones that were taken."""
    singles = [alloc_frames(machine.state, 0, IN_NEED) for _ in range(40)]
    for order in (1, 0):
        while alloc_frames(machine.state, order, IN_NEED) != NIL:
            pass
    return singles


def test_without_a_large_block_the_slab_is_as_small_as_can_be(machine: SlubMachine, cache: int) -> None:
    for pfn in take_all_frames(machine):
        if pfn % 2 == 0:  # never two that are one block
            free_frames(machine.state, pfn, 0)
    objects = [kmem_cache_alloc(machine.state, cache, IN_NEED) for _ in range(9)]
    assert NIL not in objects
    assert machine.stats(cache)["order_fallback"] == 2
    assert len({paddr >> PAGE_SHIFT for paddr in objects}) == 2
    machine.check()
    machine.free(cache, *objects)
    machine.check()


def test_without_memory_there_is_no_object(machine: SlubMachine, cache: int) -> None:
    take_all_frames(machine)
    assert kmem_cache_alloc(machine.state, cache, GFP_NOWAIT) == NIL
    assert machine.state.kmem_cache[cache].nr_objects == 0
    assert machine.stats(cache) == {"alloc_slowpath": 1}
    machine.check()


def test_each_node_has_a_list_and_a_cpu_looks_at_its_own_first() -> None:
    machine = SlubMachine(nodes=2)
    cache = machine.create(SIZE)
    nodes = machine.state.kmem_cache_node[2 * cache : 2 * cache + 2]
    objects = {}
    for cpu in (0, 1):
        machine.on(cpu)
        objects[cpu] = machine.take(cache, PER_SLAB)
        assert nodes["nr_slabs"].tolist() == [1, cpu]
    machine.on(0)
    machine.free(cache, *objects[1][:3])  # frozen: it stays the other CPU's
    kmem_cache_shrink(machine.state, cache)
    assert nodes["nr_partial"].tolist() == [0, 1]
    machine.free(cache, objects[0][0])
    kmem_cache_shrink(machine.state, cache)
    assert nodes["nr_partial"].tolist() == [1, 1]
    machine.on(1)
    assert machine.alloc(cache) in objects[1]
    machine.on(0)
    assert machine.alloc(cache) == objects[0][0]
    machine.check()


def test_another_node_is_asked_when_it_has_more_slabs_than_it_must_keep() -> None:
    machine = SlubMachine(nodes=2)
    cache = machine.create(SIZE)
    machine.on(1)
    objects = machine.take(cache, PER_SLAB * (MIN_PARTIAL + 2))
    machine.free(cache, *objects[::PER_SLAB][: MIN_PARTIAL + 1])
    kmem_cache_shrink(machine.state, cache)
    machine.on(0)
    assert machine.alloc(cache) in objects
    assert machine.stats(cache)["alloc_from_partial"] == 1
    machine.check()


def test_a_restored_machine_goes_on_where_it_was(machine: SlubMachine, cache: int) -> None:
    objects = machine.take(cache, 3 * PER_SLAB)
    machine.free(cache, *objects[::3])
    restored = SlubMachine()
    restored.state = restore(snapshot(machine.state, {}))[0]
    assert digest(restored.state) == digest(machine.state)
    assert restored.take(cache, 2 * PER_SLAB) == machine.take(cache, 2 * PER_SLAB)
    assert digest(restored.state) == digest(machine.state)
    restored.check()


# --- errors without debugging ---------------------------------------------------------------------------


def test_a_double_free_in_a_row_is_refused_on_every_path(machine: SlubMachine, cache: int) -> None:
    objects = machine.take(cache, PER_SLAB + 1)
    machine.free(cache, objects[-1])
    assert kmem_cache_free(machine.state, cache, objects[-1]) == SlabError.DOUBLE_FREE
    machine.free(cache, objects[2])
    assert kmem_cache_free(machine.state, cache, objects[2]) == SlabError.DOUBLE_FREE
    machine.check()


def test_a_foreign_address_is_refused_whatever_it_is(machine: SlubMachine, cache: int) -> None:
    machine.alloc(cache)
    frame = alloc_frames(machine.state, 0, GFP_NOWAIT)
    for paddr in (frame << PAGE_SHIFT, 0, -8, 1 << 62, -(1 << 62), len(machine.state.page) << PAGE_SHIFT):
        assert kmem_cache_free(machine.state, cache, paddr) == SlabError.FOREIGN_ADDRESS
    assert slab_reports(machine.state)[0].startswith(
        f"test: object 0x{frame << PAGE_SHIFT:x}: freed, but not the allocator's (found by CPU 0 at "
    )
    machine.check()


def test_an_object_of_another_cache_and_a_middle_of_one_are_refused(machine: SlubMachine, cache: int) -> None:
    other = machine.create(SIZE, SlabFlag.NO_MERGE, name="other")
    machine.on(1)
    theirs = machine.alloc(other)
    mine = machine.alloc(cache)
    machine.on(0)
    assert kmem_cache_free(machine.state, cache, theirs) == SlabError.WRONG_CACHE
    assert kmem_cache_free(machine.state, cache, mine + 8) == SlabError.NOT_OBJECT_START
    machine.check()


def test_a_circle_made_by_a_double_free_is_cut_when_the_cpu_gives_up_its_slab(
    machine: SlubMachine, cache: int
) -> None:
    a, b, _ = machine.take(cache, 3)
    machine.free(cache, a, b, a)  # nothing notices
    assert machine.take(cache, 3) == [a, b, a]  # two users of one object
    machine.free(cache, a, b, a)
    kmem_cache_shrink(machine.state, cache)
    assert slab_reports(machine.state)[-1].split(" (")[0] == f"test: object 0x{a:x}: freed twice"
    machine.take(cache, 40)


def test_a_broken_link_loses_the_rest_of_the_list_and_nothing_else(machine: SlubMachine, cache: int) -> None:
    objects = machine.take(cache, 4)
    machine.free(cache, *objects)
    machine.state.slab_word[(objects[2] + SIZE // 2) >> 3] = 0x6B6B6B6B6B6B6B6B
    assert machine.take(cache, 2) == [objects[3], objects[2]]
    assert slab_reports(machine.state)[-1].startswith(
        f"test: object 0x{objects[2]:x}: link to the next free object overwritten"
    )
    machine.alloc(cache)
    assert machine.stats(cache)["alloc_slab"] == 2
    machine.check()
