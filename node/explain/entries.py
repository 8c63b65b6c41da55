"""The kernels that only ``explain`` needs: a CPU brought to where the access is made from, and a look into its TLBs.

The access itself is the machine's own (``access_as``), and so is the handler that serves a fault.
"""

from typing import TYPE_CHECKING

from node.counters import Current
from node.fault.kinds import VmFault
from node.hw.registers import FaultVector
from node.hw.tlb import array_set
from node.joints import handle_mm_fault, run_in_user_mode
from node.kmap.asid import INIT_MM, switch_mm
from node.kmap.entry import KERNEL_MODE, enter_kernel, leave_kernel
from node.kmap.pti import sync_pgd_fault
from shared.jit import entry, kernel

if TYPE_CHECKING:
    from node.state import State


@kernel
def _go_there(state: "State", mm_index: int, cpl: int) -> None:
    if mm_index == INIT_MM:
        enter_kernel(state)
        switch_mm(state, INIT_MM)
        return
    run_in_user_mode(state, mm_index)
    if cpl == KERNEL_MODE:
        enter_kernel(state)


@entry
def stand_in(state: "State", cpu_index: int, mm_index: int, cpl: int) -> None:
    """Let a CPU be in an address space at a privilege level, as Linux gets there; INIT_MM has the kernel's alone."""
    cpu = state.cpu[cpu_index]
    state.current[Current.CPU] = cpu_index
    state.current[Current.MM] = mm_index
    state.current[Current.CLOCK_PS] = cpu.clock_ps
    state.current[Current.STALL_PS] = 0
    _go_there(state, mm_index, cpl)
    cpu.fault_vector = FaultVector.NONE
    cpu.error_code = 0


@entry
def serve_fault(state: "State", mm_index: int, vaddr: int, kind: int) -> int:
    """Let the kernel serve the page fault that the current CPU raised in user mode; return a VmFault.

    Back in user mode if the process is still there.
    """
    cpu = state.cpu[state.current[Current.CPU]]
    was_in_kernel = cpu.cpl == KERNEL_MODE
    enter_kernel(state)
    outcome = handle_mm_fault(state, mm_index, vaddr, kind)
    if cpu.mm == mm_index and not was_in_kernel:
        leave_kernel(state)
    return outcome


@entry
def sync_kernel_entry(state: "State", pgd_pfn: int, vaddr: int) -> int:
    """Let the kernel serve a fault on an address of vmalloc by the master's entry; return a VmFault."""
    return VmFault.DONE if sync_pgd_fault(state, pgd_pfn, vaddr) else VmFault.SEGV


@entry
def first_of_set(state: "State", array_index: int, number: int) -> int:
    """Return the place in ``state.tlb`` of the current CPU's set of a TlbArray where page ``number`` belongs."""
    return array_set(state, state.current[Current.CPU], array_index, number)
