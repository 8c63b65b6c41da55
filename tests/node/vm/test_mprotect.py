"""mprotect: what a process may do, from then on, to pages that it has used already."""

import pytest

from node.counters import VmEvent
from node.errno import Errno
from node.hw.pte import PFN_MASK, PROT_NONE, Pte
from node.invariants import check
from node.vm.mprotect import mprotect
from node.vm.vma import VmFlag
from shared.constants import NIL, PAGE_SHIFT, PAGE_SIZE
from tests.node.vm_machine import READ_WRITE, VmMachine

pytestmark = pytest.mark.three_ways


@pytest.fixture
def machine() -> VmMachine:
    return VmMachine()


@pytest.mark.parametrize("nr_pages", [1, 3])
def test_a_page_that_the_tlb_knows_as_writable_is_not_when_the_right_is_gone(
    machine: VmMachine, nr_pages: int
) -> None:
    mm, vaddr = machine.spawn_written(nr_pages + 1)
    end = vaddr + nr_pages * PAGE_SIZE
    assert mprotect(machine.state, mm, vaddr, end, VmFlag.READ) == 0
    check(machine.state)
    for page in range(vaddr, end, PAGE_SIZE):
        assert machine.write(mm, page, 9) == NIL
        assert machine.read(mm, page) != NIL
    assert machine.write(mm, end, 9) != NIL


def test_pages_for_nobody_keep_their_frames_and_what_they_hold(machine: VmMachine) -> None:
    mm, vaddr = machine.spawn_written(1)
    pfn, content = machine.frame(mm, vaddr), machine.content(mm, vaddr)
    assert mprotect(machine.state, mm, vaddr, vaddr + PAGE_SIZE, 0) == 0
    assert machine.read(mm, vaddr) == NIL
    pte = machine.pte(mm, vaddr)
    assert (pte & Pte.PRESENT, pte & PROT_NONE, (pte >> PAGE_SHIFT) & PFN_MASK) == (0, PROT_NONE, pfn)
    check(machine.state)
    assert mprotect(machine.state, mm, vaddr, vaddr + PAGE_SIZE, READ_WRITE) == 0
    assert machine.read(mm, vaddr) == pfn
    assert machine.content(mm, vaddr) == content
    check(machine.state)


def test_a_page_of_ones_own_is_written_without_a_fault_when_the_right_comes_back(machine: VmMachine) -> None:
    mm, vaddr = machine.spawn_written(1)
    mprotect(machine.state, mm, vaddr, vaddr + PAGE_SIZE, VmFlag.READ)
    mprotect(machine.state, mm, vaddr, vaddr + PAGE_SIZE, READ_WRITE)
    faults = machine.state.vm_event[VmEvent.PGFAULT]
    assert machine.write(mm, vaddr, 9) != NIL
    assert machine.state.vm_event[VmEvent.PGFAULT] == faults
    check(machine.state)


def test_a_page_shared_by_fork_is_copied_at_the_first_write_after_the_right_comes_back(
    machine: VmMachine,
) -> None:
    parent, vaddr = machine.spawn_written(1)
    child = machine.fork(parent)
    pfn = machine.frame(parent, vaddr)
    mprotect(machine.state, child, vaddr, vaddr + PAGE_SIZE, VmFlag.READ)
    mprotect(machine.state, child, vaddr, vaddr + PAGE_SIZE, READ_WRITE)
    assert machine.write(child, vaddr, 9) != pfn
    assert machine.frame(parent, vaddr) == pfn
    check(machine.state)


def test_a_hole_is_an_error_behind_what_was_changed(machine: VmMachine) -> None:
    mm, vaddr = machine.spawn_written(3)
    machine.unmap(mm, vaddr + PAGE_SIZE, 1)
    assert mprotect(machine.state, mm, vaddr, vaddr + 3 * PAGE_SIZE, VmFlag.READ) == Errno.ENOMEM
    assert machine.write(mm, vaddr, 9) == NIL
    assert machine.write(mm, vaddr + 2 * PAGE_SIZE, 9) != NIL
    check(machine.state)
