"""Dirty pages of files: those whose contents are newer than the disk's.

# Differs from Linux: nothing writes them back yet.

Linux: mm/page-writeback.c (folio_account_dirtied, filemap_dirty_folio), fs/libfs.c (noop_dirty_folio of shared memory).
"""

from typing import TYPE_CHECKING

from node.counters import VmStat
from node.phys.page import PageFlag
from shared.jit import kernel

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
