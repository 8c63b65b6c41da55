"""Programs that use their stack and start other programs."""

import pytest

from node.invariants import check
from node.machine import Machine, MachineSpec
from node.program.text import ProgramError
from shared.constants import MIB

pytestmark = pytest.mark.three_ways


def machine() -> Machine:
    return Machine(MachineSpec(memory_bytes=80 * MIB))


def seen(box: Machine, text: str) -> list[dict[str, int]]:
    """Return what the snapshots of a program saw, without the one at boot."""
    return [values for name, values in box.run_program(text).snapshots if name != "boot"]


def test_a_stack_grows_page_by_page_below_what_was_touched_before() -> None:
    box = machine()
    before, after = seen(box, "spawn A\nA: stack 4K\nsnapshot a\nA: stack 356K\nsnapshot b\n")
    faults = "vmstat.pgfault"
    assert after[faults] - before[faults] == 65  # the first 24 of the 89 pages were there
    assert box.state.mm[1].stack_vm == 24 + 65
    check(box.state)


def test_a_stack_ends_at_its_limit() -> None:
    box = machine()
    with pytest.raises(ProgramError, match="A was killed"):
        box.run_program("spawn A\nA: stack 8M+4K\n")
    check(box.state)


def test_a_program_that_is_started_by_vfork_copies_nothing() -> None:
    box = machine()
    before, after = seen(
        box, "spawn A\nA: mmap h 64P\nA: write h\nsnapshot a\nA: vfork_exec\nA: write h\nsnapshot b\n"
    )
    for counter in ("vmstat.nr_anon_pages", "vmstat.nr_page_table_pages"):
        assert after[counter] == before[counter]
    assert after["proc.A.minflt"] == before["proc.A.minflt"]
    assert (
        after["vmstat.pgfault"] - before["vmstat.pgfault"] == 3
    )  # arguments, data, text: none of the parent's
    check(box.state)
