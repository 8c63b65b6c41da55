"""The kernel's own accesses: what it maps, and the top-level entries that older kernels copy when they are missed."""

import pytest

from node.build import build_state
from node.counters import Knob
from node.hw.paging import AccessKind
from node.hw.pte import TABLE_BITS, Pte
from node.hw.registers import FaultCode
from node.invariants import check
from node.joints import run_in_user_mode
from node.kmap.entry import enter_kernel
from node.kmap.kernel_access import kernel_access
from node.spec import MachineSpec
from node.state import State
from node.vm.mm_init import new_mm
from shared.constants import MIB, NIL, PAGE_SHIFT
from shared.jit import entry

pytestmark = pytest.mark.three_ways

VMALLOC_OF_4_LEVELS = 0xFFFFC90000000000 - (1 << 64)
# Frames that nobody else uses: the kernel's image holds nothing that is simulated.
IMAGE_PFN = 16 << 8
MAPPED_PFN = IMAGE_PFN + 5


@entry
def access_in_kernel_mode(state: State, mm: int, vaddr: int, kind: int) -> int:
    run_in_user_mode(state, mm)
    enter_kernel(state)
    return kernel_access(state, vaddr, kind)


def machine(era: str) -> State:
    return build_state(MachineSpec(memory_bytes=96 * MIB).with_hw(era=era))


def map_in_master(state: State, vaddr: int) -> None:
    """Map a page in the master table, by tables in frames of the kernel's image."""
    table = int(state.knob[Knob.SWAPPER_PGD])
    for level, shift in enumerate((39, 30, 21)):
        position = (table << 9) + (vaddr >> shift & 511)
        if not state.pt_word[position] & Pte.PRESENT:
            state.pt_word[position] = (IMAGE_PFN + 1 + level) << PAGE_SHIFT | TABLE_BITS
        table = int(state.pt_word[position]) >> PAGE_SHIFT & ((1 << 40) - 1)
    state.pt_word[(table << 9) + (vaddr >> 12 & 511)] = MAPPED_PFN << PAGE_SHIFT | Pte.PRESENT | Pte.WRITE


def test_an_entry_that_a_process_lacks_reaches_it_by_a_fault_in_the_lecture_era() -> None:
    state = machine("lecture")
    first, second = new_mm(state), new_mm(state)
    map_in_master(state, VMALLOC_OF_4_LEVELS)
    for mm in (first, second):
        position = (int(state.mm[mm].pgd_pfn) << 9) + (VMALLOC_OF_4_LEVELS >> 39 & 511)
        assert state.pt_word[position] == 0
        assert access_in_kernel_mode(state, mm, VMALLOC_OF_4_LEVELS, AccessKind.READ) == MAPPED_PFN
        assert state.pt_word[position] & Pte.PRESENT


def test_6_1_shares_the_entry_from_the_start() -> None:
    state = machine("6.1")
    mm = new_mm(state)
    map_in_master(state, VMALLOC_OF_4_LEVELS)
    faults = state.cpu[0].cr2
    assert access_in_kernel_mode(state, mm, VMALLOC_OF_4_LEVELS, AccessKind.WRITE) == MAPPED_PFN
    assert state.cpu[0].cr2 == faults


@pytest.mark.parametrize("era", ["6.1", "lecture"])
def test_what_nobody_maps_is_an_oops(era: str) -> None:
    state = machine(era)
    mm = new_mm(state)
    vaddr = VMALLOC_OF_4_LEVELS + (5 << PAGE_SHIFT)
    assert access_in_kernel_mode(state, mm, vaddr, AccessKind.WRITE) == NIL
    assert (state.cpu[0].cr2, state.cpu[0].error_code) == (vaddr, FaultCode.WRITE)
    check(state)


def test_the_kernel_may_not_write_its_text() -> None:
    state = machine("6.1")
    mm = new_mm(state)
    text = -(2 << 30) + (16 << 20)  # __START_KERNEL_map and CONFIG_PHYSICAL_START
    assert access_in_kernel_mode(state, mm, text, AccessKind.EXECUTE) == IMAGE_PFN
    assert access_in_kernel_mode(state, mm, text, AccessKind.WRITE) == NIL
    assert state.cpu[0].error_code == FaultCode.PRESENT | FaultCode.WRITE
