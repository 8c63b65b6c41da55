"""Memory of processes on a machine without paging: an address is a physical one, and nobody is protected.

    process A   [====]                     a mapping is a block of frames, there at once and until it is unmapped;
    process B          [========]          all share the one address space, and each may write over the others

A mapping takes 2**order frames that lie together, so it fails when memory is too broken up, however much is
free: what paging was invented against. The largest block of the buddy system is the largest mapping. Nothing is
copied on fork, swapped or merged there.

Linux: mm/nommu.c (do_mmap_private), for processors without an MMU.
"""

from typing import TYPE_CHECKING

from node.content import set_content
from node.counters import Current
from node.hw.cost import Cost
from node.joints import alloc_frames
from node.phys.buddy import MAX_ORDER
from node.phys.page import PageFlag
from node.phys.page_alloc import free_pages
from node.vm.commit import vm_stat_account
from node.vm.vma import insert_vma
from shared.constants import NIL, PAGE_SHIFT, PAGE_SIZE
from shared.gfp_flags import GFP_KERNEL
from shared.jit import kernel

if TYPE_CHECKING:
    from node.state import State


@kernel
def _order_of(length: int) -> int:
    """Return the order of the smallest block that holds ``length`` bytes; above MAX_ORDER if there is none."""
    order = 0
    while order <= MAX_ORDER and PAGE_SIZE << order < length:
        order += 1
    return order


@kernel
def nommu_mmap(state: "State", mm_index: int, length: int, vm_flags: int) -> int:
    """Map ``length`` bytes of zeroes at the address where they are; return the VMA, or NIL without such a block."""
    order = _order_of(length)
    if order > MAX_ORDER:
        return NIL
    pfn = alloc_frames(state, order, GFP_KERNEL)
    if pfn == NIL:
        return NIL
    nr_pages = 1 << order
    state.current[Current.CLOCK_PS] += nr_pages * state.cost[Cost.PAGE_ZERO]
    start = pfn << PAGE_SHIFT
    vma = insert_vma(state, mm_index, start, start + (nr_pages << PAGE_SHIFT), vm_flags)
    if vma == NIL:
        free_pages(state, pfn, order)
        return NIL
    vm_stat_account(state, mm_index, vm_flags, nr_pages)
    for frame in range(pfn, pfn + nr_pages):
        state.page[frame].page_flags |= PageFlag.UNPAGED
        set_content(state, frame, 0)
    return vma


@kernel
def nommu_unmap(state: "State", start: int, end: int) -> int:
    """Give back the frames of a mapping; return how many."""
    pfn = start >> PAGE_SHIFT
    nr_pages = (end - start) >> PAGE_SHIFT
    for frame in range(pfn, pfn + nr_pages):
        state.page[frame].page_flags &= ~PageFlag.UNPAGED
    free_pages(state, pfn, _order_of(end - start))
    return nr_pages
