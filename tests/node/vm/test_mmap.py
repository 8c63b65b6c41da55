"""mmap, munmap and brk: where areas come to lie, how they are split, and what unmapping gives back."""

import pytest

from node.counters import VmStat
from node.invariants import check
from node.vm.mm_init import BRK_START, STACK_GAP_BYTES
from node.vm.mmap import brk, mmap_fixed
from node.vm.vma import find_vma, vma_at
from shared.constants import HUGE_PAGE_SIZE, NIL, PAGE_SIZE
from tests.node.vm_machine import READ_WRITE, VmMachine

pytestmark = pytest.mark.three_ways

NR_TABLES = 3  # one a level below the top
MMAP_TOP = (1 << 47) - PAGE_SIZE - STACK_GAP_BYTES


@pytest.fixture
def machine() -> VmMachine:
    return VmMachine()


def areas(machine: VmMachine, mm: int) -> list[tuple[int, int]]:
    """Return [start, end) of each area, in the order of the list."""
    found = []
    index = machine.state.mm[mm].first_vma
    while index != NIL:
        vma = machine.state.vma[index]
        found.append((vma.start, vma.end))
        index = vma.next
    return found


def test_mappings_are_laid_downwards_from_the_top(machine: VmMachine) -> None:
    mm = machine.spawn()
    first = machine.map(mm, 2)
    second = machine.map(mm, 3)
    assert first == MMAP_TOP - 2 * PAGE_SIZE
    assert second == first - 3 * PAGE_SIZE
    assert areas(machine, mm) == [(second, MMAP_TOP)]  # alike and adjacent, they are one area


def test_the_highest_gap_that_is_large_enough_is_used(machine: VmMachine) -> None:
    mm = machine.spawn()
    blocks = [machine.map(mm, 4) for _ in range(4)]
    machine.unmap(mm, blocks[0], 2)
    machine.unmap(mm, blocks[2], 4)
    assert machine.map(mm, 3) == blocks[2] + PAGE_SIZE
    assert machine.map(mm, 2) == blocks[0]
    check(machine.state)


def test_unmapping_the_middle_splits_an_area(machine: VmMachine) -> None:
    mm = machine.spawn()
    start = machine.map(mm, 10)
    for page in range(10):
        machine.write(mm, start + page * PAGE_SIZE, page)
    assert machine.unmap(mm, start + 3 * PAGE_SIZE, 4) == 4
    assert areas(machine, mm) == [
        (start, start + 3 * PAGE_SIZE),
        (start + 7 * PAGE_SIZE, start + 10 * PAGE_SIZE),
    ]
    assert machine.state.mm[mm].nr_anon == 6
    assert machine.write(mm, start + 4 * PAGE_SIZE, 1) == NIL
    assert machine.write(mm, start + 7 * PAGE_SIZE, 1) != NIL
    check(machine.state)


def test_one_unmap_may_cut_several_areas(machine: VmMachine) -> None:
    mm = machine.spawn()
    upper = machine.map(mm, 4)
    lower = machine.map(mm, 4)
    for page in range(8):
        machine.write(mm, lower + page * PAGE_SIZE, 1)
    assert machine.unmap(mm, lower + 2 * PAGE_SIZE, 4) == 4
    assert areas(machine, mm) == [
        (lower, lower + 2 * PAGE_SIZE),
        (upper + 2 * PAGE_SIZE, upper + 4 * PAGE_SIZE),
    ]
    check(machine.state)


def test_unmapping_where_nothing_is_does_nothing(machine: VmMachine) -> None:
    mm = machine.spawn()
    start = machine.map(mm, 2)
    assert machine.unmap(mm, start - 8 * PAGE_SIZE, 4) == 0
    assert machine.unmap(mm, start + 2 * PAGE_SIZE, 4) == 0
    assert areas(machine, mm) == [(start, start + 2 * PAGE_SIZE)]


def test_page_tables_are_freed_with_the_last_area_that_needs_them(machine: VmMachine) -> None:
    mm = machine.spawn()
    start = MMAP_TOP - 4 * HUGE_PAGE_SIZE
    for first in (start, start + HUGE_PAGE_SIZE):
        mmap_fixed(machine.state, mm, first, first + 2 * PAGE_SIZE)
        machine.write(mm, first, 1)
    assert machine.state.mm[mm].nr_page_tables == NR_TABLES + 1
    machine.unmap(mm, start, 2)
    assert machine.state.mm[mm].nr_page_tables == NR_TABLES
    check(machine.state)
    machine.unmap(mm, start + HUGE_PAGE_SIZE, 2)
    assert machine.state.mm[mm].nr_page_tables == machine.state.vm_stat[VmStat.NR_PAGE_TABLE_PAGES] == 0
    check(machine.state)


def test_the_heap_grows_and_stops_at_the_next_area(machine: VmMachine) -> None:
    mm = machine.spawn()
    brk(machine.state, mm, BRK_START + 2 * PAGE_SIZE)
    assert brk(machine.state, mm, BRK_START + 4 * PAGE_SIZE) == BRK_START + 4 * PAGE_SIZE
    assert areas(machine, mm) == [(BRK_START, BRK_START + 4 * PAGE_SIZE)]
    mmap_fixed(machine.state, mm, BRK_START + 8 * PAGE_SIZE, BRK_START + 9 * PAGE_SIZE)
    assert brk(machine.state, mm, BRK_START + 8 * PAGE_SIZE) == BRK_START + 4 * PAGE_SIZE
    assert brk(machine.state, mm, BRK_START + 7 * PAGE_SIZE) == BRK_START + 7 * PAGE_SIZE
    assert machine.write(mm, BRK_START + 6 * PAGE_SIZE, 1) != NIL
    check(machine.state)


def test_a_fixed_mapping_never_covers_another(machine: VmMachine) -> None:
    mm = machine.spawn()
    start = machine.map(mm, 4)
    assert mmap_fixed(machine.state, mm, start - PAGE_SIZE, start + PAGE_SIZE) == NIL
    assert mmap_fixed(machine.state, mm, start - PAGE_SIZE, start) != NIL
    assert areas(machine, mm) == [(start - PAGE_SIZE, start + 4 * PAGE_SIZE)]


def test_an_area_is_found_by_any_address_in_it(machine: VmMachine) -> None:
    mm = machine.spawn()
    upper = machine.map(mm, 2)
    machine.map(mm, 2)
    machine.unmap(mm, upper - 1 * PAGE_SIZE, 1)
    index = vma_at(machine.state, mm, upper + PAGE_SIZE)
    assert machine.state.vma[index].start == upper
    assert vma_at(machine.state, mm, upper - 1) == NIL
    assert find_vma(machine.state, mm, upper - 1) == index
    assert find_vma(machine.state, mm, MMAP_TOP) == NIL


def test_a_process_that_ends_gives_everything_back(machine: VmMachine) -> None:
    free_at_start = machine.nr_free()
    mm = machine.spawn()
    start = machine.map(mm, 30, READ_WRITE)
    brk(machine.state, mm, BRK_START + 3 * PAGE_SIZE)
    for page in range(0, 30, 2):
        machine.write(mm, start + page * PAGE_SIZE, 1)
    machine.read(mm, BRK_START)
    assert machine.exit(mm) == 16
    assert machine.nr_free() == free_at_start
    assert (
        machine.state.vm_stat[VmStat.NR_PAGE_TABLE_PAGES] == machine.state.vm_stat[VmStat.NR_ANON_PAGES] == 0
    )
    check(machine.state)
