"""Reverse mapping over trees of forks: a walk over a frame's mappings finds exactly the entries that map it."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from node.counters import Knob, VmEvent
from node.hw.page_table import pte_position
from node.hw.pte import Pte
from node.invariants import check
from node.phys.page import PageFlag
from node.pool import Pool
from node.vm.anon_vma import RmapWalk
from node.vm.madvise import Advice, madvise
from node.vm.mappings import all_mappings
from node.vm.rmap_walk import page_referenced
from node.vm.vma import VmFlag
from shared.constants import NIL, PAGE_SHIFT, PAGE_SIZE
from tests.node.vm_machine import VmMachine

pytestmark = pytest.mark.three_ways

NR_PAGES = 10
MAX_PROCESSES = 5
MAX_GENERATION = 4
STEPS = st.lists(
    st.tuples(
        st.sampled_from(["write", "write", "write", "read", "fork", "fork", "exit", "unmap", "split", "map"]),
        st.integers(0, MAX_PROCESSES - 1),
        st.integers(0, NR_PAGES - 1),
        st.integers(1, 4),
    ),
    max_size=35,
)


def machine_with(walk: RmapWalk) -> VmMachine:
    machine = VmMachine()
    machine.state.knob[Knob.RMAP_WALK] = walk
    return machine


def check_every_frame(machine: VmMachine) -> None:
    """Mark every entry as accessed; a walk over a frame's mappings must then count as many as there are."""
    state = machine.state
    mappings = all_mappings(state)
    for index in np.flatnonzero(mappings.present).tolist():
        mm = int(mappings.mm[index])
        position = pte_position(state, state.mm[mm].pgd_pfn, int(mappings.vpn[index]) << PAGE_SHIFT)
        state.pt_word[position] |= Pte.ACCESSED
    mapped, counts = np.unique(mappings.pfn[mappings.present], return_counts=True)
    for pfn, count in zip(mapped.tolist(), counts.tolist(), strict=True):
        if not state.page[pfn].page_flags & PageFlag.ZERO_PAGE:
            assert page_referenced(state, pfn) == count


class Family:
    """Processes that all come of one, and the steps that they take."""

    def __init__(self, walk: RmapWalk) -> None:
        self.machine = machine_with(walk)
        mm = self.machine.spawn()
        self.base = self.machine.map(mm, NR_PAGES)
        self.members = [(mm, 0)]

    def step(self, what: str, which: int, page: int, number: int) -> None:
        if not self.members:
            return
        mm, generation = self.members[which % len(self.members)]
        vaddr = self.base + page * PAGE_SIZE
        nr_pages = min(number, NR_PAGES - page)
        if what == "write":
            self.machine.write(mm, vaddr, number)
        elif what == "read":
            self.machine.read(mm, vaddr)
        elif what == "fork" and len(self.members) < MAX_PROCESSES and generation < MAX_GENERATION:
            self.members.append((self.machine.fork(mm), generation + 1))
        elif what == "exit":
            self.machine.exit(mm)
            self.members.remove((mm, generation))
        elif what == "unmap":
            self.machine.unmap(mm, vaddr, nr_pages)
        elif what == "split":
            advice = Advice.RANDOM if number % 2 else Advice.NORMAL
            madvise(self.machine.state, mm, vaddr, vaddr + nr_pages * PAGE_SIZE, advice)
        elif what == "map":
            self.machine.map(mm, nr_pages)


@pytest.mark.parametrize("walk", list(RmapWalk))
@settings(max_examples=30)
@given(steps=STEPS)
def test_reverse_mapping_finds_every_entry(walk: RmapWalk, steps: list[tuple[str, int, int, int]]) -> None:
    family = Family(walk)
    for step in steps:
        family.step(*step)
        check(family.machine.state)
        check_every_frame(family.machine)
    for mm, _ in family.members:
        family.machine.exit(mm)
    check(family.machine.state)
    for which in (Pool.ANON_VMA, Pool.ANON_VMA_CHAIN, Pool.VMA):
        assert family.machine.state.pool[which].nr_used == 0


@pytest.mark.parametrize("walk", list(RmapWalk))
def test_a_child_hangs_on_its_parents_anon_vmas_and_fills_one_of_its_own(walk: RmapWalk) -> None:
    machine = machine_with(walk)
    state = machine.state
    parent = machine.spawn()
    vaddr = machine.map(parent, 2)
    machine.write(parent, vaddr, 1)
    child = machine.fork(parent)
    grandchild = machine.fork(child)
    assert state.pool[Pool.ANON_VMA].nr_used == 3
    assert state.pool[Pool.ANON_VMA_CHAIN].nr_used == 1 + 2 + 3
    stores = [int(state.vma[state.mm[mm].first_vma].anon_vma) for mm in (parent, child, grandchild)]
    assert [int(state.anon_vma[store].parent) for store in stores] == [stores[0], stores[0], stores[1]]
    assert {int(state.anon_vma[store].root) for store in stores} == {stores[0]}


def test_a_fork_takes_over_an_anon_vma_that_no_area_fills_any_more() -> None:
    machine = machine_with(RmapWalk.TREE)
    state = machine.state
    parent = machine.spawn()
    vaddr = machine.map(parent, 2)
    machine.write(parent, vaddr, 1)
    child = machine.fork(parent)
    store = int(state.vma[state.mm[child].first_vma].anon_vma)
    grandchild = machine.fork(child)
    machine.exit(child)
    great_grandchild = machine.fork(grandchild)
    assert state.vma[state.mm[great_grandchild].first_vma].anon_vma == store
    assert machine.write(great_grandchild, vaddr, 9) != NIL
    check_every_frame(machine)
    check(state)


def test_an_anon_vma_with_two_children_is_not_taken_over() -> None:
    machine = machine_with(RmapWalk.TREE)
    state = machine.state
    parent = machine.spawn()
    vaddr = machine.map(parent, 2)
    machine.write(parent, vaddr, 1)
    child = machine.fork(parent)
    store = int(state.vma[state.mm[child].first_vma].anon_vma)
    grandchild = machine.fork(child)
    machine.fork(child)
    machine.exit(child)
    great_grandchild = machine.fork(grandchild)
    assert state.vma[state.mm[great_grandchild].first_vma].anon_vma != store
    check(state)


# --- what a walk costs ----------------------------------------------------------------------------------


def areas_of_a_walk(machine: VmMachine, mm: int, vaddr: int) -> int:
    """Return how many areas a walk over what maps the page of a process looks at."""
    events = machine.state.vm_event
    before = (int(events[VmEvent.RMAP_WALK]), int(events[VmEvent.RMAP_AREA]))
    page_referenced(machine.state, machine.read(mm, vaddr))
    assert events[VmEvent.RMAP_WALK] == before[0] + 1
    return int(events[VmEvent.RMAP_AREA]) - before[1]


@pytest.mark.parametrize("walk", list(RmapWalk))
def test_a_walk_looks_at_all_that_share_a_page_but_only_at_the_owner_of_a_copy(walk: RmapWalk) -> None:
    machine = machine_with(walk)
    parent = machine.spawn()
    vaddr = machine.map(parent, 2)
    machine.write(parent, vaddr, 1)
    machine.write(parent, vaddr + PAGE_SIZE, 1)
    children = [machine.fork(parent) for _ in range(4)]
    for child in children:
        machine.write(child, vaddr, 2)
        assert areas_of_a_walk(machine, child, vaddr) == 1
    assert areas_of_a_walk(machine, parent, vaddr + PAGE_SIZE) == 5


@pytest.mark.parametrize("walk", list(RmapWalk))
def test_a_walk_ends_with_the_last_entry_the_oldest_process_first(walk: RmapWalk) -> None:
    machine = machine_with(walk)
    processes = [machine.spawn()]
    vaddr = machine.map(processes[0], 5)
    for page in range(5):
        machine.write(processes[0], vaddr + page * PAGE_SIZE, 1)
    processes += [machine.fork(processes[0]) for _ in range(4)]
    for keeper in range(5):  # alone keeps page ``keeper`` as the first process wrote it
        for mm in processes:
            if mm != processes[keeper]:
                machine.write(mm, vaddr + keeper * PAGE_SIZE, 2)
    assert [
        areas_of_a_walk(machine, processes[keeper], vaddr + keeper * PAGE_SIZE) for keeper in range(5)
    ] == [1, 2, 3, 4, 5]


def test_a_list_has_all_pieces_of_an_area_and_a_tree_the_one_that_holds_the_page() -> None:
    looked_at = {}
    for walk in RmapWalk:
        machine = machine_with(walk)
        mm = machine.spawn()
        vaddr = machine.map(mm, 10)
        machine.write(mm, vaddr + 9 * PAGE_SIZE, 1)
        for page in (0, 2, 4):
            at = vaddr + page * PAGE_SIZE
            assert madvise(machine.state, mm, at, at + PAGE_SIZE, Advice.RANDOM) == 0
        # Pages 0, 1, 2, 3, 4 and, cut off last, 5 to 9.
        looked_at[walk] = areas_of_a_walk(machine, mm, vaddr + 9 * PAGE_SIZE)
    assert looked_at == {RmapWalk.TREE: 1, RmapWalk.LIST: 6}


@pytest.mark.parametrize("walk", list(RmapWalk))
def test_a_walk_ends_where_an_area_is_locked(walk: RmapWalk) -> None:
    machine = machine_with(walk)
    parent = machine.spawn()
    vaddr = machine.map(parent, 1)
    machine.write(parent, vaddr, 1)
    children = [machine.fork(parent) for _ in range(2)]
    machine.state.vma[machine.state.mm[children[0]].first_vma].vm_flags |= VmFlag.LOCKED
    assert areas_of_a_walk(machine, parent, vaddr) == 2
