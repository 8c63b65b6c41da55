"""Copy-on-write on several CPUs, and the end of sharing."""

import pytest

from node.counters import Current, VmEvent
from node.invariants import check
from shared.constants import PAGE_SIZE
from tests.node.vm_machine import VmMachine

pytestmark = pytest.mark.three_ways


def test_every_cpu_that_a_process_runs_on_sees_the_copy() -> None:
    machine = VmMachine(cpus=2)
    parent = machine.spawn()
    vaddr = machine.map(parent, 1)
    machine.write(parent, vaddr, 1)
    child = machine.fork(parent)
    for cpu in (1, 0):
        machine.state.current[Current.CPU] = cpu
        machine.read(child, vaddr)
    copy = machine.write(child, vaddr, 2)
    check(machine.state)
    machine.state.current[Current.CPU] = 1
    assert machine.read(child, vaddr) == copy
    assert machine.frame(parent, vaddr) != copy
    check(machine.state)


def test_a_page_of_three_is_copied_twice_and_then_taken_over() -> None:
    machine = VmMachine()
    parent = machine.spawn()
    vaddr = machine.map(parent, 2)
    machine.write(parent, vaddr + PAGE_SIZE, 1)
    old = machine.frame(parent, vaddr + PAGE_SIZE)
    children = [machine.fork(parent) for _ in range(2)]
    for child in children:
        assert machine.write(child, vaddr + PAGE_SIZE, 2) != old
    assert machine.state.vm_event[VmEvent.PGREUSE] == 0
    assert machine.write(parent, vaddr + PAGE_SIZE, 3) == old
    assert machine.state.vm_event[VmEvent.PGREUSE] == 1
    check(machine.state)
