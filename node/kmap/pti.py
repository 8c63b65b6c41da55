"""Kernel page-table isolation: two top-level tables a process, and what each of them maps.

              kernel copy (pfn)                         user copy (pfn + 1)
       0  |  user space, execute-disabled |  same   |  user space                 |
          |  tables below                 |  tables |                             |
     256  |-------------------------------|         |-----------------------------|
          |  direct map, vmalloc, vmemmap |         |  (nothing)                  |
     508  |  cpu_entry_area               |  same   |  cpu_entry_area             |
     511  |  kernel text, modules, fixmap |         |  entry text alone (6.1)     |

The pair is 8 KiB, aligned to 8 KiB, so bit 12 of an entry's address, and of CR3, says which copy it is in. Only
the top level is double: both copies' entries for user space lead to the same tables, and every process's entries
for the kernel lead to the kernel's. The kernel's copy forbids to execute anything in user space, so a return
to user mode that forgot to change CR3 faults at once.

What every process shares comes from the master table (swapper_pg_dir), a pair like any other. With isolation off
there is one copy only, and user space is not poisoned.

A process that was made before an entry of the master's kernel half lacks that entry. 6.1 makes all that it will
ever need at boot; older kernels, and all 32-bit ones, let the process fault and copy the entry then
(vmalloc_fault): ``sync_pgd_fault``.

Linux: arch/x86/mm/pti.c (__pti_set_user_pgtbl), arch/x86/mm/pgtable.c (pgd_ctor, clone_pgd_range),
arch/x86/mm/fault.c (vmalloc_fault; its 64-bit half is in 4.15's), Documentation/x86/pti.rst.
# Differs from Linux: kernel text is never global under isolation; Linux keeps it so on processors without PCIDs unless
# told ``pti=on``.
# Differs from Linux: the user copy lacks what no modelled path uses: each CPU's TSS scratch page, the %esp fixup
# stacks and the vsyscall page; and the lecture's kernel maps no entry text there but the trampoline.
"""

from typing import TYPE_CHECKING, Final

from node.counters import Era, Knob
from node.hw.page_table import entry_position, is_large_leaf
from node.hw.paging import PagingMode
from node.hw.pte import Pte, pte_pfn
from shared.constants import ENTRIES_PER_TABLE
from shared.jit import kernel

if TYPE_CHECKING:
    from node.state import State

MAPS_USER: Final = Pte.PRESENT | Pte.USER


@kernel
def user_pgd_position(position: int) -> int:
    """Return the place in ``pt_word`` of a top-level entry's twin: bit 12 of its address is flipped."""
    return position ^ ENTRIES_PER_TABLE


@kernel
def set_pgd(state: "State", position: int, word: int) -> None:
    """Write the top-level entry at ``position`` of a kernel copy; of user space, into the user copy too.

    The kernel's copy then gets the execute-disable bit, unless the entry is cleared or is no user's.
    """
    index = position & ((1 << state.knob[Knob.TABLE_SHIFT]) - 1)
    if state.knob[Knob.PTI] and index < state.knob[Knob.KERNEL_PGD_INDEX]:
        state.pt_word[user_pgd_position(position)] = word
        if word & MAPS_USER == MAPS_USER:
            word |= state.knob[Knob.NX_BIT]
    state.pt_word[position] = word


@kernel
def _init_copy(state: "State", pgd_pfn: int, master_pfn: int) -> None:
    """Empty the user half of a top-level table, and copy the master's kernel half."""
    table_shift = state.knob[Knob.TABLE_SHIFT]
    base = pgd_pfn << table_shift
    master = master_pfn << table_shift
    kernel_index = state.knob[Knob.KERNEL_PGD_INDEX]
    for index in range(kernel_index):
        state.pt_word[base + index] = 0
    for index in range(kernel_index, 1 << table_shift):
        state.pt_word[base + index] = state.pt_word[master + index]


@kernel
def init_pgd(state: "State", pgd_pfn: int) -> None:
    """Make frame ``pgd_pfn`` the top-level table of a process that maps nothing yet.

    With isolation, ``pgd_pfn`` is even and frame ``pgd_pfn + 1`` becomes the user copy.
    """
    master = state.knob[Knob.SWAPPER_PGD]
    _init_copy(state, pgd_pfn, master)
    if state.knob[Knob.PTI]:
        _init_copy(state, pgd_pfn + 1, master + 1)


@kernel
def _is_mapped(state: "State", pgd_pfn: int, vaddr: int) -> int:
    """Return whether the tables from ``pgd_pfn`` on map ``vaddr``."""
    table = pgd_pfn
    for level in range(state.knob[Knob.NR_LEVELS]):
        word = state.pt_word[entry_position(state, table, vaddr, level)]
        if not word & Pte.PRESENT:
            return 0
        if is_large_leaf(state, level, word):
            return 1
        table = pte_pfn(word)
    return 1


@kernel
def sync_pgd_fault(state: "State", pgd_pfn: int, vaddr: int) -> int:
    """Copy the master table's entry for a vmalloc address that a process lacks; return 1 if that mends the fault.

    ``pgd_pfn`` is the kernel copy; a fault in kernel mode on a page that is not present. Returns 0 if the address
    is not one of vmalloc, the process has the entry, or nothing is mapped there in any process. 64-bit kernels
    of 6.1 have all these entries from the start and never copy one.
    """
    if state.knob[Knob.ERA] == Era.LINUX_6_1 and state.knob[Knob.PAGING_MODE] != PagingMode.BITS_32:
        return 0
    # Both ends of vmalloc are in the same half of the address space, so signed comparisons hold.
    if vaddr < state.knob[Knob.VMALLOC_START] or vaddr > state.knob[Knob.VMALLOC_LAST]:
        return 0
    top = state.paging_level[0]
    index = (vaddr >> top.shift) & top.index_mask
    table_shift = state.knob[Knob.TABLE_SHIFT]
    position = (pgd_pfn << table_shift) + index
    word = state.pt_word[(state.knob[Knob.SWAPPER_PGD] << table_shift) + index]
    if state.pt_word[position] & Pte.PRESENT or not word & Pte.PRESENT:
        return 0
    state.pt_word[position] = word
    return _is_mapped(state, pgd_pfn, vaddr)
