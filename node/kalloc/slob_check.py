"""What must hold of SLOB's pages: free blocks in order, apart, counted, and each page on the right list.

Written apart from the kernels: a page is read as 2048 numbers of 16 bits.
"""

from typing import TYPE_CHECKING

import numpy as np

from node.counters import Knob
from node.findings import differ, each
from node.kalloc.kmem_cache import Allocator
from node.kalloc.slob_lists import SlobList
from node.kalloc.slob_page import UNITS_PER_PAGE
from node.phys.page import PageFlag
from shared.constants import ENTRIES_PER_TABLE

if TYPE_CHECKING:
    from node.state import State


def check_slob(state: "State") -> list[str]:
    """Return one line for each thing that is wrong with SLOB; none if another allocator is the machine's."""
    if state.knob[Knob.ALLOCATOR] != Allocator.SLOB:
        return []
    pages = np.flatnonzero(state.page["page_flags"] & PageFlag.SLAB)
    wrong = [line for pfn in pages.tolist() for line in _check_page(state, pfn)]
    return each(range(len(wrong)), wrong.__getitem__) + _check_lists(state)


def free_blocks(state: "State", pfn: int) -> list[tuple[int, int]]:
    """Return the free blocks of a page, (first unit, units); stops where the links make no sense."""
    words = np.asarray(state.slab_word)[pfn * ENTRIES_PER_TABLE : (pfn + 1) * ENTRIES_PER_TABLE]
    units = words.view(np.int16).tolist()
    page = state.page[pfn]
    blocks: list[tuple[int, int]] = []
    if page.private == 0:
        return blocks
    at = int(page.index)
    while 0 <= at < UNITS_PER_PAGE and len(blocks) < UNITS_PER_PAGE:
        if units[at] < 0:
            blocks.append((at, 1))
            at = -units[at]
        else:
            blocks.append((at, units[at]))
            at = units[at + 1] if at + 1 < UNITS_PER_PAGE else UNITS_PER_PAGE
    return blocks


def _check_page(state: "State", pfn: int) -> list[str]:
    page = state.page[pfn]
    blocks = free_blocks(state, pfn)
    name = f"SLOB page {pfn}"
    wrong = differ(f"{name}: free units", page.private, sum(units for _, units in blocks), "in its blocks")
    behind = -1
    for at, units in blocks:
        if at <= behind:
            wrong.append(
                f"{name}: free block {at} overlaps or touches the one before, which ends at {behind}"
            )
        behind = at + units
    if behind > UNITS_PER_PAGE:
        wrong.append(f"{name}: its last free block ends at {behind}")
    if page.refcount != 1:
        wrong.append(f"{name}: has {page.refcount} references")
    if bool(page.page_flags & PageFlag.SLOB_FREE) != (page.private > 0):
        wrong.append(f"{name}: has {page.private} free units, or says SLOB_FREE, not both")
    if page.private >= UNITS_PER_PAGE:
        wrong.append(f"{name}: has no object, and was not given back")
    return wrong


def _check_lists(state: "State") -> list[str]:
    wrong: list[str] = []
    listed: list[int] = []
    for which in range(SlobList.NR):
        name = f"SLOB list {SlobList(which).name}"
        ring = state.slob_list[which]
        members: list[int] = []
        at = int(ring.first)
        while len(members) < ring.nr_pages and 0 <= at < len(state.page):
            members.append(at)
            following = int(state.page[at].next)
            if not 0 <= following < len(state.page) or state.page[following].prev != at:
                return [f"{name}: page {at} leads to {following}, which has another before it"]
            if state.page[at].order != which:
                wrong.append(f"{name}: page {at} says that it is on list {state.page[at].order}")
            at = following
        if members and at != ring.first:
            wrong.append(f"{name}: does not close after its {ring.nr_pages} pages")
        listed += members
    flagged = np.flatnonzero(state.page["page_flags"] & PageFlag.SLOB_FREE).tolist()
    if sorted(listed) != flagged:
        wrong.append(f"SLOB lists: {len(listed)} pages are on them, {len(flagged)} say so, and they differ")
    return wrong
