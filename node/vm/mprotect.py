"""mprotect: other rights for a range, in its areas and in the entries that are there already.

    rw -> ro      entries lose the right to write
    ro -> rw      entries of pages that are dirty and exclusive get it back; others at the next write's fault
    -> none       entries keep their frames but nobody may use them: present bit clear, PROT_NONE set

Linux: mm/mprotect.c (do_mprotect_pkey, mprotect_fixup, change_pte_range, can_change_pte_writable).
# Differs from Linux: the frame number of an entry for nobody is not inverted (L1TF).
"""

from typing import TYPE_CHECKING

from node.counters import Knob
from node.errno import Errno
from node.hw.page_table import pte_position
from node.hw.pte import PROT_NONE, Pte, is_swap_pte, pte_pfn
from node.joints import change_huge_pmd, flush_tlb_range, note_view_change, populate_range
from node.phys.page import PageFlag
from node.vm.commit import may_expand_vm, vm_enough_memory, vm_stat_account
from node.vm.thp import huge_pages_exist
from node.vm.vma import VmFlag, find_vma
from node.vm.vma_adjust import isolate_part, merge_vma
from shared.constants import HUGE_PAGE_SIZE, NIL, PAGE_SHIFT, PAGE_SIZE
from shared.jit import entry, kernel
from shared.views import View

if TYPE_CHECKING:
    from node.state import State

RIGHTS = VmFlag.READ | VmFlag.WRITE | VmFlag.EXEC


@kernel
def _may_be_written(state: "State", pte: int, vm_flags: int) -> int:
    """Return whether an entry of an area that may be written needs no fault for it (can_change_pte_writable)."""
    if not vm_flags & VmFlag.WRITE or not pte & Pte.DIRTY:
        return 0
    page_flags = state.page[pte_pfn(pte)].page_flags
    if vm_flags & VmFlag.SHARED:
        return 1
    wanted = PageFlag.ANON | PageFlag.ANON_EXCLUSIVE
    return 1 if page_flags & wanted == wanted else 0


@kernel
def _protected(state: "State", pte: int, vm_flags: int) -> int:
    """Return an entry with an area's rights."""
    if not vm_flags & RIGHTS:
        return (pte & ~(Pte.PRESENT | Pte.WRITE)) | PROT_NONE
    pte &= ~(Pte.WRITE | state.knob[Knob.NX_BIT])
    if not pte & Pte.PRESENT:
        pte = (pte & ~PROT_NONE) | Pte.PRESENT
    if _may_be_written(state, pte, vm_flags):
        pte |= Pte.WRITE
    return pte if vm_flags & VmFlag.EXEC else pte | state.knob[Knob.NX_BIT]


@kernel
def _change_entries(state: "State", vma_index: int, start: int, end: int) -> int:
    """Give the entries of [start, end), in one table, the area's rights; return how many lost some."""
    vma = state.vma[vma_index]
    position = pte_position(state, state.mm[vma.mm].pgd_pfn, start)
    if position == NIL:
        return 0
    nr_lost = 0
    for vaddr in range(start, end, PAGE_SIZE):
        pte = state.pt_word[position]
        if pte != 0 and not is_swap_pte(pte):
            changed = _protected(state, pte, vma.vm_flags)
            state.pt_word[position] = changed
            if pte & ~changed & (Pte.PRESENT | Pte.WRITE) or changed & ~pte & state.knob[Knob.NX_BIT]:
                nr_lost += 1
            if state.knob[Knob.IS_HOST]:
                note_view_change(
                    state, vma.mm, vaddr, View.WRITABLE if changed & Pte.WRITE else View.READ_ONLY
                )
        position += 1
    return nr_lost


@kernel
def change_protection(state: "State", vma_index: int) -> None:
    """Give all entries of an area its rights, and let CPUs forget those that lost some."""
    vma = state.vma[vma_index]
    vaddr = vma.start
    nr_lost = 0
    while vaddr < vma.end:
        border = min(vma.end, (vaddr // HUGE_PAGE_SIZE + 1) * HUGE_PAGE_SIZE)
        if huge_pages_exist(state):
            nr_lost += change_huge_pmd(state, vma_index, vaddr)
        nr_lost += _change_entries(state, vma_index, vaddr, border)
        vaddr = border
    if nr_lost:
        flush_tlb_range(state, vma.mm, vma.start, vma.end, 0)


@kernel
def _charge(state: "State", vma_index: int, nr_pages: int, vm_flags: int) -> int:
    """Return the flags of an area that becomes writable, promised if that is a promise; or Errno.ENOMEM."""
    vma = state.vma[vma_index]
    fits = may_expand_vm(state, vma.mm, vm_flags, nr_pages)
    if not fits and may_expand_vm(state, vma.mm, vma.vm_flags, nr_pages):
        return Errno.ENOMEM
    known = VmFlag.ACCOUNT | VmFlag.WRITE | VmFlag.HUGETLB | VmFlag.SHARED | VmFlag.NORESERVE
    if vma.vm_flags & known:
        return vm_flags
    if vm_enough_memory(state, vma.mm, nr_pages) == NIL:
        return Errno.ENOMEM
    return vm_flags | VmFlag.ACCOUNT


@kernel
def _protect_part(state: "State", index: int, start: int, end: int, rights: int) -> int:
    """Give [start, end) of an area other rights; return 0, or a negative Errno."""
    old_flags = state.vma[index].vm_flags
    vm_flags = (old_flags & ~RIGHTS) | rights
    if vm_flags == old_flags:
        return 0
    nr_pages = (end - start) >> PAGE_SHIFT
    if vm_flags & VmFlag.WRITE:
        # MERGEABLE is the sign bit, so flags may be negative: an Errno is told by its size.
        charged = _charge(state, index, nr_pages, vm_flags)
        if charged == Errno.ENOMEM:
            return Errno.ENOMEM
        vm_flags = charged
    index = isolate_part(state, index, start, end)
    if index == NIL:
        return Errno.ENOMEM
    vma = state.vma[index]
    mm_index = vma.mm
    vma.vm_flags = vm_flags
    change_protection(state, index)
    vm_stat_account(state, mm_index, old_flags, -nr_pages)
    vm_stat_account(state, mm_index, vm_flags, nr_pages)
    merge_vma(state, index)
    locked = old_flags & (VmFlag.WRITE | VmFlag.SHARED | VmFlag.LOCKED) == VmFlag.LOCKED
    if locked and vm_flags & VmFlag.WRITE:
        populate_range(state, mm_index, start, end)
    return 0


@entry
def mprotect(state: "State", mm_index: int, start: int, end: int, rights: int) -> int:
    """Give [start, end), of whole pages, the VmFlag ``rights``; return 0, or a negative Errno.

    Where there is no area it stops with ENOMEM; what lies below is changed.
    """
    if start & (PAGE_SIZE - 1) or end < start:
        return Errno.EINVAL
    vaddr = start
    while vaddr < end:
        index = find_vma(state, mm_index, vaddr)
        if index == NIL or state.vma[index].start > vaddr:
            return Errno.ENOMEM
        border = min(state.vma[index].end, end)
        error = _protect_part(state, index, vaddr, border, rights)
        if error:
            return error
        vaddr = border
    return 0
