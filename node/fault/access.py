r"""One access of a process: translated, faulted in if need be, and charged.

    user mode: MMU --page--> done
                 \--fault--> kernel mode: handle_mm_fault --served--> user mode: again      node/fault/user_fault.py
                                                          \--not--> a signal, in Linux

This is what workloads do at every turn, so it is inlined there; all that is rare is a call.
"""

from typing import TYPE_CHECKING

from node.counters import Current, HwEvent, Knob
from node.hw.cache_lines import CacheMode
from node.hw.cost import Cost
from node.hw.mmu import access
from node.joints import access_through_cache, fault_in
from shared.constants import NIL
from shared.jit import hot_kernel

if TYPE_CHECKING:
    from node.state import State


@hot_kernel
def touch(state: "State", mm_index: int, vaddr: int, kind: int) -> int:
    """Read, write or execute one page of the current task, whose address space is loaded; fault if need be.

    ``kind`` is an AccessKind. Returns the frame, or NIL if the fault could not be served (no area, no rights, no
    memory: the kernel would send a signal); Request.R0 then holds the VmFault.
    """
    has_cache = state.knob[Knob.DCACHE_MODE] != CacheMode.OFF
    pfn = access_through_cache(state, vaddr, kind) if has_cache else access(state, vaddr, kind)
    if pfn == NIL:
        pfn = fault_in(state, mm_index, vaddr, kind)
        if pfn == NIL:
            return NIL
    state.hw_event[HwEvent.MEMORY_ACCESS] += 1
    if not has_cache:
        state.current[Current.CLOCK_PS] += state.cost[Cost.MEMORY_ACCESS]
    return pfn
