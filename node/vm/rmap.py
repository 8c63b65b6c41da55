"""Reverse mapping: what a frame counts of the page-table entries that map it, and whose page it is.

    anonymous page   its anon_vma and its page number there     node/vm/anon_vma.py finds the areas
    page of a file   its inode and its page number there        the inode's tree of areas (node/vm/vma.py) does
    merged page      its stable node                            the node's sharers do (node/ksm)

Linux: mm/rmap.c (page_add_anon_rmap, page_add_new_anon_rmap, page_add_file_rmap, page_remove_rmap).
"""

from typing import TYPE_CHECKING

from node.counters import KsmStat, Panic, VmStat
from node.hw.pte import Pte
from node.joints import deferred_split_huge_page
from node.phys.page import PageFlag
from shared.constants import PAGE_SHIFT
from shared.jit import bug_on, kernel

if TYPE_CHECKING:
    from node.state import State


@kernel
def page_mapcount(state: "State", pfn: int) -> int:
    """Return how many page-table entries map a frame, as its own page or as part of a huge one."""
    page = state.page[pfn]
    if not page.page_flags & PageFlag.HUGE:
        return page.mapcount
    head = state.page[page.head]
    return page.mapcount + head.huge_mapcount - (1 if head.page_flags & PageFlag.DOUBLE_MAP else 0)


@kernel
def _mapped_stat(state: "State", pfn: int) -> int:
    """Return the level that counts a frame as mapped: kinds are told apart by what reclaim would do with it."""
    return VmStat.NR_ANON_PAGES if state.page[pfn].page_flags & PageFlag.ANON else VmStat.NR_MAPPED


@kernel
def page_add_rmap(state: "State", pfn: int) -> None:
    """Count one more entry of the last level that maps the frame."""
    page = state.page[pfn]
    page.mapcount += 1
    if page.mapcount == 1:
        state.vm_stat[_mapped_stat(state, pfn)] += 1


@kernel
def page_remove_rmap(state: "State", pfn: int) -> None:
    """Count one entry of the last level less."""
    page = state.page[pfn]
    bug_on(state, page.mapcount <= 0, Panic.MAPCOUNT, pfn)
    page.mapcount -= 1
    if page.mapcount == 0:
        state.vm_stat[_mapped_stat(state, pfn)] -= 1
        if page.page_flags & PageFlag.HUGE:
            deferred_split_huge_page(state, page.head)


@kernel
def count_mapped(state: "State", mm_index: int, pfn: int, change: int) -> None:
    """Count a frame that an address space maps, or maps no more, among its resident pages of that kind."""
    mm = state.mm[mm_index]
    page_flags = state.page[pfn].page_flags
    if page_flags & PageFlag.ANON:
        mm.nr_anon += change
    elif page_flags & PageFlag.SWAPBACKED:
        mm.nr_shmem += change
    else:
        mm.nr_file += change


@kernel
def page_set_anon_rmap(state: "State", pfn: int, vma_index: int, vaddr: int) -> None:
    """Make the frame an anonymous page of the area alone, at ``vaddr``."""
    page = state.page[pfn]
    vma = state.vma[vma_index]
    page.page_flags |= PageFlag.ANON | PageFlag.SWAPBACKED
    page.mapping = vma.anon_vma
    page.index = linear_page_index(state, vma_index, vaddr)


@kernel
def linear_page_index(state: "State", vma_index: int, vaddr: int) -> int:
    """Return the page number of ``vaddr`` in the file or, of anonymous memory, in what the area was first."""
    vma = state.vma[vma_index]
    return vma.pgoff + ((vaddr - vma.start) >> PAGE_SHIFT)


@kernel
def page_address_in_vma(state: "State", vma_index: int, index: int) -> int:
    """Return the address of page number ``index`` in an area; it may lie outside."""
    vma = state.vma[vma_index]
    return vma.start + ((index - vma.pgoff) << PAGE_SHIFT)


@kernel
def page_share_anon_rmap(state: "State", pfn: int, vma_index: int, vaddr: int) -> None:
    """As ``page_set_anon_rmap``, of a page that the area's parents and their children may map as well."""
    page_set_anon_rmap(state, pfn, vma_index, vaddr)
    page = state.page[pfn]
    page.mapping = state.anon_vma[page.mapping].root


@kernel
def leave_zero_page(state: "State", mm_index: int, pte: int) -> None:
    """Count one mapping of the zero page less; those that KSM made are marked dirty, as since 6.10."""
    mm = state.mm[mm_index]
    mm.nr_zero -= 1
    if pte & Pte.DIRTY:
        mm.ksm_zero_pages -= 1
        state.ksm_stat[KsmStat.KSM_ZERO_PAGES] -= 1
