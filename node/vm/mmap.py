"""Making and changing address spaces: new ones, mmap, brk, munmap, and MADV_MERGEABLE.

    0x400000  text, data, heap ->            <- mappings, newest lowest      stack  0x7ffffffff000
              |        brk |                        | mmap_top           |

Linux: mm/mmap.c (do_mmap, vm_unmapped_area, __split_vma, do_brk_flags), kernel/fork.c (mm_init),
mm/ksm.c (ksm_madvise), arch/x86/mm/mmap.c (mmap_base), with addresses as without randomisation.
# Differs from Linux: adjacent areas with equal rights are not merged yet.
"""

from typing import TYPE_CHECKING, Final

from node.counters import Current, Knob
from node.hw.paging import PagingMode
from node.joints import break_range, ksm_enter
from node.pool import Pool, pool_alloc, pool_free
from node.vm.nommu import nommu_mmap
from node.vm.page_tables import alloc_pgd
from node.vm.rmap import anon_vma_clone
from node.vm.unmap import unmap_area
from node.vm.vma import VmFlag, find_vma, insert_vma
from shared.constants import NIL
from shared.jit import entry, kernel

if TYPE_CHECKING:
    from node.state import State

STACK_GAP_BYTES: Final = 128 << 20  # MIN_GAP: what mmap_base leaves for the stack
BRK_START: Final = 0x600000


@kernel
def _init_mm(state: "State", index: int) -> None:
    mm = state.mm[index]
    mm.brk_start = BRK_START
    mm.brk = BRK_START
    mm.mmap_top = state.knob[Knob.TASK_SIZE] - STACK_GAP_BYTES
    mm.minflt = 0
    mm.majflt = 0
    mm.stall_ps = 0
    state.current[Current.LAST_CTX_ID] += 1
    mm.ctx_id = state.current[Current.LAST_CTX_ID]
    mm.tlb_gen = 0
    mm.first_vma = NIL
    mm.last_found = NIL
    mm.nr_vmas = 0
    mm.nr_anon = 0
    mm.nr_swap = 0
    mm.nr_zero = 0
    mm.nr_page_tables = 0
    mm.alive = 0  # not before it has a top table: the OOM killer, called for one, must not pick it
    mm.mergeable = 0
    mm.ksm_rmap_list = NIL
    mm.ksm_rmap_items = 0
    mm.ksm_merging_pages = 0
    mm.ksm_zero_pages = 0
    mm.oom_score_adj = 0
    mm.oom_victim = 0
    mm.guest = NIL


@kernel
def new_mm_record(state: "State") -> int:
    """Return a new, empty address space, or NIL if there is no memory for its PGD."""
    index = pool_alloc(state, Pool.MM)
    if index == NIL:
        return NIL
    _init_mm(state, index)
    if alloc_pgd(state, index) == NIL:
        pool_free(state, Pool.MM, index)
        return NIL
    state.mm[index].alive = 1
    return index


@entry
def new_mm(state: "State") -> int:
    """Return a new, empty address space, or NIL if there is no memory for its PGD."""
    return new_mm_record(state)


@kernel
def _find_gap(state: "State", mm_index: int, length: int) -> int:
    """Return the highest address below mmap_top with ``length`` free bytes behind it, or NIL."""
    mm = state.mm[mm_index]
    found = NIL
    gap_start = mm.brk
    index = mm.first_vma
    while index != NIL:
        vma = state.vma[index]
        gap_end = min(vma.start, mm.mmap_top)
        if gap_end - gap_start >= length:
            found = gap_end - length
        gap_start = max(gap_start, vma.end)
        index = vma.next
    if mm.mmap_top - gap_start >= length:
        found = mm.mmap_top - length
    return found


@entry
def mmap(state: "State", mm_index: int, length: int, vm_flags: int) -> int:
    """Map ``length`` bytes of anonymous private memory at the highest gap; return the VMA, or NIL."""
    if state.knob[Knob.PAGING_MODE] == PagingMode.NONE:
        return nommu_mmap(state, mm_index, length, vm_flags)
    start = _find_gap(state, mm_index, length)
    if start == NIL:
        return NIL
    return insert_vma(state, mm_index, start, start + length, vm_flags)


@entry
def mmap_fixed(state: "State", mm_index: int, start: int, end: int) -> int:
    """Map [start, end), which must be free, readable and writable; return the VMA, or NIL. Needs paging."""
    above = find_vma(state, mm_index, start)
    if above != NIL and state.vma[above].start < end:
        return NIL
    return insert_vma(state, mm_index, start, end, VmFlag.READ | VmFlag.WRITE)


@entry
def brk(state: "State", mm_index: int, new_brk: int) -> int:
    """Grow the heap to ``new_brk``; return its VMA, or NIL if something is in the way. Shrinking: munmap."""
    mm = state.mm[mm_index]
    above = find_vma(state, mm_index, mm.brk)
    if above != NIL and state.vma[above].start < new_brk:
        return NIL
    if mm.brk > mm.brk_start:
        heap = find_vma(state, mm_index, mm.brk - 1)
        state.vma[heap].end = new_brk
    else:
        heap = insert_vma(state, mm_index, mm.brk, new_brk, VmFlag.READ | VmFlag.WRITE)
    if heap != NIL:
        mm.brk = new_brk
    return heap


@kernel
def split_vma(state: "State", index: int, vaddr: int) -> int:
    """Split an area at ``vaddr``, inside it; return the upper part, or NIL if there are too many areas."""
    vma = state.vma[index]
    end = vma.end
    vma.end = vaddr
    upper = insert_vma(state, vma.mm, vaddr, end, vma.vm_flags)
    if upper == NIL or anon_vma_clone(state, upper, index) == NIL:
        vma.end = end
        return NIL
    return upper


@kernel
def _isolate(state: "State", mm_index: int, start: int, end: int) -> int:
    """Split areas so that [start, end) is covered by whole ones; return the first of them, or NIL."""
    index = find_vma(state, mm_index, start)
    if index == NIL or state.vma[index].start >= end:
        return NIL
    if state.vma[index].start < start:
        index = split_vma(state, index, start)
        if index == NIL:
            return NIL
    last = find_vma(state, mm_index, end - 1)
    if (
        last != NIL
        and state.vma[last].start < end < state.vma[last].end
        and split_vma(state, last, end) == NIL
    ):
        return NIL
    return index


@entry
def munmap(state: "State", mm_index: int, start: int, end: int) -> int:
    """Unmap [start, end); return the number of pages that were mapped there, or NIL if areas run out."""
    if find_vma(state, mm_index, start) == NIL:
        return 0
    index = _isolate(state, mm_index, start, end)
    nr_pages = 0
    while index != NIL and state.vma[index].start < end:
        following = state.vma[index].next
        nr_pages += unmap_area(state, index)
        index = following
    return nr_pages


@entry
def madvise_mergeable(state: "State", mm_index: int, start: int, end: int) -> int:
    """Let ksmd scan [start, end) (MADV_MERGEABLE); return 0, or NIL if areas run out."""
    index = _isolate(state, mm_index, start, end)
    if index == NIL:
        return NIL
    while index != NIL and state.vma[index].start < end:
        state.vma[index].vm_flags |= VmFlag.MERGEABLE
        index = state.vma[index].next
    if not state.mm[mm_index].mergeable:
        ksm_enter(state, mm_index)
    return 0


@entry
def madvise_unmergeable(state: "State", mm_index: int, start: int, end: int) -> int:
    """Undo all merges in [start, end) and let ksmd scan it no more; return 0, or NIL without memory."""
    index = _isolate(state, mm_index, start, end)
    if index == NIL:
        return NIL
    while index != NIL and state.vma[index].start < end:
        vma = state.vma[index]
        if vma.vm_flags & VmFlag.MERGEABLE:
            if vma.anon_vma and break_range(state, mm_index, vma.start, vma.end) == NIL:
                return NIL
            vma.vm_flags &= ~VmFlag.MERGEABLE
        index = vma.next
    return 0
