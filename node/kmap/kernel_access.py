"""One access of the kernel to its own memory, with the one fault that it mends.

    access_as --fault--> not present, in vmalloc space, and the master table has the top-level entry?
                            yes: copy it (vmalloc_fault), again          no: an oops, in Linux

Processes share the kernel's tables below the top level, so an entry of the top level that the master table gets
after a process was made is all that such a process can lack. Kernels of the lecture era, and 32-bit ones, leave
it to this fault; 6.1's 64-bit kernel makes those entries before the first process (node/kmap/pti.py).

Linux: arch/x86/mm/fault.c (do_kern_addr_fault, vmalloc_fault).
"""

from typing import TYPE_CHECKING

from node.counters import Current
from node.hw.registers import FaultCode, FaultVector, cr3_root
from node.joints import access_as
from node.kmap.pti import sync_pgd_fault
from shared.constants import NIL
from shared.jit import kernel

if TYPE_CHECKING:
    from node.state import State


@kernel
def kernel_access(state: "State", vaddr: int, kind: int) -> int:
    """Access kernel memory on the current CPU, which is in kernel mode; return the frame, or NIL for an oops.

    ``kind`` is an AccessKind. The fault's vector, address and code are in the CPU's registers.
    """
    pfn = access_as(state, vaddr, kind)
    if pfn != NIL:
        return pfn
    cpu = state.cpu[state.current[Current.CPU]]
    if cpu.fault_vector != FaultVector.PAGE_FAULT or cpu.error_code & (FaultCode.PRESENT | FaultCode.USER):
        return NIL
    if not sync_pgd_fault(state, cr3_root(cpu.cr3), vaddr):
        return NIL
    return access_as(state, vaddr, kind)
