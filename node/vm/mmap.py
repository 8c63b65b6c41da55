"""mmap, munmap and brk: where areas come to lie, and how they go.

    0x400000  text, data, heap ->            <- mappings, newest lowest      stack  0x7ffffffff000
              |        brk |                        | mmap_top           |

A new mapping goes into the highest gap below mmap_top that has room for it; the tree of areas knows the largest gap in
each subtree (node/vm/vma.py). No frame is taken until it is touched, unless it is populated or locked.

Linux: mm/mmap.c (do_mmap, mmap_region, unmapped_area_topdown of 5.x, do_munmap, do_brk_flags, brk),
arch/x86/mm/mmap.c (mmap_base), with addresses as without randomisation.
# Differs from Linux: no bottom-up search where the top-down one finds nothing.
"""

from enum import IntEnum
from typing import TYPE_CHECKING

from node.counters import Knob, Request
from node.errno import Errno
from node.hw.paging import PagingMode
from node.joints import get_inode, is_regular_file, new_shmem_inode, populate_range, put_inode
from node.rb_max import largest_below
from node.tree_nodes import mm_root, vma_base
from node.vm.commit import (
    is_accountable,
    may_expand_vm,
    mlock_future_ok,
    uncommit,
    vm_enough_memory,
    vm_stat_account,
)
from node.vm.nommu import nommu_mmap
from node.vm.unmap import unmap_area
from node.vm.vma import VmFlag, area_at_or_below, find_vma, link_vma, new_vma, start_gap
from node.vm.vma_adjust import isolate_range, merge_mapped
from shared.constants import HUGE_PAGE_SIZE, INT64_MAX, NIL, PAGE_SHIFT, PAGE_SIZE
from shared.jit import entry, kernel

if TYPE_CHECKING:
    from node.state import State


class MapFlag(IntEnum):
    """What ``do_mmap`` is asked beside rights, in Request.A3, with Linux's values (MAP_...)."""

    SHARED = 0x01
    FIXED = 0x10
    GROWSDOWN = 0x100
    LOCKED = 0x2000
    NORESERVE = 0x4000
    POPULATE = 0x8000
    FIXED_NOREPLACE = 0x100000


@kernel
def page_align(length: int) -> int:
    """Return a length in bytes rounded up to whole pages."""
    return (length + PAGE_SIZE - 1) & -PAGE_SIZE


# --- gaps -----------------------------------------------------------------------------------------------


@kernel
def _gap_start(state: "State", index: int) -> int:
    """Return where the gap below an area begins."""
    below = state.vma[index].prev
    return 0 if below == NIL else state.vma[below].end


@kernel
def _highest_gap(state: "State", mm_index: int, length: int, highest_start: int) -> int:
    """Return the end of the highest gap below an area with ``length`` bytes at or below ``highest_start``; or NIL."""
    base = vma_base(state)
    node = state.rb_root[mm_root(mm_index)]
    if node == NIL or largest_below(state, node) < length:
        return NIL
    climbing = 0  # 1: the subtree on the right of the node has been searched
    while True:
        links = state.rb_node[node]
        gap_start = _gap_start(state, node - base)
        if not climbing and gap_start <= highest_start and largest_below(state, links.right) >= length:
            node = links.right
            continue
        climbing = 0
        gap_end = start_gap(state, node - base)
        if gap_start <= highest_start and gap_end - gap_start >= length:
            return gap_end
        if largest_below(state, links.left) >= length:
            node = links.left
            continue
        # Up, to the first ancestor of which this was the right side.
        while True:
            below = node
            node = state.rb_node[node].parent
            if node == NIL:
                return NIL
            if state.rb_node[node].right == below:
                climbing = 1
                break


@kernel
def _last_end(state: "State", mm_index: int) -> int:
    last = area_at_or_below(state, mm_index, INT64_MAX)
    return 0 if last == NIL else state.vma[last].end


@kernel
def unmapped_area(state: "State", mm_index: int, length: int, align: int) -> int:
    """Return the highest free address below mmap_top for ``length`` bytes, a multiple of ``align``; or NIL."""
    top = state.mm[mm_index].mmap_top
    wanted = length + align - PAGE_SIZE
    gap_end = top
    if _last_end(state, mm_index) > top - wanted:
        gap_end = _highest_gap(state, mm_index, wanted, top - wanted)
    if gap_end == NIL:
        return NIL
    start = (min(gap_end, top) - length) & -align
    return start if start >= state.knob[Knob.MMAP_MIN_ADDR] else NIL


@kernel
def range_is_free(state: "State", mm_index: int, start: int, end: int) -> int:
    """Return whether no area, nor the guard gap of a stack, lies in [start, end)."""
    above = find_vma(state, mm_index, start)
    return 1 if above == NIL or start_gap(state, above) >= end else 0


@kernel
def _huge_aligned_area(state: "State", mm_index: int, length: int) -> int:
    """Return a place for a file of a disk where its 2 MiB lie at 2 MiB, so that huge pages could map it; or NIL.

    File systems ask for that whether huge pages are enabled or not (mm/huge_memory.c: thp_get_unmapped_area).
    """
    inode = state.request[Request.A4]
    if inode == 0 or not is_regular_file(state, inode):
        return NIL
    offset = state.request[Request.A5] << PAGE_SHIFT
    aligned = (offset + HUGE_PAGE_SIZE - 1) & -HUGE_PAGE_SIZE
    if offset + length - aligned < HUGE_PAGE_SIZE:
        return NIL
    start = unmapped_area(state, mm_index, length + HUGE_PAGE_SIZE, PAGE_SIZE)
    return start if start == NIL else start + ((offset - start) & (HUGE_PAGE_SIZE - 1))


@kernel
def _choose_address(state: "State", mm_index: int, length: int, align: int) -> int:
    """Return where a mapping goes (get_unmapped_area): where it is asked to, else where there is room; or Errno."""
    hint = state.request[Request.A0]
    end_of_space = state.knob[Knob.TASK_SIZE]
    if length > end_of_space:
        return Errno.ENOMEM
    if state.request[Request.A3] & (MapFlag.FIXED | MapFlag.FIXED_NOREPLACE):
        if hint & (PAGE_SIZE - 1):
            return Errno.EINVAL
        return hint if 0 <= hint <= end_of_space - length else Errno.ENOMEM
    hint &= -PAGE_SIZE
    if hint:
        hint = max(hint, page_align(state.knob[Knob.MMAP_MIN_ADDR]))  # round_hint_to_min
    if hint and hint <= end_of_space - length and range_is_free(state, mm_index, hint, hint + length):
        return hint
    start = _huge_aligned_area(state, mm_index, length)
    if start == NIL:
        start = unmapped_area(state, mm_index, length, align)
    return Errno.ENOMEM if start == NIL else start


# --- mmap -----------------------------------------------------------------------------------------------


@kernel
def count_pages_of_areas(state: "State", mm_index: int, start: int, end: int) -> int:
    """Return how many pages of [start, end) areas cover (count_vma_pages_range)."""
    nr_pages = 0
    index = find_vma(state, mm_index, start)
    while index != NIL and state.vma[index].start < end:
        vma = state.vma[index]
        nr_pages += (min(vma.end, end) - max(vma.start, start)) >> PAGE_SHIFT
        index = vma.next
    return nr_pages


@kernel
def _fits_limits(state: "State", mm_index: int, start: int, end: int, vm_flags: int) -> int:
    """Return whether the limits allow an area [start, end), in place of what is there."""
    nr_pages = (end - start) >> PAGE_SHIFT
    if may_expand_vm(state, mm_index, vm_flags, nr_pages):
        return 1
    nr_replaced = count_pages_of_areas(state, mm_index, start, end)
    return may_expand_vm(state, mm_index, vm_flags, nr_pages - nr_replaced)


@kernel
def _map_region(state: "State", mm_index: int, start: int, end: int, vm_flags: int) -> int:
    """Make the area [start, end) over whatever is there, for inode Request.A4 at page A5; return it, or Errno."""
    inode = state.request[Request.A4]
    pgoff = state.request[Request.A5]
    nr_pages = (end - start) >> PAGE_SHIFT
    if not _fits_limits(state, mm_index, start, end, vm_flags):
        return Errno.ENOMEM
    if _unmap_range(state, mm_index, start, end) < 0:
        return Errno.ENOMEM
    if is_accountable(vm_flags):
        if vm_enough_memory(state, mm_index, nr_pages) == NIL:
            return Errno.ENOMEM
        vm_flags |= VmFlag.ACCOUNT
    if inode == 0 and vm_flags & VmFlag.SHARED:
        inode = new_shmem_inode(state, nr_pages, 0 if vm_flags & VmFlag.NORESERVE else 1)
        pgoff = 0
    elif inode:
        get_inode(state, inode)
    index = NIL if inode == NIL else new_vma(state, mm_index, start, end, vm_flags)
    if index == NIL:
        if inode != NIL and inode != 0:  # noqa: PLR1714 (a kernel has no tuples)
            put_inode(state, inode)
        if vm_flags & VmFlag.ACCOUNT:
            uncommit(state, nr_pages)
        return Errno.ENOMEM
    vma = state.vma[index]
    vma.inode = inode
    if inode:
        vma.pgoff = pgoff
    link_vma(state, index)
    vm_stat_account(state, mm_index, vm_flags, nr_pages)
    if vm_flags & VmFlag.LOCKED:
        state.mm[mm_index].locked_vm += nr_pages
    return merge_mapped(state, index)


@kernel
def _vm_flags_of(state: "State", mm_index: int) -> int:
    vm_flags = state.request[Request.A2] | state.mm[mm_index].def_flags
    asked = state.request[Request.A3]
    if asked & MapFlag.SHARED:
        vm_flags |= VmFlag.SHARED
    if asked & MapFlag.LOCKED:
        vm_flags |= VmFlag.LOCKED
    if asked & MapFlag.GROWSDOWN:
        vm_flags |= VmFlag.GROWSDOWN
    if asked & MapFlag.NORESERVE and state.knob[Knob.OVERCOMMIT_MEMORY] != 2:  # noqa: PLR2004 (Overcommit.NEVER)
        vm_flags |= VmFlag.NORESERVE
    return vm_flags


@entry
def do_mmap(state: "State", mm_index: int) -> int:
    """Map what the request says; return the address, or a negative Errno.

    A0 address, or 0; A1 bytes; A2 VmFlag rights; A3 MapFlag bits; A4 inode, or 0 for anonymous memory; A5 its first
    page number; A6 alignment of the address, a power of two of at least a page, or 0.
    """
    length = page_align(state.request[Request.A1])
    if state.request[Request.A1] <= 0:
        return Errno.EINVAL
    if state.mm[mm_index].nr_vmas > state.knob[Knob.MAX_MAP_COUNT]:
        return Errno.ENOMEM
    start = _choose_address(state, mm_index, length, max(state.request[Request.A6], PAGE_SIZE))
    if start < 0:
        return start
    end = start + length
    asked = state.request[Request.A3]
    if asked & MapFlag.FIXED_NOREPLACE:
        above = find_vma(state, mm_index, start)
        if above != NIL and state.vma[above].start < end:
            return Errno.EEXIST
    vm_flags = _vm_flags_of(state, mm_index)
    if not mlock_future_ok(state, mm_index, vm_flags, length >> PAGE_SHIFT):
        return Errno.EAGAIN
    index = _map_region(state, mm_index, start, end, vm_flags)
    if index < 0:
        return index
    if vm_flags & VmFlag.LOCKED or asked & MapFlag.POPULATE:
        populate_range(state, mm_index, start, end)
    return start


@entry
def mmap(state: "State", mm_index: int, length: int, vm_flags: int) -> int:
    """Map ``length`` bytes of anonymous private memory at the highest gap; return the address, or NIL."""
    if state.knob[Knob.PAGING_MODE] == PagingMode.NONE:
        area = nommu_mmap(state, mm_index, length, vm_flags)
        return area if area == NIL else state.vma[area].start
    length = page_align(length)
    start = unmapped_area(state, mm_index, length, PAGE_SIZE)
    if start == NIL:
        return NIL
    state.request[Request.A4] = 0
    index = _map_region(state, mm_index, start, start + length, vm_flags)
    return start if index >= 0 else NIL


@entry
def mmap_fixed(state: "State", mm_index: int, start: int, end: int) -> int:
    """Map [start, end), which must be free, readable and writable; return ``start``, or NIL. Needs paging."""
    above = find_vma(state, mm_index, start)
    if above != NIL and state.vma[above].start < end:
        return NIL
    state.request[Request.A4] = 0
    index = _map_region(state, mm_index, start, end, VmFlag.READ | VmFlag.WRITE)
    return start if index >= 0 else NIL


# --- munmap ---------------------------------------------------------------------------------------------


@kernel
def _unmap_range(state: "State", mm_index: int, start: int, end: int) -> int:
    """Unmap [start, end); return the number of pages that were mapped there, or Errno.ENOMEM if areas run out."""
    first = find_vma(state, mm_index, start)
    if first == NIL or state.vma[first].start >= end:
        return 0
    index = isolate_range(state, mm_index, start, end)
    if index == NIL:
        return Errno.ENOMEM
    nr_pages = 0
    while index != NIL and state.vma[index].start < end:
        following = state.vma[index].next
        nr_pages += unmap_area(state, index)
        index = following
    return nr_pages


@entry
def munmap(state: "State", mm_index: int, start: int, end: int) -> int:
    """Unmap [start, end); return the number of pages that were mapped there, or a negative Errno."""
    if start & (PAGE_SIZE - 1) or start < 0 or end <= start or end > state.knob[Knob.TASK_SIZE]:
        return Errno.EINVAL
    return _unmap_range(state, mm_index, start, page_align(end))


# --- brk ------------------------------------------------------------------------------------------------


@kernel
def _grow_heap(state: "State", mm_index: int, start: int, end: int) -> int:
    """Map the heap's next pages (do_brk_flags); return the area, or NIL."""
    if not range_is_free(state, mm_index, start, end + PAGE_SIZE):
        return NIL
    state.request[Request.A4] = 0
    vm_flags = VmFlag.READ | VmFlag.WRITE | state.mm[mm_index].def_flags
    if not mlock_future_ok(state, mm_index, vm_flags, (end - start) >> PAGE_SHIFT):
        return NIL
    index = _map_region(state, mm_index, start, end, vm_flags)
    if index < 0:
        return NIL
    if vm_flags & VmFlag.LOCKED:
        populate_range(state, mm_index, start, end)
    return index


@entry
def brk(state: "State", mm_index: int, new_brk: int) -> int:
    """Let the heap end at ``new_brk``; return where it ends then, which is where it did if that cannot be.

    No frame is taken: what grows is the area.
    """
    mm = state.mm[mm_index]
    if new_brk < mm.brk_start:
        return mm.brk
    limit = mm.data_limit
    if limit != INT64_MAX and new_brk - mm.brk_start + mm.end_data - mm.start_data > limit:
        return mm.brk
    old_end = page_align(mm.brk)
    new_end = page_align(new_brk)
    if new_end < old_end:
        if _unmap_range(state, mm_index, new_end, old_end) < 0:
            return mm.brk
    elif new_end > old_end and _grow_heap(state, mm_index, old_end, new_end) == NIL:
        return mm.brk
    mm.brk = new_brk
    return new_brk
