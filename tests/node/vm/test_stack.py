"""Stacks that grow: how near they may come to what lies below."""

import pytest

from node.counters import Knob
from node.invariants import check
from node.vm.mmap import mmap_fixed
from node.vm.mprotect import mprotect
from node.vm.vma import VmFlag
from shared.constants import NIL, PAGE_SIZE
from tests.node.vm_machine import READ_WRITE, VmMachine

pytestmark = pytest.mark.three_ways

GUARD_PAGES = 256  # stack_guard_gap
APART = 300


@pytest.fixture
def machine() -> VmMachine:
    return VmMachine()


def stack_above_an_area(machine: VmMachine) -> tuple[int, int]:
    """Return a process and the end of an area of its that lies 300 pages below its stack."""
    mm = machine.spawn()
    stack = machine.map(mm, 2, READ_WRITE | VmFlag.GROWSDOWN)
    end = stack - APART * PAGE_SIZE
    assert mmap_fixed(machine.state, mm, end - PAGE_SIZE, end) != NIL
    return mm, end


def test_a_stack_grows_until_its_guard_gap_and_no_page_further(machine: VmMachine) -> None:
    assert machine.state.knob[Knob.STACK_GUARD_PAGES] == GUARD_PAGES
    mm, end = stack_above_an_area(machine)
    assert machine.write(mm, end + GUARD_PAGES * PAGE_SIZE, 1) != NIL
    assert machine.write(mm, end + (GUARD_PAGES - 1) * PAGE_SIZE, 1) == NIL
    check(machine.state)


def test_an_area_that_nobody_may_use_is_itself_a_guard(machine: VmMachine) -> None:
    mm, end = stack_above_an_area(machine)
    assert mprotect(machine.state, mm, end - PAGE_SIZE, end, 0) == 0
    assert machine.write(mm, end, 1) != NIL
    assert machine.write(mm, end - PAGE_SIZE, 1) == NIL
    check(machine.state)


def test_only_a_stack_grows(machine: VmMachine) -> None:
    mm = machine.spawn()
    vaddr = machine.map(mm, 2)
    assert machine.write(mm, vaddr - PAGE_SIZE, 1) == NIL
    check(machine.state)
