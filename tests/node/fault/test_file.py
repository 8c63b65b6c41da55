"""Files and shared memory in several processes: each sees what the others write where it is shared, and only there."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from node.counters import Knob, Request, VmStat
from node.fault.kinds import VmFault
from node.fault.outcome import FaultOutcome
from node.invariants import check
from node.pagecache.inode import new_file, truncate_pages
from node.vm.madvise import Advice, madvise
from node.vm.mmap import MapFlag, do_mmap
from node.vm.vma import VmFlag
from shared.constants import NIL, PAGE_SHIFT, PAGE_SIZE
from tests.models.mapped_files import MappedObject, MappedProcess, Place
from tests.node.vm_machine import READ_WRITE, VmMachine

pytestmark = pytest.mark.three_ways

FILE_PAGES = 24
NR_PAGES = 16
BASE = 0x10000000
MAX_PROCESSES = 3
STEPS = st.lists(
    st.tuples(
        st.sampled_from(
            ["map", "map", "write", "write", "write", "read", "read", "unmap", "drop", "fork", "exit"]
        ),
        st.integers(0, MAX_PROCESSES - 1),
        st.integers(0, NR_PAGES - 1),
        st.integers(1, 6),
    ),
    max_size=40,
)


def map_at(
    machine: VmMachine, mm: int, start: int, nr_pages: int, file: tuple[int, int] = (0, 0), *, shared: bool
) -> int:
    """Map pages at an address, of ``file``: its inode and first page; (0, 0): no file. Return the address."""
    arguments = (start, nr_pages << PAGE_SHIFT, READ_WRITE, MapFlag.FIXED | (MapFlag.SHARED if shared else 0))
    for place, value in enumerate((*arguments, *file, 0)):
        machine.state.request[Request.A0 + place] = value
    return do_mmap(machine.state, mm)


class Pair:
    """A machine and a model, taken through the same steps."""

    def __init__(self) -> None:
        self.machine = VmMachine()
        self.state = self.machine.state
        self.state.knob[Knob.FAULT_AROUND_PAGES] = 1  # no page of the file but those that are used
        self.free_at_start = self.machine.nr_free()
        self.inode = new_file(self.state, FILE_PAGES, 7)
        self.file = MappedObject("file", has_name=True)
        self.objects = [self.file]
        self.processes = [(self.machine.spawn(), MappedProcess()), (self.machine.spawn(), MappedProcess())]
        self.contents: dict[tuple[str, int, int], int] = {}

    def step(self, what: str, which: int, page: int, number: int) -> None:
        """Take one step in both, and compare what it returns."""
        if not self.processes:
            return
        mm, model = self.processes[which % len(self.processes)]
        vaddr = BASE + page * PAGE_SIZE
        nr_pages = min(number, NR_PAGES - page)
        if what == "map":
            self.map(mm, model, page, nr_pages)
        elif what == "write":
            assert (self.machine.write(mm, vaddr, number) != NIL) == model.write(page, number)
        elif what == "read":
            self.compare(mm, model, page)
        elif what == "unmap":
            self.machine.unmap(mm, vaddr, nr_pages)
            model.unmap(page, nr_pages)
        elif what == "drop":
            madvise(self.state, mm, vaddr, vaddr + nr_pages * PAGE_SIZE, Advice.DONTNEED)
            model.drop(page, nr_pages)
        elif what == "fork" and len(self.processes) < MAX_PROCESSES:
            self.processes.append((self.machine.fork(mm), model.fork()))
        elif what == "exit" and len(self.processes) > 1:
            self.machine.exit(mm)
            self.processes.remove((mm, model))

    def map(self, mm: int, model: MappedProcess, page: int, nr_pages: int) -> None:
        """Map the file, shared or private, or new shared memory, as the page's number says."""
        vaddr = BASE + page * PAGE_SIZE
        kind = page % 3
        if kind == 0:
            assert map_at(self.machine, mm, vaddr, nr_pages, shared=True) == vaddr
            self.objects.append(MappedObject("zeroes", has_name=False))
            model.map(page, nr_pages, Place(self.objects[-1], 0, is_shared=True))
            return
        shared = kind == 1
        assert map_at(self.machine, mm, vaddr, nr_pages, (self.inode, page % 8), shared=shared) == vaddr
        model.map(page, nr_pages, Place(self.file, page % 8, is_shared=shared))

    def compare(self, mm: int, model: MappedProcess, page: int) -> None:
        """Compare what a page holds with the model's: equal contents have equal ids, and others have others."""
        expected = model.read(page)
        pfn = self.machine.read(mm, BASE + page * PAGE_SIZE)
        assert (pfn == NIL) == (expected is None)
        if expected is None:
            return
        index = model.places[page].index if expected[0] == "file" else 0
        content = int(self.state.page[pfn].content)
        assert self.contents.setdefault((expected[0], index, expected[1]), content) == content
        assert len(set(self.contents.values())) == len(self.contents)

    def check(self) -> None:
        """Compare what the machine counts of the objects' pages."""
        check(self.state)
        mapped = [place.object for _, model in self.processes for place in model.places.values()]
        living = [each for each in self.objects if each.has_name or any(each is one for one in mapped)]
        nr_shmem = sum(len(each.bytes_of) for each in living if each.base == "zeroes")
        assert self.state.vm_stat[VmStat.NR_SHMEM] == nr_shmem
        assert self.state.vm_stat[VmStat.NR_FILE_PAGES] == nr_shmem + len(self.file.bytes_of)


@settings(max_examples=50)
@given(STEPS)
def test_every_process_sees_what_is_shared_and_its_own_copies(steps: list[tuple[str, int, int, int]]) -> None:
    pair = Pair()
    for step in steps:
        pair.step(*step)
        pair.check()
    for mm, model in pair.processes:
        for page in range(NR_PAGES):
            pair.compare(mm, model, page)
        pair.machine.exit(mm)
    check(pair.state)
    truncate_pages(pair.state, pair.inode, 0)
    check(pair.state)
    assert pair.machine.nr_free() == pair.free_at_start


def test_a_read_maps_the_cached_pages_around_it() -> None:
    machine = VmMachine()
    inode = new_file(machine.state, FILE_PAGES, 7)
    first, second = machine.spawn(), machine.spawn()
    for mm in (first, second):
        map_at(machine, mm, BASE, FILE_PAGES, (inode, 0), shared=False)
    for page in (0, 16):
        machine.read(first, BASE + page * PAGE_SIZE)
    outcomes = machine.state.fault_outcome
    before = int(outcomes[FaultOutcome.FILE_AROUND])
    machine.read(second, BASE + PAGE_SIZE)
    assert outcomes[FaultOutcome.FILE_AROUND] == before + 1
    # Pages 0 to 15 are one window of 64 KiB.
    around = [page for page in range(FILE_PAGES) if machine.frame(second, BASE + page * PAGE_SIZE) != NIL]
    assert around == list(range(16))
    check(machine.state)


def test_behind_the_end_of_a_file_is_a_bus_error() -> None:
    machine = VmMachine()
    inode = new_file(machine.state, 3, 7)
    mm = machine.spawn()
    map_at(machine, mm, BASE, 8, (inode, 0), shared=True)
    assert machine.read(mm, BASE + 2 * PAGE_SIZE) != NIL
    assert machine.read(mm, BASE + 3 * PAGE_SIZE) == NIL
    assert machine.outcome() == VmFault.SIGBUS
    check(machine.state)


def test_only_the_first_write_to_a_shared_page_of_a_file_makes_it_dirty() -> None:
    machine = VmMachine()
    inode = new_file(machine.state, 3, 7)
    mm = machine.spawn()
    map_at(machine, mm, BASE, 3, (inode, 0), shared=True)
    machine.read(mm, BASE)
    assert machine.state.vm_stat[VmStat.NR_DIRTY] == 0
    for value in (1, 2):
        machine.write(mm, BASE, value)
        assert machine.state.vm_stat[VmStat.NR_DIRTY] == 1
    assert machine.state.fault_outcome[FaultOutcome.WP_SHARED] == 1
    assert machine.state.vma[machine.state.mm[mm].first_vma].vm_flags & VmFlag.SHARED
    check(machine.state)
