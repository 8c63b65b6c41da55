"""Page faults: what an access finds, and what it makes."""

from random import Random

import pytest

from node.checkpoint import digest
from node.counters import HwEvent, Knob, VmEvent, VmStat
from node.fault.kinds import VmFault
from node.hw.paging import AccessKind
from node.hw.pte import Pte
from node.invariants import check
from node.phys.page import PageFlag
from node.vm.vma import VmFlag
from shared.constants import NIL, PAGE_SIZE
from tests.node.fault.retry_entries import touch_again
from tests.node.vm_machine import VmMachine

pytestmark = pytest.mark.three_ways


@pytest.fixture
def machine() -> VmMachine:
    return VmMachine()


def test_reading_untouched_memory_maps_the_shared_page_of_zeroes_read_only(machine: VmMachine) -> None:
    mm = machine.spawn()
    vaddr = machine.map(mm, 4)
    assert machine.read(mm, vaddr) == machine.state.knob[Knob.ZERO_PFN]
    assert machine.pte(mm, vaddr) & (Pte.PRESENT | Pte.WRITE | Pte.DIRTY) == Pte.PRESENT
    assert (machine.state.mm[mm].nr_zero, machine.state.mm[mm].nr_anon) == (1, 0)
    check(machine.state)


def test_writing_untouched_memory_maps_a_frame_of_its_own(machine: VmMachine) -> None:
    mm = machine.spawn()
    vaddr = machine.map(mm, 4)
    pfn = machine.write(mm, vaddr, 0)
    page = machine.state.page[pfn]
    assert (page.content, page.refcount, page.mapcount) == (0, 1, 1)
    assert page.page_flags & PageFlag.ANON_EXCLUSIVE
    assert machine.pte(mm, vaddr) & Pte.WRITE
    assert machine.state.vm_stat[VmStat.NR_ANON_PAGES] == machine.state.mm[mm].nr_anon == 1
    check(machine.state)


def test_writing_a_page_that_was_only_read_leaves_the_page_of_zeroes(machine: VmMachine) -> None:
    mm = machine.spawn()
    vaddr = machine.map(mm, 1)
    machine.read(mm, vaddr)
    machine.write(mm, vaddr, 9)
    assert not machine.is_zero_page(mm, vaddr)
    assert (machine.state.mm[mm].nr_zero, machine.state.mm[mm].nr_anon) == (0, 1)
    assert machine.state.page[machine.state.knob[Knob.ZERO_PFN]].content == 0
    check(machine.state)


def test_each_first_touch_is_one_minor_fault(machine: VmMachine) -> None:
    mm = machine.spawn()
    vaddr = machine.map(mm, 8)
    for page in (0, 1, 2, 0, 1):
        machine.write(mm, vaddr + page * PAGE_SIZE, 1)
    assert machine.state.vm_event[VmEvent.PGFAULT] == machine.state.mm[mm].minflt == 3
    assert machine.state.mm[mm].majflt == 0
    assert machine.state.hw_event[HwEvent.MEMORY_ACCESS] == 5


def test_an_access_outside_every_area_is_refused(machine: VmMachine) -> None:
    mm = machine.spawn()
    vaddr = machine.map(mm, 1)
    for outside in (vaddr - PAGE_SIZE, vaddr + PAGE_SIZE, 0):
        assert machine.write(mm, outside, 1) == NIL
        assert machine.outcome() == VmFault.SEGV
    check(machine.state)


def test_a_read_only_area_refuses_writes_and_serves_reads(machine: VmMachine) -> None:
    mm = machine.spawn()
    vaddr = machine.map(mm, 1, VmFlag.READ)
    assert machine.write(mm, vaddr, 1) == NIL
    assert machine.outcome() == VmFault.SEGV
    assert machine.read(mm, vaddr) != NIL
    assert machine.write(mm, vaddr, 1) == NIL


@pytest.mark.parametrize("seed", range(4))
def test_an_access_after_its_fault_is_like_a_new_one(seed: int) -> None:
    """Who retries searches nothing for what the fault dropped; who searches finds nothing: the same bytes remain."""
    draw = Random(seed)  # noqa: S311 # the same in every run, no secret
    machines = [VmMachine(), VmMachine()]
    for machine in machines:
        parent, _ = machine.spawn_written(24)
        start = machine.map(parent, 24)  # below what is written
        child = machine.fork(parent)
    for _ in range(20):
        for _ in range(10):
            mm = draw.choice((parent, child))
            vaddr = start + draw.randrange(48) * PAGE_SIZE
            kind = draw.choice((AccessKind.READ, AccessKind.WRITE))
            found = [touch_again(machines[how].state, mm, vaddr, kind, how) for how in (0, 1)]
            assert found[0] == found[1] != NIL
        assert digest(machines[0].state) == digest(machines[1].state)
    assert machines[0].state.vm_event[VmEvent.PGFAULT] > 100


def test_memory_that_runs_out_is_a_result(machine: VmMachine) -> None:
    mm = machine.spawn()
    nr_pages = machine.nr_free() + 100
    vaddr = machine.map(mm, nr_pages)
    outcomes = [machine.write(mm, vaddr + page * PAGE_SIZE, 1) for page in range(nr_pages)]
    assert NIL in outcomes
    assert machine.outcome() == VmFault.OOM
    assert machine.state.mm[mm].oom_victim
    check(machine.state)
    machine.exit(mm)
    check(machine.state)
