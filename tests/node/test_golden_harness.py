"""What a recording's driver costs: the public cases' figures, or those that a recording brings."""

from dataclasses import replace

import pytest

from node.counters import VmEvent, VmStat
from node.golden_harness import FILE_FIGURES, GoldenHarness, HarnessFigures, Recorded, harness_figures
from node.machine import Machine
from node.spec import MachineSpec
from node.vm.fork import fork_mm
from shared.constants import MIB

FIGURES = HarnessFigures(
    controller_anon_pages=300,
    controller_lone_pages=4,
    spawn_anon_pages=36,
    spawn_lone_pages=2,
    spawn_faults=55,
    fork_parent_copies=3,
    fork_child_faults=18,
    fork_child_copies=0,
    fork_child_reuses=2,
    parent_reuses=0,
)


@pytest.mark.three_ways
def test_spawns_and_forks_cost_what_the_figures_say() -> None:
    state = Machine(MachineSpec(memory_bytes=64 * MIB)).state
    harness = GoldenHarness(state, Recorded(figures=FIGURES))
    pages = state.vm_stat[VmStat.NR_ANON_PAGES]
    assert pages == 300
    faults = state.vm_event[VmEvent.PGFAULT]
    parent = harness.spawn()
    assert state.vm_stat[VmStat.NR_ANON_PAGES] - pages == 36
    assert state.vm_event[VmEvent.PGFAULT] - faults == 55
    reuses = state.vm_event[VmEvent.PGREUSE]
    child = fork_mm(state, parent)
    harness.forked(parent, child)
    harness.before_command(parent)
    assert state.vm_stat[VmStat.NR_ANON_PAGES] - pages == 39
    assert state.vm_event[VmEvent.PGREUSE] - reuses == 2
    assert (state.mm[parent].minflt, state.mm[child].minflt) == (58, 18)


def test_a_recording_without_figures_has_the_public_cases() -> None:
    assert harness_figures({}) == HarnessFigures()


def test_a_recording_may_bring_some_of_its_own() -> None:
    without_files = replace(HarnessFigures(), **dict.fromkeys(FILE_FIGURES, 0))
    assert harness_figures({"harness": {"spawn_faults": 55}}) == replace(without_files, spawn_faults=55)
    assert harness_figures({"harness": {"image_pages": 7}}).image_pages == 7


@pytest.mark.parametrize("harness", [[1], {"spawn_faults": -1}, {"spawn_faults": "5"}, {"spawn_faulted": 5}])
def test_figures_that_are_no_counts_are_refused(harness: object) -> None:
    with pytest.raises(ValueError, match="is not an object of counts"):
        harness_figures({"harness": harness})
