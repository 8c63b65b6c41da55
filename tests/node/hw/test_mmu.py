"""The MMU: rights, faults, accessed and dirty bits, what each access costs, and the guest's second translation."""

from typing import Any

import pytest

from node.counters import HwEvent, Knob, Request
from node.hw.cost import Cost
from node.hw.memory_type import MemoryType, pat_of
from node.hw.paging import AccessKind, PageSize
from node.hw.pte import NX, PKEY_SHIFT, TABLE_BITS, Pte
from node.hw.registers import Cr0, Cr4, FaultCode, FaultVector
from node.hw.tlb import TlbArray
from shared.constants import NIL, PAGE_SHIFT
from shared.views import View
from tests.node.hw.entries import (
    do_access,
    do_access_here,
    do_invlpg,
    do_touch,
    do_write_cr0,
    do_write_cr4,
    do_write_pkru,
)
from tests.node.hw.small_machine import (
    DATA_HITS,
    FETCH_HITS,
    KERNEL_RW,
    NO_WALK_CACHES,
    USER_RO,
    USER_RW,
    SmallMachine,
)

pytestmark = pytest.mark.three_ways

VADDR = 0x7FFF_1234_5000
KERNEL = -(1 << 47)
NR_LEVELS = 4
READ, WRITE, EXECUTE = AccessKind.READ, AccessKind.WRITE, AccessKind.EXECUTE
ALL_CACHES = {name: {"entries": 4} for name in ("pd", "pdpt", "pml4")}


def spent(machine: SmallMachine, mm: int, vaddr: int, kind: int) -> int:
    """Return the picoseconds of one access of a process that runs already."""
    before = machine.now()
    do_access(machine.state, mm, vaddr, kind)
    return machine.now() - before


def fault(machine: SmallMachine, cpu: int = 0) -> tuple[int, int, int]:
    """Return vector, CR2 and error code of the last fault."""
    record = machine.state.cpu[cpu]
    return int(record.fault_vector), int(record.cr2), int(record.error_code)


# --- what is allowed ------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("bits", "reads", "writes", "executes"),
    [
        (USER_RW, True, True, True),
        (USER_RO, True, False, True),
        (USER_RW | NX, True, True, False),
        (Pte.PRESENT | Pte.WRITE, False, False, False),
        (Pte.WRITE | Pte.USER, False, False, False),
        (0, False, False, False),
    ],
)
def test_the_leaf_decides_what_is_allowed(bits: int, reads: bool, writes: bool, executes: bool) -> None:
    for kind, allowed in ((READ, reads), (WRITE, writes), (EXECUTE, executes)):
        machine = SmallMachine()
        machine.map(1, VADDR, 7, bits)
        assert do_access(machine.state, 1, VADDR, kind) == (7 if allowed else NIL)


@pytest.mark.parametrize(("missing", "reads"), [(Pte.WRITE, True), (Pte.USER, False), (Pte.PRESENT, False)])
@pytest.mark.parametrize("level", range(NR_LEVELS - 1))
def test_every_level_must_allow_an_access(level: int, missing: int, reads: bool) -> None:
    machine = SmallMachine(nr_mms=1)
    machine.map(1, VADDR, 7)
    table = machine.state.mm[1].pgd_pfn - level  # tables were taken from the top down
    for position in range(table * 512, table * 512 + 512):
        if machine.state.pt_word[position]:
            machine.state.pt_word[position] &= ~missing
    assert do_access(machine.state, 1, VADDR, WRITE) == NIL
    assert do_access(machine.state, 1, VADDR, READ) == (7 if reads else NIL)


def test_an_unmapped_region_has_no_tables_to_walk() -> None:
    machine = SmallMachine()
    assert do_access(machine.state, 1, VADDR, READ) == NIL
    assert machine.events(*DATA_HITS) == [0, 0, 1]


def test_a_walk_sets_accessed_at_every_level_and_a_write_dirty_at_the_leaf() -> None:
    machine = SmallMachine()
    machine.position(1, VADDR, upper_bits=TABLE_BITS & ~Pte.ACCESSED)
    machine.map(1, VADDR, 7)
    do_access(machine.state, 1, VADDR, READ)
    words = [word for word in machine.state.pt_word[:].tolist() if word]
    assert [word & (Pte.ACCESSED | Pte.DIRTY) for word in words] == [Pte.ACCESSED] * NR_LEVELS
    do_access(machine.state, 1, VADDR, WRITE)
    assert machine.pte(1, VADDR) & Pte.DIRTY


def test_a_fault_sets_no_bit_in_the_leaf() -> None:
    machine = SmallMachine()
    machine.map(1, VADDR, 7, USER_RO)
    do_access(machine.state, 1, VADDR, WRITE)
    assert machine.pte(1, VADDR) & (Pte.ACCESSED | Pte.DIRTY) == 0


def test_the_first_write_after_reads_walks_once_to_set_dirty() -> None:
    machine = SmallMachine()
    machine.map(1, VADDR, 7)
    for kind in (READ, READ, WRITE, WRITE, WRITE):
        do_access(machine.state, 1, VADDR, kind)
    assert machine.events(*DATA_HITS) == [3, 0, 2]


def test_a_clear_accessed_bit_stays_clear_while_the_tlb_serves() -> None:
    machine = SmallMachine()
    machine.map(1, VADDR, 7)
    do_access(machine.state, 1, VADDR, READ)
    machine.map(1, VADDR, 7)  # clears A, and nobody flushes, as on x86
    do_access(machine.state, 1, VADDR, READ)
    assert not machine.pte(1, VADDR) & Pte.ACCESSED


def test_rights_that_grow_need_no_flush() -> None:
    machine = SmallMachine()
    machine.map(1, VADDR, 7, USER_RO)
    do_access(machine.state, 1, VADDR, READ)
    assert do_access(machine.state, 1, VADDR, WRITE) == NIL
    machine.map(1, VADDR, 7, USER_RW)
    assert do_access(machine.state, 1, VADDR, WRITE) == 7


def test_a_fault_drops_what_the_tlbs_hold_for_its_address() -> None:
    machine = SmallMachine()
    machine.map(1, VADDR, 7, USER_RO)
    do_access(machine.state, 1, VADDR, READ)
    do_access(machine.state, 1, VADDR, WRITE)
    assert machine.cached() == set()


def test_bit_63_of_an_entry_is_no_part_of_its_frame_number() -> None:
    machine = SmallMachine()
    machine.map(1, VADDR, 7, USER_RW | NX)
    assert do_access(machine.state, 1, VADDR, WRITE) == 7


@pytest.mark.parametrize(
    ("control", "bits", "allowed"),
    [
        (Cr4.SMAP, USER_RW, {EXECUTE}),
        (Cr4.SMEP, USER_RW, {READ, WRITE}),
        (Cr4.SMAP | Cr4.SMEP, USER_RW, set()),
        (0, USER_RW, {READ, WRITE, EXECUTE}),
        (Cr4.SMAP | Cr4.SMEP, KERNEL_RW, {READ, WRITE, EXECUTE}),
        (0, Pte.PRESENT, {READ, EXECUTE}),
    ],
)
def test_the_kernel_is_kept_from_user_pages_by_smap_and_smep(
    control: int, bits: int, allowed: set[AccessKind]
) -> None:
    for kind in AccessKind:
        machine = SmallMachine()
        machine.map(0, KERNEL, 7, bits)
        cr4 = machine.state.cpu[0].cr4 & ~(Cr4.SMAP | Cr4.SMEP)
        assert do_write_cr4(machine.state, cr4 | control) == 0
        assert (do_access_here(machine.state, KERNEL, kind) == 7) == (kind in allowed)


def test_write_protection_binds_the_kernel_while_cr0_says_so() -> None:
    machine = SmallMachine()
    machine.map(0, KERNEL, 7, Pte.PRESENT)
    assert do_access_here(machine.state, KERNEL, WRITE) == NIL
    assert do_write_cr0(machine.state, machine.state.cpu[0].cr0 & ~Cr0.WP) == 0
    assert do_access_here(machine.state, KERNEL, WRITE) == 7


def test_what_the_kernel_put_into_the_tlb_is_still_forbidden_to_users() -> None:
    machine = SmallMachine()
    machine.map(0, KERNEL, 7, KERNEL_RW | Pte.GLOBAL)
    assert do_access_here(machine.state, KERNEL, READ) == 7
    assert do_access(machine.state, 1, KERNEL, READ) == NIL


# --- faults ---------------------------------------------------------------------------------------------

P, W, U = FaultCode.PRESENT, FaultCode.WRITE, FaultCode.USER
RSVD, FETCH, PK = FaultCode.RESERVED, FaultCode.FETCH, FaultCode.KEY


@pytest.mark.parametrize(
    ("bits", "kind", "code"),
    [
        (0, READ, U),
        (0, WRITE, U | W),
        (0, EXECUTE, U | FETCH),
        (USER_RO, WRITE, P | U | W),
        (KERNEL_RW, READ, P | U),
        (USER_RW | NX, EXECUTE, P | U | FETCH),
        (USER_RW | 1 << 51, READ, P | U | RSVD),
        (USER_RW | 1 << 51, WRITE, P | U | W | RSVD),
    ],
)
def test_a_users_fault_says_what_address_and_why(bits: int, kind: AccessKind, code: int) -> None:
    machine = SmallMachine()
    machine.map(1, VADDR, 7, bits)
    assert do_access(machine.state, 1, VADDR | 0xABC, kind) == NIL
    assert fault(machine) == (FaultVector.PAGE_FAULT, VADDR | 0xABC, code)


@pytest.mark.parametrize(
    ("bits", "kind", "code"),
    [
        (0, READ, 0),
        (0, WRITE, W),
        (Pte.PRESENT, WRITE, P | W),
        (USER_RW, READ, P),  # SMAP
        (USER_RW, EXECUTE, P | FETCH),  # SMEP
        (KERNEL_RW | NX, EXECUTE, P | FETCH),
        (KERNEL_RW | 1 << 51, READ, P | RSVD),
    ],
)
def test_a_kernels_fault_lacks_the_users_bit(bits: int, kind: AccessKind, code: int) -> None:
    machine = SmallMachine()
    machine.map(0, KERNEL, 7, bits)
    assert do_access_here(machine.state, KERNEL, kind) == NIL
    assert fault(machine) == (FaultVector.PAGE_FAULT, KERNEL, code)


def test_the_fetch_bit_is_told_only_where_execution_can_be_forbidden() -> None:
    machine = SmallMachine(hw={"processor": "textbook", "paging": "32bit"})
    assert do_access(machine.state, 1, 0x1234_5000, EXECUTE) == NIL
    assert fault(machine) == (FaultVector.PAGE_FAULT, 0x1234_5000, U)


@pytest.mark.parametrize(
    ("paging", "vaddr", "canonical"),
    [
        ("4level", (1 << 47) - 0x1000, True),
        ("4level", 1 << 47, False),
        ("4level", -(1 << 47), True),
        ("4level", -(1 << 47) - 0x1000, False),
        ("5level", 1 << 47, True),
        ("5level", 1 << 56, False),
        ("5level", -(1 << 56), True),
        ("32bit", 0xFFFF_F000, True),
        ("32bit", 1 << 32, False),
    ],
)
def test_an_address_that_the_mode_lacks_raises_a_general_protection_fault(
    paging: str, vaddr: int, canonical: bool
) -> None:
    machine = SmallMachine(hw={"paging": paging})
    machine.state.cpu[0].cr2 = 0x5555
    assert do_access(machine.state, 1, vaddr, READ) == NIL
    if canonical:
        assert fault(machine) == (FaultVector.PAGE_FAULT, vaddr, U)
    else:
        assert fault(machine) == (FaultVector.GENERAL_PROTECTION, 0x5555, 0)


@pytest.mark.parametrize("bit", [48, 55, 59, 60, 61, 62])
@pytest.mark.parametrize("how", ["fast", "slow"])
def test_no_bit_of_an_address_is_lost_in_the_tlbs(bit: int, how: str) -> None:
    machine = SmallMachine()
    machine.map(1, 0x5000, 7)
    assert do_access(machine.state, 1, 0x5000, READ) == 7
    access = do_access if how == "fast" else lambda state, _, *rest: do_access_here(state, *rest)
    assert access(machine.state, 1, 0x5000 | 1 << bit, READ) == NIL
    assert access(machine.state, 1, 0x5000 - (1 << bit), READ) == NIL
    assert machine.state.cpu[0].fault_vector == FaultVector.GENERAL_PROTECTION


# --- paging off -----------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", list(AccessKind))
def test_without_paging_an_address_is_physical_and_nothing_is_cached(kind: AccessKind) -> None:
    machine = SmallMachine(hw={"paging": "none"})
    assert do_access(machine.state, 1, 5 << PAGE_SHIFT | 0x10, kind) == 5
    assert do_access(machine.state, 2, 127 << PAGE_SHIFT, kind) == 127
    assert machine.events(*DATA_HITS, *FETCH_HITS) == [0] * 6
    assert machine.cached() == set()


@pytest.mark.parametrize("vaddr", [128 << PAGE_SHIFT, -1 << PAGE_SHIFT, 1 << 60])
def test_without_paging_there_is_nothing_behind_the_memory(vaddr: int) -> None:
    machine = SmallMachine(hw={"paging": "none"})
    machine.state.cpu[0].error_code = P
    assert do_access(machine.state, 1, vaddr, READ) == NIL
    assert fault(machine)[::2] == (FaultVector.GENERAL_PROTECTION, 0)


def test_paging_turned_off_uncovers_the_memory() -> None:
    machine = SmallMachine(hw={"pcid": False})
    machine.map(0, 5 << PAGE_SHIFT, 9, KERNEL_RW)
    assert do_access_here(machine.state, 5 << PAGE_SHIFT, READ) == 9
    assert do_write_cr0(machine.state, Cr0.PE) == 0
    assert do_access_here(machine.state, 5 << PAGE_SHIFT, READ) == 5


# --- what it costs --------------------------------------------------------------------------------------


def test_each_access_costs_what_served_it() -> None:
    machine = SmallMachine(tlb=(1, 1, 1, 4))
    for vpn in (1, 2, 3):
        machine.map(1, vpn << PAGE_SHIFT, vpn)
    cost = machine.state.cost
    do_access(machine.state, 1, 3 << PAGE_SHIFT, READ)
    costs = [spent(machine, 1, vpn << PAGE_SHIFT, READ) for vpn in (1, 1, 2, 1)]
    walk = NR_LEVELS * cost[Cost.WALK_REFERENCE]
    assert costs == [walk, cost[Cost.TLB_L1_HIT], walk, cost[Cost.TLB_L2_HIT]]
    assert machine.events(HwEvent.WALK_REFERENCES) == [3 * NR_LEVELS]


@pytest.mark.parametrize(("paging", "levels"), [("32bit", 2), ("4level", 4), ("5level", 5)])
def test_a_walk_reads_an_entry_a_level(paging: str, levels: int) -> None:
    machine = SmallMachine(hw={"paging": paging})
    machine.map(1, 0x1234_5000, 7)
    assert do_access(machine.state, 1, 0x1234_5000, READ) == 7
    assert machine.events(HwEvent.WALK_REFERENCES) == [levels]


@pytest.mark.parametrize(
    ("vaddr", "references"),
    [(0x1000, 1), (1 << 21, 2), (1 << 30, 3), (1 << 39, 4)],
)
def test_paging_structure_caches_lead_past_the_levels_that_two_addresses_share(
    vaddr: int, references: int
) -> None:
    machine = SmallMachine(hw={"walk_caches": NO_WALK_CACHES | ALL_CACHES})
    machine.map(1, 0, 7)
    machine.map(1, vaddr, 8)
    do_access(machine.state, 1, 0, READ)
    do_access(machine.state, 1, vaddr, READ)
    assert machine.events(HwEvent.WALK_REFERENCES) == [NR_LEVELS + references]
    assert machine.events(HwEvent.WALK_CACHE_HIT) == [int(references < NR_LEVELS)]


def test_a_fault_is_charged_for_the_entries_that_it_read() -> None:
    machine = SmallMachine()
    machine.map(1, VADDR, 7)
    do_access(machine.state, 1, VADDR, READ)
    assert spent(machine, 1, VADDR + (1 << 30), READ) == 2 * machine.state.cost[Cost.WALK_REFERENCE]
    assert spent(machine, 1, 1 << 47, READ) == 0


def test_a_touch_outside_every_area_ends_with_the_kernels_refusal() -> None:
    machine = SmallMachine()
    assert do_touch(machine.state, 1, VADDR, READ) == NIL
    assert machine.state.request[Request.R0] != 0
    assert machine.events(HwEvent.MEMORY_ACCESS) == [0]


def test_a_touch_of_a_mapped_page_is_one_memory_access() -> None:
    machine = SmallMachine()
    for vpn in (1, 2):
        machine.map(1, vpn << PAGE_SHIFT, vpn)
    do_access(machine.state, 1, 1 << PAGE_SHIFT, READ)
    before = machine.now()
    assert do_touch(machine.state, 1, 2 << PAGE_SHIFT, WRITE) == 2
    assert machine.events(HwEvent.MEMORY_ACCESS, HwEvent.TLB_WALK) == [1, 2]
    cost = machine.state.cost
    expected = NR_LEVELS * cost[Cost.WALK_REFERENCE] + cost[Cost.MEMORY_ACCESS]
    assert machine.now() - before == expected


# --- memory types and protection keys -------------------------------------------------------------------

PAT_BITS = (0, Pte.WRITE_THROUGH, Pte.CACHE_DISABLE, Pte.CACHE_DISABLE | Pte.WRITE_THROUGH)


@pytest.mark.parametrize("size", [PageSize.SMALL, PageSize.LARGE])
@pytest.mark.parametrize("index", range(8))
def test_an_uncached_access_waits_for_memory_however_it_is_translated(index: int, size: PageSize) -> None:
    # Linux's IA32_PAT: WB WC UC- UC, WB WP UC- WT.
    hw = {"tlb": {"data": {"4K": {"entries": 4}, "2M": {"entries": 4}}}}
    machine = SmallMachine(hw=hw)
    high = (Pte.PAT_LARGE if size else Pte.HUGE) if index >= 4 else 0
    machine.map(1, 1 << 30, 1 << 9, USER_RW | PAT_BITS[index % 4] | high, size)
    machine.map(1, 1 << 31, 6)
    do_access(machine.state, 1, 1 << 31, READ)
    cost = machine.state.cost
    extra = cost[Cost.UNCACHED_ACCESS] - cost[Cost.MEMORY_ACCESS]
    of_reads = extra if index in (1, 2, 3, 6) else 0
    of_writes = extra if index in (2, 3, 5, 6, 7) else 0
    walk = (NR_LEVELS - size) * cost[Cost.WALK_REFERENCE]
    assert spent(machine, 1, 1 << 30, READ) == walk + of_reads
    assert spent(machine, 1, 1 << 30, READ) == cost[Cost.TLB_L1_HIT] + of_reads
    assert spent(machine, 1, 1 << 30, WRITE) == walk + of_writes
    assert spent(machine, 1, 1 << 30, WRITE) == cost[Cost.TLB_L1_HIT] + of_writes


def test_the_type_of_a_write_back_page_is_not_that_of_index_0() -> None:
    # With keys every page takes the slow way, which asks IA32_PAT by the entry's index.
    machine = SmallMachine(hw={"processor": "icelake"})
    types = (MemoryType.UC, *(MemoryType.WB,) * 7)
    machine.state.cpu[0].pat = pat_of(types)
    do_write_pkru(machine.state, 0)
    machine.map(1, 0x1000, 5, USER_RW | Pte.WRITE_THROUGH)
    machine.map(1, 0x2000, 6, USER_RW)
    for vaddr in (0x1000, 0x2000):
        do_access(machine.state, 1, vaddr, READ)
    cost = machine.state.cost
    extra = cost[Cost.UNCACHED_ACCESS] - cost[Cost.MEMORY_ACCESS]
    hits = [spent(machine, 1, vaddr, READ) for vaddr in (0x1000, 0x2000)]
    assert hits == [cost[Cost.TLB_L1_HIT], cost[Cost.TLB_L1_HIT] + extra]


def key_machine(pkru: int, bits: int = USER_RW) -> SmallMachine:
    machine = SmallMachine(hw={"processor": "icelake"})
    machine.map(1, VADDR, 7, bits | 5 << PKEY_SHIFT)
    do_write_pkru(machine.state, pkru)
    return machine


@pytest.mark.parametrize(
    ("pkru", "allowed"),
    [
        (0, {READ, WRITE, EXECUTE}),
        (0b01 << 10, {EXECUTE}),  # access disabled
        (0b10 << 10, {READ, EXECUTE}),  # writes disabled
        (~(0b11 << 10) & 0xFFFF_FFFF, {READ, WRITE, EXECUTE}),  # all other keys
    ],
)
def test_a_protection_key_forbids_data_accesses(pkru: int, allowed: set[AccessKind]) -> None:
    for kind in AccessKind:
        machine = key_machine(pkru)
        assert (do_access(machine.state, 1, VADDR, kind) == 7) == (kind in allowed)
        if kind not in allowed:
            write = W if kind == WRITE else 0
            assert fault(machine) == (FaultVector.PAGE_FAULT, VADDR, P | U | PK | write)


def test_pkru_is_asked_at_every_access_so_a_change_needs_no_flush() -> None:
    machine = key_machine(0)
    assert [do_access(machine.state, 1, VADDR, WRITE) for _ in range(3)] == [7, 7, 7]
    do_write_pkru(machine.state, 0b10 << 10)
    assert do_access(machine.state, 1, VADDR, READ) == 7
    assert do_access(machine.state, 1, VADDR, WRITE) == NIL
    do_write_pkru(machine.state, 0)
    assert do_access(machine.state, 1, VADDR, WRITE) == 7


def test_pages_with_keys_hit_and_cost_what_others_do() -> None:
    machine = key_machine(0)
    do_access(machine.state, 1, VADDR, WRITE)
    assert spent(machine, 1, VADDR, WRITE) == machine.state.cost[Cost.TLB_L1_HIT]
    assert machine.events(*DATA_HITS) == [1, 0, 1]


KEY_0_FORBIDDEN = 0b01


def test_pages_that_name_no_key_have_key_0() -> None:
    machine = SmallMachine(hw={"processor": "icelake"})
    machine.map(1, VADDR, 7)
    assert do_access(machine.state, 1, VADDR, READ) == 7
    do_write_pkru(machine.state, KEY_0_FORBIDDEN)
    assert do_access(machine.state, 1, VADDR, READ) == NIL
    assert fault(machine) == (FaultVector.PAGE_FAULT, VADDR, P | U | PK)
    assert do_access(machine.state, 1, VADDR, EXECUTE) == 7
    do_write_pkru(machine.state, 0)
    assert do_access(machine.state, 1, VADDR, READ) == 7


def test_page_0_is_not_found_in_an_empty_entry_while_key_0_is_forbidden() -> None:
    machine = SmallMachine(tlb=(1, 4, 1, 4), hw={"processor": "icelake"})
    machine.map(1, VADDR, 7)
    do_access(machine.state, 1, VADDR, WRITE)
    do_invlpg(machine.state, VADDR)
    do_write_pkru(machine.state, KEY_0_FORBIDDEN)
    for kind in AccessKind:
        assert do_access(machine.state, 1, 0x10, kind) == NIL
        assert machine.state.cpu[0].cr2 == 0x10


def test_keys_of_the_kernels_pages_mean_nothing() -> None:
    machine = SmallMachine(hw={"processor": "icelake"})
    machine.map(0, KERNEL, 7, KERNEL_RW | 5 << PKEY_SHIFT)
    do_write_pkru(machine.state, 0xFFFF_FFFF)
    assert [do_access_here(machine.state, KERNEL, kind) for kind in AccessKind] == [7, 7, 7]


# --- refill by software ---------------------------------------------------------------------------------


def r3000(**keys: Any) -> SmallMachine:
    return SmallMachine(hw={"processor": "r3000", "tlb": {}, "walk_caches": {}, **keys})


def test_a_miss_traps_to_software_that_walks_and_writes_the_entry() -> None:
    machine = r3000()
    machine.map(1, VADDR, 7, USER_RO)
    machine.map(1, VADDR + 0x1000, 8)
    do_access(machine.state, 1, VADDR + 0x1000, READ)
    cost = machine.state.cost
    refill = cost[Cost.REFILL_TRAP] + NR_LEVELS * cost[Cost.WALK_REFERENCE]
    assert spent(machine, 1, VADDR, READ) == refill
    assert spent(machine, 1, VADDR, READ) == cost[Cost.TLB_L1_HIT]
    assert machine.events(HwEvent.REFILL_TRAP, *DATA_HITS) == [2, 1, 0, 2]


def test_the_first_write_traps_once_more() -> None:
    machine = r3000()
    machine.map(1, VADDR, 7)
    for kind in (READ, READ, WRITE, WRITE):
        do_access(machine.state, 1, VADDR, kind)
    assert machine.events(HwEvent.REFILL_TRAP, *DATA_HITS) == [2, 2, 0, 2]


def test_hardware_traps_for_no_miss() -> None:
    machine = SmallMachine()
    machine.map(1, VADDR, 7)
    do_access(machine.state, 1, VADDR, READ)
    assert machine.events(HwEvent.REFILL_TRAP) == [0]


def test_refills_leave_the_wired_entries_alone() -> None:
    machine = r3000()
    for vpn in range(1, 201):
        machine.map(1, vpn << PAGE_SHIFT, vpn % 100)
        do_access(machine.state, 1, vpn << PAGE_SHIFT, READ)
    (ways,) = machine.ways(TlbArray.D1_4K)
    assert len(ways) == 64
    assert ways[:8] == [None] * 8
    assert None not in ways[8:]


# --- on a guest -----------------------------------------------------------------------------------------


def guest_with_page(view: View) -> SmallMachine:
    machine = SmallMachine(guest=True)
    machine.map(1, VADDR, 7)
    machine.state.ept_view[7] = view
    return machine


def test_a_read_of_an_untouched_gfn_raises_its_view_to_read_only() -> None:
    machine = guest_with_page(View.UNTOUCHED)
    assert do_access(machine.state, 1, VADDR, READ) == 7
    assert machine.state.ept_view[7] == View.READ_ONLY
    assert machine.events(HwEvent.EPT_VIOLATION) == [1]


def test_a_write_through_a_read_only_view_walks_and_violates_once() -> None:
    machine = guest_with_page(View.READ_ONLY)
    for kind in (READ, WRITE, WRITE):
        assert do_access(machine.state, 1, VADDR, kind) == 7
    assert machine.state.ept_view[7] == View.WRITABLE
    assert machine.events(*DATA_HITS, HwEvent.EPT_VIOLATION) == [1, 0, 2, 1]


def test_a_dirty_entry_without_ept_right_still_asks_the_host() -> None:
    machine = guest_with_page(View.READ_ONLY)
    machine.map(1, VADDR, 7, USER_RW | Pte.DIRTY)
    do_access(machine.state, 1, VADDR, READ)
    do_access(machine.state, 1, VADDR, WRITE)
    assert machine.events(HwEvent.EPT_VIOLATION) == [1]


def test_the_tables_of_a_walk_are_written_as_the_host_sees_it() -> None:
    machine = guest_with_page(View.WRITABLE)
    tables = range(machine.next_table + 1, machine.next_table + 1 + NR_LEVELS + 1)
    for table in tables:
        machine.state.ept_view[table] = View.READ_ONLY
    do_access(machine.state, 1, VADDR, READ)
    raised = [table for table in tables if machine.state.ept_view[table] == View.WRITABLE]
    assert len(raised) == NR_LEVELS


def test_a_guests_own_page_fault_comes_before_the_hosts() -> None:
    machine = guest_with_page(View.UNTOUCHED)
    machine.map(1, VADDR, 7, USER_RO)
    assert do_access(machine.state, 1, VADDR, WRITE) == NIL
    assert machine.state.ept_view[7] == View.UNTOUCHED


def test_two_tables_make_a_walk_of_24_references() -> None:
    machine = guest_with_page(View.WRITABLE)
    assert machine.state.knob[Knob.EPT_LEVELS] == 4
    do_access(machine.state, 1, VADDR, READ)
    references = machine.events(HwEvent.WALK_REFERENCES, HwEvent.EPT_REFERENCES)
    assert references == [4, 20]
    before = machine.now()
    machine.map(1, VADDR + 0x1000, 8)
    do_access(machine.state, 1, VADDR + 0x1000, READ)
    assert machine.now() - before == 24 * machine.state.cost[Cost.WALK_REFERENCE]


def test_a_cache_of_the_hosts_table_shortens_its_part_of_the_walk() -> None:
    hw = {"walk_caches": NO_WALK_CACHES | {"ept_pd": {"entries": 4}}}
    machine = SmallMachine(guest=True, hw=hw)
    machine.map(1, VADDR, 7)
    do_access(machine.state, 1, VADDR, READ)
    # All 128 frames are under one entry of the host's lower directory: one walk of four, then one reference each.
    assert machine.events(HwEvent.EPT_REFERENCES) == [4 + 4 * 1]
