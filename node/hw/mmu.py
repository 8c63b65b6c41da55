"""The MMU: what becomes of an access to memory before a byte is read.

    first-level TLB --hit, rights suffice--------------------------> frame
       | else
    second-level TLB --hit, rights suffice--> copy to first level --> frame
       | else
    walk PGD, PUD, PMD, PTE --present, rights suffice--> fill both --> frame
       | else
    page fault: the kernel serves it and the access is tried again

A walk sets A in every entry it uses, and D in the leaf if the access writes. A TLB entry remembers D, so
the first write after reads walks once more to set it; likewise a write that the entry forbids walks before
it faults, because the tables may have been changed in favour of the access without a flush.

On a guest, every frame that a walk meets is translated by the EPT too: the tables as writes, since the
processor may set A and D in them, and the page itself as read or written. Where the view does not allow it,
``ept_access`` raises the view and logs the violation, and the walk goes on.

Sources: Intel SDM volume 3, 4.5, 4.6 (rights), 4.8 (A and D), 4.10.4.1 (a page fault invalidates), 28.3.3.
# Differs from Linux: no paging-structure caches shorten a walk yet; it always makes four references.
"""

from typing import TYPE_CHECKING, Final

from node.counters import Current, HwEvent, Knob, Panic, Request
from node.hw.cost import Cost
from node.hw.ept_view import ept_access
from node.hw.page_table import NR_LEVELS, TOP_SHIFT, entry_position
from node.hw.pte import Pte, pte_pfn
from node.hw.tlb import (
    TlbRight,
    fill_first_level,
    fill_second_level,
    find_first_level,
    find_second_level,
    flush_one,
    tlb_key,
)
from node.joints import handle_mm_fault
from shared.constants import NIL, PAGE_SHIFT, TABLE_SHIFT
from shared.jit import bug_on, hot_kernel, kernel
from shared.views import View

if TYPE_CHECKING:
    from node.state import State

NEEDED_TO_READ: Final = TlbRight.USER
NEEDED_TO_WRITE: Final = TlbRight.USER | TlbRight.WRITE | TlbRight.DIRTY | TlbRight.EPT_WRITE
# Swapped in, copied, and taken away in between by the reclaim that either allocation set off: more in a row
# is a fault handler that serves nothing.
MAX_FAULTS_PER_ACCESS: Final = 16


@kernel
def load_mm(state: "State", mm_index: int) -> None:
    """Load an address space into the current CPU's CR3; its translations are kept, thanks to PCIDs."""
    cpu = state.cpu[state.current[Current.CPU]]
    if cpu.mm != mm_index:
        cpu.mm = mm_index
        cpu.pcid = state.mm[mm_index].pcid
        state.current[Current.CLOCK_PS] += state.cost[Cost.CONTEXT_SWITCH]


@kernel
def _upper_levels(state: "State", pgd_pfn: int, vaddr: int) -> int:
    """Follow the three upper levels; return the leaf table's entry, or 0 if one is missing.

    The bits W and U of the result are set only if they are in all three.
    """
    table = pgd_pfn
    rights = Pte.WRITE | Pte.USER
    for level in range(NR_LEVELS - 1):
        if state.knob[Knob.IS_GUEST]:
            ept_access(state, table, 1)
        position = entry_position(table, vaddr, TOP_SHIFT - TABLE_SHIFT * level)
        word = state.pt_word[position]
        if not word & Pte.PRESENT:
            return 0
        if not word & Pte.ACCESSED:
            state.pt_word[position] = word | Pte.ACCESSED
        rights &= word
        table = pte_pfn(word)
    return (table << PAGE_SHIFT) | Pte.PRESENT | rights


@kernel
def _fill(state: "State", key: int, leaf: int, write: int) -> int:
    """Put the translation that a walk found into the current CPU's TLB; return its frame."""
    pfn = pte_pfn(leaf)
    rights: int = TlbRight.EPT_WRITE
    if state.knob[Knob.IS_GUEST]:
        ept_access(state, pfn, write)
        if state.ept_view[pfn] != View.WRITABLE:
            rights = 0
    if leaf & Pte.WRITE:
        rights |= TlbRight.WRITE
    if leaf & Pte.USER:
        rights |= TlbRight.USER
    if leaf & Pte.DIRTY:
        rights |= TlbRight.DIRTY
    fill_first_level(state, key, pfn, rights)
    fill_second_level(state, key, pfn, rights)
    return pfn


@kernel
def _walk(state: "State", mm_index: int, vaddr: int, write: int) -> int:
    """Walk the page table and fill the TLB; return the frame, or NIL for a page fault."""
    state.hw_event[HwEvent.TLB_WALK] += 1
    state.hw_event[HwEvent.WALK_REFERENCES] += NR_LEVELS
    state.current[Current.CLOCK_PS] += NR_LEVELS * state.cost[Cost.WALK_REFERENCE]
    mm = state.mm[mm_index]
    upper = _upper_levels(state, mm.pgd_pfn, vaddr)
    if upper == 0:
        return NIL
    table = pte_pfn(upper)
    if state.knob[Knob.IS_GUEST]:
        ept_access(state, table, 1)
    position = entry_position(table, vaddr, PAGE_SHIFT)
    word = state.pt_word[position]
    rights = word & upper
    needed = Pte.PRESENT | Pte.USER | (Pte.WRITE if write else 0)
    if rights & needed != needed:
        return NIL
    used = word | Pte.ACCESSED | (Pte.DIRTY if write else 0)
    if used != word:
        state.pt_word[position] = used
    leaf = (used & ~(Pte.WRITE | Pte.USER)) | (rights & (Pte.WRITE | Pte.USER))
    return _fill(state, tlb_key(vaddr, mm.pcid), leaf, write)


@kernel
def _access_beyond_first_level(state: "State", mm_index: int, vaddr: int, write: int) -> int:
    cpu = state.current[Current.CPU]
    key = tlb_key(vaddr, state.mm[mm_index].pcid)
    needed = NEEDED_TO_WRITE if write else NEEDED_TO_READ
    index = find_second_level(state, cpu, key)
    if index != NIL:
        entry = state.tlb[index]
        if entry.rights & needed == needed:
            state.hw_event[HwEvent.TLB_L2_HIT] += 1
            state.current[Current.CLOCK_PS] += state.cost[Cost.TLB_L2_HIT]
            fill_first_level(state, key, entry.pfn, entry.rights)
            return entry.pfn
    pfn = _walk(state, mm_index, vaddr, write)
    if pfn == NIL:
        # A fault drops what the TLB holds for the address.
        flush_one(state, cpu, key)
    return pfn


@hot_kernel
def access(state: "State", mm_index: int, vaddr: int, write: int) -> int:
    """Translate one access of the current CPU; return the frame, or NIL for a page fault.

    Charges the clock with the translation. Each access is one first-level hit, second-level hit or walk.
    """
    cpu = state.current[Current.CPU]
    index = find_first_level(state, cpu, tlb_key(vaddr, state.mm[mm_index].pcid))
    if index != NIL:
        entry = state.tlb[index]
        needed = NEEDED_TO_WRITE if write else NEEDED_TO_READ
        if entry.rights & needed == needed:
            state.hw_event[HwEvent.TLB_L1_HIT] += 1
            state.current[Current.CLOCK_PS] += state.cost[Cost.TLB_L1_HIT]
            return entry.pfn
    return _access_beyond_first_level(state, mm_index, vaddr, write)


@hot_kernel
def touch(state: "State", mm_index: int, vaddr: int, write: int) -> int:
    """Read or write one page of the current task, faulting as often as it takes.

    Returns the frame, or NIL if the fault could not be served (no area, no rights, no memory: the kernel
    would send a signal); Request.R0 then holds the VmFault.
    """
    for _ in range(MAX_FAULTS_PER_ACCESS):
        pfn = access(state, mm_index, vaddr, write)
        if pfn != NIL:
            state.hw_event[HwEvent.MEMORY_ACCESS] += 1
            state.current[Current.CLOCK_PS] += state.cost[Cost.MEMORY_ACCESS]
            return pfn
        outcome = handle_mm_fault(state, mm_index, vaddr, write)
        if outcome:
            state.request[Request.R0] = outcome
            return NIL
    bug_on(state, True, Panic.PAGE_TABLE, vaddr >> PAGE_SHIFT)
    return NIL
