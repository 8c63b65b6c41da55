"""The MMU: rights, accessed and dirty bits, what each access costs, and the guest's second translation."""

import pytest

from node.counters import Current, HwEvent, Request
from node.hw.cost import Cost
from node.hw.page_table import NR_LEVELS
from node.hw.pte import TABLE_BITS, Pte
from shared.constants import NIL, PAGE_SHIFT
from shared.views import View
from tests.node.hw.entries import do_access, do_load_mm, do_touch
from tests.node.hw.small_machine import USER_RO, USER_RW, SmallMachine

pytestmark = pytest.mark.three_ways

VADDR = 0x7FFF_1234_5000
SERVED = (HwEvent.TLB_L1_HIT, HwEvent.TLB_L2_HIT, HwEvent.TLB_WALK)


@pytest.mark.parametrize(
    ("bits", "reads", "writes"),
    [
        (USER_RW, True, True),
        (USER_RO, True, False),
        (Pte.PRESENT | Pte.WRITE, False, False),
        (Pte.WRITE | Pte.USER, False, False),
        (0, False, False),
    ],
)
def test_the_leaf_decides_what_is_allowed(bits: int, reads: bool, writes: bool) -> None:
    for write, allowed in ((0, reads), (1, writes)):
        machine = SmallMachine()
        machine.map(1, VADDR, 7, bits)
        assert do_access(machine.state, 1, VADDR, write) == (7 if allowed else NIL)


@pytest.mark.parametrize(("missing", "reads"), [(Pte.WRITE, True), (Pte.USER, False), (Pte.PRESENT, False)])
@pytest.mark.parametrize("level", range(NR_LEVELS - 1))
def test_every_level_must_allow_an_access(level: int, missing: int, reads: bool) -> None:
    machine = SmallMachine(nr_mms=1)
    machine.map(1, VADDR, 7)
    table = machine.state.mm[1].pgd_pfn - level  # tables were taken from the top down
    for position in range(table * 512, table * 512 + 512):
        if machine.state.pt_word[position]:
            machine.state.pt_word[position] &= ~missing
    assert do_access(machine.state, 1, VADDR, 1) == NIL
    assert do_access(machine.state, 1, VADDR, 0) == (7 if reads else NIL)


def test_an_unmapped_region_has_no_tables_to_walk() -> None:
    machine = SmallMachine()
    assert do_access(machine.state, 1, VADDR, 0) == NIL
    assert machine.events(*SERVED) == [0, 0, 1]


def test_a_walk_sets_accessed_at_every_level_and_a_write_dirty_at_the_leaf() -> None:
    machine = SmallMachine()
    machine.position(1, VADDR, upper_bits=TABLE_BITS & ~Pte.ACCESSED)
    machine.map(1, VADDR, 7)
    do_access(machine.state, 1, VADDR, 0)
    words = [word for word in machine.state.pt_word[:].tolist() if word]
    assert [word & (Pte.ACCESSED | Pte.DIRTY) for word in words] == [Pte.ACCESSED] * NR_LEVELS
    do_access(machine.state, 1, VADDR, 1)
    assert machine.pte(1, VADDR) & Pte.DIRTY


def test_a_fault_sets_no_bit_in_the_leaf() -> None:
    machine = SmallMachine()
    machine.map(1, VADDR, 7, USER_RO)
    do_access(machine.state, 1, VADDR, 1)
    assert machine.pte(1, VADDR) & (Pte.ACCESSED | Pte.DIRTY) == 0


def test_the_first_write_after_reads_walks_once_to_set_dirty() -> None:
    machine = SmallMachine()
    machine.map(1, VADDR, 7)
    for write in (0, 0, 1, 1, 1):
        do_access(machine.state, 1, VADDR, write)
    assert machine.events(*SERVED) == [3, 0, 2]


def test_a_clear_accessed_bit_stays_clear_while_the_tlb_serves() -> None:
    machine = SmallMachine()
    machine.map(1, VADDR, 7)
    do_access(machine.state, 1, VADDR, 0)
    machine.map(1, VADDR, 7)  # clears A, and nobody flushes, as on x86
    do_access(machine.state, 1, VADDR, 0)
    assert not machine.pte(1, VADDR) & Pte.ACCESSED


def test_rights_that_grow_need_no_flush() -> None:
    machine = SmallMachine()
    machine.map(1, VADDR, 7, USER_RO)
    do_access(machine.state, 1, VADDR, 0)
    assert do_access(machine.state, 1, VADDR, 1) == NIL
    machine.map(1, VADDR, 7, USER_RW)
    assert do_access(machine.state, 1, VADDR, 1) == 7


def test_bit_63_of_an_entry_is_no_part_of_its_frame_number() -> None:
    machine = SmallMachine()
    machine.map(1, VADDR, 7, USER_RW - (1 << 63))
    assert do_access(machine.state, 1, VADDR, 1) == 7


def test_each_access_costs_what_served_it() -> None:
    machine = SmallMachine(tlb=(1, 1, 1, 4))
    for vpn in (1, 2):
        machine.map(1, vpn << PAGE_SHIFT, vpn)
    cost = machine.state.cost
    spent = []
    for vpn in (1, 1, 2, 1):
        before = machine.state.current[Current.CLOCK_PS]
        do_access(machine.state, 1, vpn << PAGE_SHIFT, 0)
        spent.append(machine.state.current[Current.CLOCK_PS] - before)
    walk = NR_LEVELS * cost[Cost.WALK_REFERENCE]
    assert spent == [walk, cost[Cost.TLB_L1_HIT], walk, cost[Cost.TLB_L2_HIT]]
    assert machine.events(HwEvent.WALK_REFERENCES) == [2 * NR_LEVELS]


def test_loading_the_address_space_that_is_loaded_costs_nothing() -> None:
    machine = SmallMachine()
    for mm in (1, 1, 2):
        do_load_mm(machine.state, mm)
    assert machine.state.current[Current.CLOCK_PS] == 2 * machine.state.cost[Cost.CONTEXT_SWITCH]
    assert (machine.state.cpu[0].mm, machine.state.cpu[0].pcid) == (2, 2)


def test_a_touch_outside_every_area_ends_with_the_kernels_refusal() -> None:
    machine = SmallMachine()
    assert do_touch(machine.state, 1, VADDR, 0) == NIL
    assert machine.state.request[Request.R0] != 0
    assert machine.events(HwEvent.MEMORY_ACCESS) == [0]


def test_a_touch_of_a_mapped_page_is_one_memory_access() -> None:
    machine = SmallMachine()
    machine.map(1, VADDR, 7)
    assert do_touch(machine.state, 1, VADDR, 1) == 7
    assert machine.events(HwEvent.MEMORY_ACCESS, HwEvent.TLB_WALK) == [1, 1]
    cost = machine.state.cost
    expected = NR_LEVELS * cost[Cost.WALK_REFERENCE] + cost[Cost.MEMORY_ACCESS]
    assert machine.state.current[Current.CLOCK_PS] == expected


# --- on a guest -----------------------------------------------------------------------------------------


def guest_with_page(view: View) -> SmallMachine:
    machine = SmallMachine(guest=True)
    machine.map(1, VADDR, 7)
    machine.state.ept_view[7] = view
    return machine


def test_a_read_of_an_untouched_gfn_raises_its_view_to_read_only() -> None:
    machine = guest_with_page(View.UNTOUCHED)
    assert do_access(machine.state, 1, VADDR, 0) == 7
    assert machine.state.ept_view[7] == View.READ_ONLY
    assert machine.events(HwEvent.EPT_VIOLATION) == [1]


def test_a_write_through_a_read_only_view_walks_and_violates_once() -> None:
    machine = guest_with_page(View.READ_ONLY)
    for write in (0, 1, 1):
        assert do_access(machine.state, 1, VADDR, write) == 7
    assert machine.state.ept_view[7] == View.WRITABLE
    assert machine.events(*SERVED, HwEvent.EPT_VIOLATION) == [1, 0, 2, 1]


def test_a_dirty_entry_without_ept_right_still_asks_the_host() -> None:
    machine = guest_with_page(View.READ_ONLY)
    machine.map(1, VADDR, 7, USER_RW | Pte.DIRTY)
    do_access(machine.state, 1, VADDR, 0)
    do_access(machine.state, 1, VADDR, 1)
    assert machine.events(HwEvent.EPT_VIOLATION) == [1]


def test_the_tables_of_a_walk_are_written_as_the_host_sees_it() -> None:
    machine = guest_with_page(View.WRITABLE)
    tables = range(machine.next_table + 1, machine.next_table + 1 + NR_LEVELS + 1)
    for table in tables:
        machine.state.ept_view[table] = View.READ_ONLY
    do_access(machine.state, 1, VADDR, 0)
    raised = [table for table in tables if machine.state.ept_view[table] == View.WRITABLE]
    assert len(raised) == NR_LEVELS


def test_a_guests_own_page_fault_comes_before_the_hosts() -> None:
    machine = guest_with_page(View.UNTOUCHED)
    machine.map(1, VADDR, 7, USER_RO)
    assert do_access(machine.state, 1, VADDR, 1) == NIL
    assert machine.state.ept_view[7] == View.UNTOUCHED
