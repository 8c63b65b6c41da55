"""Transparent huge pages: faults, splits, fork and reclaim, against what a process wrote and can read again."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from node.counters import Current, Knob, Request, VmEvent, VmStat
from node.fault.collapse import Scan, collapse_range
from node.fault.khugepaged import khugepaged_slice
from node.hw.pte import Pte
from node.invariants import check
from node.joints import shrink_huge, split_huge_page
from node.ksm.ksmd import ksm_do_scan
from node.phys.page import PageFlag
from node.proc.pagemap import mapping_pages
from node.procfs import process
from node.vm.madvise import Advice, madvise
from node.vm.mlock import MLOCK_ONFAULT, mlock, mlock2, munlock
from node.vm.mprotect import mprotect
from node.vm.mremap import MremapFlag, mremap
from node.vm.thp import ThpDefrag, ThpMode
from node.vm.vma import VmFlag
from shared.constants import ENTRIES_PER_TABLE, HUGE_PAGE_SIZE, INT64_MAX, NIL, PAGE_SIZE
from tests.models.page_tables import NR_LEVELS, entries_on_the_way, frame_of
from tests.node.vm_machine import READ_WRITE, VmMachine

pytestmark = pytest.mark.three_ways
HUGE = ENTRIES_PER_TABLE


class HugeMachine(VmMachine):
    """A machine with huge pages, whose mappings begin at 2 MiB borders."""

    def __init__(self, mode: ThpMode = ThpMode.ALWAYS, swap_bytes: int = 0) -> None:
        super().__init__(swap_bytes=swap_bytes)
        self.state.knob[Knob.THP_ENABLED] = mode
        self.state.knob[Knob.THP_USE_ZERO_PAGE] = 1

    def map_aligned(self, mm: int, nr_pages: int) -> int:
        vaddr = self.map(mm, nr_pages + HUGE)
        start = -(-vaddr // HUGE_PAGE_SIZE) * HUGE_PAGE_SIZE
        if start > vaddr:
            self.unmap(mm, vaddr, (start - vaddr) // PAGE_SIZE)
        end = start + nr_pages * PAGE_SIZE
        behind = vaddr + (nr_pages + HUGE) * PAGE_SIZE
        if behind > end:
            self.unmap(mm, end, (behind - end) // PAGE_SIZE)
        return start

    def frame(self, mm: int, vaddr: int) -> int:
        way = entries_on_the_way(self.state, int(self.state.mm[mm].pgd_pfn), vaddr)
        pfn = frame_of(way[-1][1])
        return pfn + (vaddr // PAGE_SIZE) % HUGE if way[-1][1] & Pte.HUGE and len(way) < NR_LEVELS else pfn

    def event(self, event: VmEvent) -> int:
        return int(self.state.vm_event[event])

    def stat(self, stat: VmStat) -> int:
        return int(self.state.vm_stat[stat])


@pytest.fixture
def machine() -> HugeMachine:
    return HugeMachine()


def written_huge(machine: HugeMachine, nr_huge: int = 1) -> tuple[int, int]:
    """Return a process and where it has written the first page of each of ``nr_huge`` huge pages."""
    mm = machine.spawn()
    vaddr = machine.map_aligned(mm, nr_huge * HUGE)
    for number in range(nr_huge):
        machine.write(mm, vaddr + number * HUGE_PAGE_SIZE, number + 1)
    return mm, vaddr


def test_one_write_brings_two_mebibytes_and_a_table_in_reserve(machine: HugeMachine) -> None:
    before = machine.stat(VmStat.NR_PAGE_TABLE_PAGES)
    mm, vaddr = written_huge(machine)
    assert machine.state.mm[mm].minflt == 1
    assert machine.event(VmEvent.THP_FAULT_ALLOC) == 1
    assert machine.stat(VmStat.NR_ANON_PAGES) == HUGE
    assert machine.stat(VmStat.NR_ANON_TRANSPARENT_HUGEPAGES) == 1
    assert machine.stat(VmStat.NR_PAGE_TABLE_PAGES) - before == 2  # the PMD's, and the one deposited
    pages = mapping_pages(machine.state, mm, vaddr, vaddr + HUGE_PAGE_SIZE)
    assert (pages["present"], pages["thp"], pages["anon"], pages["lru"]) == (HUGE, HUGE, HUGE, 1)
    assert process(machine.state, mm)["smaps.AnonHugePages"] == 2048
    check(machine.state)


def test_an_area_without_an_aligned_range_has_small_pages(machine: HugeMachine) -> None:
    mm = machine.spawn()
    vaddr = machine.map_aligned(mm, HUGE - 1)
    machine.write(mm, vaddr, 1)
    assert machine.event(VmEvent.THP_FAULT_ALLOC) == 0
    assert machine.stat(VmStat.NR_ANON_PAGES) == 1


def test_madvise_chooses_areas_where_the_mode_leaves_it_to_them() -> None:
    machine = HugeMachine(ThpMode.MADVISE)
    mm = machine.spawn()
    vaddr = machine.map_aligned(mm, 2 * HUGE)
    assert madvise(machine.state, mm, vaddr, vaddr + HUGE_PAGE_SIZE, Advice.HUGEPAGE) == 0
    machine.write(mm, vaddr, 1)
    machine.write(mm, vaddr + HUGE_PAGE_SIZE, 1)
    assert machine.event(VmEvent.THP_FAULT_ALLOC) == 1
    assert machine.stat(VmStat.NR_ANON_PAGES) == HUGE + 1
    check(machine.state)


def test_no_block_of_memory_means_a_small_page_counted(machine: HugeMachine) -> None:
    machine.state.knob[Knob.THP_DEFRAG] = ThpDefrag.NEVER
    mm = machine.spawn()
    vaddr = machine.map_aligned(mm, 20 * HUGE)
    for number in range(20):
        machine.write(mm, vaddr + number * HUGE_PAGE_SIZE, 1)
    assert machine.event(VmEvent.THP_FAULT_FALLBACK) > 0
    assert machine.event(VmEvent.THP_FAULT_ALLOC) + machine.event(VmEvent.THP_FAULT_FALLBACK) == 20
    check(machine.state)


def test_reads_share_one_huge_page_of_zeroes_that_a_write_leaves(machine: HugeMachine) -> None:
    mm = machine.spawn()
    vaddr = machine.map_aligned(mm, 2 * HUGE)
    machine.read(mm, vaddr)
    machine.read(mm, vaddr + HUGE_PAGE_SIZE)
    assert machine.event(VmEvent.THP_ZERO_PAGE_ALLOC) == 1
    assert machine.stat(VmStat.NR_ANON_PAGES) == 0
    machine.write(mm, vaddr, 5)
    assert machine.stat(VmStat.NR_ANON_PAGES) == 1
    assert machine.event(VmEvent.THP_SPLIT_PMD) == 1
    assert machine.state.current[Current.HUGE_ZERO_USERS] == 1
    check(machine.state)
    machine.exit(mm)
    shrink_huge(machine.state, 0)
    assert machine.state.current[Current.HUGE_ZERO_PFN] == 0
    check(machine.state)


def test_a_part_unmapped_splits_the_entry_and_waits_for_the_page(machine: HugeMachine) -> None:
    mm, vaddr = written_huge(machine)
    machine.unmap(mm, vaddr, HUGE // 2)
    assert machine.event(VmEvent.THP_SPLIT_PMD) == 1
    assert machine.event(VmEvent.THP_DEFERRED_SPLIT_PAGE) == 1
    assert machine.stat(VmStat.NR_ANON_PAGES) == HUGE // 2
    free = machine.stat(VmStat.NR_FREE_PAGES)
    check(machine.state)
    assert shrink_huge(machine.state, 0) == 1
    assert machine.event(VmEvent.THP_SPLIT_PAGE) == 1
    freed = sum(int(machine.state.pcp[i].count) for i in range(len(machine.state.pcp)))
    assert machine.stat(VmStat.NR_FREE_PAGES) + freed - free >= HUGE // 2
    check(machine.state)


def test_fork_shares_the_whole_page_and_a_write_splits_one_side(machine: HugeMachine) -> None:
    parent, vaddr = written_huge(machine)
    child = machine.fork(parent)
    assert machine.stat(VmStat.NR_ANON_PAGES) == HUGE
    check(machine.state)
    machine.write(child, vaddr, 9)
    assert machine.event(VmEvent.THP_SPLIT_PMD) == 1
    assert machine.stat(VmStat.NR_ANON_TRANSPARENT_HUGEPAGES) == 1
    head = machine.frame(parent, vaddr)
    assert machine.state.page[head].page_flags & PageFlag.DOUBLE_MAP
    assert machine.content(parent, vaddr) != machine.content(child, vaddr)
    check(machine.state)
    machine.exit(child)
    machine.write(parent, vaddr + PAGE_SIZE, 4)
    assert machine.event(VmEvent.THP_SPLIT_PMD) == 1  # the parent is alone again, and reuses the page
    check(machine.state)


def test_a_huge_entry_is_mapped_once_if_its_first_page_is(machine: HugeMachine) -> None:
    parent, vaddr = written_huge(machine)
    child = machine.fork(parent)
    once = []
    for page in (1, 0):
        machine.unmap(child, vaddr + page * PAGE_SIZE, 1)
        once.append(mapping_pages(machine.state, parent, vaddr, vaddr + HUGE_PAGE_SIZE)["exclusive"])
    assert once == [0, HUGE]


def test_whole_pages_are_unmapped_without_a_split(machine: HugeMachine) -> None:
    before = machine.stat(VmStat.NR_PAGE_TABLE_PAGES)
    mm, vaddr = written_huge(machine, 2)
    machine.unmap(mm, vaddr, 2 * HUGE)
    assert machine.event(VmEvent.THP_SPLIT_PMD) == 0
    assert machine.stat(VmStat.NR_ANON_PAGES) == 0
    assert machine.stat(VmStat.NR_PAGE_TABLE_PAGES) == before
    check(machine.state)


def test_mprotect_of_a_whole_page_changes_one_entry(machine: HugeMachine) -> None:
    mm, vaddr = written_huge(machine)
    assert mprotect(machine.state, mm, vaddr, vaddr + HUGE_PAGE_SIZE, VmFlag.READ) == 0
    assert machine.event(VmEvent.THP_SPLIT_PMD) == 0
    assert machine.write(mm, vaddr, 1) == NIL
    check(machine.state)
    assert mprotect(machine.state, mm, vaddr, vaddr + HUGE_PAGE_SIZE, READ_WRITE) == 0
    machine.write(mm, vaddr + 7 * PAGE_SIZE, 3)
    assert machine.stat(VmStat.NR_ANON_TRANSPARENT_HUGEPAGES) == 1
    check(machine.state)


def test_a_pinned_huge_page_cannot_be_split(machine: HugeMachine) -> None:
    mm, vaddr = written_huge(machine)
    head = machine.state.page[machine.frame(mm, vaddr)]
    head.refcount += 2
    assert split_huge_page(machine.state, machine.frame(mm, vaddr)) == 0
    head.refcount -= 2
    assert machine.event(VmEvent.THP_SPLIT_PAGE_FAILED) == 1
    check(machine.state)


def test_huge_pages_are_split_and_swapped_out_under_pressure() -> None:
    machine = HugeMachine(swap_bytes=64 << 20)
    mm = machine.spawn()
    vaddr = machine.map_aligned(mm, 16 * HUGE)
    for page in range(0, 16 * HUGE, 64):
        machine.write(mm, vaddr + page * PAGE_SIZE, page % 250 + 1)
    for page in range(16 * HUGE):
        machine.write(mm, vaddr + page * PAGE_SIZE, page % 251 + 1)
    assert machine.event(VmEvent.THP_SPLIT_PAGE) > 0
    assert machine.event(VmEvent.PSWPOUT) > 0
    check(machine.state)


def test_khugepaged_collapses_small_pages_and_keeps_what_they_held(machine: HugeMachine) -> None:
    machine.state.knob[Knob.THP_ENABLED] = ThpMode.NEVER
    mm, vaddr = written_huge(machine, 2)
    for page in range(1, HUGE, 7):
        machine.write(mm, vaddr + page * PAGE_SIZE, page % 200 + 3)
    held = [machine.content(mm, vaddr + page * PAGE_SIZE) for page in range(1, HUGE, 7)]
    machine.state.knob[Knob.THP_ENABLED] = ThpMode.ALWAYS
    machine.state.mm[mm].hugepage = 1
    machine.state.current[Current.CLOCK_PS] = 0
    khugepaged_slice(machine.state, INT64_MAX)
    assert machine.event(VmEvent.THP_COLLAPSE_ALLOC) == 2
    assert machine.stat(VmStat.NR_ANON_TRANSPARENT_HUGEPAGES) == 2
    assert machine.stat(VmStat.NR_ANON_PAGES) == 2 * HUGE
    assert [machine.content(mm, vaddr + page * PAGE_SIZE) for page in range(1, HUGE, 7)] == held
    check(machine.state)
    machine.exit(mm)
    check(machine.state)


def test_khugepaged_leaves_ranges_with_too_few_pages(machine: HugeMachine) -> None:
    machine.state.knob[Knob.THP_ENABLED] = ThpMode.NEVER
    mm, vaddr = written_huge(machine)
    machine.write(mm, vaddr + PAGE_SIZE, 3)
    machine.state.knob[Knob.THP_ENABLED] = ThpMode.ALWAYS
    machine.state.knob[Knob.KHUGEPAGED_MAX_PTES_NONE] = HUGE - 3
    assert collapse_range(machine.state, mm, vaddr) == Scan.FAIL
    assert machine.event(VmEvent.THP_SCAN_EXCEED_NONE_PTE) == 1
    machine.state.knob[Knob.KHUGEPAGED_MAX_PTES_NONE] = HUGE - 2
    assert collapse_range(machine.state, mm, vaddr) == Scan.SUCCEED
    check(machine.state)


def test_ksmd_splits_a_huge_page_before_it_merges(machine: HugeMachine) -> None:
    mm, vaddr = written_huge(machine, 2)
    for number in range(2):
        machine.write(mm, vaddr + number * HUGE_PAGE_SIZE + PAGE_SIZE, 99)
    assert madvise(machine.state, mm, vaddr, vaddr + 2 * HUGE_PAGE_SIZE, Advice.MERGEABLE) == 0
    for _ in range(4):
        ksm_do_scan(machine.state, 2 * HUGE)
    assert machine.event(VmEvent.THP_SPLIT_PAGE) == 2
    assert machine.frame(mm, vaddr + PAGE_SIZE) == machine.frame(mm, vaddr + HUGE_PAGE_SIZE + PAGE_SIZE)
    check(machine.state)


def lock(machine: HugeMachine, mm: int, vaddr: int, nr_pages: int) -> None:
    assert mlock(machine.state, mm, vaddr, vaddr + nr_pages * PAGE_SIZE) == 0


def move(machine: HugeMachine, mm: int, vaddr: int, nr_pages: int, to: int) -> int:
    """Move ``nr_pages`` to the address ``to``; return as mremap does."""
    length = nr_pages * PAGE_SIZE
    for place, value in enumerate((vaddr, length, length, MremapFlag.MAYMOVE | MremapFlag.FIXED, to)):
        machine.state.request[Request.A0 + place] = value
    return mremap(machine.state, mm)


def test_locking_a_huge_page_locks_512(machine: HugeMachine) -> None:
    mm, vaddr = written_huge(machine)
    lock(machine, mm, vaddr, HUGE)
    assert machine.stat(VmStat.NR_MLOCK) == HUGE == machine.stat(VmStat.NR_UNEVICTABLE)
    assert (
        machine.event(VmEvent.UNEVICTABLE_PGS_MLOCKED)
        == HUGE
        == machine.event(VmEvent.UNEVICTABLE_PGS_CULLED)
    )
    assert machine.event(VmEvent.THP_SPLIT_PMD) == 0
    check(machine.state)
    assert munlock(machine.state, mm, vaddr, vaddr + HUGE_PAGE_SIZE) == 0
    assert machine.stat(VmStat.NR_MLOCK) == 0 == machine.stat(VmStat.NR_UNEVICTABLE)
    assert machine.event(VmEvent.UNEVICTABLE_PGS_RESCUED) == HUGE
    check(machine.state)


def test_a_huge_page_is_locked_as_it_comes_and_forgotten_as_it_goes(machine: HugeMachine) -> None:
    mm = machine.spawn()
    vaddr = machine.map_aligned(mm, HUGE)
    lock(machine, mm, vaddr, HUGE)
    assert machine.event(VmEvent.THP_FAULT_ALLOC) == 1
    assert machine.stat(VmStat.NR_MLOCK) == HUGE == machine.stat(VmStat.NR_UNEVICTABLE)
    check(machine.state)
    machine.exit(mm)
    assert machine.stat(VmStat.NR_MLOCK) == 0 == machine.stat(VmStat.NR_UNEVICTABLE)
    check(machine.state)


def test_parts_of_a_huge_page_are_locked_only_once_it_is_split(machine: HugeMachine) -> None:
    """munlock of a page splits the entry; the other 511 stay in a locked area, but are parts of a huge page."""
    mm, vaddr = written_huge(machine)
    lock(machine, mm, vaddr, HUGE)
    assert munlock(machine.state, mm, vaddr, vaddr + PAGE_SIZE) == 0
    assert machine.event(VmEvent.THP_SPLIT_PMD) == 1
    assert machine.stat(VmStat.NR_MLOCK) == 0
    check(machine.state)
    pfn = machine.frame(mm, vaddr)
    machine.state.page[pfn].refcount += 1
    assert split_huge_page(machine.state, pfn) == 1
    machine.state.page[pfn].refcount -= 1
    assert machine.stat(VmStat.NR_MLOCK) == HUGE - 1 == machine.stat(VmStat.NR_UNEVICTABLE)
    check(machine.state)


def test_an_aligned_move_takes_the_huge_page_and_its_table_along(machine: HugeMachine) -> None:
    mm, vaddr = written_huge(machine, 2)
    frames = [machine.frame(mm, vaddr + number * HUGE_PAGE_SIZE) for number in range(2)]
    tables = machine.state.mm[mm].nr_page_tables
    to = vaddr - 8 * HUGE_PAGE_SIZE
    assert move(machine, mm, vaddr, 2 * HUGE, to) == to
    assert [machine.frame(mm, to + number * HUGE_PAGE_SIZE) for number in range(2)] == frames
    assert machine.event(VmEvent.THP_SPLIT_PMD) == 0
    assert machine.state.mm[mm].nr_page_tables == tables
    assert machine.read(mm, vaddr) == NIL
    check(machine.state)


def test_a_move_by_less_than_a_huge_page_splits_it(machine: HugeMachine) -> None:
    mm, vaddr = written_huge(machine)
    pfn = machine.frame(mm, vaddr)
    to = vaddr - 8 * HUGE_PAGE_SIZE + 3 * PAGE_SIZE
    assert move(machine, mm, vaddr, HUGE, to) == to
    assert [machine.frame(mm, to + page * PAGE_SIZE) for page in range(HUGE)] == list(range(pfn, pfn + HUGE))
    assert machine.event(VmEvent.THP_SPLIT_PMD) == 1
    assert machine.event(VmEvent.THP_SPLIT_PAGE) == 0
    check(machine.state)


class Model:
    """What each process may read and write of two huge pages' range, and what it wrote there."""

    def __init__(self) -> None:
        self.machine = HugeMachine()
        first = self.machine.spawn()
        self.vaddr = self.machine.map_aligned(first, 2 * HUGE)
        self.written: dict[int, dict[int, int]] = {first: {}}
        self.mapped = {first: set(range(2 * HUGE))}
        self.writable = {first: set(range(2 * HUGE))}
        self.locked: dict[int, set[int]] = {first: set()}
        self.value = 0

    def address(self, page: int) -> int:
        return self.vaddr + page * PAGE_SIZE

    def write(self, mm: int, span: range) -> None:
        page = span.start
        if page in self.mapped[mm] & self.writable[mm]:
            self.value += 1
            self.machine.write(mm, self.address(page), self.value)
            self.written[mm][page] = self.machine.content(mm, self.address(page))

    def read(self, mm: int, span: range) -> None:
        if span.start in self.mapped[mm]:
            self.machine.read(mm, self.address(span.start))

    def unmap(self, mm: int, span: range) -> None:
        self.machine.unmap(mm, self.address(span.start), len(span))
        self.mapped[mm] -= set(span)
        self.locked[mm] -= set(span)
        self.forget(mm, span)

    def forget(self, mm: int, span: range) -> None:
        for page in span:
            self.written[mm].pop(page, None)

    def rights(self, mm: int, span: range, rights: int) -> None:
        if set(span) <= self.mapped[mm]:
            state = self.machine.state
            assert mprotect(state, mm, self.address(span.start), self.address(span.stop), rights) == 0

    def protect(self, mm: int, span: range) -> None:
        self.rights(mm, span, VmFlag.READ)
        if set(span) <= self.mapped[mm]:
            self.writable[mm] -= set(span)

    def unprotect(self, mm: int, span: range) -> None:
        self.rights(mm, span, READ_WRITE)
        if set(span) <= self.mapped[mm]:
            self.writable[mm] |= set(span)

    def hide(self, mm: int, span: range) -> None:
        """Forbid all, and allow all again: entries keep their frames meanwhile."""
        if set(span) <= self.mapped[mm]:
            self.rights(mm, span, 0)
            check(self.machine.state)
            self.unprotect(mm, span)

    def dontneed(self, mm: int, span: range) -> None:
        if set(span) <= self.mapped[mm] - self.locked[mm]:
            start, end = self.address(span.start), self.address(span.stop)
            assert madvise(self.machine.state, mm, start, end, Advice.DONTNEED) == 0
            self.forget(mm, span)

    def fork(self, mm: int, _span: range) -> None:
        if len(self.written) < 4:
            child = self.machine.fork(mm)
            self.mapped[child] = set(self.mapped[mm])
            self.writable[child] = set(self.writable[mm])
            self.written[child] = dict(self.written[mm])
            self.locked[child] = set()

    def exit(self, mm: int, _span: range) -> None:
        if len(self.written) > 1:
            self.machine.exit(mm)
            del self.written[mm], self.mapped[mm], self.writable[mm], self.locked[mm]

    def lock(self, mm: int, span: range) -> None:
        """Lock what is there, and what comes as it comes."""
        if set(span) <= self.mapped[mm]:
            start, end = self.address(span.start), self.address(span.stop)
            assert mlock2(self.machine.state, mm, start, end, MLOCK_ONFAULT) == 0
            self.locked[mm] |= set(span)

    def unlock(self, mm: int, span: range) -> None:
        if set(span) <= self.mapped[mm]:
            assert munlock(self.machine.state, mm, self.address(span.start), self.address(span.stop)) == 0
            self.locked[mm] -= set(span)

    def move(self, mm: int, span: range) -> None:
        """Move what is one area to another address, at a border of 2 MiB if it was at one or not, and back."""
        vaddr, nr_pages = self.address(span.start), len(span)
        off = nr_pages % 3 * PAGE_SIZE
        to = self.vaddr - 8 * HUGE_PAGE_SIZE + span.start * PAGE_SIZE + off
        if set(span) <= self.mapped[mm] and move(self.machine, mm, vaddr, nr_pages, to) == to:
            check(self.machine.state)
            assert move(self.machine, mm, to, nr_pages, vaddr) == vaddr

    def split(self, _mm: int, _span: range) -> None:
        shrink_huge(self.machine.state, 0)

    def collapse(self, mm: int, _span: range) -> None:
        if set(range(HUGE)) <= self.mapped[mm] & self.writable[mm]:
            collapse_range(self.machine.state, mm, self.vaddr)

    def check(self) -> None:
        check(self.machine.state)
        for mm, contents in self.written.items():
            for page, content in contents.items():
                assert self.machine.content(mm, self.address(page)) == content


KINDS = [
    "write",
    "read",
    "unmap",
    "protect",
    "unprotect",
    "hide",
    "dontneed",
    "fork",
    "exit",
    "split",
    "collapse",
    "lock",
    "unlock",
    "move",
]
STEPS = st.lists(
    st.tuples(
        st.sampled_from(KINDS),
        st.integers(0, 3),
        st.sampled_from([0, 1, 200, HUGE - 1, HUGE, HUGE + 7, 2 * HUGE - 1]),
        st.sampled_from([1, 3, 100, HUGE, 2 * HUGE]),
    ),
    max_size=14,
)


@settings(max_examples=40, deadline=None)
@given(STEPS)
def test_any_sequence_of_steps_keeps_what_was_written(steps: list[tuple[str, int, int, int]]) -> None:
    model = Model()
    for kind, which, page, nr_pages in steps:
        mms = list(model.written)
        getattr(model, kind)(mms[which % len(mms)], range(page, min(page + nr_pages, 2 * HUGE)))
        model.check()


def test_a_split_maps_the_page_of_zeroes_for_parts_that_hold_zeroes(machine: HugeMachine) -> None:
    """As since 6.12; one page of 512 was written."""
    machine.state.knob[Knob.THP_SPLIT_TO_ZERO_PAGE] = 1
    mm, vaddr = written_huge(machine)
    pfn = machine.frame(mm, vaddr)
    machine.state.page[pfn].refcount += 1
    assert split_huge_page(machine.state, pfn) == 1
    machine.state.page[pfn].refcount -= 1
    assert machine.stat(VmStat.NR_ANON_PAGES) == 1 == machine.state.mm[mm].nr_anon
    assert machine.state.mm[mm].nr_zero == HUGE - 1
    assert machine.read(mm, vaddr + PAGE_SIZE) == machine.state.knob[Knob.ZERO_PFN]
    assert machine.frame(mm, vaddr) == pfn
    machine.write(mm, vaddr + PAGE_SIZE, 5)
    assert machine.stat(VmStat.NR_ANON_PAGES) == 2
    check(machine.state)


def test_locked_parts_that_hold_zeroes_stay(machine: HugeMachine) -> None:
    machine.state.knob[Knob.THP_SPLIT_TO_ZERO_PAGE] = 1
    mm, vaddr = written_huge(machine)
    lock(machine, mm, vaddr, HUGE)
    pfn = machine.frame(mm, vaddr)
    machine.state.page[pfn].refcount += 1
    assert split_huge_page(machine.state, pfn) == 1
    machine.state.page[pfn].refcount -= 1
    assert machine.stat(VmStat.NR_ANON_PAGES) == HUGE == machine.stat(VmStat.NR_MLOCK)
    check(machine.state)
