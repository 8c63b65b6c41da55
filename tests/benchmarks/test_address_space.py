"""The benchmarks of fork, copy-on-write and the search for an area: the twins do what they stand beside."""

from bisect import bisect_right

import numpy as np
import pytest

from benchmarks.address_space import CHILD, parent, suite
from benchmarks.translation import MM
from benchmarks.twin import Twins, compile_twins
from node.counters import VmStat
from node.phys.page import PageFlag
from node.state import State
from node.vm.fork import fork_mm
from shared.constants import NIL, PAGE_SHIFT, PAGE_SIZE

NR_PAGES = 1500  # three tables, the last in part
SMALL = {each.name: each for each in suite(pages=NR_PAGES)}


@pytest.fixture(scope="module")
def twins() -> Twins:
    return compile_twins()


def nr_exclusive(state: State) -> int:
    flags = np.asarray(state.page)["page_flags"]
    return int(np.count_nonzero(flags & PageFlag.ANON_EXCLUSIVE))


def test_each_fork_finds_pages_that_are_the_parents_alone() -> None:
    benchmark = SMALL["fork"]
    state = benchmark.prepare()
    for _ in range(2):
        benchmark.before(state)
        assert nr_exclusive(state) == NR_PAGES
        assert benchmark.entry(state, *benchmark.arguments(state)) == CHILD
        assert nr_exclusive(state) == 0
        assert state.mm[CHILD].nr_anon == NR_PAGES
        benchmark.after(state)


def test_each_write_of_the_benchmark_copies_a_page() -> None:
    benchmark = SMALL["copy-on-write break"]
    state = benchmark.prepare()
    for _ in range(2):
        benchmark.before(state)
        assert state.vm_stat[VmStat.NR_ANON_PAGES] == NR_PAGES
        assert benchmark.entry(state, *benchmark.arguments(state)) == NR_PAGES
        assert state.vm_stat[VmStat.NR_ANON_PAGES] == 2 * NR_PAGES
        benchmark.after(state)


def test_the_child_is_the_same_every_time() -> None:
    assert fork_mm(parent(1), MM) == CHILD


# --- the search for an area -----------------------------------------------------------------------------

NR_AREAS = 100
STEP = 4 * PAGE_SIZE  # two pages of area, two of gap
AREA_BYTES = 2 * PAGE_SIZE
FIRST_AREA = 1000  # areas and nodes have numbers of their own
FIRST_NODE = 500


def tree_of_areas(state: State) -> int:
    """Write a balanced tree of areas, one every STEP bytes, into the tables; return its root."""
    for number in range(NR_AREAS):
        area = state.vma[FIRST_AREA + number]
        area.start = (number + 1) * STEP
        area.end = area.start + AREA_BYTES

    def node_of(low: int, high: int) -> int:
        if low == high:
            return NIL
        middle = (low + high) // 2
        node = state.rb_node[FIRST_NODE + middle]
        node.key = (middle + 1) * STEP
        node.owner = FIRST_AREA + middle
        node.left = node_of(low, middle)
        node.right = node_of(middle + 1, high)
        return FIRST_NODE + middle

    return node_of(0, NR_AREAS)


def lowest_that_ends_above(vaddr: int) -> int:
    ends = [(number + 1) * STEP + AREA_BYTES for number in range(NR_AREAS)]
    number = bisect_right(ends, vaddr)
    return NIL if number == NR_AREAS else FIRST_AREA + number


def test_the_twin_finds_the_lowest_area_that_ends_above_an_address(twins: Twins) -> None:
    state = parent(1)
    root = tree_of_areas(state)
    for page in range((NR_AREAS + 2) * STEP >> PAGE_SHIFT):
        vaddr = page << PAGE_SHIFT
        found = twins.call("find_areas_at_random", state, root, vaddr, 1, 1)
        assert found == lowest_that_ends_above(vaddr)


def test_the_addresses_looked_up_are_spread_over_the_pages(twins: Twins) -> None:
    state = parent(1)
    root = tree_of_areas(state)
    nr_pages, count = NR_AREAS * STEP >> PAGE_SHIFT, 2000
    found = twins.call("find_areas_at_random", state, root, 0, nr_pages, count)
    assert found / count == pytest.approx(FIRST_AREA + NR_AREAS / 2, abs=NR_AREAS / 10)
