"""Control registers and invalidations: what each instruction drops, keeps and refuses."""

from collections.abc import Callable
from typing import Any

import pytest

from node.counters import HwEvent
from node.hw.cost import Cost
from node.hw.paging import AccessKind, PageSize
from node.hw.pte import Pte
from node.hw.registers import CR3_NO_FLUSH, REFUSED, Cr0, Cr4, Invpcid
from node.hw.tlb import TlbArray
from shared.constants import PAGE_SHIFT
from tests.node.hw.entries import (
    do_access_here,
    do_invlpg,
    do_invpcid,
    do_write_cr0,
    do_write_cr3,
    do_write_cr4,
)
from tests.node.hw.small_machine import KERNEL_RW, Cached, SmallMachine

pytestmark = pytest.mark.three_ways

SMALL, LARGE = 0x40_0000_1000, 0x41_0000_0000  # pages of two sizes, of each address space
SHARED = -(1 << 47)  # a global page
ADDRESSES = (SMALL, LARGE, SHARED)
PCIDS = (0, 1, 2, 4095)
MAX_PCID = 4095
ROOMY: dict[str, Any] = {
    "tlb": {
        side: {"4K+2M+1G": {"entries": 32, "ways": "full"}} for side in ("data", "instruction", "second")
    },
    "walk_caches": {name: {"entries": 16} for name in ("pd", "pdpt", "pml4")},
}
READ = AccessKind.READ


def cr3_of(machine: SmallMachine, mm: int, pcid: int = 0) -> int:
    return int(machine.state.mm[mm].pgd_pfn) << PAGE_SHIFT | pcid


def mapped(pcid: bool = True) -> SmallMachine:
    """Return a machine whose address space 1 maps a page of each kind, with nothing cached."""
    machine = SmallMachine(nr_mms=2, hw=ROOMY | {"pcid": pcid})
    for mm in (1, 2):
        machine.map(mm, SMALL, 5, KERNEL_RW)
        machine.map(mm, LARGE, 1 << 9, KERNEL_RW, PageSize.LARGE)
    machine.map(0, SHARED, 9, KERNEL_RW | Pte.GLOBAL)
    return machine


def with_everything_cached() -> SmallMachine:
    """Return a machine that has cached the pages under each PCID; the last is loaded."""
    machine = mapped()
    for pcid in PCIDS:
        do_write_cr3(machine.state, cr3_of(machine, 1, pcid) | CR3_NO_FLUSH)
        for vaddr in ADDRESSES:
            do_access_here(machine.state, vaddr, READ)
    return machine


def is_walk_entry(entry: Cached) -> bool:
    return entry.role >= TlbArray.WALK_PD


def test_translations_are_cached_under_the_pcid_that_is_loaded() -> None:
    cached = with_everything_cached().cached()
    for pcid in PCIDS:
        assert {entry.vaddr for entry in cached if entry.pcid == pcid and not entry.is_global} >= {
            SMALL,
            LARGE,
        }
        assert any(is_walk_entry(entry) for entry in cached if entry.pcid == pcid)
    assert {(entry.vaddr, entry.pcid) for entry in cached if entry.is_global} == {(SHARED, 0)}


INSTRUCTIONS: dict[str, tuple[Callable[[SmallMachine], Any], Callable[[Cached], bool]]] = {
    "MOV to CR3": (
        lambda machine: do_write_cr3(machine.state, cr3_of(machine, 2, 1)),
        lambda entry: entry.is_global or entry.pcid != 1,
    ),
    "MOV to CR3 of PCID 0": (
        lambda machine: do_write_cr3(machine.state, cr3_of(machine, 2, 0)),
        lambda entry: entry.is_global or entry.pcid != 0,
    ),
    "MOV to CR3 of the PCID that is loaded": (
        lambda machine: do_write_cr3(machine.state, cr3_of(machine, 2, MAX_PCID)),
        lambda entry: entry.is_global or entry.pcid != MAX_PCID,
    ),
    "MOV to CR3 with bit 63": (
        lambda machine: do_write_cr3(machine.state, cr3_of(machine, 1, 1) | CR3_NO_FLUSH),
        lambda _: True,
    ),
    "INVLPG of a private page": (
        lambda machine: do_invlpg(machine.state, SMALL + 0x123),
        lambda entry: entry.pcid != MAX_PCID or (not is_walk_entry(entry) and entry.vaddr == LARGE),
    ),
    "INVLPG in the middle of a large page": (
        lambda machine: do_invlpg(machine.state, LARGE + 0x12_3456),
        lambda entry: entry.pcid != MAX_PCID or (not is_walk_entry(entry) and entry.vaddr == SMALL),
    ),
    "INVLPG of a global page": (
        lambda machine: do_invlpg(machine.state, SHARED),
        lambda entry: not entry.is_global and not (is_walk_entry(entry) and entry.pcid == MAX_PCID),
    ),
    "INVPCID of an address": (
        lambda machine: do_invpcid(machine.state, Invpcid.ADDRESS, 2, SMALL),
        lambda entry: entry.pcid != 2 or (not is_walk_entry(entry) and entry.vaddr == LARGE),
    ),
    "INVPCID of a global page's address": (
        lambda machine: do_invpcid(machine.state, Invpcid.ADDRESS, 2, SHARED),
        lambda entry: entry.pcid != 2 or not is_walk_entry(entry),
    ),
    "INVPCID of an address, PCID 0": (
        lambda machine: do_invpcid(machine.state, Invpcid.ADDRESS, 0, SMALL),
        lambda entry: (
            entry.is_global or entry.pcid != 0 or (not is_walk_entry(entry) and entry.vaddr == LARGE)
        ),
    ),
    "INVPCID of a PCID": (
        lambda machine: do_invpcid(machine.state, Invpcid.PCID, 2, 0),
        lambda entry: entry.pcid != 2,
    ),
    "INVPCID of PCID 0": (
        lambda machine: do_invpcid(machine.state, Invpcid.PCID, 0, 0),
        lambda entry: entry.is_global or entry.pcid != 0,
    ),
    "INVPCID of all": (lambda machine: do_invpcid(machine.state, Invpcid.ALL, 0, 0), lambda _: False),
    "INVPCID of all but global pages": (
        lambda machine: do_invpcid(machine.state, Invpcid.ALL_PRIVATE, 0, 0),
        lambda entry: entry.is_global,
    ),
    "CR4.PGE cleared": (
        lambda machine: do_write_cr4(machine.state, machine.state.cpu[0].cr4 & ~Cr4.PGE),
        lambda _: False,
    ),
    "CR4.PCIDE cleared": (
        lambda machine: do_write_cr4(machine.state, machine.state.cpu[0].cr4 & ~Cr4.PCIDE),
        lambda _: False,
    ),
    "CR4.SMEP cleared": (
        lambda machine: do_write_cr4(machine.state, machine.state.cpu[0].cr4 & ~Cr4.SMEP),
        lambda _: True,
    ),
    "CR4 as it was": (
        lambda machine: do_write_cr4(machine.state, machine.state.cpu[0].cr4),
        lambda _: True,
    ),
    "CR0.WP cleared": (
        lambda machine: do_write_cr0(machine.state, machine.state.cpu[0].cr0 & ~Cr0.WP),
        lambda _: True,
    ),
}


@pytest.mark.parametrize("name", INSTRUCTIONS)
def test_an_instruction_drops_what_the_manual_says_and_nothing_else(name: str) -> None:
    instruction, survives = INSTRUCTIONS[name]
    machine = with_everything_cached()
    before = machine.cached()
    assert instruction(machine) in (0, None)
    assert machine.cached() == {entry for entry in before if survives(entry)}


def test_pge_or_smep_set_again_drops_everything_too() -> None:
    for bit in (Cr4.PGE, Cr4.SMEP):
        machine = mapped()
        with_bit = machine.state.cpu[0].cr4
        do_write_cr4(machine.state, with_bit & ~bit)
        do_write_cr3(machine.state, cr3_of(machine, 1))
        do_access_here(machine.state, SMALL, READ)
        do_write_cr4(machine.state, with_bit)
        assert machine.cached() == set()


def test_while_pge_is_clear_no_entry_is_global() -> None:
    machine = mapped(pcid=False)
    do_write_cr4(machine.state, machine.state.cpu[0].cr4 & ~Cr4.PGE)
    do_access_here(machine.state, SHARED, READ)
    assert {entry.is_global for entry in machine.cached()} == {False}


def test_without_pcids_every_load_of_cr3_drops_all_but_global_pages() -> None:
    machine = mapped(pcid=False)
    do_write_cr3(machine.state, cr3_of(machine, 1))
    for vaddr in ADDRESSES:
        do_access_here(machine.state, vaddr, READ)
    assert len(machine.cached()) > 4
    do_write_cr3(machine.state, cr3_of(machine, 1))
    assert {(entry.vaddr, entry.is_global) for entry in machine.cached()} == {(SHARED, True)}


def test_without_pcids_the_lower_bits_of_cr3_are_no_tag() -> None:
    machine = mapped(pcid=False)
    write_through, cache_disable = 1 << 3, 1 << 4
    do_write_cr3(machine.state, cr3_of(machine, 1) | write_through | cache_disable)
    assert do_access_here(machine.state, SMALL, READ) == 5
    assert {entry.pcid for entry in machine.cached()} == {0}


def test_a_tag_comes_back_with_its_translations() -> None:
    machine = with_everything_cached()
    walks = machine.events(HwEvent.TLB_WALK)
    for pcid in PCIDS:
        do_write_cr3(machine.state, cr3_of(machine, 1, pcid) | CR3_NO_FLUSH)
        assert do_access_here(machine.state, SMALL, READ) == 5
    assert machine.events(HwEvent.TLB_WALK) == walks


@pytest.mark.parametrize("keep", [0, CR3_NO_FLUSH])
def test_loads_of_cr3_are_counted_and_charged(keep: int) -> None:
    machine = mapped()
    before = machine.now()
    assert do_write_cr3(machine.state, cr3_of(machine, 1, 7) | keep) == 0
    assert machine.now() - before == machine.state.cost[Cost.CR3_WRITE]
    assert machine.events(HwEvent.CR3_WRITE, HwEvent.CR3_FLUSH) == [1, int(not keep)]
    # The bit is no part of the register.
    assert machine.state.cpu[0].cr3 == cr3_of(machine, 1, 7)


def test_instructions_work_on_the_cpu_that_runs_them() -> None:
    machine = SmallMachine(nr_cpus=2, hw=ROOMY)
    machine.map(0, SHARED, 9, KERNEL_RW)
    for cpu in (0, 1):
        machine.run_on(cpu)
        do_access_here(machine.state, SHARED, READ)
    do_invpcid(machine.state, Invpcid.ALL, 0, 0)
    assert machine.cached(0) != set()
    assert machine.cached(1) == set()


# --- refusals -------------------------------------------------------------------------------------------


def registers(machine: SmallMachine) -> tuple[int, ...]:
    cpu = machine.state.cpu[0]
    return cpu.cr0, cpu.cr3, cpu.cr4, cpu.tlb_tag, machine.now(), *machine.events(HwEvent.CR3_WRITE)


@pytest.mark.parametrize(
    "attempt",
    [
        lambda machine: do_write_cr4(machine.state, machine.state.cpu[0].cr4 & ~Cr4.PAE),
        lambda machine: do_write_cr4(machine.state, machine.state.cpu[0].cr4 ^ Cr4.LA57),
        lambda machine: do_write_cr0(machine.state, Cr0.PG),
        lambda machine: do_write_cr0(machine.state, Cr0.PE),  # while PCIDE is set
    ],
    ids=["PAE cleared", "LA57 changed", "PG without PE", "PG cleared with PCIDE"],
)
def test_what_the_processor_refuses_changes_nothing(attempt: Callable[[SmallMachine], int]) -> None:
    machine = with_everything_cached()
    before = registers(machine), machine.cached()
    assert attempt(machine) == REFUSED
    assert (registers(machine), machine.cached()) == before


def test_bit_63_of_cr3_needs_pcids() -> None:
    machine = mapped(pcid=False)
    before = registers(machine)
    assert do_write_cr3(machine.state, cr3_of(machine, 1) | CR3_NO_FLUSH) == REFUSED
    assert registers(machine) == before


@pytest.mark.parametrize(("low_bits", "refused"), [(0, 0), (1, REFUSED), (1 << 4, REFUSED), (4095, REFUSED)])
def test_pcide_can_only_be_set_while_cr3_holds_pcid_0(low_bits: int, refused: int) -> None:
    machine = mapped(pcid=False)
    do_write_cr3(machine.state, cr3_of(machine, 1) | low_bits)
    assert do_write_cr4(machine.state, machine.state.cpu[0].cr4 | Cr4.PCIDE) == refused


def test_pcide_needs_long_mode() -> None:
    machine = SmallMachine(hw={"paging": "32bit"})
    assert do_write_cr4(machine.state, machine.state.cpu[0].cr4 | Cr4.PCIDE) == REFUSED


def test_paging_can_be_turned_off_without_pcids_and_drops_everything() -> None:
    machine = mapped(pcid=False)
    do_access_here(machine.state, SHARED, READ)
    assert do_write_cr0(machine.state, Cr0.PE) == 0
    assert machine.cached() == set()
