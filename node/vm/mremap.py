"""mremap: an area grows or shrinks where it is, or its pages move to another address.

    shrink     what is cut off is unmapped
    grow       the area ends later, if nothing is behind it
    move       a second area of the same pages is made; every entry moves there; the first is unmapped

No page is copied and no frame changes hands: only page-table entries move (node/vm/move_tables.py). The area keeps its
page numbers (pgoff) and its anon_vmas, so reverse mapping finds the pages at their new address. One that never had an
anonymous page is numbered afresh, which lets it merge with its new neighbours. KSM knows merged pages by address, so
merges are undone first.

Linux: mm/mremap.c (mremap, mremap_to, vma_to_resize, vma_expandable, move_vma), mm/mmap.c (copy_vma).
# Differs from Linux: no MREMAP_DONTUNMAP; areas of hugetlb pages are refused.
"""

from enum import IntEnum
from typing import TYPE_CHECKING, Final

from node.counters import Knob, Request, VmStat
from node.errno import Errno
from node.joints import (
    break_range,
    get_inode,
    munmap,
    populate_range,
)
from node.pool import Pool, pool_free
from node.vm.anon_vma import anon_vma_clone
from node.vm.commit import may_expand_vm, mlock_future_ok, uncommit, vm_enough_memory, vm_stat_account
from node.vm.mmap import page_align, unmapped_area
from node.vm.move_tables import move_page_tables
from node.vm.vma import VmFlag, link_vma, new_vma, vma_at
from node.vm.vma_adjust import merge_above, merge_vma, resize_vma
from shared.constants import NIL, PAGE_SHIFT, PAGE_SIZE
from shared.jit import entry, kernel

if TYPE_CHECKING:
    from node.state import State

MAPS_TO_SPARE: Final = 3  # a move may split both areas; it is refused when the count is nearer to its limit


class MremapFlag(IntEnum):
    """What ``mremap`` is asked, with Linux's values (MREMAP_...)."""

    MAYMOVE = 1
    FIXED = 2


# --- areas ----------------------------------------------------------------------------------------------


@kernel
def _copy_vma(state: "State", index: int, vaddr: int, to: int, length: int) -> int:
    """Make an area of ``length`` bytes at ``to`` of an area's pages from ``vaddr`` on; return it, or NIL."""
    vma = state.vma[index]
    copy_index = new_vma(state, vma.mm, to, to + length, vma.vm_flags)
    if copy_index == NIL:
        return NIL
    copy = state.vma[copy_index]
    # An anonymous area that has had no page is numbered by its address, as any such.
    if vma.inode or vma.anon_vma:
        copy.pgoff = vma.pgoff + ((vaddr - vma.start) >> PAGE_SHIFT)
    copy.anon_vma = vma.anon_vma
    if anon_vma_clone(state, copy_index, index) == NIL:
        pool_free(state, Pool.VMA, copy_index)
        return NIL
    copy.inode = vma.inode
    if copy.inode:
        get_inode(state, copy.inode)
    link_vma(state, copy_index)
    return merge_vma(state, copy_index)


@kernel
def _drop_one(state: "State", mm_index: int, vm_flags: int, start: int, end: int) -> None:
    """Unmap the area that the pages are not in; a promise of Request.A5 bytes stays with the other."""
    if vm_flags & VmFlag.ACCOUNT:
        state.vm_stat[VmStat.NR_COMMITTED] += state.request[Request.A5] >> PAGE_SHIFT
    if end > start:
        munmap(state, mm_index, start, end)
    state.mm[mm_index].peak_vm = state.request[Request.A7]


@kernel
def _move(state: "State", index: int, vaddr: int, to: int) -> int:
    """Move Request.A5 bytes of an area from ``vaddr`` to ``to``, where it has A6 bytes; return ``to``, or an Errno."""
    length = state.request[Request.A5]
    new_length = state.request[Request.A6]
    vm_flags = state.vma[index].vm_flags
    mm_index = state.vma[index].mm
    mm = state.mm[mm_index]
    if mm.nr_vmas >= state.knob[Knob.MAX_MAP_COUNT] - MAPS_TO_SPARE:
        return Errno.ENOMEM
    if vm_flags & VmFlag.MERGEABLE and break_range(state, mm_index, vaddr, vaddr + length) == NIL:
        return Errno.ENOMEM
    nr_more = (new_length - length) >> PAGE_SHIFT
    if vm_flags & VmFlag.ACCOUNT and vm_enough_memory(state, mm_index, nr_more) == NIL:
        return Errno.ENOMEM
    if _copy_vma(state, index, vaddr, to, new_length) == NIL:
        if vm_flags & VmFlag.ACCOUNT:
            uncommit(state, nr_more)
        return Errno.ENOMEM
    moved = move_page_tables(state, mm_index, vaddr, to, length)
    # Both areas count for a moment; that is no peak.
    state.request[Request.A7] = max(mm.peak_vm, mm.total_vm + nr_more)
    vm_stat_account(state, mm_index, vm_flags, new_length >> PAGE_SHIFT)
    if vm_flags & VmFlag.LOCKED:
        mm.locked_vm += new_length >> PAGE_SHIFT
    if moved < length:
        # Their old tables are there still, so the way back cannot fail.
        move_page_tables(state, mm_index, to, vaddr, moved)
        _drop_one(state, mm_index, vm_flags, to, to + new_length)
        return Errno.ENOMEM
    _drop_one(state, mm_index, vm_flags, vaddr, vaddr + length)
    return to


# --- the system call ------------------------------------------------------------------------------------


@kernel
def _area_to_resize(state: "State", mm_index: int, vaddr: int, length: int, new_length: int) -> int:
    """Return the area whose ``length`` bytes at ``vaddr`` may become ``new_length`` (vma_to_resize); or an Errno."""
    index = vma_at(state, mm_index, vaddr)
    if index == NIL:
        return Errno.EFAULT
    vma = state.vma[index]
    if (length == 0 and not vma.vm_flags & VmFlag.SHARED) or vma.vm_flags & VmFlag.HUGETLB:
        return Errno.EINVAL
    if length > vma.end - vaddr:
        return Errno.EFAULT
    if new_length == length:
        return index
    if vma.vm_flags & VmFlag.DONTEXPAND:
        return Errno.EFAULT
    nr_more = (new_length - length) >> PAGE_SHIFT
    if not mlock_future_ok(state, mm_index, vma.vm_flags, nr_more):
        return Errno.EAGAIN
    return index if may_expand_vm(state, mm_index, vma.vm_flags, nr_more) else Errno.ENOMEM


@kernel
def _grow_in_place(state: "State", index: int, end: int) -> int:
    """Let an area end at ``end``; return 0, Errno.ENOMEM, or NIL: something is in the way."""
    vma = state.vma[index]
    if end > state.knob[Knob.TASK_SIZE] or (vma.next != NIL and state.vma[vma.next].start < end):
        return NIL
    nr_more = (end - vma.end) >> PAGE_SHIFT
    if vma.vm_flags & VmFlag.ACCOUNT and vm_enough_memory(state, vma.mm, nr_more) == NIL:
        return Errno.ENOMEM
    vm_stat_account(state, vma.mm, vma.vm_flags, nr_more)
    if vma.vm_flags & VmFlag.LOCKED:
        state.mm[vma.mm].locked_vm += nr_more
    resize_vma(state, index, vma.start, end)
    merge_above(state, index)
    return 0


@kernel
def _populate_if_locked(state: "State", mm_index: int, start: int, end: int) -> None:
    index = vma_at(state, mm_index, start)
    if end > start and index != NIL and state.vma[index].vm_flags & VmFlag.LOCKED:
        populate_range(state, mm_index, start, end)


@kernel
def _mremap_to(state: "State", mm_index: int, vaddr: int, to: int) -> int:
    """Move Request.A5 bytes to a given address, over whatever is there; return it, or a negative Errno."""
    length = state.request[Request.A5]
    new_length = state.request[Request.A6]
    if to & (PAGE_SIZE - 1) or to < 0 or to > state.knob[Knob.TASK_SIZE] - new_length:
        return Errno.EINVAL
    if vaddr + length > to and to + new_length > vaddr:
        return Errno.EINVAL
    # Both unmappings may split an area each: refused before anything is done.
    if state.mm[mm_index].nr_vmas + 2 >= state.knob[Knob.MAX_MAP_COUNT] - MAPS_TO_SPARE:
        return Errno.ENOMEM
    if munmap(state, mm_index, to, to + new_length) < 0:
        return Errno.ENOMEM
    if length > new_length:
        if munmap(state, mm_index, vaddr + new_length, vaddr + length) < 0:
            return Errno.ENOMEM
        length = new_length
        state.request[Request.A5] = length
    index = _area_to_resize(state, mm_index, vaddr, length, new_length)
    if index < 0:
        return index
    moved = _move(state, index, vaddr, to)
    if moved >= 0:
        _populate_if_locked(state, mm_index, to + length, to + new_length)
    return moved


@kernel
def _grow(state: "State", mm_index: int, vaddr: int, flags: int) -> int:
    """Let Request.A5 bytes become A6, which are more, here or elsewhere; return where, or a negative Errno."""
    length = state.request[Request.A5]
    new_length = state.request[Request.A6]
    index = _area_to_resize(state, mm_index, vaddr, length, new_length)
    if index < 0:
        return index
    to = vaddr
    grown = NIL
    if vaddr + length == state.vma[index].end:
        grown = _grow_in_place(state, index, vaddr + new_length)
    if grown == Errno.ENOMEM:
        return grown
    if grown == NIL:
        if not flags & MremapFlag.MAYMOVE:
            return Errno.ENOMEM
        to = unmapped_area(state, mm_index, new_length, PAGE_SIZE)
        if to == NIL:
            return Errno.ENOMEM
        to = _move(state, index, vaddr, to)
    if to >= 0:
        _populate_if_locked(state, mm_index, to + length, to + new_length)
    return to


@entry
def mremap(state: "State", mm_index: int) -> int:
    """Give a mapping another size or address, as the request says; return its address, or a negative Errno.

    A0 address; A1 bytes; A2 bytes wanted; A3 MremapFlag bits; A4 address wanted, with FIXED.
    """
    vaddr = state.request[Request.A0]
    length = page_align(state.request[Request.A1])
    new_length = page_align(state.request[Request.A2])
    flags = state.request[Request.A3]
    fixed = flags & MremapFlag.FIXED
    if flags & ~(MremapFlag.MAYMOVE | MremapFlag.FIXED) or (fixed and not flags & MremapFlag.MAYMOVE):
        return Errno.EINVAL
    if vaddr & (PAGE_SIZE - 1) or length < 0 or new_length <= 0:
        return Errno.EINVAL
    if vma_at(state, mm_index, vaddr) == NIL:
        return Errno.EFAULT
    state.request[Request.A5] = length
    state.request[Request.A6] = new_length
    if fixed:
        return _mremap_to(state, mm_index, vaddr, state.request[Request.A4])
    if length > new_length:
        gone = munmap(state, mm_index, vaddr + new_length, vaddr + length)
        return gone if gone < 0 else vaddr
    return vaddr if length == new_length else _grow(state, mm_index, vaddr, flags)
