"""The property of every TLB: whatever is mapped, unmapped, protected and switched, no entry that can be used allows
more than the tables do, because nothing that shrinks is left without its flush."""

from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from node.build import build_state
from node.counters import Current
from node.hw.paging import AccessKind, PageSize
from node.hw.pte import NX, Pte
from node.invariants import check
from node.kmap.entry import enter_kernel, go_idle, leave_kernel, run_in_user_mode, system_call
from node.kmap.flush_calls import FLUSH_ALL, flush_tlb_mm, flush_tlb_page
from node.kmap.tlb_check import forbidden_entries
from node.kmap.tlb_flush import flush_tlb_all, flush_tlb_range, retire_mm
from node.spec import MachineSpec
from shared.constants import PAGE_SHIFT, PAGE_SIZE
from shared.views import View
from tests.node.hw.entries import do_access, do_flush_lowered_view
from tests.node.hw.small_machine import USER_RO, USER_RW, SmallMachine
from tests.node.vm_machine import SMALL_BYTES, VmMachine

pytestmark = pytest.mark.three_ways

ALL_FOUR = [(pcid, pti) for pcid in (True, False) for pti in (True, False)]
NR_CPUS = 3
NR_MMS = 8  # more than there are ASIDs
READ, WRITE, EXECUTE = AccessKind

# Small, with every kind of replacement and an array for larger pages: entries come, stay and go.
TLB: dict[str, Any] = {
    "data": {"4K": {"entries": 6, "ways": 2}, "2M+1G": {"entries": 3, "ways": "full"}},
    "instruction": {"4K+2M+1G": {"entries": 4, "ways": "full", "replacement": "plru"}},
    "second": {"4K+2M": {"entries": 20, "ways": 4, "replacement": "random"}, "1G": {"entries": 0}},
}
WALK_CACHES: dict[str, Any] = {name: {"entries": 4, "ways": "full"} for name in ("pd", "pdpt", "pml4")}

TLB_OF: dict[str, dict[str, Any]] = {
    "32bit": {
        "data": {"4K+4M": {"entries": 6, "ways": "full"}},
        "instruction": {"4K": {"entries": 4, "ways": "full"}},
        "second": {"4K+4M": {"entries": 20, "ways": 4}},
    },
    "none": {},
}
CACHES_OF: dict[str, dict[str, Any]] = {"32bit": {"pd": {"entries": 4, "ways": "full"}}, "none": {}}


# --- tables written by hand -----------------------------------------------------------------------------

NR_PAGES = 12
SMALL = 0x40_0000_0000  # 12 pages; the tables below it hold nothing else
LARGE = 0x41_0000_0000
KERNEL = -(1 << 47)
BITS = (USER_RW, USER_RO, USER_RW | Pte.DIRTY, Pte.PRESENT | Pte.WRITE, 0, USER_RW | NX)


class HandWritten:
    """A machine whose tables a test changes as a kernel would: first the entry, then the flush."""

    def __init__(self, *, pcid: bool, pti: bool, guest: bool = False, paging: str = "4level") -> None:
        tlb, caches = TLB_OF.get(paging, TLB), CACHES_OF.get(paging, WALK_CACHES)
        hw = {"pcid": pcid, "pti": pti, "tlb": tlb, "walk_caches": caches, "paging": paging}
        self.small, self.large, self.kernel = SMALL, LARGE, KERNEL
        if paging == "32bit":
            self.small, self.large, self.kernel = 0x1000_0000, 0x2000_0000, 0xC000_0000
        self.machine = SmallMachine(nr_frames=1200, nr_cpus=NR_CPUS, nr_mms=NR_MMS, guest=guest, hw=hw)
        self.state = self.machine.state
        self.valid_bits = (1 << 32) - 1 if paging == "32bit" else -1
        for mm in range(1, NR_MMS + 1):
            for number in range(NR_PAGES):
                self.machine.map(mm, self.page(number), 1 + number)
            self.machine.map(mm, self.large, 0, USER_RW, PageSize.LARGE)
        self.machine.map(0, self.kernel, 7, USER_RW | Pte.GLOBAL)

    def page(self, number: int) -> int:
        return self.small + number * PAGE_SIZE

    def step(self, what: str, cpu: int, mm: int, number: int, choice: int) -> None:
        """Take one step on a CPU."""
        self.machine.run_on(cpu)
        page = number % NR_PAGES
        if what == "access":
            vaddr = (self.page(page), self.page(page), self.large + number * PAGE_SIZE, self.kernel)[
                choice % 4
            ]
            self.access(mm, vaddr, AccessKind(number % 3))
        elif what.startswith("change") or what == "protect all":
            self.change(what, mm, page, choice)
        elif what == "move the table":
            self.move_table(mm)
        elif what == "exit":
            self.state.mm[mm].alive = 0
            retire_mm(self.state, mm)
            self.machine.revive(mm)
        elif what == "lower the view":
            self.state.ept_view[1 + page] = (View.UNTOUCHED, View.SWAPPED, View.READ_ONLY)[choice % 3]
            do_flush_lowered_view(self.state)
        else:
            self.run(what, cpu, mm)

    def run(self, what: str, cpu: int, mm: int) -> None:
        """Switch, idle, or enter and leave the kernel."""
        if what == "run":
            run_in_user_mode(self.state, mm)
        elif what == "idle":
            go_idle(self.state, cpu)
        elif self.state.cpu[cpu].mm and not self.state.cpu[cpu].lazy:
            enter_kernel(self.state)
            leave_kernel(self.state)

    def change(self, what: str, mm: int, page: int, choice: int) -> None:
        """Change entries, then flush."""
        bits = BITS[choice] & self.valid_bits
        if what == "change a page":
            self.machine.map(mm, self.page(page), 1 + (page + choice // 3) % NR_PAGES, bits)
            flush_tlb_page(self.state, mm, self.page(page))
        elif what == "change many":
            for each in range(page, NR_PAGES):
                self.machine.map(mm, self.page(each), 1 + each, bits)
            flush_tlb_range(self.state, mm, self.page(page), self.page(page) + 40 * PAGE_SIZE, 0)
        elif what == "protect all":
            for each in range(NR_PAGES):
                self.machine.map(mm, self.page(each), 1 + each, USER_RO)
            flush_tlb_mm(self.state, mm)
        elif what == "change a large page":
            self.machine.map(mm, self.large, 0, (USER_RW, USER_RO, 0)[choice % 3], PageSize.LARGE)
            flush_tlb_page(self.state, mm, self.large)
        else:
            self.machine.map(0, self.kernel, 7 + choice, USER_RW | Pte.GLOBAL)
            flush_tlb_all(self.state)

    def access(self, mm: int, vaddr: int, kind: AccessKind) -> None:
        """Access, and see that it is allowed if and only if the tables say so, whatever is cached."""
        pfn = do_access(self.state, mm, vaddr, kind)
        if self.small <= vaddr < self.page(NR_PAGES):
            word = self.machine.pte(mm, vaddr)
            needed = USER_RW if kind == WRITE else USER_RO
            allowed = word & needed == needed and not (kind == EXECUTE and word < 0)
            assert (pfn >= 0) == allowed
            if allowed:
                assert pfn == word >> PAGE_SHIFT & 0xFFFF

    def move_table(self, mm: int) -> None:
        """Put the last level's entries into another frame, as if the old table were freed."""
        old = self.machine.position(mm, self.small) >> self.machine.mode.table_shift
        new = 100 + mm if old != 100 + mm else 120 + mm
        entries = 1 << self.machine.mode.table_shift
        words = self.state.pt_word
        for index in range(NR_PAGES):
            position = self.machine.position(mm, self.page(index)) % entries
            words[new * entries + position] = words[old * entries + position]
            words[old * entries + position] = 0
        levels = len(self.machine.mode.levels)
        upper = self.machine.position(mm, self.small, size=PageSize.LARGE)
        word = int(words[upper])
        if levels == 2:
            upper = self.machine.tops(mm)[0] * entries + (self.small >> 22)
        words[upper] = (word & 0xFFF) | new << PAGE_SHIFT
        flush_tlb_range(self.state, mm, self.page(0), self.page(NR_PAGES), 1)


STEPS = st.lists(
    st.tuples(
        st.sampled_from(
            ["access"] * 10
            + ["change a page"] * 3
            + ["change many", "protect all", "change a large page", "change the kernel's", "move the table"]
            + ["run", "run", "idle", "system call", "exit"]
        ),
        st.integers(0, NR_CPUS - 1),
        st.integers(1, NR_MMS),
        st.integers(0, 40),
        st.integers(0, len(BITS) - 1),
    ),
    min_size=20,
    max_size=80,
)
GUEST_STEPS = st.lists(
    st.tuples(
        st.sampled_from(["access"] * 6 + ["change a page", "protect all", "lower the view", "idle"]),
        st.integers(0, NR_CPUS - 1),
        st.integers(1, NR_MMS),
        st.integers(0, 40),
        st.integers(0, len(BITS) - 1),
    ),
    min_size=20,
    max_size=60,
)
Step = tuple[str, int, int, int, int]


@pytest.mark.parametrize(("pcid", "pti"), ALL_FOUR)
@settings(max_examples=30)
@given(steps=STEPS)
def test_what_is_changed_and_flushed_leaves_nothing_forbidden(
    pcid: bool, pti: bool, steps: list[Step]
) -> None:
    hand = HandWritten(pcid=pcid, pti=pti)
    for step in steps:
        hand.step(*step)
        assert forbidden_entries(hand.state) == [], step


@settings(max_examples=20)
@given(steps=STEPS)
def test_nor_in_32_bit_paging(steps: list[Step]) -> None:
    hand = HandWritten(pcid=False, pti=False, paging="32bit")
    for step in steps:
        hand.step(*step)
        assert forbidden_entries(hand.state) == [], step


@pytest.mark.parametrize("pti", [True, False])
@settings(max_examples=20)
@given(steps=GUEST_STEPS)
def test_nor_on_a_guest_whose_host_takes_pages_away(pti: bool, steps: list[Step]) -> None:
    hand = HandWritten(pcid=True, pti=pti, guest=True)
    for step in steps:
        hand.step(*step)
        hand.state.current[Current.NR_VIOLATIONS] = 0
        assert forbidden_entries(hand.state) == [], step


@pytest.mark.parametrize(("pcid", "pti"), ALL_FOUR)
def test_a_change_without_its_flush_is_found(pcid: bool, pti: bool) -> None:
    hand = HandWritten(pcid=pcid, pti=pti)
    for mm in (1, 2):
        do_access(hand.state, mm, hand.page(0), WRITE)
    hand.machine.map(2, hand.page(0), 1, USER_RO)
    assert len(forbidden_entries(hand.state)) == 2
    flush_tlb_range(hand.state, 2, 0, FLUSH_ALL, 0)
    assert forbidden_entries(hand.state) == []


# --- a whole machine ------------------------------------------------------------------------------------


class Processes(VmMachine):
    """A built machine, its processes, and areas of 40 pages of theirs."""

    NR_PAGES = 40

    def __init__(self, **hw: Any) -> None:
        spec = MachineSpec(SMALL_BYTES, cpus=NR_CPUS, min_free_kbytes=128)
        self.state = build_state(spec.with_hw(**{"tlb": TLB, "walk_caches": WALK_CACHES, **hw}))
        self.running = [self.new_process()]

    def new_process(self) -> tuple[int, int]:
        mm = self.spawn()
        return mm, self.map(mm, self.NR_PAGES)

    def step(self, what: str, cpu: int, which: int, page: int, number: int) -> None:
        """Take one step of a process on a CPU."""
        self.state.current[Current.CPU] = cpu
        mm, base = self.running[which % len(self.running)]
        vaddr = base + (page << PAGE_SHIFT)
        if what == "write":
            self.write(mm, vaddr, number)
        elif what == "read":
            self.read(mm, vaddr)
        elif what == "write many":
            for each in range(self.NR_PAGES):
                self.write(mm, base + (each << PAGE_SHIFT), number)
        elif what == "unmap":
            self.unmap(mm, vaddr, min(number, self.NR_PAGES - page))
        elif what == "unmap all":
            self.unmap(mm, base, self.NR_PAGES)
            self.running.remove((mm, base))
            self.running.append((mm, self.map(mm, self.NR_PAGES)))
        elif what == "fork" and len(self.running) < NR_MMS:
            self.running.append((self.fork(mm), base))
        elif what == "spawn" and len(self.running) < NR_MMS:
            self.running.append(self.new_process())
        elif what == "exit" and len(self.running) > 1:
            self.running.remove((mm, base))
            self.exit(mm)
        elif what == "idle":
            go_idle(self.state, cpu)
        elif what == "system call":
            run_in_user_mode(self.state, mm)
            system_call(self.state, 1)


PROCESS_STEPS = st.lists(
    st.tuples(
        st.sampled_from(
            ["write"] * 5
            + ["read"] * 3
            + [
                "write many",
                "unmap",
                "unmap",
                "unmap all",
                "fork",
                "fork",
                "spawn",
                "exit",
                "idle",
                "system call",
            ]
        ),
        st.integers(0, NR_CPUS - 1),
        st.integers(0, NR_MMS - 1),
        st.integers(0, Processes.NR_PAGES - 1),
        st.sampled_from([1, 2, 5, 33, 34]),
    ),
    min_size=20,
    max_size=60,
)


@pytest.mark.parametrize(("pcid", "pti"), ALL_FOUR)
@settings(max_examples=25)
@given(steps=PROCESS_STEPS)
def test_processes_leave_nothing_forbidden(pcid: bool, pti: bool, steps: list[Step]) -> None:
    machine = Processes(pcid=pcid, pti=pti)
    for step in steps:
        machine.step(*step)
        assert forbidden_entries(machine.state) == [], step
    check(machine.state)


@pytest.mark.parametrize("paging", ["32bit", "5level", "none"])
@settings(max_examples=10)
@given(steps=PROCESS_STEPS)
def test_processes_of_other_modes_leave_nothing_forbidden(paging: str, steps: list[Step]) -> None:
    machine = Processes(
        paging=paging, tlb=TLB_OF.get(paging, TLB), walk_caches=CACHES_OF.get(paging, WALK_CACHES)
    )
    for step in steps:
        if paging == "none" and step[0] in ("fork", "unmap"):
            continue  # there are no pages to part there
        machine.step(*step)
        assert forbidden_entries(machine.state) == [], step


@pytest.mark.parametrize(("pcid", "pti"), ALL_FOUR)
def test_a_machine_that_forgets_a_flush_is_found_out(pcid: bool, pti: bool) -> None:
    machine = Processes(pcid=pcid, pti=pti)
    (mm, base) = machine.running[0]
    for cpu in range(NR_CPUS):
        machine.step("write", cpu, 0, 3, 1)
    assert forbidden_entries(machine.state) == []
    words = np.asarray(machine.state.pt_word)
    (position,) = np.flatnonzero(words == machine.pte(mm, base + 3 * PAGE_SIZE)).tolist()
    machine.state.pt_word[position] &= ~Pte.WRITE
    found = forbidden_entries(machine.state)
    assert {line.split(",")[0].split(" of ")[1] for line in found} == {f"CPU {cpu}" for cpu in range(NR_CPUS)}
