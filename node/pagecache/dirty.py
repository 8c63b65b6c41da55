"""Dirty pages of files: those whose contents are newer than the disk's, until msync makes them the same.

A page that becomes clean is write-protected wherever it is mapped, so that the next write faults and the file hears
of it (page_mkwrite).

Linux: mm/page-writeback.c (folio_account_dirtied, filemap_dirty_folio, folio_clear_dirty_for_io), fs/libfs.c
(noop_dirty_folio of shared memory), mm/msync.c, mm/rmap.c (folio_mkclean).
# Differs from Linux: there is no disk to write to yet, so msync takes no time.
"""

from typing import TYPE_CHECKING

from node.counters import VmStat
from node.errno import Errno
from node.inode_kind import InodeKind
from node.joints import page_mkclean
from node.pagecache.radix_tree import radix_find, radix_next
from node.phys.page import PageFlag
from node.vm.vma import VmFlag, find_vma
from shared.constants import NIL, PAGE_SHIFT
from shared.jit import entry, kernel

if TYPE_CHECKING:
    from node.state import State


@kernel
def set_page_dirty(state: "State", pfn: int) -> None:
    """Note that a page was written; one of a file counts as dirty, one of shared memory has no disk to differ from."""
    page = state.page[pfn]
    if page.page_flags & PageFlag.DIRTY:
        return
    page.page_flags |= PageFlag.DIRTY
    if page.page_flags & PageFlag.CACHED and not page.page_flags & PageFlag.SWAPBACKED:
        state.vm_stat[VmStat.NR_DIRTY] += 1


@kernel
def _clean(state: "State", inode: int, first: int, last: int) -> int:
    """Make the dirty pages ``first`` to ``last`` of a file clean; return how many there were."""
    nr_pages = 0
    index = radix_next(state, inode, first)
    while index != NIL and index <= last:
        pfn = radix_find(state, inode, index)
        page = state.page[pfn]
        if page_mkclean(state, pfn):
            page.page_flags |= PageFlag.DIRTY
        if page.page_flags & PageFlag.DIRTY:
            page.page_flags &= ~PageFlag.DIRTY
            state.vm_stat[VmStat.NR_DIRTY] -= 1
            nr_pages += 1
        index = radix_next(state, inode, index + 1)
    return nr_pages


@entry
def msync(state: "State", mm_index: int, start: int, end: int) -> int:
    """Write what [start, end) changed of files (MS_SYNC); return 0, or Errno.ENOMEM where no area is."""
    vaddr = start
    while vaddr < end:
        index = find_vma(state, mm_index, vaddr)
        if index == NIL or state.vma[index].start > vaddr:
            return Errno.ENOMEM
        vma = state.vma[index]
        border = min(vma.end, end)
        if vma.inode and vma.vm_flags & VmFlag.SHARED and state.inode[vma.inode].kind == InodeKind.REGULAR:
            first = vma.pgoff + ((vaddr - vma.start) >> PAGE_SHIFT)
            _clean(state, vma.inode, first, first + ((border - vaddr) >> PAGE_SHIFT) - 1)
        vaddr = border
    return 0
