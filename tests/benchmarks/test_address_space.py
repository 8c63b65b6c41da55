"""The benchmarks of fork, copy-on-write and the search for an area: the twins do what they stand beside."""

from bisect import bisect_right

import numpy as np
import pytest

from benchmarks.address_space import (
    AREA_BYTES,
    AREA_STEP_BYTES,
    CHILD,
    FIRST_AREA,
    parent,
    scattered_areas,
    search_suite,
    suite,
)
from benchmarks.measure import measure
from benchmarks.translation import MM
from benchmarks.twin import Twins, compile_twins
from node.counters import VmStat
from node.phys.page import PageFlag
from node.state import State
from node.vm.fork import fork_mm
from node.vm.vma import VmAreaStat
from shared.constants import NIL, PAGE_SIZE

NR_PAGES = 1500  # three tables, the last in part
NR_AREAS = 100
SMALL = {each.name: each for each in (*suite(pages=NR_PAGES), *search_suite(areas=NR_AREAS, lookups=2000))}


@pytest.fixture(scope="module")
def twins() -> Twins:
    return compile_twins()


@pytest.mark.parametrize("name", SMALL)
def test_a_twin_leaves_the_state_that_the_kernel_leaves(name: str, twins: Twins) -> None:
    result = measure(SMALL[name], twins)
    assert result.ours_per_s > 0
    assert result.c_per_s > 0


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


def lowest_that_ends_above(state: State, vaddr: int) -> int:
    starts = [FIRST_AREA + number * AREA_STEP_BYTES for number in range(NR_AREAS)]
    number = bisect_right([start + AREA_BYTES for start in starts], vaddr)
    if number == NR_AREAS:
        return NIL
    return int(np.flatnonzero(np.asarray(state.vma)["start"] == starts[number])[0])


def test_the_twin_finds_the_lowest_area_that_ends_above_an_address(twins: Twins) -> None:
    state = scattered_areas(NR_AREAS)
    for vaddr in range(FIRST_AREA - PAGE_SIZE, FIRST_AREA + (NR_AREAS + 1) * AREA_STEP_BYTES, PAGE_SIZE):
        found = twins.call("find_areas_at_random", state, MM, vaddr, 1, 1)
        assert found == lowest_that_ends_above(state, vaddr)


def test_the_search_goes_down_the_tree_nearly_every_time() -> None:
    benchmark = SMALL[f"VMA look-up among {NR_AREAS} areas"]
    state = benchmark.prepare()
    before = int(state.vm_area_stat[VmAreaStat.TREE_SEARCHES])
    benchmark.entry(state, *benchmark.arguments(state))
    searched = int(state.vm_area_stat[VmAreaStat.TREE_SEARCHES]) - before
    assert searched > 0.95 * benchmark.operations
