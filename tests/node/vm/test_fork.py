"""fork and copy-on-write: one set of frames for two processes, until one of them writes."""

import pytest

from node.counters import Knob, KsmStat, VmEvent, VmStat
from node.hw.pte import Pte
from node.invariants import check
from node.ksm.ksmd import ksm_do_scan
from node.ksm.records import KsmModel
from node.phys.page import PageFlag
from node.state import State
from node.vm.madvise import madvise_mergeable
from node.vm.rmap_walk import page_referenced
from shared.constants import PAGE_SIZE
from tests.node.vm_machine import VmMachine

pytestmark = pytest.mark.three_ways


@pytest.fixture
def machine() -> VmMachine:
    return VmMachine()


def test_a_child_shares_its_parents_frames_and_neither_may_write(machine: VmMachine) -> None:
    parent, vaddr = machine.spawn_written(3)
    child = machine.fork(parent)
    pfn = machine.frame(parent, vaddr)
    assert machine.frame(child, vaddr) == pfn
    assert (machine.state.page[pfn].refcount, machine.state.page[pfn].mapcount) == (2, 2)
    assert not (machine.pte(parent, vaddr) | machine.pte(child, vaddr)) & Pte.WRITE
    assert not machine.state.page[pfn].page_flags & PageFlag.ANON_EXCLUSIVE
    assert machine.state.vm_stat[VmStat.NR_ANON_PAGES] == 3
    check(machine.state)


def test_a_write_parts_the_two(machine: VmMachine) -> None:
    parent, vaddr = machine.spawn_written(1)
    before = machine.content(parent, vaddr)
    child = machine.fork(parent)
    machine.write(child, vaddr, 77)
    assert machine.content(parent, vaddr) == before
    assert machine.content(child, vaddr) != before
    assert machine.frame(child, vaddr) != machine.frame(parent, vaddr)
    check(machine.state)


def test_the_last_one_that_maps_a_page_takes_it_over(machine: VmMachine) -> None:
    parent, vaddr = machine.spawn_written(1)
    child = machine.fork(parent)
    pfn = machine.frame(parent, vaddr)
    machine.write(child, vaddr, 77)
    assert machine.write(parent, vaddr, 78) == pfn
    assert machine.state.vm_event[VmEvent.PGREUSE] == 1
    check(machine.state)


def test_a_parent_that_could_write_from_its_tlb_cannot_after_fork(machine: VmMachine) -> None:
    parent, vaddr = machine.spawn_written(1)
    machine.write(parent, vaddr, 5)
    child = machine.fork(parent)
    machine.write(parent, vaddr, 6)
    assert machine.frame(parent, vaddr) != machine.frame(child, vaddr)
    check(machine.state)


def test_areas_without_a_page_of_their_own_are_not_copied(machine: VmMachine) -> None:
    parent = machine.spawn()
    vaddr = machine.map(parent, 4)
    machine.read(parent, vaddr)
    child = machine.fork(parent)
    assert machine.pte(child, vaddr) == 0
    assert machine.state.mm[child].nr_page_tables == 0
    assert machine.is_zero_page(child, vaddr) is False
    machine.read(child, vaddr)
    assert machine.is_zero_page(child, vaddr)
    check(machine.state)


def test_reverse_mapping_finds_a_page_in_every_generation(machine: VmMachine) -> None:
    parent, vaddr = machine.spawn_written(1)
    child = machine.fork(parent)
    grandchild = machine.fork(child)
    state: State = machine.state
    pfn = machine.frame(parent, vaddr)
    for mm in (parent, child, grandchild):
        machine.read(mm, vaddr)
    assert page_referenced(state, pfn) == 3
    assert page_referenced(state, pfn) == 0
    machine.write(grandchild, vaddr, 9)
    own = machine.frame(grandchild, vaddr)
    assert page_referenced(state, own) == 1
    check(state)


def test_when_all_have_ended_every_frame_is_free_again(machine: VmMachine) -> None:
    free_at_start = machine.nr_free()
    parent, vaddr = machine.spawn_written(20)
    child = machine.fork(parent)
    grandchild = machine.fork(child)
    for page in range(0, 20, 3):
        machine.write(child, vaddr + page * PAGE_SIZE, 200)
    for mm in (child, parent, grandchild):
        machine.exit(mm)
        check(machine.state)
    assert machine.nr_free() == free_at_start


def test_zero_pages_that_ksm_made_count_for_the_child_too(machine: VmMachine) -> None:
    state = machine.state
    state.knob[Knob.KSM_MODEL] = KsmModel.LINUX_6_18
    state.knob[Knob.KSM_USE_ZERO_PAGES] = 1
    parent = machine.spawn()
    vaddr = machine.map(parent, 4)
    for page in range(4):
        machine.write(parent, vaddr + page * PAGE_SIZE, 0)
    madvise_mergeable(state, parent, vaddr, vaddr + 4 * PAGE_SIZE)
    for _ in range(3):
        ksm_do_scan(state, 100)
    assert state.mm[parent].ksm_zero_pages == state.ksm_stat[KsmStat.KSM_ZERO_PAGES] == 4
    child = machine.fork(parent)
    assert state.mm[child].ksm_zero_pages == 4
    assert state.ksm_stat[KsmStat.KSM_ZERO_PAGES] == 8
    check(state)
    machine.exit(child)
    machine.write(parent, vaddr, 1)
    assert state.ksm_stat[KsmStat.KSM_ZERO_PAGES] == 3
    check(state)
