"""Flushes: taking stale translations out of every CPU that could use them, and of no other.

    flush_tlb_range(mm, start, end, freed_tables)
        tlb_gen += 1
        here, if the address space is loaded:         page by page up to 33 pages, else the whole PCID
        other CPUs that have it loaded:               an interrupt each, which does the same there
        CPUs with it loaded, but lazy:                nothing, unless page tables were freed
        all others:                                   nothing; their next switch sees the generation

A page's flush is INVLPG for the kernel's PCID and INVPCID for the user's, which a processor without that instruction
leaves to the return to user mode; a whole flush writes CR3 anew and leaves the user's PCID to that return too. A lazy
CPU that is interrupted moves over to the kernel's own table.

What is counted, by Linux's names: nr_tlb_remote_flush, once a flush that asks other CPUs;
nr_tlb_remote_flush_received, each CPU asked; nr_tlb_local_flush_one, pages, and nr_tlb_local_flush_all,
flushes, both of the CPU that began it.

Linux: arch/x86/mm/tlb.c (flush_tlb_mm_range, flush_tlb_func, native_flush_tlb_multi,
native_flush_tlb_one_user, flush_tlb_kernel_range), Documentation/x86/tlb.rst (why 33).
# Differs from Linux: reclaim's flushes are not batched (arch_tlbbatch_flush); each page pays its own.
"""

from typing import TYPE_CHECKING, Final

from node.counters import Current, Knob, VmEvent
from node.hw.cost import Cost
from node.hw.registers import write_cr3
from node.hw.tlb_drop import drop_all, drop_page
from node.kmap.asid import (
    INIT_MM,
    NR_ASIDS,
    enter_lazy_tlb,
    invalidate_user_asid,
    kernel_pcid,
    switch_mm,
    user_pcid,
)
from node.kmap.entry import USER_MODE, enter_kernel, leave_kernel
from node.kmap.flush_calls import FLUSH_ALL
from shared.constants import PAGE_SHIFT, PAGE_SIZE
from shared.jit import entry, hot_kernel, kernel

if TYPE_CHECKING:
    from node.state import State

SINGLE_PAGE_FLUSH_CEILING: Final = 33  # pages; above it all of the address space is flushed


@hot_kernel
def _flush_one_user(state: "State", cpu: int, vaddr: int) -> None:
    """Drop one page of the loaded address space, of both its PCIDs (flush_tlb_one_user)."""
    asid = state.cpu[cpu].asid
    drop_page(state, cpu, vaddr, kernel_pcid(state, asid), 1)
    if not state.knob[Knob.PTI] or not state.knob[Knob.PCID]:
        return
    if state.knob[Knob.INVPCID]:
        drop_page(state, cpu, vaddr, user_pcid(state, asid), 0)
    else:
        invalidate_user_asid(state, cpu, asid)


@kernel
def _flush_local(state: "State", cpu: int) -> None:
    """Drop all translations of the address space that the current CPU has loaded, by writing CR3 anew."""
    record = state.cpu[cpu]
    invalidate_user_asid(state, cpu, record.asid)
    write_cr3(state, record.cr3)


@hot_kernel
def _catch_up(state: "State", start: int, end: int, is_local: int) -> None:
    """Bring the current CPU up to the generation of the address space that it has loaded, and charge it."""
    cpu = state.current[Current.CPU]
    record = state.cpu[cpu]
    tlb_gen = state.mm[record.mm].tlb_gen
    context = state.tlb_context[cpu * NR_ASIDS + record.asid]
    if context.tlb_gen == tlb_gen:
        return
    if end != FLUSH_ALL and tlb_gen == context.tlb_gen + 1:
        nr_pages = (end - start) >> PAGE_SHIFT
        for vaddr in range(start, end, PAGE_SIZE):
            _flush_one_user(state, cpu, vaddr)
        state.current[Current.CLOCK_PS] += nr_pages * state.cost[Cost.TLB_FLUSH_ONE]
        if is_local:
            state.vm_event[VmEvent.NR_TLB_LOCAL_FLUSH_ONE] += nr_pages
    else:
        _flush_local(state, cpu)
        if is_local:
            state.vm_event[VmEvent.NR_TLB_LOCAL_FLUSH_ALL] += 1
    context.tlb_gen = tlb_gen


@hot_kernel
def _flush_loaded(state: "State", start: int, end: int, is_local: int) -> None:
    """Do a flush on the current CPU, which goes into the kernel for it if it is not there (flush_tlb_func)."""
    record = state.cpu[state.current[Current.CPU]]
    was_in_user_mode = record.cpl == USER_MODE
    enter_kernel(state)
    if record.lazy:
        # Its paging-structure caches must not lead into tables that are gone.
        switch_mm(state, INIT_MM)
    else:
        _catch_up(state, start, end, is_local)
    if was_in_user_mode:
        leave_kernel(state)


@kernel
def _interrupt(state: "State", cpu: int, start: int, end: int) -> None:
    """Let another CPU do a flush in an interrupt, on its own clock."""
    here = state.current[Current.CPU]
    clock_ps = state.current[Current.CLOCK_PS]
    record = state.cpu[cpu]
    state.current[Current.CPU] = cpu
    state.current[Current.CLOCK_PS] = record.clock_ps + state.cost[Cost.IPI_HANDLER]
    state.vm_event[VmEvent.NR_TLB_REMOTE_FLUSH_RECEIVED] += 1
    _flush_loaded(state, start, end, 0)
    record.clock_ps = state.current[Current.CLOCK_PS]
    state.current[Current.CPU] = here
    state.current[Current.CLOCK_PS] = clock_ps


@kernel
def _flush_others(state: "State", mm_index: int, start: int, end: int, freed_tables: int) -> int:
    """Interrupt the other CPUs that have an address space loaded, and wait for them (flush_tlb_multi).

    Returns how many have it loaded, lazy ones included.
    """
    here = state.current[Current.CPU]
    nr_loaded = 0
    nr_asked = 0
    for cpu in range(state.knob[Knob.NR_CPUS]):
        if cpu == here or state.cpu[cpu].mm != mm_index:
            continue
        nr_loaded += 1
        if not state.cpu[cpu].lazy or freed_tables:
            nr_asked += 1
            _interrupt(state, cpu, start, end)
    if nr_loaded:
        state.vm_event[VmEvent.NR_TLB_REMOTE_FLUSH] += 1
    if nr_asked:
        state.current[Current.CLOCK_PS] += state.cost[Cost.IPI]
    return nr_loaded


@kernel
def _flush_range(state: "State", mm_index: int, start: int, end: int, freed_tables: int) -> None:
    """As ``flush_tlb_range``."""
    if end != FLUSH_ALL and (end - start) >> PAGE_SHIFT > SINGLE_PAGE_FLUSH_CEILING:
        end = FLUSH_ALL
    state.mm[mm_index].tlb_gen += 1
    nr_others = 0
    if state.knob[Knob.NR_CPUS] > 1:
        nr_others = _flush_others(state, mm_index, start, end, freed_tables)
    cpu = state.cpu[state.current[Current.CPU]]
    # Linux asks itself as it asks the others if there are any: not while it is lazy.
    if cpu.mm == mm_index and (freed_tables or not cpu.lazy or not nr_others):
        _flush_loaded(state, start, end, 1)


@entry
def flush_tlb_range(state: "State", mm_index: int, start: int, end: int, freed_tables: int) -> int:
    """Flush [start, end) of an address space after its entries lost rights (flush_tlb_mm_range); return 0.

    ``end`` FLUSH_ALL is all of it. ``freed_tables``: tables were freed too, so lazy CPUs must know.
    """
    _flush_range(state, mm_index, start, end, freed_tables)
    return 0


@kernel
def _leave_user_mode_lazily(state: "State", cpu: int) -> None:
    here = state.current[Current.CPU]
    clock_ps = state.current[Current.CLOCK_PS]
    if cpu != here:
        state.current[Current.CPU] = cpu
        state.current[Current.CLOCK_PS] = state.cpu[cpu].clock_ps
    enter_kernel(state)
    if cpu != here:
        state.cpu[cpu].clock_ps = state.current[Current.CLOCK_PS]
        state.current[Current.CPU] = here
        state.current[Current.CLOCK_PS] = clock_ps
    enter_lazy_tlb(state, cpu)


@entry
def retire_mm(state: "State", mm_index: int) -> int:
    """Take an address space that ends, and whose tables are about to go, off every CPU (tlb_finish_mmu); return 0.

    Its task is gone, so the CPUs that have it loaded are lazy; the flush moves them to the kernel's own table.
    """
    for cpu in range(state.knob[Knob.NR_CPUS]):
        if state.cpu[cpu].mm == mm_index:
            _leave_user_mode_lazily(state, cpu)
    _flush_range(state, mm_index, 0, FLUSH_ALL, 1)
    return 0


@kernel
def flush_tlb_all(state: "State") -> None:
    """Drop everything that any CPU has cached, global entries too."""
    state.vm_event[VmEvent.NR_TLB_REMOTE_FLUSH] += 1
    here = state.current[Current.CPU]
    for cpu in range(state.knob[Knob.NR_CPUS]):
        state.vm_event[VmEvent.NR_TLB_REMOTE_FLUSH_RECEIVED] += 1
        drop_all(state, cpu)
        if cpu != here:
            state.cpu[cpu].clock_ps += state.cost[Cost.IPI_HANDLER] + state.cost[Cost.CR3_WRITE]
    state.current[Current.CLOCK_PS] += state.cost[Cost.CR3_WRITE]
    if state.knob[Knob.NR_CPUS] > 1:
        state.current[Current.CLOCK_PS] += state.cost[Cost.IPI]
