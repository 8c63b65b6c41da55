"""SLAB: against a model over several CPUs, and its calls one by one."""

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from node.counters import Current, Era, VmStat
from node.invariants import check
from node.joints import (
    slab_cache_destroy,
    slab_cache_shrink,
    slab_kfree,
    slab_kmalloc,
    slab_ksize,
)
from node.kalloc.kmem_cache import SlabError, SlabFlag
from node.kalloc.slab_numbers import slab_slabinfo, slab_stats
from node.kalloc.slab_reap import cache_reap
from node.kalloc.slab_report import nr_reports, slab_reports
from node.phys.page import PageFlag
from shared.constants import NIL, PAGE_SHIFT
from shared.gfp_flags import GFP_ATOMIC, GFP_KERNEL
from tests.models.slab import SECOND, Item, SlabModel
from tests.models.slab_machine import alloc_on, create_cache, free_on, slab_machine

pytestmark = pytest.mark.three_ways


class Slab(RuleBasedStateMachine):
    """Bursts of allocations and frees on several CPUs; the model says which object each gets."""

    @initialize(
        cpus=st.sampled_from([1, 3]),
        era=st.sampled_from(Era),
        size=st.sampled_from([24, 200, 700, 1500, 5000, 40000]),
        flags=st.sampled_from([0, SlabFlag.POISON | SlabFlag.RED_ZONE | SlabFlag.STORE_USER]),
    )
    def boot(self, cpus: int, era: int, size: int, flags: int) -> None:
        self.cpus = cpus
        self.state = slab_machine(cpus, era)
        self.cache = create_cache(self.state, "tested", size, slab_flags=flags | SlabFlag.NO_MERGE)
        record = self.state.kmem_cache[self.cache]
        sizes = self.state.slab_cache[self.cache]
        self.model = SlabModel(cpus, record.objects_per_slab, sizes.limit, sizes.shared)
        self.model.next_reap = int(self.state.slab_node[self.cache].next_reap_ps)
        self.stride = record.stride
        self.begins: dict[int, int] = {}  # address of object 0 of each slab of the model
        self.live: list[tuple[int, Item]] = []
        self.held: set[int] = set()

    def nr_frames(self) -> int:
        record = self.state.kmem_cache[self.cache]
        return record.nr_slabs << record.order

    @rule(cpu=st.integers(0, 2), burst=st.integers(1, 80))
    def alloc(self, cpu: int, burst: int) -> None:
        cpu %= self.cpus
        for _ in range(burst):
            paddr = alloc_on(self.state, cpu, self.cache)
            slab, number = item = self.model.alloc(cpu)
            assert self.begins.setdefault(slab, paddr - number * self.stride) == paddr - number * self.stride
            assert paddr not in self.held
            self.held.add(paddr)
            self.live.append((paddr, item))

    @precondition(lambda self: self.live)
    @rule(
        cpu=st.integers(0, 2), burst=st.integers(1, 100), where=st.integers(0, 10**6), step=st.integers(1, 7)
    )
    def free(self, cpu: int, burst: int, where: int, step: int) -> None:
        cpu %= self.cpus
        for turn in range(min(burst, len(self.live))):
            paddr, item = self.live.pop((where + turn * step) % len(self.live))
            self.held.remove(paddr)
            assert free_on(self.state, cpu, self.cache, paddr) == 0
            self.model.free_item(cpu, item)

    @rule(cpu=st.integers(0, 2), seconds=st.integers(1, 5))
    def reap(self, cpu: int, seconds: int) -> None:
        self.state.current[Current.CPU] = cpu % self.cpus
        self.state.current[Current.CLOCK_PS] += seconds * SECOND
        # The kernel charges its own time cache by cache, so the clock moves a little before this one's turn.
        due = self.model.next_reap <= self.state.current[Current.CLOCK_PS]
        cache_reap(self.state)
        self.model.reap(cpu % self.cpus, self.model.next_reap if due else self.model.next_reap - 1)
        node = self.state.slab_node[self.cache]
        self.model.next_reap = int(node.next_reap_ps)

    @rule()
    def shrink(self) -> None:
        frames = self.nr_frames()
        assert slab_cache_shrink(self.state, self.cache) == frames - self.nr_frames()
        self.model.shrink()

    @invariant()
    def counts_agree(self) -> None:
        info = slab_slabinfo(self.state, self.cache)
        model = self.model
        assert info.num_slabs == len(model.free)
        assert info.num_slabs - info.active_slabs == len(model.lists["free"])
        assert info.active_objs == info.num_objs - sum(map(len, model.free.values()))
        assert info.sharedavail == len(model.shared.items)
        assert self.state.kmem_cache[self.cache].nr_objects == len(self.live)
        assert slab_stats(self.state, self.cache).errors == 0
        begins = {slab: begin for slab, begin in self.begins.items() if slab in model.free}
        assert len(set(begins.values())) == len(begins)

    def teardown(self) -> None:
        if not hasattr(self, "state"):
            return
        check(self.state)
        for paddr, _ in self.live:
            assert free_on(self.state, 0, self.cache, paddr) == 0
        assert slab_cache_destroy(self.state, self.cache) == 0
        check(self.state)


TestSlab = Slab.TestCase
TestSlab.settings = settings(max_examples=20, stateful_step_count=20)


def test_an_object_freed_last_is_handed_out_first() -> None:
    state = slab_machine()
    cache = create_cache(state, "lifo", 100)
    first, second = alloc_on(state, 0, cache), alloc_on(state, 0, cache)
    free_on(state, 0, cache, first)
    free_on(state, 0, cache, second)
    assert [alloc_on(state, 0, cache), alloc_on(state, 0, cache)] == [second, first]


def test_hits_cost_less_than_misses() -> None:
    state = slab_machine()
    cache = create_cache(state, "cost", 100)
    clocks = [state.current[Current.CLOCK_PS]]
    for _ in range(2):
        alloc_on(state, 0, cache)
        clocks.append(state.current[Current.CLOCK_PS])
    assert clocks[1] - clocks[0] > 10 * (clocks[2] - clocks[1]) > 0
    stats = slab_stats(state, cache)
    assert (stats.allochit, stats.allocmiss, stats.grown, stats.refill_new) == (1, 1, 1, 16)


def test_a_producer_and_a_consumer_pass_objects_through_the_shared_array() -> None:
    state = slab_machine(cpus=2)
    cache = create_cache(state, "packets", 200)
    for _ in range(40):
        for paddr in [alloc_on(state, 0, cache) for _ in range(60)]:
            assert free_on(state, 1, cache, paddr) == 0
    stats = slab_stats(state, cache)
    assert stats.refill_shared > 30 * 60
    assert stats.grown < 20
    check(state)


def test_the_frames_of_a_slab_are_flagged_counted_and_given_back() -> None:
    state = slab_machine()
    cache = create_cache(state, "counted", 1500, slab_flags=SlabFlag.RECLAIM_ACCOUNT)
    paddr = alloc_on(state, 0, cache)
    assert state.page[paddr >> PAGE_SHIFT].page_flags & PageFlag.SLAB
    assert state.vm_stat[VmStat.NR_SLAB_RECLAIMABLE] == 1
    assert slab_cache_destroy(state, cache) == 1
    free_on(state, 0, cache, paddr)
    assert slab_cache_destroy(state, cache) == 0
    assert state.vm_stat[VmStat.NR_SLAB_RECLAIMABLE] == 0
    page = state.page[paddr >> PAGE_SHIFT]
    assert page.page_flags & (PageFlag.PCP | PageFlag.BUDDY)
    assert (page.page_flags & PageFlag.SLAB, page.mapping, page.index, page.private, page.word) == (0,) * 5


def test_addresses_that_are_no_object_are_refused_and_reported() -> None:
    state = slab_machine()
    cache = create_cache(state, "mine", 100, slab_flags=SlabFlag.NO_MERGE)
    other = create_cache(state, "other", 100, slab_flags=SlabFlag.NO_MERGE)
    paddr = alloc_on(state, 0, cache)
    assert free_on(state, 0, cache, 12345) == SlabError.FOREIGN_ADDRESS
    assert free_on(state, 0, cache, -8) == SlabError.FOREIGN_ADDRESS
    assert free_on(state, 0, cache, 1 << 60) == SlabError.FOREIGN_ADDRESS
    assert free_on(state, 0, other, paddr) == SlabError.WRONG_CACHE
    assert free_on(state, 0, cache, paddr + 8) == SlabError.NOT_OBJECT_START
    assert free_on(state, 0, cache, paddr) == 0
    assert free_on(state, 0, cache, paddr) == SlabError.DOUBLE_FREE
    assert slab_kfree(state, 4096) == SlabError.FOREIGN_ADDRESS
    assert nr_reports(state) == 7
    assert slab_stats(state, cache).errors == 5
    assert slab_reports(state)[-2].startswith(f"mine: object 0x{paddr:x}: freed twice")
    check(state)


def test_a_machine_without_memory_says_so_and_recovers() -> None:
    state = slab_machine(mib=64)
    cache = create_cache(state, "greedy", 4000)
    taken = []
    while (paddr := alloc_on(state, 0, cache, GFP_ATOMIC)) != NIL:
        taken.append(paddr)
    assert slab_stats(state, cache).grow_failed == 1
    assert len(set(taken)) == len(taken) > 1000
    check(state)
    for paddr in taken:
        free_on(state, 0, cache, paddr)
    assert slab_cache_destroy(state, cache) == 0
    check(state)


def test_kmalloc_takes_the_smallest_class_and_kfree_finds_it() -> None:
    state = slab_machine()
    sizes = {1: 32, 32: 32, 33: 64, 4096: 4096, 4097: 8192, 131072: 131072, 131073: 262144}
    held = {size: slab_kmalloc(state, size, GFP_KERNEL) for size in sizes}
    assert {size: slab_ksize(state, paddr) for size, paddr in held.items()} == sizes
    assert slab_ksize(state, held[32] + 8) == slab_ksize(state, 0) == 0
    check(state)
    for paddr in held.values():
        assert slab_kfree(state, paddr) == 0
    assert slab_kmalloc(state, 0, GFP_KERNEL) == NIL
    check(state)
