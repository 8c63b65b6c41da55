"""Page faults: from an address that the walk refused to an entry that serves it.

    no area, and no stack above that may grow ----------------------> SEGV
    area that forbids the access -----------------------------------> SEGV
    table swapped     the table, and no more: the access is tried again (node/vm/table_swap.py)
    2 MiB             node/fault/huge.py
    entry empty       anonymous memory: node/fault/anon.py; a file's: node/fault/file.py
    swap entry        node/fault/swapped.py
    read-only entry   written: node/fault/cow.py

The whole tree, with how often each branch was taken, is in node/fault/outcome.py and docs/faults.md.

``Access.BREAK`` is what KSM and ``madvise(MADV_UNMERGEABLE)`` use to undo a merge: a write that the area need
not allow.

The fault counts for the process of the current task, which need not be the one whose memory it is: ksmd and
whoever writes to /sys/kernel/mm/ksm/run break other processes' merges.

Linux: mm/memory.c (handle_mm_fault, handle_pte_fault), arch/x86/mm/fault.c (do_user_addr_fault, access_error).
"""

from typing import TYPE_CHECKING

from node.counters import Current, Knob, Request, VmEvent
from node.fault.anon import do_anonymous_page
from node.fault.cow import do_wp_page
from node.fault.entries import count_fault
from node.fault.file import do_file_fault
from node.fault.kinds import Access, VmFault
from node.fault.outcome import FaultOutcome
from node.fault.swapped import do_swap_page
from node.hw.cost import Cost
from node.hw.page_table import pte_position
from node.hw.pte import Pte, is_swap_pte
from node.joints import do_huge_fault, swap_in_table
from node.vm.rss import check_sync_rss_stat
from node.vm.stack import expand_stack
from node.vm.table_swap import hold_table, release_table
from node.vm.thp import may_meet_huge
from node.vm.vma import VmFlag, find_vma
from shared.constants import NIL
from shared.jit import entry, kernel

if TYPE_CHECKING:
    from node.state import State


@kernel
def _access_allowed(state: "State", vma_index: int, access: int) -> int:
    vm_flags = state.vma[vma_index].vm_flags
    if access == Access.WRITE:
        return vm_flags & VmFlag.WRITE
    if access == Access.BREAK:
        return 1
    if access == Access.EXECUTE:
        return vm_flags & VmFlag.EXEC
    return vm_flags & (VmFlag.READ | VmFlag.WRITE | VmFlag.EXEC)


@kernel
def _serve(state: "State", vma_index: int, vaddr: int, access: int) -> int:
    """Serve a fault that the area allows, as the page's entry asks for; return a VmFault."""
    vma = state.vma[vma_index]
    position = pte_position(state, state.mm[vma.mm].pgd_pfn, vaddr)
    if position == NIL and may_meet_huge(state):
        outcome = do_huge_fault(state, vma_index, vaddr, access)
        if outcome != NIL:
            return outcome
        position = pte_position(state, state.mm[vma.mm].pgd_pfn, vaddr)
    pte = 0 if position == NIL else state.pt_word[position]
    if pte == 0:
        if vma.inode:
            return do_file_fault(state, vma_index, position, vaddr, access)
        return do_anonymous_page(state, vma_index, position, vaddr, access)
    if is_swap_pte(pte):
        return do_swap_page(state, vma_index, position, vaddr, access)
    if access & Access.WRITE and not pte & Pte.WRITE:
        return do_wp_page(state, vma_index, position, vaddr)
    state.fault_outcome[FaultOutcome.SPURIOUS] += 1
    state.pt_word[position] = pte | Pte.ACCESSED
    return VmFault.DONE


@kernel
def _bring_table(state: "State", mm_index: int, vaddr: int) -> int:
    """Bring back the table for ``vaddr`` if it is swapped out; return the fault's VmFault then, else NIL."""
    came = swap_in_table(state, mm_index, vaddr)
    if came == NIL:
        return VmFault.OOM
    if not came:
        return NIL
    state.fault_outcome[FaultOutcome.TABLE_SWAPPED_IN] += 1
    if state.request[Request.R0]:
        state.vm_event[VmEvent.PGMAJFAULT] += 1
        count_fault(state, 1)
    return VmFault.DONE


@kernel
def _area_for(state: "State", mm_index: int, vaddr: int) -> int:
    """Return the area that holds ``vaddr``, grown to it if it is a stack; or NIL."""
    index = find_vma(state, mm_index, vaddr)
    if index == NIL or state.vma[index].start <= vaddr:
        return index
    return index if expand_stack(state, index, vaddr) else NIL


@kernel
def _refuse(state: "State", outcome: int) -> int:
    """Count an access that no area allows; not one of the kernel's copies, which itself says how it ends."""
    if not state.cpu[state.current[Current.CPU]].ac:
        state.fault_outcome[outcome] += 1
    return VmFault.SEGV


@entry
def handle_mm_fault(state: "State", mm_index: int, vaddr: int, access: int) -> int:
    """Serve a page fault of the current task in address space ``mm_index``; return a VmFault.

    ``access`` is an Access. After DONE the access is tried again: the page may have been taken away while
    its neighbour was being allocated, or only its table have come back, and then it faults once more.
    """
    vma_index = _area_for(state, mm_index, vaddr)
    if vma_index == NIL:
        return _refuse(state, FaultOutcome.BAD_AREA)
    if not _access_allowed(state, vma_index, access):
        return _refuse(state, FaultOutcome.BAD_ACCESS)
    state.vm_event[VmEvent.PGFAULT] += 1
    count_fault(state, 0)
    check_sync_rss_stat(state)
    state.current[Current.CLOCK_PS] += state.cost[Cost.PAGE_FAULT]
    table = NIL
    if state.knob[Knob.PAGEABLE_TABLES]:
        outcome = _bring_table(state, mm_index, vaddr)
        if outcome != NIL:
            return outcome
        table = hold_table(state, mm_index, vaddr)
    outcome = _serve(state, vma_index, vaddr, access)
    release_table(state, table)
    if outcome == VmFault.OOM:
        state.fault_outcome[FaultOutcome.OUT_OF_MEMORY] += 1
    return outcome
