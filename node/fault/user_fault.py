"""The rare side of an access: a fault served and the access tried again, and the data cache where there is one.

The kernel's side of a fault pays for crossing the border (node/kmap/entry.py). A fault that the kernel has
served may come back: the page may have been taken away while its neighbour was being allocated.

Where a data cache is modelled, accesses to data go through it, before or after their translation as its mode
says (node/hw/data_cache.py); else each costs the same.
"""

from typing import TYPE_CHECKING, Final

from node.counters import Current, Knob, Panic, Request
from node.fault.kinds import VmFault
from node.hw.cache_lines import CacheMode, line_pfn
from node.hw.cost import Cost
from node.hw.data_cache import cache_access, find_virtual_line, translation_hidden_ps, use_line
from node.hw.mmu import access
from node.hw.paging import AccessKind
from node.hw.registers import FaultVector
from node.joints import access_after_fault, handle_mm_fault
from node.kmap.entry import enter_kernel, leave_kernel
from shared.constants import NIL, PAGE_SHIFT
from shared.jit import bug_on, entry, kernel

if TYPE_CHECKING:
    from node.state import State

# Swapped in, copied, and taken away in between by the reclaim that either allocation set off: more in a row
# is a fault handler that serves nothing.
MAX_FAULTS_PER_ACCESS: Final = 16


@kernel
def _serve_fault(state: "State", mm_index: int, vaddr: int, kind: int) -> int:
    """Let the kernel serve the fault that the current CPU has just raised; return a VmFault."""
    cpu = state.cpu[state.current[Current.CPU]]
    vector = cpu.fault_vector
    enter_kernel(state)
    outcome = (
        handle_mm_fault(state, mm_index, vaddr, kind) if vector == FaultVector.PAGE_FAULT else VmFault.SEGV
    )
    if cpu.mm == mm_index:  # else the process has come to its end meanwhile
        leave_kernel(state)
    return outcome


@kernel
def _access_through_cache(state: "State", vaddr: int, kind: int) -> int:
    """Translate and make one access of a user program where there is a data cache; return the frame, or NIL."""
    if kind == AccessKind.EXECUTE:
        pfn = access(state, vaddr, kind)
        if pfn != NIL:
            state.current[Current.CLOCK_PS] += state.cost[Cost.MEMORY_ACCESS]
        return pfn
    write = 1 if kind == AccessKind.WRITE else 0
    index = find_virtual_line(state, vaddr, write)
    if index != NIL:
        state.current[Current.CLOCK_PS] += use_line(state, index, write)
        return line_pfn(state, index)
    before_ps = state.current[Current.CLOCK_PS]
    state.current[Current.PAGE_IS_SPECIAL] = 0
    pfn = access(state, vaddr, kind)
    if pfn == NIL:
        return NIL
    if state.current[Current.PAGE_IS_SPECIAL]:
        state.current[Current.CLOCK_PS] += state.cost[Cost.MEMORY_ACCESS]
        return pfn
    translation_ps = state.current[Current.CLOCK_PS] - before_ps
    cached_ps = cache_access(state, vaddr, pfn, write)
    state.current[Current.CLOCK_PS] += cached_ps - translation_hidden_ps(state, translation_ps)
    return pfn


@entry
def fault_in(state: "State", mm_index: int, vaddr: int, kind: int) -> int:
    """Go on with an access that has just faulted, until it is through; as ``touch``, but charge no access."""
    has_cache = state.knob[Knob.DCACHE_MODE] != CacheMode.OFF
    for _ in range(MAX_FAULTS_PER_ACCESS):
        outcome = _serve_fault(state, mm_index, vaddr, kind)
        if outcome:
            state.request[Request.R0] = outcome
            return NIL
        pfn = (
            _access_through_cache(state, vaddr, kind) if has_cache else access_after_fault(state, vaddr, kind)
        )
        if pfn != NIL:
            return pfn
    bug_on(state, True, Panic.PAGE_TABLE, vaddr >> PAGE_SHIFT)
    return NIL


@entry
def access_through_cache(state: "State", vaddr: int, kind: int) -> int:
    """Translate and make one access of a user program where there is a data cache; return the frame, or NIL."""
    return _access_through_cache(state, vaddr, kind)
