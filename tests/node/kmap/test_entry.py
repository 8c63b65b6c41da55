"""The border between user and kernel mode: what CR3 does there, and what becomes of the translations."""

from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from node.build import build_state
from node.counters import HwEvent, Knob
from node.hw.cost import Cost
from node.hw.paging import AccessKind
from node.hw.pte import Pte
from node.hw.registers import FaultCode, FaultVector, Invpcid, invpcid
from node.kmap.entry import enter_kernel, go_idle, leave_kernel, run_in_user_mode, system_call
from node.kmap.flush_calls import flush_tlb_mm
from node.spec import MachineSpec
from node.state import State
from shared.constants import NIL, PAGE_SHIFT
from tests.node.hw.entries import do_access, do_access_here
from tests.node.hw.small_machine import KERNEL_RW, USER_RW, SmallMachine, shape_keys
from tests.node.vm_machine import SMALL_BYTES, VmMachine

pytestmark = pytest.mark.three_ways

READ, WRITE, EXECUTE = AccessKind.READ, AccessKind.WRITE, AccessKind.EXECUTE
VADDR = 0x40_0000_0000
KERNEL = -(1 << 47)
USER_TABLE = 1 << 12
USER_PCID = 1 << 11
ALL_FOUR = pytest.mark.parametrize(
    ("pcid", "pti"), [(True, True), (True, False), (False, True), (False, False)]
)


def machine_with(*, pcid: bool = True, pti: bool = True, nr_cpus: int = 1) -> SmallMachine:
    tlb = shape_keys((1, 32, 1, 64))
    machine = SmallMachine(nr_cpus=nr_cpus, hw={"pcid": pcid, "pti": pti, "tlb": tlb})
    for mm in (1, 2):
        machine.map(mm, VADDR, mm)
    return machine


def cr3(machine: SmallMachine) -> int:
    return int(machine.state.cpu[0].cr3)


def writes(machine: SmallMachine) -> list[int]:
    """Return how often CR3 was written, and how often that dropped translations."""
    return machine.events(HwEvent.CR3_WRITE, HwEvent.CR3_FLUSH)


# --- CR3 ------------------------------------------------------------------------------------------------


def test_both_ways_flip_the_bits_of_the_table_and_of_the_pcid() -> None:
    machine = machine_with()
    run_in_user_mode(machine.state, 1)
    in_user_mode = cr3(machine)
    assert in_user_mode == machine.tops(1)[1] << PAGE_SHIFT | 2050
    enter_kernel(machine.state)
    assert cr3(machine) == machine.tops(1)[0] << PAGE_SHIFT | 2
    assert cr3(machine) ^ in_user_mode == USER_TABLE | USER_PCID
    leave_kernel(machine.state)
    assert cr3(machine) == in_user_mode


def test_without_pcids_only_the_table_changes() -> None:
    machine = machine_with(pcid=False)
    run_in_user_mode(machine.state, 1)
    in_user_mode = cr3(machine)
    enter_kernel(machine.state)
    assert cr3(machine) ^ in_user_mode == USER_TABLE


@pytest.mark.parametrize("pcid", [True, False])
def test_without_isolation_cr3_is_not_written(pcid: bool) -> None:
    machine = machine_with(pcid=pcid, pti=False)
    run_in_user_mode(machine.state, 1)
    before = writes(machine), cr3(machine), machine.now()
    enter_kernel(machine.state)
    leave_kernel(machine.state)
    assert (writes(machine), cr3(machine), machine.now()) == before
    assert machine.events(HwEvent.KERNEL_ENTRY) == [1]


@pytest.mark.parametrize(("pcid", "flushes"), [(True, 0), (False, 2)])
def test_a_round_trip_with_isolation_pays_for_two_writes(pcid: bool, flushes: int) -> None:
    machine = machine_with(pcid=pcid)
    run_in_user_mode(machine.state, 1)
    before = writes(machine)
    start = machine.now()
    enter_kernel(machine.state)
    leave_kernel(machine.state)
    assert writes(machine) == [before[0] + 2, before[1] + flushes]
    assert machine.now() - start == 2 * machine.state.cost[Cost.CR3_WRITE]


@ALL_FOUR
def test_whoever_is_there_already_crosses_nothing(pcid: bool, pti: bool) -> None:
    machine = machine_with(pcid=pcid, pti=pti)
    run_in_user_mode(machine.state, 1)
    before = writes(machine), machine.now()
    leave_kernel(machine.state)
    run_in_user_mode(machine.state, 1)
    assert (writes(machine), machine.now()) == before
    enter_kernel(machine.state)
    before = writes(machine), machine.now()
    enter_kernel(machine.state)
    assert (writes(machine), machine.now()) == before
    assert machine.events(HwEvent.KERNEL_ENTRY) == [1]


@ALL_FOUR
def test_a_level_is_that_of_the_side(pcid: bool, pti: bool) -> None:
    machine = machine_with(pcid=pcid, pti=pti)
    levels = [machine.state.cpu[0].cpl]
    for cross in (lambda: run_in_user_mode(machine.state, 1), lambda: enter_kernel(machine.state)):
        cross()
        levels.append(machine.state.cpu[0].cpl)
    assert levels == [0, 3, 0]


# --- translations ---------------------------------------------------------------------------------------


@pytest.mark.parametrize(("pcid", "walks"), [(True, 0), (False, 1)])
def test_with_pcids_a_round_trip_keeps_translations_and_without_it_drops_them(pcid: bool, walks: int) -> None:
    machine = machine_with(pcid=pcid)
    machine.map(0, KERNEL, 9, USER_RW | Pte.GLOBAL)
    for vaddr in (VADDR, KERNEL):
        do_access(machine.state, 1, vaddr, READ)
    before = machine.events(HwEvent.TLB_WALK)[0]
    system_call(machine.state, 1)
    assert [entry.vaddr for entry in machine.cached() if entry.is_global] == [KERNEL, KERNEL]
    do_access(machine.state, 1, VADDR, READ)
    assert machine.events(HwEvent.TLB_WALK) == [before + walks]


def test_both_sides_have_translations_of_their_own() -> None:
    machine = machine_with()
    machine.map(1, VADDR, 5, USER_RW)
    machine.state.cpu[0].ac = 1  # the kernel copies from user memory (STAC)
    do_access(machine.state, 1, VADDR, READ)
    enter_kernel(machine.state)
    assert do_access_here(machine.state, VADDR, READ) == 5
    assert {entry.pcid for entry in machine.cached()} == {2, 2050}


def test_a_users_access_to_the_kernel_finds_nothing_mapped_under_isolation() -> None:
    codes = {}
    for pti in (True, False):
        machine = machine_with(pti=pti)
        machine.map(0, KERNEL, 9, KERNEL_RW)
        for top in machine.tops(1)[1:]:
            # What init_pgd leaves out of the user's copy.
            machine.state.pt_word[(top << 9) + 256] = 0
        assert do_access(machine.state, 1, KERNEL, READ) == NIL
        assert machine.state.cpu[0].fault_vector == FaultVector.PAGE_FAULT
        codes[pti] = machine.state.cpu[0].error_code
    assert codes == {True: FaultCode.USER, False: FaultCode.USER | FaultCode.PRESENT}


def test_a_return_that_forgot_to_change_cr3_faults_at_the_first_instruction() -> None:
    machine = machine_with()
    assert do_access(machine.state, 1, VADDR, EXECUTE) == 1
    enter_kernel(machine.state)
    machine.state.cpu[0].cpl = 3
    assert do_access_here(machine.state, VADDR, READ) == 1
    assert do_access_here(machine.state, VADDR, EXECUTE) == NIL
    expected = FaultCode.PRESENT | FaultCode.USER | FaultCode.FETCH
    assert machine.state.cpu[0].error_code == expected
    assert machine.state.pt_word[(machine.tops(1)[0] << 9) + (VADDR >> 39)] < 0


# --- a flush that was left for the return ---------------------------------------------------------------


def test_a_flush_that_was_left_happens_at_the_return_to_user_mode_and_once() -> None:
    machine = machine_with()
    do_access(machine.state, 1, VADDR, READ)
    enter_kernel(machine.state)
    flush_tlb_mm(machine.state, 1)
    assert machine.cached() != set()
    before = writes(machine)
    leave_kernel(machine.state)
    assert writes(machine) == [before[0] + 1, before[1] + 1]
    assert machine.cached() == set()
    system_call(machine.state, 1)
    assert writes(machine) == [before[0] + 3, before[1] + 1]


def test_it_waits_while_another_address_space_runs() -> None:
    machine = machine_with()
    do_access(machine.state, 1, VADDR, READ)
    enter_kernel(machine.state)
    flush_tlb_mm(machine.state, 1)
    assert do_access(machine.state, 2, VADDR, READ) == 2
    assert 2050 in {entry.pcid for entry in machine.cached()}
    assert machine.state.cpu[0].user_flush_mask == 1 << 1
    run_in_user_mode(machine.state, 1)
    assert 2050 not in {entry.pcid for entry in machine.cached()}
    assert machine.state.cpu[0].user_flush_mask == 0


# --- system calls and idling ----------------------------------------------------------------------------


@ALL_FOUR
def test_system_calls_are_counted_and_charged(pcid: bool, pti: bool) -> None:
    machine = machine_with(pcid=pcid, pti=pti)
    run_in_user_mode(machine.state, 1)
    before = machine.now()
    system_call(machine.state, 5)
    cost = machine.state.cost
    each = cost[Cost.SYSCALL] + (2 * cost[Cost.CR3_WRITE] if pti else 0)
    assert machine.now() - before == 5 * each
    assert machine.events(HwEvent.SYSCALL, HwEvent.KERNEL_ENTRY) == [5, 5]


def test_going_idle_is_charged_to_the_cpu_that_does() -> None:
    machine = machine_with(nr_cpus=2)
    machine.run_on(1)
    run_in_user_mode(machine.state, 1)
    machine.state.cpu[1].clock_ps = 7_000_000
    machine.run_on(0)
    go_idle(machine.state, 1)
    assert machine.state.cpu[1].clock_ps == 7_000_000 + machine.state.cost[Cost.CR3_WRITE]
    assert (machine.state.cpu[1].lazy, machine.state.cpu[1].cpl) == (1, 0)
    before = machine.now(), writes(machine)
    go_idle(machine.state, 1)
    go_idle(machine.state, 0)  # has nothing to be lazy about
    assert (machine.now(), writes(machine)) == before
    assert machine.state.cpu[0].lazy == 0


# --- the kernel's pages that every entry touches --------------------------------------------------------


class BootedMachine(VmMachine):
    """A machine with the kernel's own tables, and hardware of a test's choice."""

    def __init__(self, cpus: int = 1, **hw: Any) -> None:
        spec = MachineSpec(SMALL_BYTES, cpus=cpus, min_free_kbytes=128)
        self.state = build_state(spec.with_hw(**hw))


def accesses(state: State) -> tuple[int, int]:
    """Return how many accesses of data and of instructions were translated."""
    events = np.asarray(state.hw_event).tolist()
    data = (HwEvent.TLB_L1_HIT, HwEvent.TLB_L2_HIT, HwEvent.TLB_WALK)
    code = (HwEvent.ITLB_L1_HIT, HwEvent.ITLB_L2_HIT, HwEvent.ITLB_WALK)
    return sum(events[event] for event in data), sum(events[event] for event in code)


def walks(state: State) -> int:
    return int(state.hw_event[HwEvent.TLB_WALK] + state.hw_event[HwEvent.ITLB_WALK])


@ALL_FOUR
def test_an_entry_touches_two_pages_of_code_and_two_of_data(pcid: bool, pti: bool) -> None:
    machine = BootedMachine(pcid=pcid, pti=pti)
    run_in_user_mode(machine.state, machine.spawn())
    system_call(machine.state, 1)
    before = accesses(machine.state)
    system_call(machine.state, 3)
    assert accesses(machine.state) == (before[0] + 6, before[1] + 6)


@pytest.mark.parametrize(
    ("pcid", "pti", "per_call"),
    # With isolation and without PCIDs all that is not in the cpu_entry_area or the entry text is walked for.
    [(True, True, 0), (True, False, 0), (False, False, 0), (False, True, 2)],
)
def test_only_isolation_without_pcids_walks_for_them_at_every_entry(
    pcid: bool, pti: bool, per_call: int
) -> None:
    machine = BootedMachine(pcid=pcid, pti=pti)
    run_in_user_mode(machine.state, machine.spawn())
    system_call(machine.state, 2)
    before = walks(machine.state)
    system_call(machine.state, 10)
    assert walks(machine.state) == before + 10 * per_call


def test_the_user_copy_serves_the_way_into_the_kernel() -> None:
    machine = BootedMachine(pcid=True, pti=True)
    run_in_user_mode(machine.state, machine.spawn())
    found = []
    for index in range(int(machine.state.knob[Knob.ENTRY_PAGES])):
        page = machine.state.entry_page[index]
        machine.state.cpu[0].cpl = 0  # the processor enters with user mode's CR3
        found.append(do_access_here(machine.state, page.vaddr, page.kind) != NIL)
        machine.state.cpu[0].cpl = 3
    # Entry text and entry stack are in both copies; the kernel's text and its per-CPU memory are not.
    assert found == [True, True, False, False]


STEPS = st.lists(
    st.tuples(
        st.sampled_from(["touch"] * 4 + ["system call", "invalidate"]), st.integers(0, 2), st.integers(0, 9)
    ),
    max_size=40,
)


@ALL_FOUR
@settings(max_examples=15)
@given(steps=STEPS)
def test_what_entries_remember_of_their_pages_changes_nothing(
    pcid: bool, pti: bool, steps: list[tuple[str, int, int]]
) -> None:
    outcomes = []
    for forgets in (False, True):
        tlb = {
            "unified": {"4K+2M+1G": {"entries": 10, "ways": 5}},
            "second": {"4K+2M+1G": {"entries": 24, "ways": 4}},
        }
        machine = BootedMachine(pcid=pcid, pti=pti, tlb=tlb)
        bases = [(mm, machine.map(mm, 10)) for mm in (machine.spawn(), machine.spawn(), machine.spawn())]
        for what, which, number in steps:
            mm, base = bases[which]
            if forgets:
                np.asarray(machine.state.entry_page)["key"] = 0
            if what == "touch":
                machine.write(mm, base + (number << PAGE_SHIFT), number)
            elif what == "system call":
                run_in_user_mode(machine.state, mm)
                system_call(machine.state, 1)
            else:
                invpcid(machine.state, Invpcid.ALL, 0, 0)
        keys = np.asarray(machine.state.tlb)["key"].tolist()
        outcomes.append((keys, np.asarray(machine.state.hw_event).tolist(), machine.state.cpu[0].clock_ps))
    assert outcomes[0] == outcomes[1]
