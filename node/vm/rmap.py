"""Reverse mapping of anonymous pages: from a frame to every page-table entry that may point to it.

A page names an anon_vma and its virtual page number. Each VMA that may map the page is on that anon_vma's
list through one anon_vma_chain; a fork adds the child's VMAs to the parent's anon_vmas, and gives each an
anon_vma of its own for the pages that it faults in itself.

    page --> anon_vma --> chain --> chain --> chain
                            |         |         |
                           VMA       VMA       VMA      (parent, child, grandchild)

# Differs from Linux: a list stands for the interval tree, and an anon_vma is not reused by a child (the
# degree rule of anon_vma_clone); a moved VMA (mremap) does not exist yet, so vpn is the index.

Linux: mm/rmap.c (anon_vma_prepare, anon_vma_fork, unlink_anon_vmas).
"""

from typing import TYPE_CHECKING

import numpy as np

from node.counters import KsmStat, Panic, VmStat
from node.hw.pte import Pte
from node.phys.page import PageFlag
from node.pool import Pool, pool_alloc, pool_free
from shared.constants import NIL, PAGE_SHIFT
from shared.jit import bug_on, kernel

if TYPE_CHECKING:
    from node.state import State

ANON_VMA = np.dtype(
    [
        ("first_chain", np.int32),
        ("refcount", np.int32),  # chains, rmap_items of KSM, and anon_vmas whose root this is
        ("root", np.int32),  # the oldest ancestor's: a page that several processes may map belongs to it
    ],
    align=True,
)
ANON_VMA_CHAIN = np.dtype(
    [
        ("vma", np.int32),
        ("anon_vma", np.int32),
        ("next_of_vma", np.int32),  # this VMA's chains
        ("next", np.int32),  # this anon_vma's chains
        ("prev", np.int32),
    ],
    align=True,
)


@kernel
def link_anon_vma(state: "State", vma_index: int, anon_vma_index: int) -> int:
    """Put the VMA on the anon_vma's list; return 0, or NIL if there is no chain left."""
    index = pool_alloc(state, Pool.ANON_VMA_CHAIN)
    if index == NIL:
        return NIL
    vma = state.vma[vma_index]
    anon_vma = state.anon_vma[anon_vma_index]
    chain = state.anon_vma_chain[index]
    chain.vma = vma_index
    chain.anon_vma = anon_vma_index
    chain.next_of_vma = vma.first_chain
    vma.first_chain = index
    chain.prev = NIL
    chain.next = anon_vma.first_chain
    if anon_vma.first_chain != NIL:
        state.anon_vma_chain[anon_vma.first_chain].prev = index
    anon_vma.first_chain = index
    anon_vma.refcount += 1
    return 0


@kernel
def new_anon_vma(state: "State", vma_index: int) -> int:
    """Give the VMA an anon_vma of its own; return 0, or NIL if there is none left."""
    index = pool_alloc(state, Pool.ANON_VMA)
    if index == NIL:
        return NIL
    anon_vma = state.anon_vma[index]
    anon_vma.first_chain = NIL
    anon_vma.refcount = 0
    anon_vma.root = index
    if link_anon_vma(state, vma_index, index) == NIL:
        pool_free(state, Pool.ANON_VMA, index)
        return NIL
    state.vma[vma_index].anon_vma = index
    return 0


@kernel
def anon_vma_prepare(state: "State", vma_index: int) -> int:
    """See to it that the VMA has an anon_vma; return 0, or NIL if there is none left."""
    if state.vma[vma_index].anon_vma != 0:
        return 0
    return new_anon_vma(state, vma_index)


@kernel
def get_anon_vma(state: "State", anon_vma_index: int) -> None:
    """Hold the anon_vma beyond its VMAs, as an rmap_item of KSM does."""
    state.anon_vma[anon_vma_index].refcount += 1


@kernel
def put_anon_vma(state: "State", anon_vma_index: int) -> None:
    """Let go of the anon_vma; the last one frees it."""
    anon_vma = state.anon_vma[anon_vma_index]
    anon_vma.refcount -= 1
    if anon_vma.refcount > 0:
        return
    root = anon_vma.root
    pool_free(state, Pool.ANON_VMA, anon_vma_index)
    if root != anon_vma_index:
        # The root itself has no other root, so this goes one step deep.
        root_record = state.anon_vma[root]
        root_record.refcount -= 1
        if root_record.refcount == 0:
            pool_free(state, Pool.ANON_VMA, root)


@kernel
def anon_vma_fork(state: "State", child_vma: int, parent_vma: int) -> int:
    """Put the child's VMA on every anon_vma of the parent's, and give it one of its own; 0 or NIL."""
    if state.vma[parent_vma].anon_vma == 0:
        return 0
    index = state.vma[parent_vma].first_chain
    while index != NIL:
        chain = state.anon_vma_chain[index]
        if link_anon_vma(state, child_vma, chain.anon_vma) == NIL:
            return NIL
        index = chain.next_of_vma
    if new_anon_vma(state, child_vma) == NIL:
        return NIL
    root = state.anon_vma[state.vma[parent_vma].anon_vma].root
    state.anon_vma[state.vma[child_vma].anon_vma].root = root
    get_anon_vma(state, root)
    return 0


@kernel
def anon_vma_clone(state: "State", new_vma: int, old_vma: int) -> int:
    """Put the other half of a split VMA on every anon_vma of the first; 0 or NIL."""
    index = state.vma[old_vma].first_chain
    while index != NIL:
        chain = state.anon_vma_chain[index]
        if link_anon_vma(state, new_vma, chain.anon_vma) == NIL:
            return NIL
        index = chain.next_of_vma
    state.vma[new_vma].anon_vma = state.vma[old_vma].anon_vma
    return 0


@kernel
def unlink_anon_vmas(state: "State", vma_index: int) -> None:
    """Take the VMA off all of its anon_vmas."""
    vma = state.vma[vma_index]
    index = vma.first_chain
    while index != NIL:
        chain = state.anon_vma_chain[index]
        following = chain.next_of_vma
        if chain.prev == NIL:
            state.anon_vma[chain.anon_vma].first_chain = chain.next
        else:
            state.anon_vma_chain[chain.prev].next = chain.next
        if chain.next != NIL:
            state.anon_vma_chain[chain.next].prev = chain.prev
        put_anon_vma(state, chain.anon_vma)
        pool_free(state, Pool.ANON_VMA_CHAIN, index)
        index = following
    vma.first_chain = NIL
    vma.anon_vma = 0


@kernel
def page_add_rmap(state: "State", pfn: int) -> None:
    """Count one more page-table entry that maps the frame."""
    page = state.page[pfn]
    page.mapcount += 1
    if page.mapcount == 1:
        state.vm_stat[VmStat.NR_ANON_PAGES] += 1


@kernel
def page_remove_rmap(state: "State", pfn: int) -> None:
    """Count one page-table entry less."""
    page = state.page[pfn]
    bug_on(state, page.mapcount <= 0, Panic.MAPCOUNT, pfn)
    page.mapcount -= 1
    if page.mapcount == 0:
        state.vm_stat[VmStat.NR_ANON_PAGES] -= 1


@kernel
def page_set_anon_rmap(state: "State", pfn: int, vma_index: int, vaddr: int) -> None:
    """Make the frame an anonymous page of the VMA alone, first mapped at ``vaddr``."""
    page = state.page[pfn]
    page.page_flags |= PageFlag.ANON
    page.mapping = state.vma[vma_index].anon_vma
    page.index = vaddr >> PAGE_SHIFT


@kernel
def page_share_anon_rmap(state: "State", pfn: int, vma_index: int, vaddr: int) -> None:
    """As ``page_set_anon_rmap``, of a page that the VMA's parents and their children may map as well."""
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
