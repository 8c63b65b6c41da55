"""The scan: which page ksmd looks at next, and one batch of looks.

    address space -> its mergeable areas -> its mapped anonymous pages -> cmp_and_merge_page

The end of the list of address spaces is the end of a full scan, and of the batch. The next batch drops the
unstable tree and begins anew.

Linux: mm/ksm.c (ksm_do_scan, scan_get_next_rmap_item, should_skip_rmap_item of 6.18).
"""

from typing import TYPE_CHECKING, Final

from node.counters import Current, Knob, KsmStat, Request
from node.hw.cost import Cost
from node.hw.page_table import pte_position
from node.hw.pte import Pte, pte_pfn
from node.ksm.merge import cmp_and_merge_page
from node.ksm.records import KsmModel
from node.ksm.registry import HEAD, next_mm, remove_mm
from node.ksm.rmap_items import item_at, remove_from_tree, remove_trailing_items
from node.phys.page import PageFlag
from node.rbtree import Tree
from node.vm.leaf_word import leaf_word
from node.vm.vma import VmFlag, find_vma
from shared.constants import HUGE_PAGE_SIZE, NIL, PAGE_SIZE
from shared.jit import entry, kernel

if TYPE_CHECKING:
    from node.state import State

AGE_MAX: Final = 127  # where an age stops growing; 255 in Linux, and no step lies between
AGE_NEVER_SKIPPED: Final = 3
SKIP_STEPS: Final = ((3, 1), (5, 2), (8, 4))  # up to this age, skip so many scans (skip_age of 6.18)
SKIP_MAX: Final = 8


@kernel
def _next_mapped_anon(state: "State", mm_index: int, vaddr: int, end: int) -> int:
    """Return the first address in [vaddr, end) at which an anonymous page is mapped, or NIL."""
    pgd = state.mm[mm_index].pgd_pfn
    while vaddr < end:
        position = pte_position(state, pgd, vaddr)
        border = min(end, (vaddr // HUGE_PAGE_SIZE + 1) * HUGE_PAGE_SIZE)
        if position == NIL:
            # An anonymous huge page has its pages scanned like any others.
            if state.page[pte_pfn(leaf_word(state, mm_index, vaddr))].page_flags & PageFlag.HUGE:
                return vaddr
            vaddr = border
            continue
        while vaddr < border:
            pte = state.pt_word[position]
            if pte & Pte.PRESENT and state.page[pte_pfn(pte)].page_flags & PageFlag.ANON:
                return vaddr
            position += 1
            vaddr += PAGE_SIZE
    return NIL


@kernel
def _skip_age(age: int) -> int:
    for limit, skips in SKIP_STEPS:
        if age <= limit:
            return skips
    return SKIP_MAX


@kernel
def _should_skip(state: "State", item_index: int, vaddr: int) -> int:
    """Return whether smart_scan leaves the page out this time: the older and lonelier, the more often."""
    if not state.knob[Knob.KSM_SMART_SCAN] or state.knob[Knob.KSM_MODEL] != KsmModel.LINUX_6_18:
        return 0
    item = state.rmap_item[item_index]
    if state.page[pte_pfn(leaf_word(state, item.mm, vaddr))].page_flags & PageFlag.KSM:
        return 0
    age = item.age
    if age < AGE_MAX:
        item.age = age + 1
    if age < AGE_NEVER_SKIPPED:
        return 0
    if item.remaining_skips == 0:
        item.remaining_skips = _skip_age(age)
        return 0
    item.remaining_skips -= 1
    state.ksm_stat[KsmStat.PAGES_SKIPPED] += 1
    remove_from_tree(state, item_index)
    return 1


@kernel
def _next_in_area(state: "State", vma_index: int) -> int:
    """Return the item of the next page to scan in the area, from scan.address on, or NIL at its end."""
    scan = state.ksm_scan[0]
    vma = state.vma[vma_index]
    while scan.address < vma.end:
        found = _next_mapped_anon(state, vma.mm, scan.address, vma.end)
        if found == NIL:
            scan.address = vma.end
            return NIL
        item_index = item_at(state, vma.mm, scan.rmap_item, found)
        if item_index == NIL:  # no record left: the scan goes on behind the page, without it
            scan.address = found + PAGE_SIZE
            continue
        scan.rmap_item = item_index
        scan.address = found + PAGE_SIZE
        if not _should_skip(state, item_index, found):
            return item_index
    return NIL


@kernel
def _next_in_mm(state: "State", mm_index: int) -> int:
    """Return the item of the next page to scan in the address space, or NIL at its end."""
    scan = state.ksm_scan[0]
    vma_index = find_vma(state, mm_index, scan.address)
    while vma_index != NIL:
        vma = state.vma[vma_index]
        if vma.vm_flags & VmFlag.MERGEABLE:
            scan.address = max(scan.address, vma.start)
            if vma.anon_vma == 0:
                scan.address = vma.end
            item_index = _next_in_area(state, vma_index)
            if item_index != NIL:
                return item_index
        vma_index = vma.next
    return NIL


@kernel
def _next_item_to_scan(state: "State") -> int:
    """Return the item of the next page in the order of the scan, or NIL at the end of a full scan."""
    scan = state.ksm_scan[0]
    if scan.first_mm == NIL:
        return NIL
    if scan.mm == HEAD:
        state.rb_root[Tree.UNSTABLE] = NIL
        scan.mm = scan.first_mm
        scan.address = 0
        scan.rmap_item = NIL
    while scan.mm != HEAD:
        mm_index = scan.mm
        alive = state.mm[mm_index].alive
        if alive:
            item_index = _next_in_mm(state, mm_index)
            if item_index != NIL:
                return item_index
        else:
            scan.address = 0
            scan.rmap_item = NIL
        # Pages behind the last one given out have gone, or their areas are mergeable no more.
        remove_trailing_items(state, mm_index, scan.rmap_item)
        scan.mm = next_mm(state, mm_index)
        if scan.address == 0:
            remove_mm(state, mm_index)
        scan.address = 0
        scan.rmap_item = NIL
    scan.seqnr += 1
    return NIL


@kernel
def _scan_one(state: "State") -> int:
    """Scan one page; return 0 at the end of a full scan."""
    item_index = _next_item_to_scan(state)
    if item_index == NIL:
        return 0
    item = state.rmap_item[item_index]
    state.current[Current.CLOCK_PS] += state.cost[Cost.KSM_SCAN_PAGE]
    cmp_and_merge_page(state, item_index, pte_pfn(leaf_word(state, item.mm, item.vaddr)))
    state.ksm_stat[KsmStat.PAGES_SCANNED] += 1
    return 1


@entry
def ksm_scan_until(state: "State", nr_pages: int, limit_ps: int) -> int:
    """Scan up to ``nr_pages`` while the clock is before ``limit_ps``; return how many were scanned.

    Request.R0 is 1 if a full scan ended, which is the end of the batch however many pages are left.
    """
    state.request[Request.R0] = 0
    for done in range(nr_pages):
        if state.current[Current.CLOCK_PS] >= limit_ps:
            return done
        if not _scan_one(state):
            state.request[Request.R0] = 1
            return done
    return nr_pages
