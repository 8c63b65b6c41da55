"""An access whose fault is served, and that is then made again in one of two ways."""

from node.counters import Current
from node.hw.mmu import access
from node.hw.registers import FaultVector
from node.joints import access_after_fault, access_as, handle_mm_fault, run_in_user_mode
from node.kmap.entry import enter_kernel, leave_kernel
from node.state import State
from shared.constants import NIL
from shared.jit import entry


@entry
def touch_again(state: State, mm: int, vaddr: int, kind: int, with_search: int) -> int:
    """Access ``vaddr``; after a page fault again, as if it were a new access, or not; return the frame, or NIL."""
    run_in_user_mode(state, mm)
    pfn = access(state, vaddr, kind)
    cpu = state.cpu[state.current[Current.CPU]]
    if pfn != NIL or cpu.fault_vector != FaultVector.PAGE_FAULT:
        return pfn
    enter_kernel(state)
    handle_mm_fault(state, mm, vaddr, kind)
    leave_kernel(state)
    return access_as(state, vaddr, kind) if with_search else access_after_fault(state, vaddr, kind)
