"""Frames of a recorded machine's kernel: stacks, pipes, slabs."""

import numpy as np
import pytest

from node.counters import VmEvent
from node.golden_kernel import KernelFrames, slab_growth
from node.invariants import check
from tests.node.vm_machine import VmMachine

pytestmark = pytest.mark.three_ways

GROWTH = {"grown": 5, "shrunk": -3, "gone": -7}


def frames(machine: VmMachine, growth: dict[str, int] | None = None) -> KernelFrames:
    return KernelFrames(machine.state, growth or {}, nr_stack=4, nr_pipe=2)


def allocated(machine: VmMachine) -> int:
    return int(machine.state.vm_event[VmEvent.PGALLOC_DMA] + machine.state.vm_event[VmEvent.PGALLOC_DMA32])


def test_two_stacks_are_kept_for_the_next_processes() -> None:
    machine = VmMachine()
    kernel = frames(machine)
    counts = [allocated(machine)]
    for step, mm in (
        ("fork", 2),
        ("fork", 3),
        ("fork", 4),
        ("exit", 2),
        ("exit", 3),
        ("exit", 4),
        ("fork", 5),
    ):
        before = machine.nr_free()
        kernel.forked(mm) if step == "fork" else kernel.exited(mm)
        counts.append(allocated(machine))
        freed = 4 if (step, mm) == ("exit", 4) else 0
        assert machine.nr_free() - before == freed - (counts[-1] - counts[-2])
    assert np.diff(counts).tolist() == [6, 6, 6, 0, 0, 0, 2]
    check(machine.state)


def test_slabs_are_what_the_recording_says_between_two_snapshots() -> None:
    machine = VmMachine()
    kernel = frames(machine, GROWTH)
    start = machine.nr_free()
    taken = []
    for name in ("unknown", "grown", "shrunk", "gone"):
        kernel.before_snapshot(name)
        taken.append(start - machine.nr_free())
    assert taken == [0, 5, 2, 0]
    check(machine.state)


def test_what_a_spawn_took_is_not_taken_again() -> None:
    machine = VmMachine()
    kernel = frames(machine, GROWTH)
    start = machine.nr_free()
    kernel.spawned()
    kernel.before_snapshot("grown")
    assert machine.nr_free() == start
    kernel.before_snapshot("grown")
    assert start - machine.nr_free() == 5


def test_growth_is_both_kinds_of_slabs_and_the_median_of_what_varied() -> None:
    both = {"vmstat.nr_slab_unreclaimable": 4, "vmstat.nr_slab_reclaimable": [0, 2, 9]}
    golden = {"snapshots": [{"name": "boot"}, {"name": "a", "delta_from_previous": both}]}
    assert slab_growth(golden) == {"boot": 0, "a": 6}
    assert slab_growth({}) == {}
