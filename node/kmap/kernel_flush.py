"""Flushes of kernel addresses: they are every address space's, so every CPU takes part.

    up to 33 pages   every CPU: INVLPG for each page; with KPTI, whose kernel entries are not global, the PCIDs of
                     the address spaces that are not loaded keep theirs: their next switch drops them
    more             every CPU: everything, global entries too

Linux: arch/x86/mm/tlb.c (flush_tlb_kernel_range, do_kernel_range_flush, flush_tlb_one_kernel,
invalidate_other_asid).
"""

from typing import TYPE_CHECKING

from node.counters import Current, Knob, VmEvent
from node.hw.cost import Cost
from node.hw.tlb_drop import drop_all, drop_page
from node.kmap.asid import NR_ASIDS, kernel_pcid
from node.kmap.tlb_flush import SINGLE_PAGE_FLUSH_CEILING
from shared.constants import NIL, PAGE_SHIFT, PAGE_SIZE
from shared.jit import entry, kernel

if TYPE_CHECKING:
    from node.state import State


@kernel
def _charge(state: "State", cpu: int, cost_ps: int) -> None:
    """Let a CPU's own clock go on: the current task's if it is the current CPU, else as in an interrupt."""
    if cpu == state.current[Current.CPU]:
        state.current[Current.CLOCK_PS] += cost_ps
    else:
        state.cpu[cpu].clock_ps += cost_ps + state.cost[Cost.IPI_HANDLER]


@kernel
def _flush_everything(state: "State", cpu: int) -> None:
    """Drop all that a CPU has cached (do_flush_tlb_all)."""
    state.vm_event[VmEvent.NR_TLB_REMOTE_FLUSH_RECEIVED] += 1
    drop_all(state, cpu)
    _charge(state, cpu, state.cost[Cost.CR3_WRITE])


@kernel
def _invalidate_other_asids(state: "State", cpu: int) -> None:
    """Let a switch to any other address space drop its translations: its generation is behind."""
    for asid in range(NR_ASIDS):
        if asid != state.cpu[cpu].asid:
            state.tlb_context[cpu * NR_ASIDS + asid].tlb_gen = NIL


@kernel
def _flush_pages(state: "State", cpu: int, start: int, end: int) -> None:
    """Drop pages of the kernel, one by one (do_kernel_range_flush)."""
    pcid = kernel_pcid(state, state.cpu[cpu].asid)
    for vaddr in range(start, end, PAGE_SIZE):
        drop_page(state, cpu, vaddr, pcid, 1)
    if state.knob[Knob.PTI] and state.knob[Knob.PCID]:
        _invalidate_other_asids(state, cpu)
    _charge(state, cpu, ((end - start) >> PAGE_SHIFT) * state.cost[Cost.TLB_FLUSH_ONE])


@entry
def flush_tlb_kernel_range(state: "State", start: int, end: int) -> int:
    """Drop [start, end) of the kernel's addresses from every CPU; return 0."""
    is_large = (end - start) >> PAGE_SHIFT > SINGLE_PAGE_FLUSH_CEILING
    for cpu in range(state.knob[Knob.NR_CPUS]):
        if is_large:
            _flush_everything(state, cpu)
        else:
            _flush_pages(state, cpu, start, end)
    if state.knob[Knob.NR_CPUS] > 1:
        state.current[Current.CLOCK_PS] += state.cost[Cost.IPI]
    return 0
