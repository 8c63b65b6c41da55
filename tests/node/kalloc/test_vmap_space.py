"""Areas of kernel addresses, on a region so small that it fills: against a model of holes."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule

from node.build import build_state
from node.counters import Knob, VmEvent
from node.invariants import check
from node.joints import vm_unmap_aliases
from node.kalloc.vmallocinfo import areas_in
from node.kalloc.vmap_area import VmapStat, find_vmap_area, move_border
from node.kalloc.vmap_check import check_vmap
from node.kalloc.vmap_space import VmapRange, get_area, lazy_max_pages, put_area
from node.pool import Pool
from node.rbtree import Tree
from node.spec import MachineSpec
from node.state import State
from shared.constants import MIB, NIL, PAGE_SIZE
from shared.jit import entry
from tests.models.vmap import VmapModel

pytestmark = pytest.mark.three_ways

REGION_PAGES = 80


@entry
def take(state: State, size: int, align: int) -> int:
    """Return an area for addresses alone; nothing is mapped in it."""
    index = get_area(state, size, align, VmapRange.VMALLOC)
    return NIL if index == NIL else state.vmap_area[index].start


@entry
def give(state: State, vaddr: int) -> int:
    put_area(state, find_vmap_area(state, vaddr))
    return 0


@entry
def end_at(state: State, index: int, end: int) -> int:
    """Let a free area end elsewhere."""
    move_border(state, index, state.vmap_area[index].start, end)
    return 0


def machine(region_pages: int = REGION_PAGES, cpus: int = 1) -> State:
    """Return a machine whose vmalloc region is no larger than this."""
    state = build_state(MachineSpec(memory_bytes=72 * MIB, cpus=cpus))
    first = areas_in(state, Tree.FREE_VMAP)[0]
    end = int(state.knob[Knob.VMALLOC_START]) + region_pages * PAGE_SIZE
    state.knob[Knob.VMALLOC_LAST] = end - 1
    end_at(state, first, end)
    assert [line for line in check_vmap(state) if "largest" in line] == []
    return state


class Space(RuleBasedStateMachine):
    """Random areas come, go, and are purged."""

    @initialize()
    def boot(self) -> None:
        self.state = machine()
        start = int(self.state.knob[Knob.VMALLOC_START])
        self.model = VmapModel(start, start + REGION_PAGES * PAGE_SIZE, lazy_max_pages(self.state))

    @rule(pages=st.integers(1, 12))
    def allocate(self, pages: int) -> None:
        expected = self.model.allocate(pages * PAGE_SIZE)
        assert take(self.state, pages * PAGE_SIZE, PAGE_SIZE) == (NIL if expected is None else expected)

    @rule(pages=st.integers(1, 9), shift=st.integers(13, 16))
    def allocate_aligned(self, pages: int, shift: int) -> None:
        size, align = pages * PAGE_SIZE, 1 << shift
        waiting = int(self.state.vmap_stat[VmapStat.LAZY_PAGES])
        got = take(self.state, size, align)
        if waiting and not self.state.vmap_stat[VmapStat.LAZY_PAGES]:
            self.model.purge()
        if got == NIL:
            # Linux looks for room wherever the hole begins, so it may miss one that happens to be aligned.
            assert all(end - first < size + align - 1 for first, end in self.model.holes())
            return
        assert got % align == 0
        assert any(first <= got and got + size <= end for first, end in self.model.holes())
        assert got >= (self.model.lowest(size, align) or got)
        self.model.areas[got] = got + size

    @rule(data=st.data())
    def free(self, data: st.DataObject) -> None:
        if self.model.areas:
            start = data.draw(st.sampled_from(sorted(self.model.areas)))
            inside = data.draw(st.integers(start, self.model.areas[start] - 1))
            give(self.state, inside)
            self.model.free(start)

    @rule()
    def purge(self) -> None:
        vm_unmap_aliases(self.state)
        self.model.purge()

    @invariant()
    def holds(self) -> None:
        if not hasattr(self, "model"):
            return
        state = self.state
        # Nothing is mapped in these areas, which is all that the check may miss.
        assert [line for line in check_vmap(state) if "pages mapped" not in line] == []
        found = {state.vmap_area[i].start: state.vmap_area[i].end for i in areas_in(state, Tree.BUSY_VMAP)}
        assert found == self.model.areas
        free = [(state.vmap_area[i].start, state.vmap_area[i].end) for i in areas_in(state, Tree.FREE_VMAP)]
        assert free[:-1] == self.model.holes()  # the last one is the modules'
        assert state.vmap_stat[VmapStat.PURGES] == self.model.purges


Space.TestCase.settings = settings(max_examples=40, stateful_step_count=60, deadline=None)
TestSpace = Space.TestCase


@pytest.mark.parametrize(("cpus", "mib"), [(1, 32), (2, 64), (3, 64), (4, 96), (8, 128), (64, 224)])
def test_32_mib_may_wait_for_each_digit_of_the_number_of_cpus(cpus: int, mib: int) -> None:
    state = machine()
    state.knob[Knob.NR_CPUS] = cpus
    assert lazy_max_pages(state) == mib * MIB // PAGE_SIZE


def test_one_flush_serves_all_that_waited() -> None:
    pages = 32 * MIB // PAGE_SIZE // 4
    state = machine(6 * pages + 10)
    areas = [take(state, pages * PAGE_SIZE, PAGE_SIZE) for _ in range(5)]
    flushes = int(state.vm_event[VmEvent.NR_TLB_REMOTE_FLUSH_RECEIVED])
    for area in areas[:4]:
        give(state, area)
    assert state.vmap_stat[VmapStat.PURGES] == 0
    assert state.vmap_stat[VmapStat.LAZY_PAGES] == 4 * pages
    give(state, areas[4])
    assert state.vmap_stat[VmapStat.PURGES] == 1
    assert state.vmap_stat[VmapStat.LAZY_PAGES] == 0
    assert state.vm_event[VmEvent.NR_TLB_REMOTE_FLUSH_RECEIVED] == flushes + 1
    assert vm_unmap_aliases(state) == 0
    check(state)


def test_a_full_region_is_purged_before_a_request_fails() -> None:
    state = machine(10)
    first = take(state, 6 * PAGE_SIZE, PAGE_SIZE)
    give(state, first)
    assert take(state, 8 * PAGE_SIZE, PAGE_SIZE) == first
    assert take(state, 8 * PAGE_SIZE, PAGE_SIZE) == NIL
    assert state.vmap_stat[VmapStat.NO_SPACE] == 1


def test_without_a_record_there_is_no_area() -> None:
    state = machine()
    pool = state.pool[Pool.VMAP_AREA]
    pool.capacity = pool.mark
    assert take(state, PAGE_SIZE, PAGE_SIZE) == NIL
    assert state.pool[Pool.VMAP_AREA].nr_used == 2
    check(state)


@given(st.lists(st.integers(1, 30), min_size=1, max_size=25), st.integers(1, 40))
@settings(max_examples=30)
def test_the_tree_finds_the_lowest_hole_among_many(sizes: list[int], wanted: int) -> None:
    state = machine(2 * sum(sizes) + 200)
    start = int(state.knob[Knob.VMALLOC_START])
    model = VmapModel(start, start + (2 * sum(sizes) + 200) * PAGE_SIZE, lazy_max_pages(state))
    taken = []
    for pages in sizes:
        for size in (pages, 1):
            taken.append(take(state, size * PAGE_SIZE, PAGE_SIZE))
            assert model.allocate(size * PAGE_SIZE) == taken[-1]
    for area in taken[::2]:
        give(state, area)
        model.free(area)
    vm_unmap_aliases(state)
    model.purge()
    assert take(state, wanted * PAGE_SIZE, PAGE_SIZE) == model.allocate(wanted * PAGE_SIZE)
