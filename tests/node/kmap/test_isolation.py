"""The processor's own walk over the kernel's tables: what each mode reaches, with and without isolation."""

import pytest

from node.build import build_state
from node.counters import Current, Knob
from node.hw.hardware import resolve_hw
from node.hw.paging import MODE_NAMES, PAGING_MODES, AccessKind
from node.hw.pte import TABLE_BITS, Pte
from node.hw.registers import FaultCode, FaultVector, write_cr3
from node.joints import access_as
from node.kmap.kernel_tables import KernelLayout
from node.kmap.memory_map import RegionName, find_region, signed
from node.kmap.pti import init_pgd, set_pgd
from node.spec import MachineSpec
from node.state import State
from shared.constants import MIB, NIL, PAGE_SHIFT, PAGE_SIZE, TABLE_SHIFT
from shared.jit import entry

pytestmark = pytest.mark.three_ways

MEMORY = 512 * MIB
PROCESS = 20000  # an even frame, for a pair
TABLES = 20100
A_FRAME = 20200
USER_ADDRESS = 0x123456789000
KERNEL, USER = 0, 3
PAGINGS = ["4level", "5level"]
KERNELS = [("4level", "6.1"), ("5level", "6.1"), ("4level", "lecture")]


@entry
def load_table(state: State, pgd_pfn: int) -> None:
    write_cr3(state, pgd_pfn << PAGE_SHIFT)


@entry
def access_now(state: State, vaddr: int, kind: int) -> int:
    return access_as(state, vaddr, kind)


@entry
def new_process(state: State, pgd_pfn: int) -> None:
    init_pgd(state, pgd_pfn)


@entry
def write_top_entry(state: State, position: int, word: int) -> None:
    set_pgd(state, position, word)


def machine(**keys: object) -> State:
    hw, tlb = resolve_hw(keys)
    state = build_state(MachineSpec(MEMORY, hw=hw, tlb=tlb))
    state.current[Current.CPU] = 0
    return state


def process(state: State, paging: str) -> None:
    """Make a process with one page, which it may read, write and execute."""
    new_process(state, PROCESS)
    table = PROCESS
    levels = PAGING_MODES[MODE_NAMES[paging]].levels
    for number, level in enumerate(levels):
        position = (table << TABLE_SHIFT) + (USER_ADDRESS >> level.shift) % 512
        if number == 0:
            table = TABLES
            write_top_entry(state, position, table << PAGE_SHIFT | TABLE_BITS)
        else:
            table = A_FRAME if level is levels[-1] else TABLES + number
            state.pt_word[position] = table << PAGE_SHIFT | TABLE_BITS | Pte.DIRTY


def access_in(state: State, cpl: int, pgd_pfn: int, vaddr: int, kind: AccessKind) -> int:
    """Access an unsigned address in a mode, on a table; return the frame or NIL."""
    load_table(state, pgd_pfn)
    state.cpu[0].cpl = cpl
    state.cpu[0].ac = 1  # as in copy_to_user: SMAP stands aside
    return access_now(state, signed(vaddr), kind)


def fault_code(state: State) -> int:
    assert state.cpu[0].fault_vector == FaultVector.PAGE_FAULT
    return int(state.cpu[0].error_code)


@pytest.mark.parametrize(("paging", "era"), [*KERNELS, ("32bit", "6.1"), ("32bit", "lecture")])
def test_the_kernel_reaches_all_memory_through_the_direct_map(paging: str, era: str) -> None:
    state = machine(paging=paging, era=era)
    base = find_region(RegionName.DIRECT_MAP, era, MODE_NAMES[paging]).start
    master = state.knob[Knob.SWAPPER_PGD]
    for pfn in (0, 255, 511, 512, 1023, 1024, 65536, MEMORY // PAGE_SIZE - 1):
        assert access_in(state, KERNEL, master, base + pfn * PAGE_SIZE, AccessKind.READ) == pfn
    assert access_in(state, KERNEL, master, base + MEMORY, AccessKind.READ) == NIL
    assert fault_code(state) == 0


@pytest.mark.parametrize(("paging", "era"), KERNELS)
def test_text_is_executed_and_data_written_but_never_the_other_way(paging: str, era: str) -> None:
    state = machine(paging=paging, era=era)
    layout = KernelLayout(MEMORY // PAGE_SIZE, MODE_NAMES[paging], era)
    master = state.knob[Knob.SWAPPER_PGD]
    for one in layout.physical:
        if one.holder not in ("kernel text", "kernel rodata", "kernel data"):
            continue
        vaddr = 0xFFFFFFFF80000000 + one.first * PAGE_SIZE
        written = access_in(state, KERNEL, master, vaddr, AccessKind.WRITE)
        executed = access_in(state, KERNEL, master, vaddr, AccessKind.EXECUTE)
        assert access_in(state, KERNEL, master, vaddr, AccessKind.READ) == one.first
        assert (written != NIL) == (one.holder == "kernel data")
        assert (executed != NIL) == (one.holder == "kernel text")


@pytest.mark.parametrize("paging", PAGINGS)
def test_user_mode_finds_nothing_of_the_kernel_under_isolation(paging: str) -> None:
    state = machine(paging=paging, pti=True)
    process(state, paging)
    base = find_region(RegionName.DIRECT_MAP, "6.1", MODE_NAMES[paging]).start
    for vaddr in (base + 5000 * PAGE_SIZE, 0xFFFFFFFF80000000 + (20 * MIB)):
        assert access_in(state, USER, PROCESS + 1, vaddr, AccessKind.READ) == NIL
        # Not present: there is not even a forbidden page for a processor to read ahead of the check.
        assert fault_code(state) == FaultCode.USER


@pytest.mark.parametrize("paging", PAGINGS)
def test_without_isolation_the_kernel_is_there_and_forbidden(paging: str) -> None:
    state = machine(paging=paging, pti=False)
    process(state, paging)
    base = find_region(RegionName.DIRECT_MAP, "6.1", MODE_NAMES[paging]).start
    assert access_in(state, USER, PROCESS, base + 5000 * PAGE_SIZE, AccessKind.READ) == NIL
    assert fault_code(state) == FaultCode.PRESENT | FaultCode.USER


@pytest.mark.parametrize("paging", PAGINGS)
def test_a_forgotten_switch_of_tables_faults_at_the_first_instruction(paging: str) -> None:
    state = machine(paging=paging, pti=True)
    process(state, paging)
    assert access_in(state, USER, PROCESS + 1, USER_ADDRESS, AccessKind.EXECUTE) == A_FRAME
    assert access_in(state, USER, PROCESS, USER_ADDRESS, AccessKind.EXECUTE) == NIL
    assert fault_code(state) == FaultCode.PRESENT | FaultCode.USER | FaultCode.FETCH
    # The kernel itself reads and writes there as ever.
    assert access_in(state, KERNEL, PROCESS, USER_ADDRESS, AccessKind.WRITE) == A_FRAME


@pytest.mark.parametrize("paging", PAGINGS)
def test_the_kernel_enters_through_what_the_user_copy_maps(paging: str) -> None:
    state = machine(paging=paging, pti=True)
    process(state, paging)
    layout = KernelLayout(MEMORY // PAGE_SIZE, MODE_NAMES[paging])
    text = 0xFFFFFFFF80000000 + layout.entry_text.first * PAGE_SIZE
    stack = 0xFFFFFE0000000000 + 2 * PAGE_SIZE  # behind the IDT and the GDT
    assert access_in(state, KERNEL, PROCESS + 1, text, AccessKind.EXECUTE) == layout.entry_text.first
    assert access_in(state, KERNEL, PROCESS + 1, stack, AccessKind.WRITE) != NIL
    assert access_in(state, KERNEL, PROCESS + 1, text - 2 * MIB, AccessKind.EXECUTE) == NIL
    assert fault_code(state) & FaultCode.PRESENT == 0
