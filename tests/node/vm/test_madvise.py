"""madvise of pages that are there: which go, which may go, and what a CPU that knew them does next."""

import pytest

from node.counters import VmEvent, VmStat
from node.errno import Errno
from node.hw.pte import Pte
from node.invariants import check
from node.phys.page import PageFlag
from node.vm.madvise import Advice, madvise
from node.vm.mlock import mlock
from shared.constants import PAGE_SIZE
from tests.node.vm_machine import VmMachine

pytestmark = pytest.mark.three_ways


@pytest.fixture
def machine() -> VmMachine:
    return VmMachine()


def advise(machine: VmMachine, mm: int, vaddr: int, nr_pages: int, advice: Advice) -> int:
    return madvise(machine.state, mm, vaddr, vaddr + nr_pages * PAGE_SIZE, advice)


@pytest.mark.parametrize("nr_pages", [1, 3])
def test_pages_that_are_not_needed_go_at_once_and_read_as_zeroes(machine: VmMachine, nr_pages: int) -> None:
    mm, vaddr = machine.spawn_written(nr_pages + 1)
    assert advise(machine, mm, vaddr, nr_pages, Advice.DONTNEED) == 0
    assert machine.state.vm_stat[VmStat.NR_ANON_PAGES] == 1
    check(machine.state)
    for page in range(nr_pages):
        machine.read(mm, vaddr + page * PAGE_SIZE)
        assert machine.is_zero_page(mm, vaddr + page * PAGE_SIZE)
    assert machine.content(mm, vaddr + nr_pages * PAGE_SIZE) != 0


def test_a_page_freed_lazily_keeps_what_it_holds_and_is_clean_until_the_next_write(
    machine: VmMachine,
) -> None:
    mm, vaddr = machine.spawn_written(1)
    content = machine.content(mm, vaddr)
    assert advise(machine, mm, vaddr, 1, Advice.FREE) == 0
    assert machine.content(mm, vaddr) == content
    assert not machine.pte(mm, vaddr) & (Pte.ACCESSED | Pte.DIRTY)
    assert machine.state.vm_stat[VmStat.NR_INACTIVE_FILE] == 1
    assert machine.state.vm_event[VmEvent.PGLAZYFREE] == 1
    check(machine.state)
    faults = machine.state.vm_event[VmEvent.PGFAULT]
    machine.write(mm, vaddr, 2)
    assert machine.pte(mm, vaddr) & Pte.DIRTY
    assert machine.state.vm_event[VmEvent.PGFAULT] == faults
    check(machine.state)


def test_a_discardable_page_that_is_populated_for_writing_is_none_any_more(machine: VmMachine) -> None:
    mm, vaddr = machine.spawn_written(2)
    assert advise(machine, mm, vaddr, 2, Advice.FREE) == 0
    assert advise(machine, mm, vaddr, 1, Advice.POPULATE_WRITE) == 0
    dirty = [
        machine.state.page[machine.frame(mm, vaddr + page * PAGE_SIZE)].page_flags & PageFlag.DIRTY
        for page in range(2)
    ]
    assert dirty == [PageFlag.DIRTY, 0]
    assert not machine.pte(mm, vaddr) & Pte.DIRTY  # only the page knows
    check(machine.state)


def test_an_anonymous_page_does_not_learn_from_an_entry_that_goes_what_others_say_too(
    machine: VmMachine,
) -> None:
    mm, vaddr = machine.spawn_written(1)
    child = machine.fork(mm)
    assert advise(machine, child, vaddr, 1, Advice.DONTNEED) == 0
    assert not machine.state.page[machine.frame(mm, vaddr)].page_flags & PageFlag.DIRTY
    assert machine.pte(mm, vaddr) & Pte.DIRTY
    check(machine.state)


def test_a_cold_page_looks_unused_until_the_next_access(machine: VmMachine) -> None:
    mm, vaddr = machine.spawn_written(2)
    assert advise(machine, mm, vaddr, 1, Advice.COLD) == 0
    accessed = [machine.pte(mm, vaddr + page * PAGE_SIZE) & Pte.ACCESSED for page in range(2)]
    assert accessed == [0, Pte.ACCESSED]
    check(machine.state)
    machine.read(mm, vaddr)
    assert machine.pte(mm, vaddr) & Pte.ACCESSED


def test_locked_pages_can_neither_go_nor_be_cold(machine: VmMachine) -> None:
    mm, vaddr = machine.spawn_written(1)
    mlock(machine.state, mm, vaddr, vaddr + PAGE_SIZE)
    for advice in (Advice.DONTNEED, Advice.FREE, Advice.COLD):
        assert advise(machine, mm, vaddr, 1, advice) == Errno.EINVAL
    assert machine.state.vm_stat[VmStat.NR_ANON_PAGES] == 1


def test_advice_goes_on_behind_a_hole_and_says_that_there_was_one(machine: VmMachine) -> None:
    mm, vaddr = machine.spawn_written(3)
    machine.unmap(mm, vaddr + PAGE_SIZE, 1)
    assert advise(machine, mm, vaddr, 3, Advice.DONTNEED) == Errno.ENOMEM
    assert machine.state.vm_stat[VmStat.NR_ANON_PAGES] == 0
    check(machine.state)
