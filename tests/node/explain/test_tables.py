"""What is shown of the page tables, against the machine's own accesses on random tables and registers."""

import numpy as np
import pytest

from node.counters import HwEvent
from node.explain.faults import describe_fault
from node.explain.tables import Place, page_of, read_levels
from node.hw.paging import AccessKind
from shared.constants import PAGE_SIZE
from tests.models.paging import GP, Access, Fault, Registers
from tests.node.hw.random_tables import Shape, random_cases
from tests.node.hw.walk_entries import How
from tests.node.hw.walking_machine import WalkingMachine, signed

pytestmark = pytest.mark.three_ways

NR_ACCESSES = 4096
PHYSICAL_BITS = {Shape.BITS_32: 36, Shape.LEVEL_4: 46, Shape.LEVEL_5: 52}
RSVD = 1 << 3


def check_access(machine: WalkingMachine, registers: Registers, vaddr: int, access: Access) -> str:
    """Compare what is shown before an access that finds nothing cached with the access; return how it ended."""
    place = Place(machine.state, 0, signed(vaddr))
    levels = read_levels(place)
    shown = page_of(place, levels)
    references_before = machine.events(HwEvent.WALK_REFERENCES)[0]
    [outcome] = machine.access_all([(vaddr, access)], How.DROP_CACHED)
    references = machine.events(HwEvent.WALK_REFERENCES)[0] - references_before
    if not isinstance(outcome, Fault):
        assert shown is not None
        assert int(shown["physical_address"], 16) == outcome + vaddr % PAGE_SIZE
        assert references == len(levels)
        return "page"
    if outcome.vector == GP:
        assert references == 0
        return "#GP"
    assert references == len(levels)
    fault = describe_fault(place, AccessKind(access.value), levels)
    end = levels[-1]["leads_to"]
    assert fault["error_code"] == hex(outcome.error_code)
    assert (end in ("reserved bits", "no memory")) == bool(outcome.error_code & RSVD)
    assert (end in ("table", "page", "reserved bits", "no memory")) == bool(outcome.error_code & 1)
    assert fault["because"].endswith("user mode" if registers.is_user else "kernel mode")
    if end != "page":
        return "absent or reserved"
    return "key" if "key" in fault["because"] else rule_of(fault["because"], levels)


def rule_of(because: str, levels: list[dict[str, object]]) -> str:
    """Return which bit a sentence blames; the levels that it names must have it so."""
    for bit in ("U/S is 0", "XD is 1", "R/W is 0"):
        if bit in because:
            name, _, value = bit.partition(" is ")
            blamed = because.partition(f"{bit} in ")[2].partition(")")[0].split(" and ")
            bits = {str(level["level"]): level["bits"] for level in levels}
            assert blamed == [level for level, those in bits.items() if those[name] == int(value)]  # type: ignore[index]
            return bit
    return "SMEP" if "SMEP" in because else "SMAP"


@pytest.mark.parametrize("shape", list(Shape))
def test_tables_are_shown_as_the_walk_reads_them(shape: Shape) -> None:
    bits = PHYSICAL_BITS[shape]
    machine = WalkingMachine(shape, bits)
    ends: set[str] = set()
    for case in random_cases(f"shown-{shape.name}", shape, bits, nr_accesses=NR_ACCESSES):
        machine.start(case)
        for one in case.rounds:
            machine.load(one.registers, keep=False)
            for vaddr, access in one.accesses:
                ends.add(check_access(machine, one.registers, vaddr, access))
    wanted = {"page", "absent or reserved", "U/S is 0", "R/W is 0", "SMAP"}
    if shape is not Shape.BITS_32:
        wanted |= {"#GP", "XD is 1", "key"}
    assert wanted <= ends


def test_looking_changes_nothing() -> None:
    machine = WalkingMachine(Shape.LEVEL_4, 46)
    [case] = random_cases("look", Shape.LEVEL_4, 46, nr_accesses=1)
    machine.start(case)
    machine.load(case.rounds[0].registers, keep=False)
    words, events = machine.words.copy(), np.array(machine.state.hw_event)
    for vaddr, _ in case.rounds[0].accesses:
        place = Place(machine.state, 0, signed(vaddr))
        page_of(place, read_levels(place))
    assert np.array_equal(words, machine.words)
    assert np.array_equal(events, machine.state.hw_event)
