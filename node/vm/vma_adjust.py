"""Splitting areas, and merging them again: what keeps an address space's list as short as it can be.

    [        a        ]     mprotect of the middle      [  a  ][  b  ][  a  ]      and back      [        a        ]

Two areas become one if they touch, have the same rights and flags, map the same file (or none) with places that
follow one another, and their anonymous pages have one anon_vma, or one of them has none yet and the other was
inherited from no parent.

A change of flags splits the area first, changes the middle, and then merges it with its neighbours. Linux moves borders
where it can instead, and gets the same areas.
# Differs from Linux: where the change needs no more areas in the end but one on the way, it fails at max_map_count.

Linux: mm/mmap.c (__split_vma, vma_merge, is_mergeable_vma, is_mergeable_anon_vma, __vma_adjust).
"""

from typing import TYPE_CHECKING

from node.counters import Knob
from node.joints import get_inode, put_inode, split_huge_at
from node.pool import Pool, pool_free
from node.vm.anon_vma import anon_vma_clone, chains_enter, chains_leave, unlink_anon_vmas
from node.vm.thp import huge_pages_exist
from node.vm.vma import (
    VmAreaStat,
    find_vma,
    link_vma,
    move_borders,
    new_vma,
    remove_vma,
    unlink_vma,
)
from shared.constants import HUGE_PAGE_SIZE, NIL, PAGE_SHIFT
from shared.jit import kernel

if TYPE_CHECKING:
    from node.state import State


@kernel
def resize_vma(state: "State", index: int, start: int, end: int) -> None:
    """Move an area's borders, between the same neighbours; reverse mapping finds it where it is now."""
    chains_leave(state, index)
    move_borders(state, index, start, end)
    chains_enter(state, index)


# --- splitting ------------------------------------------------------------------------------------------


@kernel
def split_vma(state: "State", index: int, vaddr: int) -> int:
    """Split an area at ``vaddr``, inside it; return the upper part, or NIL if there are too many areas."""
    vma = state.vma[index]
    if state.mm[vma.mm].nr_vmas >= state.knob[Knob.MAX_MAP_COUNT]:
        return NIL
    upper_index = new_vma(state, vma.mm, vaddr, vma.end, vma.vm_flags)
    if upper_index == NIL:
        return NIL
    upper = state.vma[upper_index]
    upper.pgoff = vma.pgoff + ((vaddr - vma.start) >> PAGE_SHIFT)
    upper.anon_vma = vma.anon_vma
    if anon_vma_clone(state, upper_index, index) == NIL:
        pool_free(state, Pool.VMA, upper_index)
        return NIL
    if vaddr & (HUGE_PAGE_SIZE - 1) and huge_pages_exist(state):
        split_huge_at(state, vma.mm, vaddr)
    resize_vma(state, index, vma.start, vaddr)
    upper.inode = vma.inode
    if upper.inode:
        get_inode(state, upper.inode)
    link_vma(state, upper_index)
    # The chains were made of the upper part's own borders, so their trees are right.
    state.vm_area_stat[VmAreaStat.SPLITS] += 1
    return upper_index


@kernel
def isolate_range(state: "State", mm_index: int, start: int, end: int) -> int:
    """Split areas so that whole ones cover what is mapped of [start, end); return the first, or NIL.

    NIL: nothing is mapped there, or there are too many areas.
    """
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


@kernel
def isolate_part(state: "State", index: int, start: int, end: int) -> int:
    """Split an area so that [start, end), inside it, is one of its own; return that, or NIL if there are too many."""
    if state.vma[index].start < start:
        index = split_vma(state, index, start)
        if index == NIL:
            return NIL
    if state.vma[index].end > end and split_vma(state, index, end) == NIL:
        return NIL
    return index


# --- merging --------------------------------------------------------------------------------------------


@kernel
def _alike(state: "State", below: int, above: int) -> int:
    """Return whether two areas touch, and have the same flags and pages that follow one another in the same file."""
    lower = state.vma[below]
    upper = state.vma[above]
    if lower.end != upper.start or lower.vm_flags != upper.vm_flags or lower.inode != upper.inode:
        return 0
    if lower.inode and state.inode[lower.inode].keeps_areas_apart:
        return 0
    return 1 if upper.pgoff == lower.pgoff + ((upper.start - lower.start) >> PAGE_SHIFT) else 0


@kernel
def _takes_in(state: "State", neighbour: int, index: int) -> int:
    """Return whether a neighbour's anonymous pages and an area's can be of one area (is_mergeable_anon_vma)."""
    mine = state.vma[index].anon_vma
    its = state.vma[neighbour].anon_vma
    chain = state.vma[neighbour].first_chain
    alone = chain != NIL and state.anon_vma_chain[chain].next_of_vma == NIL
    return 1 if mine == its or ((mine == 0 or its == 0) and alone) else 0


@kernel
def _absorb(state: "State", keep: int, gone: int) -> int:
    """Let one of two areas that touch cover both; return 0, or NIL if there is no record for its anon_vma."""
    area = state.vma[keep]
    other = state.vma[gone]
    if area.anon_vma == 0 and other.anon_vma != 0:
        area.anon_vma = other.anon_vma
        if anon_vma_clone(state, keep, gone) == NIL:
            return NIL
    start = min(area.start, other.start)
    end = max(area.end, other.end)
    unlink_anon_vmas(state, gone)
    if other.inode:
        put_inode(state, other.inode)
    unlink_vma(state, gone)
    pool_free(state, Pool.VMA, gone)
    resize_vma(state, keep, start, end)
    state.vm_area_stat[VmAreaStat.MERGES] += 1
    return 0


@kernel
def merge_vma(state: "State", index: int) -> int:
    """Merge an area with the neighbours that it can be one with; return the area that is there now."""
    below = state.vma[index].prev
    above = state.vma[index].next
    merge_below = below != NIL and _alike(state, below, index) and _takes_in(state, below, index)
    merge_above = above != NIL and _alike(state, index, above) and _takes_in(state, above, index)
    if merge_below and merge_above:
        lower = state.vma[below].anon_vma
        upper = state.vma[above].anon_vma
        if lower != 0 and upper != 0 and lower != upper:  # noqa: PLR1714 (a kernel has no tuples)
            merge_above = False
    if merge_below:
        if _absorb(state, below, index) == NIL:
            return index
        if merge_above:
            _absorb(state, below, above)
        return below
    if merge_above and _absorb(state, above, index) != NIL:
        return above
    return index


@kernel
def merge_above(state: "State", index: int) -> int:
    """Merge an area with the one above it, if it can be one with it; return the area that is there now."""
    above = state.vma[index].next
    if (
        above != NIL
        and _alike(state, index, above)
        and _takes_in(state, above, index)
        and _absorb(state, above, index) != NIL
    ):
        return above
    return index


@kernel
def merge_mapped(state: "State", index: int) -> int:
    """Merge an area just mapped: with the one above if that can be, then with the one below (mmap_region).

    So where the two cannot be one, it goes to the upper; a change of flags goes to the lower (``merge_vma``).
    """
    index = merge_above(state, index)
    below = state.vma[index].prev
    if (
        below != NIL
        and _alike(state, below, index)
        and _takes_in(state, below, index)
        and _absorb(state, below, index) != NIL
    ):
        return below
    return index


@kernel
def change_flags(state: "State", index: int, vm_flags: int) -> int:
    """Give a whole area other flags and merge it; return the area that is there now."""
    state.vma[index].vm_flags = vm_flags
    return merge_vma(state, index)


@kernel
def drop_vma(state: "State", index: int) -> None:
    """Take an area that maps nothing any more out of its address space, off its anon_vmas and its file."""
    unlink_anon_vmas(state, index)
    if state.vma[index].inode:
        put_inode(state, state.vma[index].inode)
    remove_vma(state, index)
