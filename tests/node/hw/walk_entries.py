"""What Python calls to compare page walks: registers set, and whole batches of accesses, in one call each.

A batch lies in ``state.zipf``, a table that translation does not know: arguments of all accesses, then
results of all.

    [vaddr, kind, vaddr, kind, ...]  [pfn, vector, cr2, code, pfn, vector, cr2, code, ...]
"""

from enum import IntEnum
from typing import Final

from node.counters import Current
from node.hw.mmu import access
from node.hw.registers import Cr0, set_tag, write_cr0, write_cr3, write_cr4, write_pkru
from node.hw.tlb_drop import drop_all
from node.hw.walk import Cached, walk
from node.joints import access_as
from node.state import State
from shared.constants import NIL
from shared.jit import entry

NR_ARGUMENTS: Final = 2  # of an access
NR_RESULTS: Final = 4


class How(IntEnum):
    """Bits that say how a batch is made."""

    DROP_CACHED = 1 << 0  # before each access
    FAST = 1 << 1  # by ``access``, which is for level 3 alone


@entry
def run_accesses(state: State, nr_accesses: int, how: int) -> None:
    """Make the accesses of a batch, in order, on the current CPU."""
    cpu_index = state.current[Current.CPU]
    cpu = state.cpu[cpu_index]
    for number in range(nr_accesses):
        if how & How.DROP_CACHED:
            drop_all(state, cpu_index)
        argument = NR_ARGUMENTS * number
        vaddr = state.zipf[argument]
        kind = state.zipf[argument + 1]
        pfn = access(state, vaddr, kind) if how & How.FAST else access_as(state, vaddr, kind)
        result = NR_ARGUMENTS * nr_accesses + NR_RESULTS * number
        failed = pfn == NIL
        state.zipf[result] = pfn
        state.zipf[result + 1] = cpu.fault_vector if failed else 0
        state.zipf[result + 2] = cpu.cr2
        state.zipf[result + 3] = cpu.error_code if failed else 0


@entry
def do_walk(state: State, vaddr: int, kind: int) -> int:
    return walk(state, vaddr, kind, Cached.ANYTHING)


@entry
def start_paging(state: State, cr3: int, cr4: int, efer: int) -> None:
    """Give the current CPU the registers with which it will turn on paging, and empty caches."""
    cpu = state.cpu[state.current[Current.CPU]]
    cpu.cr0 = Cr0.PE
    cpu.cr3 = cr3
    cpu.cr4 = cr4
    cpu.efer = efer
    drop_all(state, state.current[Current.CPU])
    set_tag(state, state.current[Current.CPU])


@entry
def load_control(state: State, cr0: int, cr3: int, cr4: int) -> int:
    """Load the control registers by their instructions; return what the first that was refused did, or 0."""
    refused = write_cr0(state, cr0)
    if refused:
        return refused
    refused = write_cr4(state, cr4)
    if refused:
        return refused
    return write_cr3(state, cr3)


@entry
def load_rest(state: State, pkru: int, cpl: int, ac: int) -> None:
    """Load what is loaded without dropping anything."""
    cpu = state.cpu[state.current[Current.CPU]]
    write_pkru(state, pkru)
    cpu.cpl = cpl
    cpu.ac = ac
