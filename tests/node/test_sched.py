"""The machine's loop: which CPU runs when, turns, owed stall, and when it is over."""

import numpy as np
import pytest

from node.build import build_state
from node.counters import Current, Knob, VmEvent, VmStat
from node.hw.cost import Cost
from node.hw.pte import Pte
from node.sched import run_until
from node.spec import MachineSpec, WorkSpec
from node.state import State
from node.vm.mm_init import new_mm
from node.vm.mmap import mmap
from node.vm.vma import VmFlag
from node.work import WorkKind
from shared.constants import MIB, PAGE_SHIFT
from tests.node.hw.small_machine import USER_RW, SmallMachine

pytestmark = pytest.mark.three_ways

VADDR = 0x10_0000_0000
END_PS = 50_000_000
QUANTUM_PS = 100_000
SLICE_PS = 4_000_000
NR_PAGES = 4


def machine_with_works(cpus: tuple[int, ...], operations: int = 0, nr_cpus: int = 2) -> SmallMachine:
    """Return a machine with one workload and process for each CPU number given."""
    machine = SmallMachine(nr_cpus=nr_cpus, nr_mms=len(cpus), nr_works=len(cpus))
    machine.state.knob[Knob.QUANTUM_PS] = QUANTUM_PS
    machine.state.knob[Knob.TIME_SLICE_PS] = SLICE_PS
    for index, cpu in enumerate(cpus):
        mm = index + 1
        for page in range(NR_PAGES):
            # Accessed and dirty: after the first round every operation costs the same.
            machine.map(
                mm,
                VADDR + (page << PAGE_SHIFT),
                1 + index * NR_PAGES + page,
                USER_RW | Pte.ACCESSED | Pte.DIRTY,
            )
        work = machine.state.work[index]
        values = {"kind": WorkKind.SEQUENTIAL, "vaddr": VADDR, "nr_pages": NR_PAGES, "mm": mm, "cpu": cpu}
        for name, value in (values | {"operations": operations, "seed": index}).items():
            setattr(work, name, value)
    return machine


def clocks(machine: SmallMachine) -> list[int]:
    return [int(clock) for clock in np.asarray(machine.state.cpu)["clock_ps"]]


def counters(machine: SmallMachine) -> list[int]:
    return [int(counter) for counter in np.asarray(machine.state.work)["counter"]]


def test_every_clock_reaches_the_end_and_no_further_than_one_operation() -> None:
    machine = machine_with_works((0, 1, 1))
    assert run_until(machine.state, END_PS) == 0
    longest = machine.state.cost[Cost.CONTEXT_SWITCH] + 100 * machine.state.cost[Cost.WALK_REFERENCE]
    assert all(END_PS <= clock < END_PS + longest for clock in clocks(machine))


def test_equal_workloads_on_two_cpus_do_equal_work() -> None:
    machine = machine_with_works((0, 1))
    run_until(machine.state, END_PS)
    done = counters(machine)
    assert done[0] == done[1] > 1000


def test_processes_of_one_cpu_take_turns_of_a_time_slice() -> None:
    machine = machine_with_works((0, 0, 0), nr_cpus=1)
    turn_ps = int(machine.state.cost[Cost.CONTEXT_SWITCH]) + SLICE_PS
    turns = []
    for number in range(5):
        run_until(machine.state, number * turn_ps + turn_ps // 2)
        turns.append(machine.state.cpu[0].turn - 1)
    assert turns == [0, 1, 2, 0, 1]
    run_until(machine.state, 12 * turn_ps)
    done = counters(machine)
    assert max(done) - min(done) < max(done) / 4


def test_a_lone_process_keeps_its_cpu_without_switching() -> None:
    machine = machine_with_works((0,), nr_cpus=1)
    run_until(machine.state, END_PS)
    switch_ps = machine.state.cost[Cost.CONTEXT_SWITCH] + machine.state.cost[Cost.CR3_WRITE]
    each_ps = machine.state.cost[Cost.TLB_L1_HIT] + machine.state.cost[Cost.MEMORY_ACCESS]
    walks_ps = NR_PAGES * 4 * machine.state.cost[Cost.WALK_REFERENCE]
    assert counters(machine)[0] == pytest.approx((END_PS - switch_ps - walks_ps) / each_ps, abs=5)


def test_the_result_does_not_depend_on_what_ran_before_in_this_process() -> None:
    first, second = (machine_with_works((0, 1, 0)) for _ in range(2))
    run_until(first.state, END_PS)
    run_until(second.state, END_PS)
    for (name, left), (_, right) in zip(first.state.tables(), second.state.tables(), strict=True):
        assert left.tobytes() == right.tobytes(), name


def test_work_that_ends_is_reported_and_its_cpu_idles() -> None:
    machine = machine_with_works((0, 1), operations=100)
    assert run_until(machine.state, END_PS) == 1
    assert counters(machine) == [100, 100]
    assert clocks(machine) == [END_PS, END_PS]
    assert machine.state.current[Current.MM] == 0


def test_a_machine_without_work_has_finished() -> None:
    machine = SmallMachine(nr_cpus=2)
    assert run_until(machine.state, END_PS) == 1
    assert clocks(machine) == [END_PS, END_PS]


def test_a_cpu_that_owes_stall_does_nothing_until_it_is_served() -> None:
    machine = machine_with_works((0, 1))
    machine.state.cpu[0].owed_ps = END_PS + END_PS // 2
    run_until(machine.state, END_PS)
    assert counters(machine)[0] == 0
    assert machine.state.cpu[0].owed_ps == END_PS // 2
    run_until(machine.state, 2 * END_PS)
    done = counters(machine)
    assert 3 * done[0] < done[1] < 5 * done[0]
    assert machine.state.cpu[0].stall_ps == END_PS + END_PS // 2


def test_the_work_of_a_process_that_was_killed_is_over() -> None:
    machine = machine_with_works((0,), nr_cpus=1)
    machine.state.mm[1].alive = 0
    assert run_until(machine.state, END_PS) == 1
    assert counters(machine) == [0]


# --- with a kernel that serves faults -------------------------------------------------------------------

AREA_PAGES = 50


def faulting_machine(*nr_pages: int, quantum_ps: int = QUANTUM_PS) -> State:
    """Return a machine whose CPUs run threads of one process in an area of AREA_PAGES."""
    state = build_state(MachineSpec(memory_bytes=64 * MIB, cpus=2, works=(WorkSpec(),) * len(nr_pages)))
    mm = new_mm(state)
    start = mmap(state, mm, AREA_PAGES << PAGE_SHIFT, VmFlag.READ | VmFlag.WRITE)
    state.knob[Knob.QUANTUM_PS] = quantum_ps
    for index, pages in enumerate(nr_pages):
        work = state.work[index]
        values = {"kind": WorkKind.SEQUENTIAL, "vaddr": start, "nr_pages": pages, "mm": mm}
        for name, value in (
            values | {"write_percent": 100, "operations": 3 * AREA_PAGES, "cpu": index}
        ).items():
            setattr(work, name, value)
    return state


def test_first_touches_fault_the_memory_in() -> None:
    state = faulting_machine(AREA_PAGES)
    assert run_until(state, 100 * END_PS) == 1
    assert state.work[0].counter == 3 * AREA_PAGES
    assert state.mm[state.work[0].mm].nr_anon == AREA_PAGES
    assert state.vm_event[VmEvent.PGFAULT] == AREA_PAGES


def test_an_access_outside_every_area_ends_the_process_and_frees_its_memory() -> None:
    state = faulting_machine(AREA_PAGES + 1)
    assert run_until(state, 100 * END_PS) == 1
    assert state.work[0].kind == WorkKind.ENDED
    assert state.work[0].counter == AREA_PAGES
    assert state.vm_stat[VmStat.NR_ANON_PAGES] == 0
    assert state.vm_stat[VmStat.NR_PAGE_TABLE_PAGES] == 0


@pytest.mark.parametrize(("quantum_ps", "low", "high"), [(1000, 25, 100), (100 * END_PS, 0, 0)])
def test_the_quantum_bounds_how_far_one_cpu_runs_ahead_of_another(
    quantum_ps: int, low: int, high: int
) -> None:
    # The first thread leaves its area after 50 operations, which ends the process: how far was the second?
    state = faulting_machine(AREA_PAGES + 1, AREA_PAGES, quantum_ps=quantum_ps)
    run_until(state, 100 * END_PS)
    assert state.work[0].counter == AREA_PAGES
    assert low <= state.work[1].counter <= high
