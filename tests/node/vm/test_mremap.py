"""mremap: pages keep their frames and contents wherever they go, and reverse mapping finds them there."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from node.counters import Knob, KsmStat, Request, VmStat
from node.errno import Errno
from node.invariants import check
from node.ksm.ksmd import ksm_do_scan
from node.vm.madvise import Advice, madvise
from node.vm.mremap import MremapFlag, mremap
from node.vm.rmap_walk import page_referenced
from node.vm.vma import VmFlag, vma_at
from shared.constants import GIB, MIB, NIL, PAGE_SHIFT, PAGE_SIZE
from tests.models.address_space import AddressSpace
from tests.node.vm.test_anon_vma import check_every_frame
from tests.node.vm_machine import VmMachine

pytestmark = pytest.mark.three_ways

MOVE = MremapFlag.MAYMOVE
FIXED = MremapFlag.MAYMOVE | MremapFlag.FIXED
NR_PAGES = 12
PLACES = 30  # pages of the window in which the random test moves things
STEPS = st.lists(
    st.tuples(
        st.sampled_from(
            ["write", "write", "write", "read", "move", "move", "grow", "shrink", "fork", "split"]
        ),
        st.integers(0, 2),
        st.integers(0, PLACES - 1),
        st.integers(1, 6),
        st.integers(0, PLACES - 1),
    ),
    max_size=30,
)


@pytest.fixture
def machine() -> VmMachine:
    return VmMachine()


def remap(machine: VmMachine, mm: int, old: tuple[int, int], wanted: int, to: int | None = None) -> int:
    """Ask, of the address and pages ``old``, for ``wanted`` pages, at ``to`` or anywhere; return as mremap does."""
    vaddr, nr_pages = old
    flags = (MOVE, 0) if to is None else (FIXED, to)
    return request(machine, mm, (vaddr, nr_pages << PAGE_SHIFT, wanted << PAGE_SHIFT, *flags))


def request(machine: VmMachine, mm: int, arguments: tuple[int, ...]) -> int:
    """Call mremap with these arguments."""
    for place, value in enumerate(arguments):
        machine.state.request[Request.A0 + place] = value
    return mremap(machine.state, mm)


def in_place(machine: VmMachine, mm: int, old: tuple[int, int], wanted: int) -> int:
    """As ``remap``, without leave to move."""
    vaddr, nr_pages = old
    return request(machine, mm, (vaddr, nr_pages << PAGE_SHIFT, wanted << PAGE_SHIFT, 0, 0))


def written(machine: VmMachine, mm: int, nr_pages: int) -> int:
    """Return where ``nr_pages`` are mapped and written: page i with i + 1."""
    vaddr = machine.map(mm, nr_pages)
    for page in range(nr_pages):
        machine.write(mm, vaddr + page * PAGE_SIZE, page + 1)
    return vaddr


def test_a_moved_page_keeps_its_frame_and_is_found_at_its_new_address(machine: VmMachine) -> None:
    mm = machine.spawn()
    vaddr = written(machine, mm, 4)
    frames = [machine.frame(mm, vaddr + page * PAGE_SIZE) for page in range(4)]
    to = vaddr - 64 * PAGE_SIZE
    assert remap(machine, mm, (vaddr, 4), 4, to) == to
    assert [machine.frame(mm, to + page * PAGE_SIZE) for page in range(4)] == frames
    assert machine.read(mm, vaddr) == NIL
    assert machine.read(mm, to) == frames[0]
    assert page_referenced(machine.state, frames[0]) == 1
    check(machine.state)


def test_whole_tables_move_with_what_they_map(machine: VmMachine) -> None:
    """Of 2 MiB, the last table moves; of 1 GiB, the one above it."""
    state = machine.state
    mm = machine.spawn()
    for size in (2 * MIB, GIB):
        area = machine.map(mm, 2 * size >> PAGE_SHIFT)
        vaddr = -(-area // size) * size
        pfn = machine.write(mm, vaddr + PAGE_SIZE, 1)
        last = machine.write(mm, vaddr + size - PAGE_SIZE, 2)
        to = vaddr & -512 * size  # below the same table
        tables = state.mm[mm].nr_page_tables
        assert remap(machine, mm, (vaddr, size >> PAGE_SHIFT), size >> PAGE_SHIFT, to) == to
        assert (machine.frame(mm, to + PAGE_SIZE), machine.frame(mm, to + size - PAGE_SIZE)) == (pfn, last)
        assert state.mm[mm].nr_page_tables == tables
        assert machine.read(mm, vaddr + PAGE_SIZE) == NIL
        check(state)


def test_a_mapping_grows_where_it_is_if_nothing_is_behind_it(machine: VmMachine) -> None:
    mm = machine.spawn()
    vaddr = written(machine, mm, 8)
    machine.unmap(mm, vaddr + 4 * PAGE_SIZE, 4)
    assert in_place(machine, mm, (vaddr, 4), 6) == vaddr
    assert machine.write(mm, vaddr + 5 * PAGE_SIZE, 1) != NIL
    assert machine.read(mm, vaddr + 6 * PAGE_SIZE) == NIL
    assert machine.state.mm[mm].total_vm == 6
    check(machine.state)


def test_a_mapping_with_a_neighbour_above_moves_only_if_it_may(machine: VmMachine) -> None:
    mm = machine.spawn()
    vaddr = written(machine, mm, 4)
    pfn = machine.frame(mm, vaddr)
    assert in_place(machine, mm, (vaddr, 2), 3) == Errno.ENOMEM
    to = remap(machine, mm, (vaddr, 2), 3)
    assert to == vaddr - 3 * PAGE_SIZE
    assert machine.frame(mm, to) == pfn
    assert machine.state.mm[mm].total_vm == machine.state.vm_stat[VmStat.NR_COMMITTED] == 5
    check(machine.state)


def test_what_does_not_lie_in_one_area_is_refused(machine: VmMachine) -> None:
    mm = machine.spawn()
    vaddr = machine.map(mm, 4)
    state = machine.state
    assert remap(machine, mm, (vaddr - PAGE_SIZE, 1), 2) == Errno.EFAULT
    assert remap(machine, mm, (vaddr, 5), 6) == Errno.EFAULT
    assert remap(machine, mm, (vaddr, 4), 0) == Errno.EINVAL
    assert remap(machine, mm, (vaddr, 0), 4) == Errno.EINVAL  # a private mapping cannot be had twice
    assert remap(machine, mm, (vaddr, 4), 4, vaddr + PAGE_SIZE) == Errno.EINVAL
    only_fixed = MremapFlag.FIXED, vaddr - 64 * PAGE_SIZE
    assert request(machine, mm, (vaddr, PAGE_SIZE, PAGE_SIZE, *only_fixed)) == Errno.EINVAL
    state.mm[mm].as_limit = 5 * PAGE_SIZE
    assert remap(machine, mm, (vaddr, 4), 6) == Errno.ENOMEM
    state.knob[Knob.MAX_MAP_COUNT] = 4
    assert remap(machine, mm, (vaddr, 2), 3) == Errno.ENOMEM
    check(state)


def test_merges_are_undone_before_pages_move(machine: VmMachine) -> None:
    state = machine.state
    mm = machine.spawn()
    vaddr = machine.map(mm, 4)
    for page in range(4):
        machine.write(mm, vaddr + page * PAGE_SIZE, 7)
    madvise(state, mm, vaddr, vaddr + 4 * PAGE_SIZE, Advice.MERGEABLE)
    for _ in range(3):
        ksm_do_scan(state, 100)
    assert state.ksm_stat[KsmStat.PAGES_SHARED] == 1
    to = vaddr - 64 * PAGE_SIZE
    assert remap(machine, mm, (vaddr, 4), 4, to) == to
    assert len({machine.frame(mm, to + page * PAGE_SIZE) for page in range(4)}) == 4
    check(state)
    for _ in range(3):
        ksm_do_scan(state, 100)
    check(state)
    assert len({machine.frame(mm, to + page * PAGE_SIZE) for page in range(4)}) == 1


def test_a_locked_mapping_that_grows_is_populated(machine: VmMachine) -> None:
    state = machine.state
    mm = machine.spawn()
    vaddr = machine.map(mm, 4, VmFlag.READ | VmFlag.WRITE | VmFlag.LOCKED)
    machine.map(mm, 2)
    to = remap(machine, mm, (vaddr, 4), 8, vaddr - 64 * PAGE_SIZE)
    assert state.mm[mm].locked_vm == 8
    assert [machine.frame(mm, to + page * PAGE_SIZE) == NIL for page in range(8)] == [True] * 4 + [False] * 4
    state.mm[mm].memlock_limit = 9 * PAGE_SIZE
    assert remap(machine, mm, (to, 8), 10) == Errno.EAGAIN
    check(state)


def test_an_area_without_pages_is_numbered_by_its_address_and_merges_there(machine: VmMachine) -> None:
    mm = machine.spawn()
    vaddr = machine.map(mm, 4)
    machine.unmap(mm, vaddr + PAGE_SIZE, 1)
    assert remap(machine, mm, (vaddr + 2 * PAGE_SIZE, 1), 1, vaddr + PAGE_SIZE) == vaddr + PAGE_SIZE
    area = machine.state.vma[vma_at(machine.state, mm, vaddr)]
    assert (area.start, area.end) == (vaddr, vaddr + 2 * PAGE_SIZE)
    check(machine.state)


class Pair:
    """A machine and models of its processes, taken through the same steps."""

    def __init__(self) -> None:
        self.machine = VmMachine()
        mm = self.machine.spawn()
        self.base = (self.machine.map(mm, NR_PAGES) >> PAGE_SHIFT) - (PLACES - NR_PAGES)
        model = AddressSpace()
        model.map(self.base + PLACES - NR_PAGES, NR_PAGES)
        self.processes = [(mm, model)]
        self.contents: dict[int, int] = {}

    def step(self, what: str, which: int, place: int, number: int, target: int) -> None:
        """Take one step in both, and compare what it returns."""
        mm, model = self.processes[which % len(self.processes)]
        vpn = self.base + place
        if what == "write":
            assert (self.machine.write(mm, vpn << PAGE_SHIFT, number) != NIL) == model.access(vpn, number)
        elif what == "read":
            assert (self.machine.read(mm, vpn << PAGE_SHIFT) != NIL) == model.access(vpn, None)
        elif what == "fork" and len(self.processes) < 3:
            self.processes.append((self.machine.fork(mm), model.fork()))
        elif what == "split":
            advice = Advice.RANDOM if number % 2 else Advice.NORMAL
            end = (vpn + number) << PAGE_SHIFT
            madvise(self.machine.state, mm, vpn << PAGE_SHIFT, end, advice)
        elif what in ("move", "grow", "shrink"):
            wanted = {"move": number, "grow": number + 2, "shrink": max(number - 2, 1)}[what]
            self.remap(mm, model, (vpn, number, wanted, self.base + target), is_fixed=what == "move")

    def remap(self, mm: int, model: AddressSpace, what: tuple[int, int, int, int], *, is_fixed: bool) -> None:
        """Remap, and let the model follow where that succeeds: as a copy of dict entries."""
        vpn, number, wanted, target = what
        place = target << PAGE_SHIFT if is_fixed else None
        to = remap(self.machine, mm, (vpn << PAGE_SHIFT, number), wanted, place) >> PAGE_SHIFT
        overlaps = vpn < target + wanted and target < vpn + number
        if is_fixed and vpn in model.mapped and not overlaps:
            model.unmap(target, wanted)  # even if it fails after that
        if to < 0:
            return
        kept = min(number, wanted)
        moved = {page: model.written[vpn + page] for page in range(kept) if vpn + page in model.written}
        model.unmap(vpn, number)
        model.map(to, wanted)
        model.written |= {to + page: byte for page, byte in moved.items()}

    def compare(self) -> None:
        """Compare every page of every process."""
        check(self.machine.state)
        check_every_frame(self.machine)
        for mm, model in self.processes:
            assert self.machine.state.mm[mm].total_vm == len(model.mapped)
            assert self.machine.state.mm[mm].nr_anon == len(model.written)
            for vpn, byte in model.written.items():
                content = self.machine.content(mm, vpn << PAGE_SHIFT)
                assert self.contents.setdefault(byte, content) == content


@settings(max_examples=60)
@given(STEPS)
def test_pages_hold_what_was_written_wherever_they_have_moved(
    steps: list[tuple[str, int, int, int, int]],
) -> None:
    pair = Pair()
    for step in steps:
        pair.step(*step)
        pair.compare()
