"""Locked memory, against a model that recounts everything from scratch."""

from collections import Counter

import hypothesis.strategies as st
import pytest
from hypothesis import settings
from hypothesis.stateful import RuleBasedStateMachine, precondition, rule

from node.counters import Current, VmEvent, VmStat
from node.errno import Errno
from node.fault.populate import populate_range
from node.invariants import check
from node.phys.page import PageFlag
from node.reclaim.lru import LruList
from node.vm.mlock import MLOCK_ONFAULT, MclFlag, mlock, mlock2, mlockall, munlock, munlockall
from node.vm.mmap import munmap
from node.vm.rmap_walk import page_referenced, try_to_unmap
from shared.constants import NIL, PAGE_SIZE
from tests.models.lru import pages_on
from tests.node.vm_machine import VmMachine

pytestmark = pytest.mark.three_ways

NR_PAGES = 12


@pytest.fixture
def machine() -> VmMachine:
    return VmMachine()


def nr_locked(machine: VmMachine) -> tuple[int, int]:
    """Return nr_mlock and the length of the unevictable list."""
    return int(machine.state.vm_stat[VmStat.NR_MLOCK]), len(pages_on(machine.state, LruList.UNEVICTABLE))


def events(machine: VmMachine, *which: VmEvent) -> list[int]:
    return [int(machine.state.vm_event[event]) for event in which]


def test_mlock_brings_the_pages_and_keeps_them_from_reclaim(machine: VmMachine) -> None:
    mm = machine.spawn()
    start = machine.map(mm, 8)
    machine.write(mm, start, 1)
    assert mlock(machine.state, mm, start, start + 8 * PAGE_SIZE) == 0
    assert nr_locked(machine) == (8, 8)
    assert machine.state.mm[mm].locked_vm == 8
    assert events(machine, VmEvent.UNEVICTABLE_PGS_MLOCKED, VmEvent.UNEVICTABLE_PGS_CULLED) == [8, 8]
    check(machine.state)


def test_a_page_that_is_populated_again_goes_to_the_active_list(machine: VmMachine) -> None:
    mm = machine.spawn()
    start = machine.map(mm, 4)
    end = start + 4 * PAGE_SIZE
    seen = []
    for _ in range(3):
        populate_range(machine.state, mm, start, end)
        pages = [machine.frame(mm, vaddr) for vaddr in range(start, end, PAGE_SIZE)]
        flags = {
            int(machine.state.page[pfn].page_flags) & (PageFlag.REFERENCED | PageFlag.ACTIVE) for pfn in pages
        }
        seen.append((flags, len(pages_on(machine.state, LruList.ACTIVE_ANON))))
    assert seen == [
        ({PageFlag.REFERENCED}, 0),
        ({PageFlag.ACTIVE}, 4),
        ({PageFlag.ACTIVE | PageFlag.REFERENCED}, 4),
    ]
    assert events(machine, VmEvent.PGACTIVATE) == [4]
    check(machine.state)


def test_munlock_of_a_part_splits_the_area_and_rescues_its_pages(machine: VmMachine) -> None:
    mm = machine.spawn()
    start = machine.map(mm, 8)
    mlock(machine.state, mm, start, start + 8 * PAGE_SIZE)
    assert munlock(machine.state, mm, start + 2 * PAGE_SIZE, start + 5 * PAGE_SIZE) == 0
    assert nr_locked(machine) == (5, 5)
    assert machine.state.mm[mm].nr_vmas == 3
    assert events(machine, VmEvent.UNEVICTABLE_PGS_MUNLOCKED, VmEvent.UNEVICTABLE_PGS_RESCUED) == [3, 3]
    assert munlockall(machine.state, mm) == 0
    assert (nr_locked(machine), machine.state.mm[mm].nr_vmas) == ((0, 0), 1)
    check(machine.state)


def test_on_fault_locks_what_is_used(machine: VmMachine) -> None:
    mm = machine.spawn()
    start = machine.map(mm, 8)
    assert mlock2(machine.state, mm, start, start + 8 * PAGE_SIZE, MLOCK_ONFAULT) == 0
    assert nr_locked(machine) == (0, 0)
    machine.write(mm, start + PAGE_SIZE, 1)
    machine.read(mm, start)  # the page of zeroes is never locked
    assert nr_locked(machine) == (1, 1)
    assert mlock2(machine.state, mm, start, start + PAGE_SIZE, 2) == Errno.EINVAL
    check(machine.state)


def test_a_limit_holds_for_what_is_not_locked_yet(machine: VmMachine) -> None:
    mm = machine.spawn()
    state = machine.state
    start = machine.map(mm, 8)
    state.mm[mm].memlock_limit = 5 * PAGE_SIZE
    assert mlock(state, mm, start, start + 6 * PAGE_SIZE) == Errno.ENOMEM
    assert mlock(state, mm, start, start + 4 * PAGE_SIZE) == 0
    assert mlock(state, mm, start, start + 5 * PAGE_SIZE) == 0
    assert mlockall(state, mm, MclFlag.CURRENT) == Errno.ENOMEM
    state.mm[mm].memlock_limit = 0
    assert mlock(state, mm, start, start + PAGE_SIZE) == Errno.EPERM
    assert mlockall(state, mm, MclFlag.CURRENT) == Errno.EPERM
    check(state)


@pytest.mark.parametrize("asked", [0, MclFlag.ONFAULT, 8, 9])
def test_mlockall_refuses_what_makes_no_sense(machine: VmMachine, asked: int) -> None:
    assert mlockall(machine.state, machine.spawn(), asked) == Errno.EINVAL


def test_a_hole_is_an_error_behind_what_was_locked(machine: VmMachine) -> None:
    mm = machine.spawn()
    start = machine.map(mm, 8)
    munmap(machine.state, mm, start + 4 * PAGE_SIZE, start + 5 * PAGE_SIZE)
    assert mlock(machine.state, mm, start, start + 8 * PAGE_SIZE) == Errno.ENOMEM
    assert machine.state.mm[mm].locked_vm == 4
    assert nr_locked(machine) == (0, 0)  # nothing is populated after an error
    check(machine.state)


def test_areas_to_come_are_locked_if_so_asked(machine: VmMachine) -> None:
    mm = machine.spawn()
    assert mlockall(machine.state, mm, MclFlag.FUTURE) == 0
    assert machine.state.mm[mm].def_flags
    assert munlockall(machine.state, mm) == 0
    assert not machine.state.mm[mm].def_flags


def test_a_page_of_two_locked_areas_stays_until_both_let_go(machine: VmMachine) -> None:
    state = machine.state
    parent = machine.spawn()
    start = machine.map(parent, 1)
    machine.write(parent, start, 1)
    child = machine.fork(parent)
    # Onfault: mlock would populate for writing, and part the two.
    for mm in (parent, child):
        assert mlock2(state, mm, start, start + PAGE_SIZE, MLOCK_ONFAULT) == 0
    pfn = machine.frame(parent, start)
    assert (state.page[pfn].mlock_count, nr_locked(machine)) == (2, (1, 1))
    munlock(state, parent, start, start + PAGE_SIZE)
    assert (state.page[pfn].mlock_count, nr_locked(machine)) == (1, (1, 1))
    machine.exit(child)
    assert nr_locked(machine) == (0, 0)
    check(state)


def test_reverse_mapping_neither_unmaps_a_locked_page_nor_asks_for_its_use(machine: VmMachine) -> None:
    mm = machine.spawn()
    start = machine.map(mm, 1)
    machine.write(mm, start, 1)
    mlock(machine.state, mm, start, start + PAGE_SIZE)
    pfn = machine.frame(mm, start)
    assert page_referenced(machine.state, pfn) == 0
    assert try_to_unmap(machine.state, pfn, 1) == 0
    assert machine.frame(mm, start) == pfn


class LockedMemory(RuleBasedStateMachine):
    """Processes that map one stretch of pages, lock parts of it, fork, write and end."""

    def __init__(self) -> None:
        super().__init__()
        self.machine = VmMachine()
        self.mms = [self.machine.spawn()]
        self.start = self.machine.map(self.mms[0], NR_PAGES)
        self.locked: dict[int, set[int]] = {self.mms[0]: set()}

    def address(self, page: int) -> int:
        return self.start + page * PAGE_SIZE

    @rule(
        which=st.integers(0, 9),
        first=st.integers(0, NR_PAGES - 1),
        nr=st.integers(1, NR_PAGES),
        how=st.integers(0, 2),
    )
    def lock(self, which: int, first: int, nr: int, how: int) -> None:
        mm = self.mms[which % len(self.mms)]
        behind = min(first + nr, NR_PAGES)
        span = self.address(first), self.address(behind)
        pages = set(range(first, behind))
        self.machine.state.current[Current.MM] = mm
        if how == 2:
            assert munlock(self.machine.state, mm, *span) == 0
            self.locked[mm] -= pages
        else:
            assert mlock2(self.machine.state, mm, *span, how) == 0
            self.locked[mm] |= pages

    @rule(which=st.integers(0, 9), page=st.integers(0, NR_PAGES - 1), write=st.booleans())
    def use(self, which: int, page: int, write: bool) -> None:
        mm = self.mms[which % len(self.mms)]
        if write:
            self.machine.write(mm, self.address(page), 1)
        else:
            self.machine.read(mm, self.address(page))

    @precondition(lambda self: len(self.mms) < 4)
    @rule(which=st.integers(0, 9))
    def fork(self, which: int) -> None:
        child = self.machine.fork(self.mms[which % len(self.mms)])
        self.mms.append(child)
        self.locked[child] = set()

    @precondition(lambda self: len(self.mms) > 1)
    @rule(which=st.integers(0, 9))
    def exit(self, which: int) -> None:
        mm = self.mms.pop(which % len(self.mms))
        del self.locked[mm]
        self.machine.exit(mm)

    def teardown(self) -> None:
        """Recount all."""
        state = self.machine.state
        check(state)
        lockers: Counter[int] = Counter()
        for mm in self.mms:
            assert state.mm[mm].locked_vm == len(self.locked[mm])
            for page in self.locked[mm]:
                pfn = self.machine.frame(mm, self.address(page))
                if pfn != NIL and not self.machine.is_zero_page(mm, self.address(page)):
                    lockers[pfn] += 1
        assert {
            pfn: int(state.page[pfn].mlock_count) for pfn in pages_on(state, LruList.UNEVICTABLE)
        } == lockers
        assert all(state.page[pfn].page_flags & PageFlag.MLOCKED for pfn in lockers)
        assert state.vm_stat[VmStat.NR_MLOCK] == len(lockers)


TestLockedMemory = LockedMemory.TestCase
TestLockedMemory.settings = settings(max_examples=12, stateful_step_count=14, deadline=None)
