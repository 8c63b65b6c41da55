"""Faults in kernel mode on addresses of a process: a copy that may fault, and anything else, which is an oops.

    copy_to_user, copy_from_user      page by page, SMAP opened (AC set)
        fault, and an area allows it  served like the process's own, and tried again
        fault, and none does          the exception table has the instruction: the copy ends early, -EFAULT
    any other access                  SMAP closed, or no entry in that table: an oops, the task is lost

Linux: arch/x86/mm/fault.c (do_user_addr_fault, kernelmode_fixup_or_oops), arch/x86/lib/usercopy_64.c, mm/extable.c.
# Differs from Linux: what is copied is one byte a page; the rest of a page follows without another access.
"""

from typing import TYPE_CHECKING

from node.content import write_first_byte
from node.counters import Current, Request
from node.fault.kinds import VmFault
from node.fault.outcome import FaultOutcome
from node.fault.populate import ATTEMPTS
from node.hw.paging import AccessKind
from node.hw.registers import FaultVector
from node.joints import access_as, handle_mm_fault
from node.kmap.entry import enter_kernel, leave_kernel
from shared.constants import NIL, PAGE_SHIFT
from shared.jit import entry, kernel

if TYPE_CHECKING:
    from node.state import State


@kernel
def _touch(state: "State", mm_index: int, vaddr: int, kind: int) -> int:
    """Access a page of a process from kernel mode, served if its area allows; return the frame, or NIL."""
    cpu = state.cpu[state.current[Current.CPU]]
    for _ in range(ATTEMPTS):
        pfn = access_as(state, vaddr, kind)
        if pfn != NIL:
            return pfn
        if cpu.fault_vector != FaultVector.PAGE_FAULT:
            return NIL
        if handle_mm_fault(state, mm_index, vaddr, kind) != VmFault.DONE:
            return NIL
    return NIL


@kernel
def _copy(state: "State", mm_index: int, start: int, end: int, kind: int) -> int:
    cpu = state.cpu[state.current[Current.CPU]]
    enter_kernel(state)
    cpu.ac = 1
    vaddr = start
    left = 0
    while vaddr < end:
        pfn = _touch(state, mm_index, vaddr, kind)
        if pfn == NIL:
            state.fault_outcome[FaultOutcome.KERNEL_FIXUP] += 1
            left = end - vaddr
            break
        if kind == AccessKind.WRITE:
            write_first_byte(state, pfn, state.request[Request.A0])
        vaddr = ((vaddr >> PAGE_SHIFT) + 1) << PAGE_SHIFT
    cpu.ac = 0
    leave_kernel(state)
    return left


@entry
def copy_to_user(state: "State", mm_index: int, vaddr: int, nr_bytes: int) -> int:
    """Copy bytes into the memory of the running process; return how many were not: 0 if all is well, else -EFAULT.

    Each page's first byte becomes Request.A0.
    """
    return _copy(state, mm_index, vaddr, vaddr + nr_bytes, AccessKind.WRITE)


@entry
def copy_from_user(state: "State", mm_index: int, vaddr: int, nr_bytes: int) -> int:
    """Copy bytes out of the memory of the running process; return how many were not."""
    return _copy(state, mm_index, vaddr, vaddr + nr_bytes, AccessKind.READ)


@entry
def stray_kernel_access(state: "State", vaddr: int, kind: int) -> int:
    """Access an address of a process from kernel mode where no copy is under way; return 0, or NIL: an oops.

    With SMAP even a page that is mapped faults; no area is asked, since the kernel had no business there.
    """
    enter_kernel(state)
    pfn = access_as(state, vaddr, kind)
    if pfn == NIL:
        state.fault_outcome[FaultOutcome.KERNEL_OOPS] += 1
    leave_kernel(state)
    return NIL if pfn == NIL else 0
