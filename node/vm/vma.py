r"""Virtual memory areas: ranges of one address space with one set of rights, in a list and a tree by address.

    mm.first_vma -> [start, end) -> [start, end) -> [start, end) -> NIL         list
                                     [ ... ]                                    tree: node/rbtree.py, key: start
                                    /       \
                               [ ... ]     [ ... ]        each node knows the largest gap below an area of its subtree

A look-up tries the area that was found last, then searches the tree, or walks the list (Knob.VMA_SEARCH, the older
kernels' way); ``vm_area_stat`` counts which, and how many areas were looked at.

Linux: mm/mmap.c (find_vma, __vma_link, vma_compute_gap), include/linux/mm_types.h (struct vm_area_struct).
# Differs from Linux: the red-black tree of 5.x stands for the maple tree of 6.1.
"""

from enum import IntEnum
from typing import TYPE_CHECKING, Final

import numpy as np

from node.counters import Knob
from node.pool import Pool, pool_alloc, pool_free
from node.rb_max import change_own, erase_max, insert_max
from node.tree_nodes import file_vma_base, inode_root, mm_root, vma_base
from shared.constants import NIL, PAGE_SHIFT
from shared.jit import kernel

if TYPE_CHECKING:
    from node.state import State

VMA = np.dtype(
    [
        ("start", np.int64),  # first address
        ("end", np.int64),  # first address behind
        ("pgoff", np.int64),  # of the first page: in the file, or start's page number when the area was made
        ("swap_ra", np.int64),  # swap readahead: last fault, window and hits (node/swap/readahead.py)
        ("vm_flags", np.int32),  # VmFlag bits
        ("mm", np.int32),
        ("inode", np.int32),  # whose pages it maps, or 0: anonymous memory
        ("anon_vma", np.int32),  # 0 until the first anonymous page
        ("first_chain", np.int32),  # its anon_vma_chains, or NIL
        ("next", np.int32),
        ("prev", np.int32),
    ],
    align=True,
)


class VmFlag(IntEnum):
    """Bits of ``vm_flags``, with Linux's values."""

    READ = 0x1
    WRITE = 0x2
    EXEC = 0x4
    SHARED = 0x8
    GROWSDOWN = 0x100
    LOCKED = 0x2000
    SEQ_READ = 0x8000
    RAND_READ = 0x10000
    DONTCOPY = 0x20000
    DONTEXPAND = 0x40000
    LOCKONFAULT = 0x80000
    ACCOUNT = 0x100000  # its pages are counted in vm_committed_as
    NORESERVE = 0x200000
    HUGETLB = 0x400000
    HUGEPAGE = 0x20000000
    NOHUGEPAGE = 0x40000000
    MERGEABLE = -0x80000000  # bit 31 of an int32


class VmaSearch(IntEnum):
    """Values of Knob.VMA_SEARCH."""

    TREE = 0
    LIST = 1


class VmAreaStat(IntEnum):
    """Counters of ``state.vm_area_stat``."""

    FOUND_AGAIN = 0  # look-ups that the area found last served
    TREE_SEARCHES = 1
    LIST_SEARCHES = 2
    LIST_STEPS = 3  # areas that list searches looked at
    SPLITS = 4
    MERGES = 5
    NR = 8


STACK_GUARD_PAGES: Final = 256  # stack_guard_gap


# --- look-up --------------------------------------------------------------------------------------------


@kernel
def area_at_or_below(state: "State", mm_index: int, vaddr: int) -> int:
    """Return the area with the highest start that is not above ``vaddr``, or NIL."""
    base = vma_base(state)
    node = state.rb_root[mm_root(mm_index)]
    found = NIL
    while node != NIL:
        links = state.rb_node[node]
        if links.key <= vaddr:
            found = node
            node = links.right
        else:
            node = links.left
    return found if found == NIL else found - base


@kernel
def flags_at(state: "State", mm_index: int, vaddr: int) -> int:
    """Return the VmFlag bits of the area of ``vaddr``, which there is; a look-up that Linux does not make."""
    return state.vma[area_at_or_below(state, mm_index, vaddr)].vm_flags


@kernel
def _search_tree(state: "State", mm_index: int, vaddr: int) -> int:
    below = area_at_or_below(state, mm_index, vaddr)
    if below == NIL:
        return state.mm[mm_index].first_vma
    vma = state.vma[below]
    return below if vaddr < vma.end else vma.next


@kernel
def _search_list(state: "State", mm_index: int, vaddr: int) -> int:
    index = state.mm[mm_index].first_vma
    while index != NIL:
        state.vm_area_stat[VmAreaStat.LIST_STEPS] += 1
        if vaddr < state.vma[index].end:
            return index
        index = state.vma[index].next
    return NIL


@kernel
def find_vma(state: "State", mm_index: int, vaddr: int) -> int:
    """Return the first area that ends above ``vaddr``, or NIL."""
    mm = state.mm[mm_index]
    index = mm.last_found
    if index != NIL:
        vma = state.vma[index]
        if vma.start <= vaddr < vma.end:
            state.vm_area_stat[VmAreaStat.FOUND_AGAIN] += 1
            return index
    if state.knob[Knob.VMA_SEARCH] == VmaSearch.TREE:
        state.vm_area_stat[VmAreaStat.TREE_SEARCHES] += 1
        index = _search_tree(state, mm_index, vaddr)
    else:
        state.vm_area_stat[VmAreaStat.LIST_SEARCHES] += 1
        index = _search_list(state, mm_index, vaddr)
    if index != NIL:
        mm.last_found = index
    return index


@kernel
def vma_at(state: "State", mm_index: int, vaddr: int) -> int:
    """Return the area that holds ``vaddr``, or NIL."""
    index = find_vma(state, mm_index, vaddr)
    if index != NIL and state.vma[index].start <= vaddr:
        return index
    return NIL


# --- insertion and removal ------------------------------------------------------------------------------


@kernel
def start_gap(state: "State", index: int) -> int:
    """Return from where on an area keeps others away: a stack has a guard gap below it (vm_start_gap)."""
    vma = state.vma[index]
    if not vma.vm_flags & VmFlag.GROWSDOWN:
        return vma.start
    return max(vma.start - (state.knob[Knob.STACK_GUARD_PAGES] << PAGE_SHIFT), 0)


@kernel
def _gap_below(state: "State", index: int) -> int:
    """Return the free bytes between an area and the one below it, or address 0."""
    vma = state.vma[index]
    return start_gap(state, index) - (0 if vma.prev == NIL else state.vma[vma.prev].end)


@kernel
def _gap_changed(state: "State", index: int) -> None:
    if index != NIL:
        change_own(state, vma_base(state) + index, _gap_below(state, index))


@kernel
def _link_list(state: "State", mm_index: int, index: int, before: int) -> None:
    mm = state.mm[mm_index]
    vma = state.vma[index]
    vma.prev = before
    vma.next = mm.first_vma if before == NIL else state.vma[before].next
    if before == NIL:
        mm.first_vma = index
    else:
        state.vma[before].next = index
    if vma.next != NIL:
        state.vma[vma.next].prev = index


@kernel
def link_to_file(state: "State", index: int) -> None:
    """Put an area that maps a file into the file's tree, where its pages' reverse mapping finds it (i_mmap)."""
    vma = state.vma[index]
    if vma.inode:
        last = vma.pgoff + ((vma.end - vma.start) >> PAGE_SHIFT) - 1
        insert_max(state, inode_root(state, vma.inode), file_vma_base(state) + index, vma.pgoff, last)


@kernel
def unlink_from_file(state: "State", index: int) -> None:
    """Take an area out of the tree of the file that it maps, if it maps one."""
    inode = state.vma[index].inode
    if inode:
        erase_max(state, inode_root(state, inode), file_vma_base(state) + index)


@kernel
def link_vma(state: "State", index: int) -> None:
    """Put an area whose mm, borders, pgoff and inode are set into its address space's list and tree, and its file's."""
    vma = state.vma[index]
    mm_index = vma.mm
    _link_list(state, mm_index, index, area_at_or_below(state, mm_index, vma.start))
    insert_max(state, mm_root(mm_index), vma_base(state) + index, vma.start, _gap_below(state, index))
    _gap_changed(state, vma.next)
    link_to_file(state, index)
    state.mm[mm_index].nr_vmas += 1


@kernel
def new_vma(state: "State", mm_index: int, start: int, end: int, vm_flags: int) -> int:
    """Return a record for the anonymous area [start, end), in no list yet; or NIL if there are too many."""
    index = pool_alloc(state, Pool.VMA)
    if index == NIL:
        return NIL
    vma = state.vma[index]
    vma.start = start
    vma.end = end
    vma.pgoff = start >> PAGE_SHIFT
    vma.vm_flags = vm_flags
    vma.mm = mm_index
    vma.inode = 0
    vma.anon_vma = 0
    vma.first_chain = NIL
    vma.swap_ra = 0
    return index


@kernel
def insert_vma(state: "State", mm_index: int, start: int, end: int, vm_flags: int) -> int:
    """Add the anonymous area [start, end), which overlaps none; return it, or NIL if there are too many."""
    index = new_vma(state, mm_index, start, end, vm_flags)
    if index != NIL:
        link_vma(state, index)
    return index


@kernel
def unlink_vma(state: "State", index: int) -> None:
    """Take an area out of its lists and trees; the record stays."""
    unlink_from_file(state, index)
    vma = state.vma[index]
    mm = state.mm[vma.mm]
    erase_max(state, mm_root(vma.mm), vma_base(state) + index)
    if vma.prev == NIL:
        mm.first_vma = vma.next
    else:
        state.vma[vma.prev].next = vma.next
    if vma.next != NIL:
        state.vma[vma.next].prev = vma.prev
    if mm.last_found == index:
        mm.last_found = NIL
    mm.nr_vmas -= 1
    _gap_changed(state, vma.next)


@kernel
def remove_vma(state: "State", index: int) -> None:
    """Take an area out of its address space for good; its anon_vma_chains and its file are let go already."""
    unlink_vma(state, index)
    pool_free(state, Pool.VMA, index)


@kernel
def move_borders(state: "State", index: int, start: int, end: int) -> None:
    """Let an area begin and end elsewhere, between the same neighbours; its pages keep their place in the file.

    Chains that are keyed by the area's first page are the caller's (node/vm/vma_adjust.py).
    """
    unlink_from_file(state, index)
    vma = state.vma[index]
    vma.pgoff += (start - vma.start) >> PAGE_SHIFT
    vma.start = start
    vma.end = end
    node = vma_base(state) + index
    state.rb_node[node].key = start
    _gap_changed(state, index)
    _gap_changed(state, vma.next)
    link_to_file(state, index)
