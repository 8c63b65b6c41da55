"""The kernel's own accesses to a process: copies that fault, and accesses that must not be."""

import pytest

from node.counters import Current, Request, VmEvent
from node.fault.kernel_fault import copy_from_user, copy_to_user, stray_kernel_access
from node.fault.outcome import FaultOutcome
from node.hw.paging import AccessKind
from node.joints import run_in_user_mode
from node.state import State
from node.vm.mprotect import mprotect
from node.vm.vma import VmFlag
from shared.constants import NIL, PAGE_SIZE
from shared.jit import entry
from tests.node.vm_machine import VmMachine

pytestmark = pytest.mark.three_ways


@entry
def run_process(state: State, mm: int) -> int:
    return run_in_user_mode(state, mm)


@pytest.fixture
def machine() -> VmMachine:
    return VmMachine()


def running(machine: VmMachine) -> int:
    mm = machine.spawn()
    machine.state.current[Current.MM] = mm
    run_process(machine.state, mm)
    return mm


def outcomes(machine: VmMachine, outcome: FaultOutcome) -> int:
    return int(machine.state.fault_outcome[outcome])


def test_a_copy_into_fresh_memory_faults_it_in(machine: VmMachine) -> None:
    mm = running(machine)
    start = machine.map(mm, 3)
    machine.state.request[Request.A0] = 7
    assert copy_to_user(machine.state, mm, start + 100, 2 * PAGE_SIZE) == 0
    assert machine.state.vm_event[VmEvent.PGFAULT] == 3
    assert outcomes(machine, FaultOutcome.ANON_NEW_PAGE) == 3
    assert machine.content(mm, start) != 0


def test_a_copy_ends_early_where_no_area_is(machine: VmMachine) -> None:
    mm = running(machine)
    start = machine.map(mm, 2)
    assert copy_to_user(machine.state, mm, start, 5 * PAGE_SIZE) == 3 * PAGE_SIZE
    assert outcomes(machine, FaultOutcome.KERNEL_FIXUP) == 1
    assert outcomes(machine, FaultOutcome.BAD_AREA) == 0  # one fault, one end


def test_a_copy_to_read_only_memory_is_refused_and_one_from_it_is_not(machine: VmMachine) -> None:
    mm = running(machine)
    start = machine.map(mm, 1)
    machine.write(mm, start, 1)
    assert mprotect(machine.state, mm, start, start + PAGE_SIZE, VmFlag.READ) == 0
    assert copy_to_user(machine.state, mm, start, 8) == 8
    assert copy_from_user(machine.state, mm, start, 8) == 0
    assert outcomes(machine, FaultOutcome.KERNEL_FIXUP) == 1
    assert outcomes(machine, FaultOutcome.BAD_ACCESS) == 0


def test_without_a_copy_even_mapped_memory_of_a_process_is_an_oops_under_smap(machine: VmMachine) -> None:
    mm = running(machine)
    start = machine.map(mm, 1)
    machine.write(mm, start, 1)
    assert stray_kernel_access(machine.state, start, AccessKind.READ) == NIL
    assert stray_kernel_access(machine.state, start + PAGE_SIZE, AccessKind.READ) == NIL
    assert outcomes(machine, FaultOutcome.KERNEL_OOPS) == 2
    assert machine.read(mm, start) != NIL
