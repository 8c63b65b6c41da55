"""The border between user and kernel mode: what a system call, a fault or an interrupt does to translation.

    user mode                                                      user mode
        |  SYSCALL, #PF, interrupt              SYSRET, IRET           ^
        v                                                              |
    CR3 &= ~(1 << 12 | 1 << 11)   ... kernel ...   CR3 |= 1 << 12 | 1 << 11

With kernel page-table isolation (``pti: on``) both ways write CR3: bit 12 is the other half of the process's
pair of top tables, bit 11 the other of its two PCIDs. With PCIDs the write keeps all translations (bit 63)
unless a flush was left for it; without, each write drops everything but global entries, and what was hot must
be walked for again. Without isolation there is nothing to do.

In the kernel, an entry touches at least the pages that ``Knob.ENTRY_PAGES`` counts (node/kmap/entry_pages.py),
through the TLBs like any access.

Linux: arch/x86/entry/calling.h (SWITCH_TO_KERNEL_CR3, SWITCH_TO_USER_CR3_NOSTACK), Documentation/x86/pti.rst.
"""

from typing import TYPE_CHECKING, Final

from node.counters import Current, HwEvent, Knob
from node.hw.cost import Cost
from node.hw.mmu import access_again
from node.hw.registers import CR3_NO_FLUSH, write_cr3
from node.kmap.asid import USER_PCID_BIT, enter_lazy_tlb, switch_mm
from shared.constants import PAGE_SIZE
from shared.jit import entry, kernel

if TYPE_CHECKING:
    from node.state import State

USER_PGD_BIT: Final = PAGE_SIZE  # bit 12 of CR3: the second of the two top tables
KERNEL_MODE: Final = 0
USER_MODE: Final = 3


@kernel
def touch_entry_pages(state: "State") -> None:
    """Access the pages of the kernel that every entry needs, as the kernel does."""
    nr_pages = state.knob[Knob.ENTRY_PAGES]
    first = state.current[Current.CPU] * nr_pages
    for index in range(first, first + nr_pages):
        access_again(state, index)


@kernel
def enter_kernel(state: "State") -> None:
    """Go from user to kernel mode on the current CPU; nothing if it is there."""
    cpu = state.cpu[state.current[Current.CPU]]
    if cpu.cpl == KERNEL_MODE:
        return
    cpu.cpl = KERNEL_MODE
    state.hw_event[HwEvent.KERNEL_ENTRY] += 1
    if state.knob[Knob.PTI]:
        value = cpu.cr3 & ~(USER_PGD_BIT | USER_PCID_BIT)
        write_cr3(state, value | CR3_NO_FLUSH if state.knob[Knob.PCID] else value)
    touch_entry_pages(state)


@kernel
def leave_kernel(state: "State") -> None:
    """Go back to user mode on the current CPU; nothing if it is there."""
    cpu = state.cpu[state.current[Current.CPU]]
    if cpu.cpl == USER_MODE:
        return
    if state.knob[Knob.PTI]:
        value = cpu.cr3 | USER_PGD_BIT
        if state.knob[Knob.PCID]:
            value |= USER_PCID_BIT
            if cpu.user_flush_mask >> cpu.asid & 1:
                cpu.user_flush_mask &= ~(1 << cpu.asid)
            else:
                value |= CR3_NO_FLUSH
        write_cr3(state, value)
    cpu.cpl = USER_MODE


@entry
def run_in_user_mode(state: "State", mm_index: int) -> int:
    """Let a process run on the current CPU: switch to its address space if another's is loaded; return 0."""
    cpu = state.cpu[state.current[Current.CPU]]
    if cpu.mm == mm_index and cpu.cpl == USER_MODE and not cpu.lazy:
        return 0
    if cpu.mm != mm_index:
        state.current[Current.CLOCK_PS] += state.cost[Cost.CONTEXT_SWITCH]
    enter_kernel(state)
    switch_mm(state, mm_index)
    leave_kernel(state)
    return 0


@entry
def go_idle(state: "State", cpu_index: int) -> int:
    """Let a CPU without work run the idle thread; return 0."""
    cpu = state.cpu[cpu_index]
    if cpu.lazy or cpu.mm == 0:
        return 0
    state.current[Current.CPU] = cpu_index
    state.current[Current.CLOCK_PS] = cpu.clock_ps
    enter_kernel(state)
    cpu.clock_ps = state.current[Current.CLOCK_PS]
    enter_lazy_tlb(state, cpu_index)
    return 0


@entry
def device_interrupt(state: "State", nr_interrupts: int) -> int:
    """Take ``nr_interrupts`` interrupts of devices on the current CPU; return 0."""
    for _ in range(nr_interrupts):
        state.hw_event[HwEvent.DEVICE_INTERRUPT] += 1
        state.current[Current.CLOCK_PS] += state.cost[Cost.IPI_HANDLER]
        enter_kernel(state)
        leave_kernel(state)
    return 0


@entry
def system_call(state: "State", nr_calls: int) -> int:
    """Make ``nr_calls`` system calls that do nothing (getpid) on the current CPU; return 0."""
    for _ in range(nr_calls):
        state.hw_event[HwEvent.SYSCALL] += 1
        state.current[Current.CLOCK_PS] += state.cost[Cost.SYSCALL]
        enter_kernel(state)
        leave_kernel(state)
    return 0
