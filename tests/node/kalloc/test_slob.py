"""SLOB: against a model, and each of its rules by itself."""

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule

from node.build import build_state
from node.counters import Knob, VmStat
from node.invariants import check
from node.joints import (
    slob_cache_alloc,
    slob_cache_destroy,
    slob_cache_free,
    slob_cache_shrink,
    slob_kfree,
    slob_kmalloc,
    slob_ksize,
)
from node.kalloc.cache_list import create_cache
from node.kalloc.kmem_cache import SlabError
from node.kalloc.slob_check import check_slob, free_blocks
from node.kalloc.slob_page import SlobPolicy, SlobStat
from node.phys.page import PageFlag
from node.spec import MachineSpec
from node.state import State
from shared.constants import MIB, NIL, PAGE_SHIFT, PAGE_SIZE
from shared.gfp_flags import GFP_KERNEL
from tests.models.slob import SlobModel

pytestmark = pytest.mark.three_ways

HEADER = 8


def slob_machine(policy: int = SlobPolicy.FIRST_FIT_THREE_LISTS, mib: int = 72) -> State:
    state = build_state(MachineSpec(memory_bytes=mib * MIB, allocator="slob"))
    state.knob[Knob.SLOB_POLICY] = policy
    return state


def stat(state: State, which: SlobStat) -> int:
    return int(state.slob_stat[which])


class Slob(RuleBasedStateMachine):
    """Random calls, of caches and of kmalloc; the model says where each object goes."""

    @initialize(policy=st.sampled_from(SlobPolicy))
    def boot(self, policy: SlobPolicy) -> None:
        self.state = slob_machine(policy)
        self.model = SlobModel(policy)
        self.live: list[tuple[int, int, int]] = []  # address, its block, bytes
        self.large: list[int] = []
        self.objects: list[tuple[int, int]] = []  # cache, address
        shapes = ((10, 0), (56, 8), (96, 64), (300, 0), (1500, 256))
        self.caches = [create_cache(self.state, f"c{size}", size, align) for size, align in shapes]
        self.free_pages = int(self.state.vm_stat[VmStat.NR_FREE_PAGES])

    def expect(self, got: int, size: int, align: int, offset: int) -> None:
        found = self.model.find(size, align, offset)
        pfn, unit = got >> PAGE_SHIFT, (got & (PAGE_SIZE - 1)) // 2
        if found is None:
            assert pfn not in self.model.pages
        else:
            assert (pfn, unit) == (found[0].pfn, found[1])
        self.model.take(pfn, unit, size)

    @rule(size=st.one_of(st.integers(1, 300), st.integers(1, 4087), st.sampled_from([8, 64, 512, 2048])))
    def kmalloc(self, size: int) -> None:
        paddr = slob_kmalloc(self.state, size, GFP_KERNEL)
        align = size if size & (size - 1) == 0 and size > HEADER else HEADER
        assert paddr % align == 0
        self.expect(paddr - HEADER, size + HEADER, align, HEADER)
        assert slob_ksize(self.state, paddr) == (size + 1) // 2 * 2
        self.live.append((paddr, paddr - HEADER, size + HEADER))

    @rule(which=st.integers(0, 4))
    def cache_alloc(self, which: int) -> None:
        cache = self.caches[which]
        record = self.state.kmem_cache[cache]
        paddr = slob_cache_alloc(self.state, cache, GFP_KERNEL)
        assert paddr % record.align == 0
        self.expect(paddr, record.stride, record.align, 0)
        self.objects.append((cache, paddr))

    @rule(size=st.integers(4088, 40000))
    def kmalloc_large(self, size: int) -> None:
        paddr = slob_kmalloc(self.state, size, GFP_KERNEL)
        assert slob_ksize(self.state, paddr) >= size
        self.large.append(paddr)

    @rule(data=st.data())
    def kfree(self, data: st.DataObject) -> None:
        if self.live:
            paddr, block, size = self.live.pop(data.draw(st.integers(0, len(self.live) - 1)))
            assert slob_kfree(self.state, paddr) == 0
            self.model.give(block >> PAGE_SHIFT, (block & (PAGE_SIZE - 1)) // 2, size)
            # Its header may lie in a free block now, in a page that went back, or in one that SLOB got again.
            assert slob_kfree(self.state, paddr) in (SlabError.DOUBLE_FREE, SlabError.FOREIGN_ADDRESS)

    @rule(data=st.data())
    def cache_free(self, data: st.DataObject) -> None:
        if self.objects:
            cache, paddr = self.objects.pop(data.draw(st.integers(0, len(self.objects) - 1)))
            assert slob_cache_free(self.state, cache, paddr) == 0
            size = self.state.kmem_cache[cache].stride
            self.model.give(paddr >> PAGE_SHIFT, (paddr & (PAGE_SIZE - 1)) // 2, size)

    @rule(data=st.data())
    def free_large(self, data: st.DataObject) -> None:
        if self.large:
            paddr = self.large.pop(data.draw(st.integers(0, len(self.large) - 1)))
            assert slob_kfree(self.state, paddr) == 0
            assert slob_kfree(self.state, paddr) == SlabError.FOREIGN_ADDRESS

    @rule(paddr=st.integers(-PAGE_SIZE, 100 * MIB))
    def free_of_anything_breaks_nothing(self, paddr: int) -> None:
        pfn = paddr >> PAGE_SHIFT
        if pfn not in self.model.pages and paddr not in self.large:
            assert slob_kfree(self.state, paddr) == SlabError.FOREIGN_ADDRESS

    @invariant()
    def holds(self) -> None:
        if not hasattr(self, "model"):
            return
        assert check_slob(self.state) == []
        for pfn, page in self.model.pages.items():
            assert free_blocks(self.state, pfn) == page.free_runs()
        assert self.state.vm_stat[VmStat.NR_SLAB_UNRECLAIMABLE] >= len(self.model.pages)

    def teardown(self) -> None:
        if not hasattr(self, "model"):
            return
        check(self.state)
        for paddr, _, _ in self.live:
            assert slob_kfree(self.state, paddr) == 0
        for paddr in self.large:
            assert slob_kfree(self.state, paddr) == 0
        for cache, paddr in self.objects:
            assert slob_cache_free(self.state, cache, paddr) == 0
        assert self.state.vm_stat[VmStat.NR_SLAB_UNRECLAIMABLE] == 0
        assert stat(self.state, SlobStat.BYTES_USED) == stat(self.state, SlobStat.BYTES_ASKED) == 0
        check(self.state)


Slob.TestCase.settings = settings(max_examples=30, stateful_step_count=60, deadline=None)
TestSlob = Slob.TestCase


def test_the_size_stands_in_front_and_a_power_of_two_is_aligned_to_itself() -> None:
    state = slob_machine()
    first, second = slob_kmalloc(state, 24, GFP_KERNEL), slob_kmalloc(state, 512, GFP_KERNEL)
    assert first % PAGE_SIZE == HEADER
    assert state.slab_word[(first - HEADER) >> 3] == 24
    assert second % 512 == 0
    assert second >> PAGE_SHIFT != first >> PAGE_SHIFT  # 520 bytes go to another list


def test_one_list_puts_a_large_object_behind_small_ones() -> None:
    state = slob_machine(SlobPolicy.FIRST_FIT_ONE_LIST)
    small = slob_kmalloc(state, 24, GFP_KERNEL)
    assert slob_kmalloc(state, 1500, GFP_KERNEL) >> PAGE_SHIFT == small >> PAGE_SHIFT
    assert stat(state, SlobStat.FIRST_PAGE_HITS) == 1


@pytest.mark.parametrize(
    ("policy", "hole"), [(SlobPolicy.FIRST_FIT_THREE_LISTS, 0), (SlobPolicy.BEST_FIT, 2)]
)
def test_best_fit_leaves_the_larger_hole_whole(policy: SlobPolicy, hole: int) -> None:
    state = slob_machine(policy)
    blocks = [slob_kmalloc(state, size, GFP_KERNEL) for size in (200, 16, 56, 16)]
    assert slob_kfree(state, blocks[0]) == slob_kfree(state, blocks[2]) == 0
    assert slob_kmalloc(state, 50, GFP_KERNEL) == blocks[hole]


def test_a_freed_block_becomes_one_with_both_neighbours() -> None:
    state = slob_machine()
    blocks = [slob_kmalloc(state, 40, GFP_KERNEL) for _ in range(4)]
    pfn = blocks[0] >> PAGE_SHIFT
    for index in (0, 2):
        assert slob_kfree(state, blocks[index]) == 0
    assert [units for _, units in free_blocks(state, pfn)] == [24, 24, 2048 - 4 * 24]
    merges = stat(state, SlobStat.MERGES)
    assert slob_kfree(state, blocks[1]) == 0
    assert stat(state, SlobStat.MERGES) == merges + 2
    assert slob_kfree(state, blocks[3]) == 0
    assert not state.page[pfn].page_flags & PageFlag.SLAB
    assert stat(state, SlobStat.PAGES_FREED) == 1


def test_large_objects_are_blocks_of_frames() -> None:
    state = slob_machine()
    assert slob_kmalloc(state, 4087, GFP_KERNEL) % PAGE_SIZE == HEADER
    paddr = slob_kmalloc(state, 3 * PAGE_SIZE, GFP_KERNEL)
    assert paddr % (4 * PAGE_SIZE) == 0
    assert slob_ksize(state, paddr) == 4 * PAGE_SIZE
    check(state)
    assert slob_kfree(state, paddr) == 0
    check(state)


@pytest.mark.parametrize("size", [0, -1, (4 << 20) + 1, 1 << 40])
def test_a_size_that_no_block_has_is_refused(size: int) -> None:
    assert slob_kmalloc(slob_machine(), size, GFP_KERNEL) == NIL


def test_what_is_wrong_with_a_free_is_found() -> None:
    state = slob_machine()
    cache = create_cache(state, "things", 64, 64)
    other = create_cache(state, "others", 64, 64)
    first, second = (slob_cache_alloc(state, cache, GFP_KERNEL) for _ in range(2))
    assert slob_cache_free(state, other, first) == SlabError.WRONG_CACHE
    assert slob_cache_free(state, cache, first + 1) == SlabError.NOT_OBJECT_START
    assert slob_cache_free(state, cache, first + 32) == SlabError.NOT_OBJECT_START
    assert slob_cache_free(state, cache, 5 << PAGE_SHIFT) == SlabError.FOREIGN_ADDRESS
    assert slob_cache_free(state, cache, first) == 0
    assert slob_cache_free(state, cache, first) == SlabError.DOUBLE_FREE
    assert slob_cache_destroy(state, cache) == 1
    assert slob_cache_free(state, cache, second) == 0
    assert slob_cache_destroy(state, cache) == slob_cache_shrink(state, cache) == 0
    assert slob_kfree(state, second) == SlabError.FOREIGN_ADDRESS
    assert stat(state, SlobStat.ERRORS) == 6
    check(state)


def test_a_free_list_that_was_written_over_ends_early_and_nothing_crashes() -> None:
    state = slob_machine()
    blocks = [slob_kmalloc(state, 100, GFP_KERNEL) for _ in range(20)]
    pfn = blocks[0] >> PAGE_SHIFT
    for block in blocks[::2]:
        slob_kfree(state, block)
    for value in (0, -1, 0x0101010101010101):
        state.slab_word[pfn << 9 : (pfn + 1) << 9] = value
        for size in (8, 100, 1000):
            slob_kmalloc(state, size, GFP_KERNEL)
        for block in blocks:
            slob_kfree(state, block)


def test_memory_that_runs_out_is_counted() -> None:
    state = slob_machine()
    taken = []
    while (paddr := slob_kmalloc(state, 64 * 1024, 0)) != NIL:
        taken.append(paddr)
    while (paddr := slob_kmalloc(state, 4000, 0)) != NIL:
        taken.append(paddr)
    assert stat(state, SlobStat.NO_MEMORY) == 2
    check(state)
    for paddr in taken:
        assert slob_kfree(state, paddr) == 0
    check(state)
