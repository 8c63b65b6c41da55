"""Out of memory: who ends, who does not, and what comes back."""

from dataclasses import replace

import pytest

from node.counters import Current, Knob, VmEvent, VmStat
from node.joints import direct_reclaim
from node.spec import GuestRam
from shared.constants import MIB
from shared.gfp_flags import GFP_HIGHUSER_MOVABLE
from tests.models.swapped_machine import SPEC, SwappedMachine

pytestmark = pytest.mark.three_ways

NO_SWAP = replace(SPEC, swap=None)


def fill_until_refused(machine: SwappedMachine, mm: int, nr_pages: int) -> int:
    """Write page after page; return how many the kernel granted."""
    return next((page for page in range(nr_pages) if not machine.write(mm, page)), nr_pages)


def test_without_swap_the_largest_process_ends_for_another_ones_request() -> None:
    machine = SwappedMachine(NO_SWAP)
    state = machine.state
    large, small = machine.process(4000), machine.process(4000)
    for page in range(machine.nr_usable() * 2 // 3):
        assert machine.write(large, page)
    held = int(state.mm[large].nr_anon)
    page = 0
    while machine.event(VmEvent.OOM_KILL) == 0:
        assert machine.write(small, page)
        page += 1
    assert not state.mm[large].alive
    assert state.mm[small].alive
    machine.held = {key: content for key, content in machine.held.items() if key[0] == small}
    machine.check()
    assert state.vm_stat[VmStat.NR_ANON_PAGES] == page < held


def test_the_task_that_asks_is_not_torn_down_under_its_own_fault() -> None:
    machine = SwappedMachine(NO_SWAP)
    state = machine.state
    mm = machine.process(8000)
    granted = fill_until_refused(machine, mm, 8000)
    assert machine.nr_usable() < 0 < granted < 8000
    assert machine.event(VmEvent.OOM_KILL) == 1
    assert state.mm[mm].alive
    assert state.mm[mm].oom_victim
    assert not machine.write(mm, granted)  # still refused, and nobody else is chosen
    assert machine.event(VmEvent.OOM_KILL) == 1
    machine.check()


def test_a_full_swap_area_ends_a_process_too() -> None:
    machine = SwappedMachine(swap_pages=201)
    mm = machine.process(8000)
    granted = fill_until_refused(machine, mm, 8000)
    assert machine.event(VmEvent.OOM_KILL) == 1
    assert machine.state.vm_stat[VmStat.NR_SWAP_USED] == 200
    assert granted > 200
    machine.check()


def test_badness_counts_swapped_pages_and_the_adjustment_decides() -> None:
    machine = SwappedMachine()
    state = machine.state
    first, second, asking = machine.process(50), machine.process(50), machine.process(10)
    for page in range(40):
        machine.write(first, page)
        machine.write(second, page)
    machine.write(asking, 0)
    machine.swap_everything_out()
    state.swap_area[0].nr_used = state.swap_area[0].nr_slots - 1  # nothing can be swapped out any more
    state.mm[second].oom_score_adj = -1000
    state.current[Current.MM] = asking
    assert direct_reclaim(state, 0, GFP_HIGHUSER_MOVABLE) == 1
    assert [bool(state.mm[mm].alive) for mm in (first, second, asking)] == [False, True, True]
    state.mm[asking].oom_score_adj = 500
    assert direct_reclaim(state, 0, GFP_HIGHUSER_MOVABLE) == 0
    assert state.mm[asking].oom_victim


def test_of_equals_the_younger_process_ends() -> None:
    machine = SwappedMachine(NO_SWAP)
    state = machine.state
    processes = [machine.process(80) for _ in range(3)]
    for mm in processes[:2]:
        for page in range(70):  # enough faults to bring the counters up to date
            machine.write(mm, page)
    machine.write(processes[2], 0)
    assert direct_reclaim(state, 0, GFP_HIGHUSER_MOVABLE) == 1
    assert [bool(state.mm[mm].alive) for mm in processes] == [True, False, True]


def test_a_kernel_thread_ends_nobody() -> None:
    machine = SwappedMachine(NO_SWAP)
    mm = machine.process(50)
    machine.write(mm, 0)
    machine.state.current[Current.MM] = 0
    assert direct_reclaim(machine.state, 0, GFP_HIGHUSER_MOVABLE) == 0
    assert machine.event(VmEvent.OOM_KILL) == 0
    assert machine.state.mm[mm].alive


def test_the_end_of_a_guests_process_is_noted_for_the_guest() -> None:
    machine = SwappedMachine(replace(NO_SWAP, guests=(GuestRam(MIB), GuestRam(MIB))))
    state = machine.state
    state.knob[Knob.IS_HOST] = 0  # the pages themselves are nobody's RAM
    mm = machine.process(50)
    machine.write(mm, 0)
    state.mm[mm].guest = 1
    state.knob[Knob.IS_HOST] = 1
    assert direct_reclaim(state, 0, GFP_HIGHUSER_MOVABLE) == 0
    assert [guest["killed"] for guest in state.guest[:]] == [0, 1]
