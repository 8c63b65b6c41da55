"""mlock, munlock and their kin: areas whose pages stay in memory.

    mlock       the areas are LOCKED, their pages are locked, and those that are missing come now
    mlock2      with MLOCK_ONFAULT: what is missing comes, and is locked, when it is used
    mlockall    of all areas (MCL_CURRENT), and of those to come (MCL_FUTURE)

Areas are split and merged as flags ask. Only RLIMIT_MEMLOCK says how much a process may lock; a machine that has not
that many frames finds out when it populates them.

Linux: mm/mlock.c (do_mlock, apply_vma_lock_flags, mlock_fixup, mlock_pte_range, apply_mlockall_flags).
# Differs from Linux: no process has CAP_IPC_LOCK, but one whose limit is INT64_MAX needs none; an area that
forbids all access is passed over where Linux populates it and returns ENOMEM.
"""

from enum import IntEnum
from typing import TYPE_CHECKING

from node.errno import Errno
from node.joints import populate_range
from node.vm.mlock_walk import lock_pages
from node.vm.vma import VmFlag, find_vma
from node.vm.vma_adjust import isolate_part, merge_vma
from shared.constants import INT64_MAX, NIL, PAGE_SHIFT, PAGE_SIZE
from shared.jit import entry, kernel

if TYPE_CHECKING:
    from node.state import State

MLOCK_ONFAULT = 1
LOCK_FLAGS = VmFlag.LOCKED | VmFlag.LOCKONFAULT


class MclFlag(IntEnum):
    """What ``mlockall`` is asked, with Linux's values (MCL_...)."""

    CURRENT = 1
    FUTURE = 2
    ONFAULT = 4


# --- areas ----------------------------------------------------------------------------------------------


@kernel
def _fixup(state: "State", index: int, start: int, end: int, lock_flags: int) -> int:
    """Give [start, end) of an area other lock flags; return the area that is there then, or ENOMEM (mlock_fixup)."""
    old_flags = state.vma[index].vm_flags
    new_flags = (old_flags & ~LOCK_FLAGS) | lock_flags
    if new_flags == old_flags or old_flags & VmFlag.HUGETLB:
        return index
    index = isolate_part(state, index, start, end)
    if index == NIL:
        return Errno.ENOMEM
    vma = state.vma[index]
    vma.vm_flags = new_flags
    was_locked = 1 if old_flags & VmFlag.LOCKED else 0
    locked = 1 if new_flags & VmFlag.LOCKED else 0
    if locked != was_locked:
        state.mm[vma.mm].locked_vm += (locked - was_locked) * ((end - start) >> PAGE_SHIFT)
        lock_pages(state, index, locked)
    return merge_vma(state, index)


@kernel
def _apply(state: "State", mm_index: int, start: int, end: int, lock_flags: int) -> int:
    """Give all areas of [start, end) other lock flags; return 0, or a negative Errno (apply_vma_lock_flags)."""
    if end < start:
        return Errno.EINVAL
    vaddr = start
    while vaddr < end:
        index = find_vma(state, mm_index, vaddr)
        if index == NIL or state.vma[index].start > vaddr:
            return Errno.ENOMEM
        border = min(state.vma[index].end, end)
        error = _fixup(state, index, vaddr, border, lock_flags)
        if error < 0:
            return error
        vaddr = border
    return 0


@kernel
def _nr_locked(state: "State", mm_index: int, start: int, end: int) -> int:
    """Return how many pages of [start, end) are in locked areas (count_mm_mlocked_page_nr)."""
    nr_pages = 0
    index = find_vma(state, mm_index, start)
    while index != NIL and state.vma[index].start < end:
        vma = state.vma[index]
        if vma.vm_flags & VmFlag.LOCKED:
            nr_pages += (min(vma.end, end) - max(vma.start, start)) >> PAGE_SHIFT
        index = vma.next
    return nr_pages


@kernel
def _page_end(end: int) -> int:
    return (end + PAGE_SIZE - 1) & -PAGE_SIZE


@kernel
def _do_mlock(state: "State", mm_index: int, start: int, end: int, lock_flags: int) -> int:
    mm = state.mm[mm_index]
    limit = mm.memlock_limit
    if limit == 0:
        return Errno.EPERM
    start &= -PAGE_SIZE
    end = _page_end(end)
    if limit != INT64_MAX:
        wanted = mm.locked_vm + ((end - start) >> PAGE_SHIFT)
        if wanted > limit >> PAGE_SHIFT:
            wanted -= _nr_locked(state, mm_index, start, end)
        if wanted > limit >> PAGE_SHIFT:
            return Errno.ENOMEM
    error = _apply(state, mm_index, start, end, lock_flags)
    if error:
        return error
    return Errno.EAGAIN if populate_range(state, mm_index, start, end) else 0


@entry
def mlock(state: "State", mm_index: int, start: int, end: int) -> int:
    """Lock the pages of [start, end) in memory, and bring them there; return 0, or a negative Errno."""
    return _do_mlock(state, mm_index, start, end, VmFlag.LOCKED)


@entry
def mlock2(state: "State", mm_index: int, start: int, end: int, how: int) -> int:
    """As ``mlock``; with MLOCK_ONFAULT, pages that are not there come and are locked when they are used."""
    if how & ~MLOCK_ONFAULT:
        return Errno.EINVAL
    return _do_mlock(state, mm_index, start, end, LOCK_FLAGS if how else VmFlag.LOCKED)


@entry
def munlock(state: "State", mm_index: int, start: int, end: int) -> int:
    """Let the pages of [start, end) go again; return 0, or a negative Errno."""
    return _apply(state, mm_index, start & -PAGE_SIZE, _page_end(end), 0)


# --- all areas ------------------------------------------------------------------------------------------


@kernel
def _apply_to_all(state: "State", mm_index: int, asked: int) -> None:
    mm = state.mm[mm_index]
    on_fault = VmFlag.LOCKONFAULT if asked & MclFlag.ONFAULT else 0
    mm.def_flags &= ~LOCK_FLAGS
    if asked & MclFlag.FUTURE:
        mm.def_flags |= VmFlag.LOCKED | on_fault
        if not asked & MclFlag.CURRENT:
            return
    lock_flags = VmFlag.LOCKED | on_fault if asked & MclFlag.CURRENT else 0
    vaddr = 0
    index = find_vma(state, mm_index, vaddr)
    while index != NIL:
        vaddr = state.vma[index].end
        _fixup(state, index, state.vma[index].start, vaddr, lock_flags)
        index = find_vma(state, mm_index, vaddr)


@entry
def mlockall(state: "State", mm_index: int, asked: int) -> int:
    """Lock all areas that ``asked``, MclFlag bits, says; return 0, or a negative Errno."""
    every = MclFlag.CURRENT | MclFlag.FUTURE | MclFlag.ONFAULT
    if asked == 0 or asked & ~every or asked == MclFlag.ONFAULT:
        return Errno.EINVAL
    mm = state.mm[mm_index]
    limit = mm.memlock_limit
    if limit == 0:
        return Errno.EPERM
    if asked & MclFlag.CURRENT and limit != INT64_MAX and mm.total_vm > limit >> PAGE_SHIFT:
        return Errno.ENOMEM
    _apply_to_all(state, mm_index, asked)
    if asked & MclFlag.CURRENT:
        populate_range(state, mm_index, 0, INT64_MAX)
    return 0


@entry
def munlockall(state: "State", mm_index: int) -> int:
    """Unlock all areas, and those to come; return 0."""
    _apply_to_all(state, mm_index, 0)
    return 0
