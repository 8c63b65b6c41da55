"""Address spaces on a CPU: which six keep their translations, and when switching to one must flush.

Processors tag translations with 12-bit PCIDs; Linux gives six of them to the address spaces that a CPU ran
last, as *ASIDs* 0..5. With kernel page-table isolation each has two, for the two halves of its life:

    kernel PCID = ASID + 1            1 .. 6         PCID 0 is never used for a process
    user PCID   = kernel PCID | 2048  2049 .. 2054

An address space counts its flushes in ``tlb_gen``. A CPU remembers for each ASID whose it is and up to which
generation it has flushed. So a flush only reaches CPUs that run the address space now; the others find out
when they switch back to it that the generation has moved on, and drop the ASID's translations then.

    same address space as before           no flush, CR3 is not even written
    in one of the six, generation equal    CR3 with bit 63: nothing is dropped
    in one of the six, generation behind   CR3 without it: the PCID is dropped
    in none                                it takes the next ASID in turn, which is dropped
    kernel thread                          stays on the tables of whoever ran (lazy TLB)

Dropping the user PCID waits for the return to user mode (``user_flush_mask``, node/kmap/entry.py).

Linux: arch/x86/mm/tlb.c (switch_mm_irqs_off, choose_new_asid, load_new_mm_cr3, enter_lazy_tlb).
"""

from typing import TYPE_CHECKING, Final

import numpy as np

from node.counters import Current, HwEvent, Knob
from node.hw.registers import CR3_NO_FLUSH, write_cr3
from shared.constants import NIL, PAGE_SHIFT
from shared.jit import kernel

if TYPE_CHECKING:
    from node.state import State

TLB_CONTEXT = np.dtype(
    [
        ("ctx_id", np.int64),  # whose translations an ASID tags; 0: nobody's
        ("tlb_gen", np.int64),  # up to which of its flushes this CPU has done
    ],
    align=True,
)

NR_ASIDS: Final = 6  # TLB_NR_DYN_ASIDS
USER_PCID_BIT: Final = 1 << 11  # X86_CR3_PTI_PCID_USER_BIT
INIT_MM: Final = 0  # stands for init_mm in cpu.mm


@kernel
def kernel_pcid(state: "State", asid: int) -> int:
    """Return the PCID of an ASID in kernel mode; 0 where the machine has no PCIDs."""
    return asid + 1 if state.knob[Knob.PCID] else 0


@kernel
def user_pcid(state: "State", asid: int) -> int:
    """Return the PCID of an ASID in user mode."""
    pcid = asid + 1 if state.knob[Knob.PCID] else 0
    return pcid | USER_PCID_BIT if pcid and state.knob[Knob.PTI] else pcid


@kernel
def invalidate_user_asid(state: "State", cpu: int, asid: int) -> None:
    """Let the next return to user mode drop the ASID's user PCID; without PCIDs the write of CR3 does it anyway."""
    if state.knob[Knob.PCID] and state.knob[Knob.PTI]:
        state.cpu[cpu].user_flush_mask |= 1 << asid


@kernel
def _asid_of(state: "State", cpu: int, ctx_id: int) -> int:
    for asid in range(NR_ASIDS):
        if state.tlb_context[cpu * NR_ASIDS + asid].ctx_id == ctx_id:
            return asid
    return NIL


@kernel
def _next_asid(state: "State", cpu: int) -> int:
    """Return the ASID whose turn it is to be given to another address space."""
    record = state.cpu[cpu]
    asid = record.next_asid
    if asid >= NR_ASIDS:
        asid = 0
    record.next_asid = asid + 1
    return asid


@kernel
def _load(state: "State", cpu: int, mm_index: int, asid: int, flush: int) -> None:
    """Write CR3 and note whose ASID it is (load_new_mm_cr3)."""
    record = state.cpu[cpu]
    pgd = state.mm[mm_index].pgd_pfn if mm_index != INIT_MM else state.knob[Knob.SWAPPER_PGD]
    value = (pgd << PAGE_SHIFT) | kernel_pcid(state, asid)
    if flush:
        invalidate_user_asid(state, cpu, asid)
    else:
        value |= CR3_NO_FLUSH
    write_cr3(state, value)
    record.mm = mm_index
    record.asid = asid


@kernel
def _switch_to(state: "State", cpu: int, mm_index: int, asid: int) -> None:
    """Load an address space under ``asid``, or under whichever it has or gets if that is NIL."""
    mm = state.mm[mm_index]
    ctx_id = mm.ctx_id if mm_index != INIT_MM else 0
    tlb_gen = mm.tlb_gen if mm_index != INIT_MM else 0
    flush = 1
    if asid == NIL:
        asid = 0
        if state.knob[Knob.PCID]:
            asid = _asid_of(state, cpu, ctx_id)
            if asid == NIL:
                asid = _next_asid(state, cpu)
            elif state.tlb_context[cpu * NR_ASIDS + asid].tlb_gen == tlb_gen:
                flush = 0
    context = state.tlb_context[cpu * NR_ASIDS + asid]
    context.ctx_id = ctx_id
    context.tlb_gen = tlb_gen
    _load(state, cpu, mm_index, asid, flush)


@kernel
def switch_mm(state: "State", mm_index: int) -> None:
    """Make an address space the current CPU's, in kernel mode (switch_mm_irqs_off); INIT_MM is the kernel's own."""
    cpu = state.current[Current.CPU]
    record = state.cpu[cpu]
    was_lazy = record.lazy
    record.lazy = 0
    if record.mm != mm_index:
        if mm_index != INIT_MM:
            state.hw_event[HwEvent.CONTEXT_SWITCH] += 1
        _switch_to(state, cpu, mm_index, NIL)
        return
    if not was_lazy or mm_index == INIT_MM:
        return
    if state.tlb_context[cpu * NR_ASIDS + record.asid].tlb_gen != state.mm[mm_index].tlb_gen:
        _switch_to(state, cpu, mm_index, record.asid)


@kernel
def enter_lazy_tlb(state: "State", cpu: int) -> None:
    """Let a CPU that goes idle, or runs a kernel thread, stay on the tables that it has."""
    if state.cpu[cpu].mm != INIT_MM:
        state.cpu[cpu].lazy = 1
