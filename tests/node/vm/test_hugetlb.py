"""Huge pages from the start: the entry, the block behind it, and that all of it comes back."""

import numpy as np
import pytest

from node.counters import Knob
from node.hw.pte import PFN_MASK, Pte
from node.phys.page import PageFlag
from node.state import State
from node.traces import map_area
from node.vm.hugetlb import HUGE_PAGE_ORDER, map_huge, unmap_huge
from node.vm.vma import VmFlag
from shared.constants import (
    ENTRIES_PER_TABLE,
    HUGE_PAGE_SIZE,
    NIL,
    PAGE_SHIFT,
    PAGE_SIZE,
    TABLE_INDEX_MASK,
    TABLE_SHIFT,
)
from shared.jit import entry
from shared.panic import KernelPanic
from tests.node.vm_machine import VmMachine

pytestmark = pytest.mark.three_ways

VADDR = 5 * HUGE_PAGE_SIZE
READ_WRITE = VmFlag.READ | VmFlag.WRITE


@entry
def do_unmap_huge(state: State, position: int) -> None:
    unmap_huge(state, position)


def pmd_position(machine: VmMachine, mm: int, vaddr: int) -> int:
    """Return where in pt_word the PMD entry for ``vaddr`` of a four-level table stands."""
    table = int(machine.state.mm[mm].pgd_pfn)
    for shift in (39, 30):
        word = machine.state.pt_word[(table << TABLE_SHIFT) + ((vaddr >> shift) & TABLE_INDEX_MASK)]
        table = (word >> PAGE_SHIFT) & PFN_MASK
    return (table << TABLE_SHIFT) + ((vaddr >> 21) & TABLE_INDEX_MASK)


def with_area(vm_flags: int = READ_WRITE, nr_huge: int = 2) -> tuple[VmMachine, int]:
    machine = VmMachine()
    mm = machine.spawn()
    assert map_area(machine.state, mm, VADDR, VADDR + nr_huge * HUGE_PAGE_SIZE, vm_flags) != NIL
    return machine, mm


@pytest.mark.parametrize(
    ("vm_flags", "set_bits", "may_fetch"),
    [
        (VmFlag.READ, 0, False),
        (VmFlag.READ | VmFlag.EXEC, 0, True),
        (READ_WRITE, Pte.WRITE | Pte.DIRTY, False),
        (READ_WRITE | VmFlag.EXEC, Pte.WRITE | Pte.DIRTY, True),
    ],
)
def test_one_entry_of_the_pmd_maps_the_block(vm_flags: int, set_bits: int, may_fetch: bool) -> None:
    machine, mm = with_area(vm_flags)
    pfn = map_huge(machine.state, mm, VADDR + HUGE_PAGE_SIZE)
    word = machine.state.pt_word[pmd_position(machine, mm, VADDR + HUGE_PAGE_SIZE)]
    assert (word >> PAGE_SHIFT) & PFN_MASK == pfn
    assert pfn % ENTRIES_PER_TABLE == 0
    bits = word & (PAGE_SIZE - 1)
    assert bits == Pte.PRESENT | Pte.USER | Pte.ACCESSED | Pte.HUGE | set_bits
    nx = int(machine.state.knob[Knob.NX_BIT])
    assert word & nx == (0 if may_fetch else nx)
    assert machine.state.pt_word[pmd_position(machine, mm, VADDR)] == 0


def test_the_block_is_512_frames_of_zeroes_with_one_reference() -> None:
    machine, mm = with_area()
    np.asarray(machine.state.page)["content"] = 77
    pfn = map_huge(machine.state, mm, VADDR)
    block = np.asarray(machine.state.page)[pfn : pfn + ENTRIES_PER_TABLE]
    assert not block["content"].any()
    assert set(block["page_flags"].tolist()) == {int(PageFlag.HUGETLB)}
    assert block["refcount"].tolist() == [1] + [0] * (ENTRIES_PER_TABLE - 1)
    assert block["mapcount"].tolist() == [1] + [0] * (ENTRIES_PER_TABLE - 1)
    assert machine.state.mm[mm].nr_anon == 0


def test_what_is_unmapped_comes_back() -> None:
    machine = VmMachine()
    free_at_first = machine.nr_free()
    mm = machine.spawn()
    map_area(machine.state, mm, VADDR, VADDR + 2 * HUGE_PAGE_SIZE, READ_WRITE)
    tables = 2  # PUD and PMD
    before = machine.nr_free()
    for vaddr in (VADDR, VADDR + HUGE_PAGE_SIZE):
        map_huge(machine.state, mm, vaddr)
    assert machine.nr_free() == before - 2 * (1 << HUGE_PAGE_ORDER) - tables
    for vaddr in (VADDR, VADDR + HUGE_PAGE_SIZE):
        do_unmap_huge(machine.state, pmd_position(machine, mm, vaddr))
        assert machine.state.pt_word[pmd_position(machine, mm, vaddr)] == 0
    assert machine.nr_free() == before - tables
    assert not (machine.state.page["page_flags"] & PageFlag.HUGETLB).any()
    machine.exit(mm)
    assert machine.nr_free() == free_at_first


def test_without_a_block_nothing_is_mapped_and_nobody_is_killed() -> None:
    machine, mm = with_area(nr_huge=30)
    mapped = [map_huge(machine.state, mm, VADDR + index * HUGE_PAGE_SIZE) for index in range(30)]
    nr_mapped = mapped.index(NIL)
    assert 1 <= nr_mapped < 30
    assert set(mapped[nr_mapped:]) == {NIL}
    assert machine.state.pt_word[pmd_position(machine, mm, VADDR + nr_mapped * HUGE_PAGE_SIZE)] == 0
    assert machine.state.mm[mm].alive


@pytest.mark.parametrize("vaddr", [VADDR - HUGE_PAGE_SIZE, VADDR + PAGE_SIZE, VADDR + 2 * HUGE_PAGE_SIZE])
def test_a_place_outside_an_area_or_not_aligned_is_a_broken_invariant(vaddr: int) -> None:
    machine, mm = with_area()
    with pytest.raises(KernelPanic):
        map_huge(machine.state, mm, vaddr)


def test_an_area_that_ends_within_the_page_is_a_broken_invariant() -> None:
    machine = VmMachine()
    mm = machine.spawn()
    map_area(machine.state, mm, VADDR, VADDR + HUGE_PAGE_SIZE - PAGE_SIZE, READ_WRITE)
    with pytest.raises(KernelPanic):
        map_huge(machine.state, mm, VADDR)


def test_a_map_over_an_existing_mapping_is_a_broken_invariant() -> None:
    machine, mm = with_area()
    map_huge(machine.state, mm, VADDR)
    with pytest.raises(KernelPanic):
        map_huge(machine.state, mm, VADDR)
    machine, mm = with_area()
    machine.write(mm, VADDR + PAGE_SIZE, 1)
    with pytest.raises(KernelPanic):
        map_huge(machine.state, mm, VADDR)
