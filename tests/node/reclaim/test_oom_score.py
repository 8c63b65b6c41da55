"""Badness and its score against what they are made of, and the sysctls of the OOM killer."""

import hypothesis.strategies as st
import pytest
from hypothesis import given, settings

from node.counters import Current, Knob, Panic, VmEvent
from node.joints import direct_reclaim
from node.reclaim.oom import oom_score
from node.spec import MachineSpec
from node.state import State
from node.vm.mmap import munmap
from shared.gfp_flags import GFP_HIGHUSER_MOVABLE
from shared.panic import KernelPanic
from tests.models.swapped_machine import SwappedMachine
from tests.node.reclaim.test_oom import NO_SWAP

pytestmark = pytest.mark.three_ways

BEFORE_SYNC = 66  # the fault that brings the counters up to date


def counted_by_kernel(nr_faults: int) -> int:
    """Return how many of the pages that so many faults brought are in the counters."""
    return nr_faults // BEFORE_SYNC * BEFORE_SYNC - 1 if nr_faults >= BEFORE_SYNC else 0


def badness(state: State, nr_faults: int, nr_tables: int, adjustment: int) -> int | None:
    """Return a process's points, or None: it may not end."""
    if adjustment == -1000:
        return None
    return counted_by_kernel(nr_faults) + nr_tables + adjustment * (nr_all(state) // 1000)


def nr_all(state: State) -> int:
    return sum(int(state.zone[index].managed) for index in range(len(state.zone)))


@settings(max_examples=15, deadline=None)
@given(
    processes=st.lists(
        st.tuples(st.integers(0, 150), st.sampled_from([-1000, -999, -1, 0, 0, 1, 3, 700, 1000])),
        min_size=1,
        max_size=5,
    ),
    asking=st.integers(0, 4),
)
def test_the_worst_ends_and_of_equals_the_youngest(processes: list[tuple[int, int]], asking: int) -> None:
    machine = SwappedMachine(NO_SWAP)
    state = machine.state
    mms = []
    for nr_pages, adjustment in processes:
        mm = machine.process(200)
        for page in range(nr_pages):
            machine.write(mm, page)
        state.mm[mm].oom_score_adj = adjustment
        mms.append(mm)
    points = [
        badness(state, nr_pages, int(state.mm[mm].nr_page_tables), adjustment)
        for mm, (nr_pages, adjustment) in zip(mms, processes, strict=True)
    ]
    for mm, own in zip(mms, points, strict=True):
        share = 0 if own is None else int(own * 1000 / nr_all(state))
        assert oom_score(state, mm) == (0 if own is None else (1000 + share) * 2 // 3)
    worst = max(
        (own, index) for index, own in enumerate([-(1 << 60) if own is None else own for own in points])
    )
    asking %= len(mms)
    state.current[Current.MM] = mms[asking]
    came = direct_reclaim(state, 0, GFP_HIGHUSER_MOVABLE)
    if points[worst[1]] is None:
        assert (came, machine.event(VmEvent.OOM_KILL)) == (0, 0)
        return
    victim = mms[worst[1]]
    assert machine.event(VmEvent.OOM_KILL) == 1
    assert bool(state.mm[victim].alive) == (victim == mms[asking])
    assert state.mm[victim].oom_victim
    assert all(state.mm[mm].alive and not state.mm[mm].oom_victim for mm in mms if mm != victim)


def test_the_task_that_asks_ends_if_the_sysctl_says_so() -> None:
    machine = SwappedMachine(NO_SWAP)
    state = machine.state
    large, asking = machine.process(50), machine.process(50)
    for page in range(40):
        machine.write(large, page)
    machine.write(asking, 0)
    state.knob[Knob.OOM_KILL_ALLOCATING_TASK] = 1
    state.mm[asking].oom_score_adj = -1000
    assert direct_reclaim(state, 0, GFP_HIGHUSER_MOVABLE) == 1  # which may not end
    assert not state.mm[large].alive
    state.mm[asking].oom_score_adj = -999
    assert direct_reclaim(state, 0, GFP_HIGHUSER_MOVABLE) == 0
    assert state.mm[asking].oom_victim


def test_a_machine_that_panics_on_oom_ends_nobody() -> None:
    machine = SwappedMachine(NO_SWAP)
    mm = machine.process(50)
    machine.write(mm, 0)
    machine.state.knob[Knob.PANIC_ON_OOM] = 1
    with pytest.raises(KernelPanic) as caught:
        direct_reclaim(machine.state, 0, GFP_HIGHUSER_MOVABLE)
    assert caught.value.code == Panic.OUT_OF_MEMORY
    assert machine.event(VmEvent.OOM_KILL) == 0


def test_a_spec_sets_the_sysctls() -> None:
    assert (MachineSpec(1 << 26).oom_kill_allocating_task, MachineSpec(1 << 26).panic_on_oom) == (0, 0)


def test_an_unmapping_brings_the_counters_up_to_date() -> None:
    machine = SwappedMachine(NO_SWAP)
    state = machine.state
    mm, other = machine.process(100), machine.process(100)
    for page in range(30):
        machine.write(other, page)
        machine.write(mm, page)
    assert (state.mm[mm].late_rss, state.mm[other].late_rss) == (30, 30)
    munmap(state, mm, machine.base[mm], machine.base[mm] + 4096)
    assert (state.mm[mm].late_rss, state.mm[mm].nr_anon) == (0, 29)
    assert state.mm[other].late_rss == 30
